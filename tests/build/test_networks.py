"""Feature networks by name: what is missing is told in one line, and the shipped one knows the shapes."""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from gans import tiny
from supcon_jax.build import inceptions, networks, weights
from supcon_jax.build.names import net as made_net
from supcon_jax.config import UserError
from supcon_jax.convert import inception, tensors
from supcon_jax.data.synthetic import PAIRS, shapes
from supcon_jax.nets.efficientnet import EfficientNetLite0
from supcon_jax.nets.inception import Inception
from supcon_jax.ops.resize import antialiased


def test_an_unknown_network_is_answered_with_those_there_are():
    with pytest.raises(UserError, match="^network 'lpips' is not known; use one of: effnet_lite0, cub_ours, shapes_"):
        networks.network("lpips", {})


@pytest.mark.parametrize(
    "name,path,said",
    [("effnet_lite0", "", r"python -m supcon_jax\.data\.fetch effnet_lite0"),
     ("effnet_lite0", "/nowhere/a.pth", r"--config\.networks\.effnet_lite0=/nowhere/a\.pth: no such file"),
     ("pt", "", r"network pt needs the torch FID.*give --config\.networks\.fid_inception=FILE$"),
     ("imagenet", "/nowhere/b.pth", r"give --config\.networks\.fid_inception=FILE \(/nowhere/b\.pth is missing\)$"),
     ("tv_legacy", "", r"network tv_legacy needs torchvision's.*give --config\.networks\.torchvision_inception=FILE$"),
     ("cub_ours", "", r"the weights.safetensors that --config=configs/cub.py:classifier trains: give --config"),
     ("cub_ours", "/nowhere/c", r"--config\.networks\.cub_ours=FILE \(/nowhere/c is missing\)$"),
     ("keras", "", r"network keras needs the weights of Keras'.*give --config\.networks\.keras_inception=FILE$")],
)  # fmt: skip
def test_a_missing_file_is_told_with_the_way_to_it(tmp_path, monkeypatch, name, path, said):
    monkeypatch.setenv("SUPCON_DATA", str(tmp_path))
    with pytest.raises(UserError, match=said) as caught:
        networks.network(name, dict.fromkeys((name, "fid_inception"), path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", (32, 64))
def test_the_shipped_classifier_tells_the_pairs_apart_at_any_size(size):
    found = networks.network("shapes_classifier", {})
    assert found is networks.network("shapes_classifier", {"shapes_classifier": ""})  # read once
    source = shapes("test", size=size, records=64)
    features, logits = map(np.asarray, found.features(np.stack([source.image(i) for i in range(64)])))
    assert features.shape == (64, 128) and logits.shape == (64, len(PAIRS))
    np.testing.assert_allclose(np.exp(logits).sum(1), 1, rtol=1e-4)  # log probabilities of both heads together
    assert (logits.argmax(1) == source.labels).mean() > 0.9
    assert found.size == 32 and len(found.sha256) == 64


def test_the_layers_that_diversity_compares():
    """After the ReLU, halving, the last of them what the features are made of."""
    found = networks.network("shapes_classifier", {})
    source = shapes("test", size=64, records=2)
    maps = [np.asarray(x) for x in found.maps(np.stack([source.image(i) for i in range(2)]))]
    assert [x.shape for x in maps] == [(2, 16, 16, 16), (2, 8, 8, 32), (2, 4, 4, 64)] and min(x.min() for x in maps) == 0
    module, variables, *_ = networks.classifier_file(networks.SHIPPED / "shapes_classifier.safetensors")
    variables = jax.tree.map(np.asarray, variables)
    p, s = variables["params"], variables["batch_stats"]["norm"]
    h = maps[-1].reshape(2, -1) @ p["features"]["kernel"]
    h = (h - s["mean"]) / np.sqrt(s["var"] + 1e-5) * p["norm"]["scale"] + p["norm"]["bias"]
    want = np.asarray(found.features(np.stack([source.image(i) for i in range(2)]))[0])
    np.testing.assert_allclose(np.maximum(h, 0), want, atol=1e-4)


def test_the_layers_of_effnet_halve_from_48_pixels():
    module = EfficientNetLite0()
    x = jax.ShapeDtypeStruct((2, networks.EFFNET_SIDE, networks.EFFNET_SIDE, 3), np.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    wanted = lambda part: part.name in networks.EFFNET_LAYERS  # noqa: E731
    maps = jax.eval_shape(lambda v, x: networks.layers(module, v, x, wanted), variables, x)
    sides = (48, 16), (24, 24), (12, 40), (6, 112), (3, 320)
    assert [x.shape for x in maps] == [(2, side, side, channels) for side, channels in sides]


BIRD = {"net": "inception_classifier", "width": 0.0625, "size": 32, "small": True, "repeats": [1, 1, 1]}


def bird_file(path, classes=("a", "b", "c"), data="cub", net=BIRD):
    """Weights as the classifier stage of configs/cub.py leaves them, random."""
    more = {"classes": len(classes)} if net is BIRD else {}
    module = made_net(net, "here", **more)
    tree = tiny.fill(jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32)), 1)
    about = {"kind": "classifier", "nets": {"image": net}, "classes": classes, "config": {"data": {"name": data, "size": 32}}}
    weights.save(path, {"params": tree["params"], "stats": tree["batch_stats"]}, about)
    return module, tree


@pytest.mark.slow
def test_our_own_judge_of_birds(tmp_path):
    module, tree = bird_file(tmp_path / "weights.safetensors")
    found = networks.network("cub_ours", {"cub_ours": str(tmp_path / "weights.safetensors")})
    assert found.scores == ("is", "classes") and found.classes == ("a", "b", "c") and found.maps is None
    assert found.sha256 == tensors.sha256(tmp_path / "weights.safetensors") and found.size == 32
    images = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3), np.uint8)
    features, logits = found.features(images)
    small = np.asarray(networks.prepared(images, 32))
    want, heads = jax.jit(module.apply)(tree, small)
    assert logits.shape == (2, 3)
    np.testing.assert_allclose(features, want, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(logits, heads["label"], rtol=1e-3, atol=1e-3)


def test_a_classifier_of_something_else_is_no_judge_of_birds(tmp_path):
    file = networks.SHIPPED / "shapes_classifier.safetensors"
    with pytest.raises(UserError, match="is no classifier of birds: give what --config=configs/cub.py:classifier trains$"):
        networks.network("cub_ours", {"cub_ours": str(file)})
    bird_file(tmp_path / "cars.safetensors", data="folder")
    with pytest.raises(UserError, match="is no classifier of birds"):
        networks.network("cub_ours", {"cub_ours": str(tmp_path / "cars.safetensors")})


def test_another_kind_of_weights_is_no_judge():
    with pytest.raises(UserError, match="holds 'attngan', not 'classifier'"):
        networks.attribute_net(str(networks.SHIPPED / "shapes.safetensors"))
    assert weights.load(networks.SHIPPED / "shapes_classifier.safetensors")[1]["kind"] == "classifier"


def test_bytes_become_signed_floats_of_the_side_asked_for():
    images = np.zeros((2, 8, 8, 3), np.uint8)
    images[1] = 255
    out = np.asarray(networks.prepared(images, 4))
    assert out.shape == (2, 4, 4, 3)
    np.testing.assert_allclose(out[0], -1, atol=1e-6)
    np.testing.assert_allclose(out[1], 1, atol=1e-6)


def torch_name(path):
    """The name in the FID file of one of our leaves."""
    leaf = {"scale": "weight", "kernel": "weight", "mean": "running_mean", "var": "running_var"}.get(path[-1], path[-1])
    if path[1] == "fc":
        return f"fc.{leaf}"
    _, layer, *inner, part, _ = path
    outer = inception.STEM[layer[4:]] if layer.startswith("conv") else f"Mixed_{layer[5:]}"
    return ".".join([outer, *inner, "bn" if part == "norm" else part, leaf])


def foreign(path, module, rng):
    """Writes a file with torch's names and layouts and random weights for an Inception; returns our variables of it."""
    like = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 299, 299, 3), np.float32))
    file, ours = {}, {}
    for name, leaf in flatten_dict(like).items():
        value = rng.standard_normal(leaf.shape, np.float32) * (2 / max(1, np.prod(leaf.shape[:-1]))) ** 0.5
        ours[name] = value = np.abs(value) + 1 if name[-1] in ("scale", "var") else value
        axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(value.ndim, (0,))
        file[torch_name(name)] = value.transpose(axes)
    tensors.write(path, file)
    return unflatten_dict(ours)


