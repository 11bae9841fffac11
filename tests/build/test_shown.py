"""What the network of each score protocol is shown of a picture that has to be resized, by rules written down apart.

Each network stands aside: in its place is one that hands back its input.
"""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import map_coordinates

from supcon_jax.build import inceptions, networks
from supcon_jax.nets import inception

SIZES = ((64, 64), (96, 128), (350, 420))  # enlarged, enlarged unevenly, shrunk
SIDES = {name: 299 for name in inceptions.SEEN} | {"effnet_lite0": 96, "shapes_classifier": 40, "cub_ours": 75}
FILES = dict.fromkeys(inceptions.SEEN, "fid_inception") | {"tv_legacy": "torchvision_inception", "keras": "keras_inception"}


def sampled(picture, side, place):
    """Linear interpolation at the places where a rule looks, f64[side, side, c]; past the edge is the edge."""
    i = np.arange(side)
    at = [
        {"centres": (i + 0.5) * n / side - 0.5, "corners": i * (n - 1) / (side - 1), "left": i * n / side}[place]
        for n in picture.shape[:2]
    ]
    grid = np.meshgrid(*at, indexing="ij")
    return np.stack([map_coordinates(np.float64(c), grid, order=1, mode="nearest") for c in picture.transpose(2, 0, 1)], -1)


def pillow(picture, side, kernel):
    """Pillow's resize of bytes, u8[side, side, c]."""
    return np.asarray(Image.fromarray(picture).resize((side, side), kernel))


def pillow_floats(picture, side, kernel):
    """Pillow's resize of each channel as a picture of floats, f32[side, side, c]."""
    channels = [Image.fromarray(np.float32(c)).resize((side, side), kernel) for c in picture.transpose(2, 0, 1)]
    return np.stack([np.asarray(c) for c in channels], -1)


def taken_for_normalised(x):
    """torchvision's transform_input of pictures in [0, 1]."""
    return (x * np.array([0.229, 0.224, 0.225]) + np.array([0.485, 0.456, 0.406]) - 0.5) / 0.5


RULES = {  # protocol -> what its network sees, from u8[h, w, 3] and the side
    "tf": lambda x, side: (sampled(x, side, "left") - 128) / 128,
    "pt": lambda x, side: 2 * sampled(x, side, "centres") / 255 - 1,
    "clean": lambda x, side: 2 * pillow_floats(x, side, Image.Resampling.BICUBIC) / 255 - 1,
    "keras": lambda x, side: 2 * pillow_floats(x, side, Image.Resampling.BILINEAR) / 255 - 1,
    "tv_legacy": lambda x, side: taken_for_normalised(sampled(x, side, "corners") / 255),
    "imagenet": lambda x, side: (np.float64(pillow(x, side, Image.Resampling.BILINEAR)) - 128) / 128,
    "effnet_lite0": lambda x, side: sampled(x, side, "centres"),  # it scales by itself
    "shapes_classifier": lambda x, side: 2 * sampled(x, side, "centres") / 255 - 1,
    "cub_ours": lambda x, side: 2 * sampled(x, side, "centres") / 255 - 1,
}


@functools.cache
def pictures(size):
    """Noise over a slope: neither flat nor smooth, of bytes from end to end, [2, h, w, 3]."""
    rng = np.random.default_rng(sum(size))
    slope = np.linspace(0, 160, size[0])[:, None, None] + np.linspace(-30, 60, size[1])[:, None]
    return np.clip(slope + rng.normal(0, 60, (2, *size, 3)), 0, 255).astype(np.uint8)


class Mirror:
    """Stands for a network: what it gives under every name is what it was shown."""

    NAMES = ("64", "192", "768", "2048", "1280", "logits")

    def apply(self, variables, x, *, mutable=None, capture_intermediates=None, train=False):
        if mutable:
            return None, {"intermediates": {"layer": x}}
        if "tower" in variables:  # a classifier of the shapes: features and the logits of its heads
            return x, {"shape": x[:, 0, 0], "colour": x[:, 0, 0]}
        return dict.fromkeys(self.NAMES, x)


@pytest.fixture
def stood_for(monkeypatch, tmp_path):
    """name -> the Network of a protocol around a Mirror."""
    (tmp_path / "weights").write_bytes(b"")
    read = []

    def inception_file(file, path):
        read.append(file)
        return Mirror(), {"params": {"fc": {"kernel": jnp.eye(3)}}}, "sha"

    def shapes_file(path):
        return Mirror(), {"tower": ()}, {"config": {"data": {"size": SIDES["shapes_classifier"]}}}, "sha"

    def bird_file(path):
        module = inception.Classifier(2, size=SIDES["cub_ours"])
        head = {"params": {"label": {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}}}
        said = {"config": {"data": {"name": "cub"}}, "nets": {"image": {"net": "inception_classifier"}}, "classes": ("a", "b")}
        return module, head, said, "sha"

    monkeypatch.setattr(inceptions, "read", inception_file)
    monkeypatch.setattr(networks, "EfficientNetLite0", Mirror)
    monkeypatch.setattr(networks, "converted", lambda *_: {})
    monkeypatch.setattr(inception, "Inception", lambda *_, **__: lambda x, train: {"2048": x})

    def made(name):
        path = str(tmp_path / "weights")
        if name in inceptions.SEEN:
            found = inceptions.network(name, {FILES[name]: path})
            assert read == [FILES[name]]
            return found
        monkeypatch.setattr(networks, "classifier_file", bird_file if name == "cub_ours" else shapes_file)
        return networks.NETWORKS[name](path)

    return made


def test_every_network_is_looked_at():
    assert set(RULES) == set(SIDES) == {*inceptions.SEEN, *networks.NETWORKS}


def shown(network, images):
    """(whether behind a ReLU, what the network was shown) for its features, then for the layers of diversity."""
    layers = network.maps(images) if network.maps else ()
    behind = network.name == "shapes_classifier"
    return [(False, np.asarray(network.features(images)[0])), *((behind, np.asarray(x)) for x in layers)]


@pytest.mark.parametrize("name", RULES)
def test_a_network_is_shown_what_its_protocol_says(name, stood_for):
    network = stood_for(name)
    assert network.size == SIDES[name]
    for size in SIZES:
        images = pictures(size)
        whole = np.stack([RULES[name](x, network.size) for x in images])
        for rectified, x in shown(network, images):
            want = np.maximum(whole, 0) if rectified else whole
            assert x.shape == (2, network.size, network.size, 3)
            if name == "imagenet":  # whole levels; where Pillow's own sums fall between two, one step beside
                level = 128 * np.float64(x) + 128
                np.testing.assert_array_equal(level, np.round(level))
                off = np.abs(level - (128 * want + 128))
                assert off.max() <= 1 and np.mean(off > 0) <= 0.005, (size, off.max(), np.mean(off > 0))
            else:
                near = 3e-5 if name == "keras" else 1e-5  # jax.image has its weights in float32
                np.testing.assert_allclose(x, want, atol=near * np.ptp(want), err_msg=str(size))


def test_no_two_rules_show_the_same():
    """Else one protocol could take another's resize unseen: on the pictures above they are far apart, shrunk or enlarged."""
    for size in SIZES[1:]:
        x = pictures(size)[0]
        seen = {
            **{place: sampled(x, 299, place) for place in ("left", "centres", "corners")},
            "cubic": pillow_floats(x, 299, Image.Resampling.BICUBIC),
        }  # fmt: skip
        if min(size) > 299:  # enlarging, Pillow's bilinear is that of the centres up to its rounding
            seen["pillow"] = pillow(x, 299, Image.Resampling.BILINEAR)
        for one in seen:
            for other in set(seen) - {one}:
                assert np.abs(np.float64(seen[one]) - seen[other]).mean() > 2, (size, one, other)