@pytest.mark.long
def test_the_torchvision_file_at_full_size(tmp_path):
    """The padding is counted, the last pool is a mean, the head is left out, the values are the mistaken ones."""
    module, rng = Inception(count_pad=True, last_pool="avg"), np.random.default_rng(0)
    ours = foreign(tmp_path / "google.safetensors", module, rng)
    found = networks.network("tv_legacy", {"torchvision_inception": str(tmp_path / "google.safetensors")})
    images = rng.integers(0, 256, (2, 299, 299, 3), np.uint8)
    features, logits = found.features(images)
    scale, mean = np.float32([0.229, 0.224, 0.225]), np.float32([0.485, 0.456, 0.406])
    want = jax.jit(module.apply)(ours, np.float32(images / 255 * scale + mean - 0.5) / 0.5)["2048"]
    assert logits is None and "is" not in found.scores
    np.testing.assert_allclose(features, want, atol=1e-4 * float(np.abs(want).max()))


@pytest.mark.long
def test_the_fid_file_at_full_size(tmp_path):
    """The taps are those of the network that the file describes, by every protocol that reads it."""
    module, rng = Inception(count_pad=False, last_pool="max", classes=1008), np.random.default_rng(0)
    ours = foreign(tmp_path / "fid.safetensors", module, rng)
    images = rng.integers(0, 256, (2, 299, 299, 3), np.uint8)
    taps = jax.jit(module.apply)(ours, images.astype(np.float32) / 127.5 - 1)
    seen = {}
    for name in ("tf", "pt", "clean", "imagenet"):
        found = networks.network(name, {"fid_inception": str(tmp_path / "fid.safetensors")})
        seen[name], logits = map(lambda x: None if x is None else np.asarray(x), found.features(images))
        assert (logits is not None) == (name == "imagenet") == ("is" in found.scores)
    for name in ("pt", "clean"):  # nothing to resize here: the network alone
        np.testing.assert_allclose(seen[name], taps["2048"], atol=1e-4 * float(np.abs(taps["2048"]).max()))
    shifted = jax.jit(module.apply)(ours, (images.astype(np.float32) - 128) / 128)
    for name in ("tf", "imagenet"):
        np.testing.assert_allclose(seen[name], shifted["2048"], atol=1e-4 * float(np.abs(taps["2048"]).max()))
    fc = ours["params"]["fc"]
    np.testing.assert_allclose(logits, np.asarray(shifted["logits"]) - fc["bias"], atol=1e-4 * float(np.abs(logits).max()))


def test_the_mistake_of_the_time():
    """The ranges that pictures in [0, 1] end in, and each protocol's answer to a plain picture."""
    ends = np.asarray(inceptions.mistaken(np.float32([[0, 0, 0], [1, 1, 1]])))
    np.testing.assert_allclose(ends, [[-0.03, -0.088, -0.188], [0.428, 0.36, 0.262]], atol=1e-6)
    plain = np.full((1, 20, 30, 3), 200, np.float32)
    levels = {"tf": 72 / 128, "imagenet": 72 / 128} | dict.fromkeys(("pt", "clean", "keras"), 400 / 255 - 1)
    for name, level in levels.items():
        out = np.asarray(inceptions.SEEN[name][2](plain))
        assert out.shape == (1, 299, 299, 3)
        np.testing.assert_allclose(out, level, atol=1e-5)


def test_keras_pictures_grow_and_shrink_by_jax_s_rule():
    """Bilinear between the centres of pixels where it grows, as `pt`; a tent as wide as a pixel of the result where it shrinks,
    as Pillow's."""
    rng, look = np.random.default_rng(0), inceptions.SEEN["keras"][2]
    small, large = (rng.integers(0, 256, (1, side, side, 3)).astype(np.float32) for side in (64, 500))
    np.testing.assert_allclose(look(small), inceptions.SEEN["pt"][2](small), atol=1e-5)
    want = np.asarray(antialiased(large, (299, 299), "bilinear")) / 127.5 - 1
    np.testing.assert_allclose(look(large), want, atol=1e-3)
    assert np.abs(look(large) - np.asarray(inceptions.SEEN["pt"][2](large))).max() > 0.1
