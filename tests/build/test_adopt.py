"""Networks of the original codes put into a stage's shapes: every family whole, and what the config must agree with."""

import functools
import math

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import originals
from build.test_clip import SMALL, openai_file, own_file
from data.test_bpe import write as write_merges
from gans import tiny
from supcon_jax import config as configs
from supcon_jax.api import load as api_load
from supcon_jax.build import adopt, clip, foreign, inceptions, stage, trunks, weights
from supcon_jax.build.names import net
from supcon_jax.config import UserError
from supcon_jax.convert import attngan, damsm, dfgan, dmgan, galip, inception, resnet, ssagan
from supcon_jax.data.vocab import Vocab
from supcon_jax.nets.inception import Inception
from supcon_jax.nets.resnet import ResNet

VOCAB = Vocab(["<end>", "a", "red", "bird"])
# parameters of the published networks, as their code counts them: generator, discriminators
PUBLISHED = {
    "cub attngan": (7_084_592, (6_313_730, 19_424_002, 71_858_946)),
    "coco attngan": (13_811_456, (13_304_450, 42_800_258, 160_774_274)),
    "cub dmgan": (21_449_042, (1_878_242, 5_155_810, 18_264_546)),
    "coco dmgan": (22_335_314, (1_878_242, 5_155_810, 18_264_546)),
    "cub ssagan": (29_494_273, (80_379_526 - 2 * (1024 * 1024 + 1024),)),  # without two shortcuts that nothing passes
    "cub dfgan": (9_744_131, (6_619_206 + 295_936 - 3 * (256 * 256 + 256),)),  # head counted in; three such shortcuts
    "cub galip": (51_830_211, (28_706_821 + 2_099_200 - 2 * (768 * 768 + 768),)),
}  # fmt: skip


def plain(path, **settings):
    return configs.plain(configs.override(configs.load(path), settings))


def text_shapes(config, vocab=VOCAB):
    nets = stage.build_nets(config, "damsm", adopt.data_of(config, vocab), {})
    words = config["data"]["words"]
    return jax.eval_shape(nets["text"].init, jax.random.key(0), np.zeros((1, words), np.int32), np.ones(1, np.int32))


def task_shapes(config, name, module=SMALL):
    """(what the stage's task begins with, what its towers' files say)"""
    told = {"damsm": {"nets": config["damsm"]["nets"], "vocab": VOCAB.plain()}}
    if name == "galip":
        told = {"clip": {"nets": {"clip": clip.described(module)}, "vocab": VOCAB.plain()}}
    nets = stage.build_nets(config, name, adopt.data_of(config, VOCAB), told)
    about = adopt.core.About(1, 1, VOCAB, 1, 1, adopt.dense, adopt.mesh_of(2, 1))
    return adopt.shapes(config, name, stage.make_task(config, name, nets, about)), told


def count(tree):
    return sum(math.prod(a.shape) for a in jax.tree.leaves(tree))


@pytest.mark.parametrize("which", [
    pytest.param(which, marks=pytest.mark.slow if which.startswith("coco") else ()) for which in PUBLISHED
])  # fmt: skip
def test_presets_build_the_published_networks(which):
    data, name = which.split()
    module = clip.published("ViT-B-32")
    gen, discs = PUBLISHED[which]
    like, _ = task_shapes(plain(f"configs/{data}.py" + (":galip" if name == "galip" else "")), name, module)
    assert count(like["params"]["gen"]) == gen
    disc = like["params"]["disc"]
    assert tuple(sorted(map(count, disc.values()))) == discs if len(discs) > 1 else count(disc) == discs[0]


FAMILIES = {  # at the tiny sizes of configs/cub.py: names and rules of the generator, of its discriminators by size
    "attngan": (originals.attngan_generator(), attngan.generator((8, 16, 32)), {
        4 * 2**k: (originals.attngan_discriminator(k), attngan.discriminator(4 * 2**k)) for k in (1, 2, 3)}),
    "dmgan": (originals.dmgan_generator(), dmgan.generator((8, 16, 32)), {
        4 * 2**k: (originals.dmgan_discriminator(k), dmgan.discriminator(4 * 2**k)) for k in (1, 2, 3)}),
    "dfgan": (originals.dfgan_generator(3, (0, 1, 2)), dfgan.generator(), {
        32: (originals.residual_discriminator("netD.conv_img", "netD.DBlocks.{}", "netC.", 3), dfgan.discriminator(32, 4))}),
    "ssagan": (originals.ssagan_generator(4, (1, 2, 3)), ssagan.generator(4), {
        32: (originals.residual_discriminator("conv_img", "block{}", "COND_DNET.", 3), ssagan.discriminator(32, 4))}),
    "galip": (originals.galip_generator(3, (0, 1, 2), 1), galip.generator(4), {
        32: (originals.galip_discriminator(), galip.discriminator())}),
}  # fmt: skip


@functools.cache
def made_up(name):
    """Random weights of a stage's players: {"gen", "disc"}, the discriminators by size."""
    like, _ = task_shapes(plain(f"configs/cub.py:{name},tiny"), name)
    tree = jax.device_get(tiny.fill({kind: like[kind] for kind in ("params", "stats")}, 3))
    params, stats = tree["params"], tree["stats"]
    sizes = FAMILIES[name][2]
    own = {s: adopt.both(params["disc"][f"d{s}"], stats["disc"][f"d{s}"]) for s in sizes} if len(sizes) > 1 else {
        s: {"params": params["disc"]} for s in sizes}
    return adopt.both(params["gen"], stats["gen"]), own


def write_original(folder, config, name):
    """A folder of the original code's files for the stage `name`; returns (generator, discriminators, text encoder)."""
    folder.mkdir()
    gen, discs = made_up(name)
    names, table, sizes = FAMILIES[name]
    wrapped = {f"netG.{key}": a for key, a in originals.undone(gen, names, table).items()}
    for size, tree in discs.items():
        own = originals.undone(tree, *sizes[size])
        if name in ("dfgan", "galip"):  # one file for all of it
            wrapped |= own
        else:
            save_file({f"module.{key}": a for key, a in own.items()}, folder / f"netD_{size}.safetensors")
    if name == "galip":
        tower = {"params": jax.device_get(tiny.fill(clip.blank(SMALL), 3))["params"]["image"]}
        copied = originals.undone(tower, originals.vision_tower("mapping.CLIP_ViT.", 9), galip.tower())
        wrapped |= {f"netG.{key}": a.astype(np.float16) for key, a in copied.items()}
        save(folder / "state_epoch_10.safetensors", wrapped, "model.")
        return gen, discs, None
    if name == "dfgan":
        save(folder / "state_epoch_10.safetensors", wrapped, "model.")
    else:
        save(folder / "netG_550.safetensors", {key.removeprefix("netG."): a for key, a in wrapped.items()}, "module.")
    text = jax.device_get(tiny.fill(text_shapes(config), 4))
    save(folder / "text_encoder200.safetensors", originals.undone(text, originals.text_encoder(), damsm.text()))
    originals.captions(folder / "captions.pickle", VOCAB.words)
    return gen, discs, text


def save(path, tensors, before=""):
    save_file({before + name: np.ascontiguousarray(a) for name, a in tensors.items()}, path)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ("attngan", "galip") else pytest.mark.slow) for name in FAMILIES]
)
def test_every_family_arrives_whole(tmp_path, name):
    settings = {"galip.frozen.clip": str(own_file(tmp_path / "clip.safetensors"))} if name == "galip" else {}
    config = plain(f"configs/cub.py:{name},tiny", **settings)
    gen, discs, text = write_original(tmp_path / "original", config, name)
    lines = list(foreign.convert(config, str(tmp_path / "original"), str(tmp_path / "a.safetensors")))
    tree, about, _ = weights.load(tmp_path / "a.safetensors", name)
    assert tiny.same(adopt.both(tree["gen"]["params"], tree["gen"].get("stats", {})), gen)
    for size, own in discs.items():
        params, stats = tree["disc"]["params"], tree["disc"].get("stats", {})
        found = adopt.both(params[f"d{size}"], stats[f"d{size}"]) if len(discs) > 1 else {"params": params}
        assert tiny.same(found, own)
    assert about["stage"] == name and about["config"]["data"]["name"] == "cub" and net(about["nets"]["gen"], "here")
    if text:
        assert tiny.same(tree["text"], text["params"]) and about["vocab"] == VOCAB.plain()
    else:
        assert "clip" in tree and about["vocab"]["ids"]
    assert any(f"{count(gen['params']):,} parameters" in line for line in lines)
    advised = sum("to repeat it, convert with --config." in line for line in lines)
    assert advised == {"galip": 1, "attngan": 2, "dmgan": 2}.get(name, 0)


def convert(config, source, target):
    return list(foreign.convert(config, str(source), str(target)))


def test_discriminators_come_all_or_none(tmp_path):
    config = plain("configs/cub.py:dmgan,tiny")
    write_original(tmp_path / "a", config, "dmgan")
    (tmp_path / "a" / "netD_32.safetensors").rename(tmp_path / "netD_32.safetensors")
    said = r"config.dmgan.nets.gen.sizes asks for one discriminator of each of 8, 16, 32 px, found netD_16\S+ of 16 px, netD_8"
    with pytest.raises(UserError, match=said):
        convert(config, tmp_path / "a", tmp_path / "b")
    assert not (tmp_path / "b").exists()
    for size in (8, 16):
        (tmp_path / "a" / f"netD_{size}.safetensors").unlink()
    convert(config, tmp_path / "a", tmp_path / "b")
    assert "disc" not in weights.load(tmp_path / "b" / "dmgan" / "weights.safetensors")[0]


def test_a_generator_of_another_clip_is_refused(tmp_path):
    """A tenth of a per cent is half precision; more is another network."""
    file = own_file(tmp_path / "clip.safetensors")
    config = plain("configs/cub.py:galip,tiny", **{"galip.frozen.clip": str(file)})
    write_original(tmp_path / "a", config, "galip")
    tree, about, _ = weights.load(file)
    tree["params"]["image"]["trunk"]["block3"]["attention"]["key"]["kernel"] *= 1.01
    weights.save(file, tree, about)
    with pytest.raises(UserError, match="was trained around another CLIP than the one given: mapping.CLIP_ViT.+in_proj_weight"):
        convert(config, tmp_path / "a", tmp_path / "b")


def test_clip_becomes_a_tower_that_galip_takes(tmp_path):
    """With joint projections, as OpenAI names it; its vocabulary and activation go with it."""
    made, source = openai_file(tmp_path)
    config = plain("configs/cub.py:galip,tiny", **{"clip_heads.frozen.clip_vocab": str(write_merges(tmp_path / "merges.txt"))})
    convert(config, source, tmp_path / "own.safetensors")
    given = {"galip": {"frozen": {"clip": str(tmp_path / "own.safetensors"), "clip_act": "gelu", "clip_vocab": ""}}}
    tree, about, _ = clip.load(given, "galip")
    assert tiny.same(tree, made) and net(about["nets"]["clip"], "here").image.act == "quick_gelu"
    model = api_load(str(tmp_path / "own.safetensors"))
    assert model.about["kind"] == "clip" and len(model.vocab) == about["nets"]["clip"]["text"]["vocab"]
    with pytest.raises(UserError, match="reads a vision transformer of more than 8 blocks"):  # this one has a single block
        model.encode_text(["lower"])
    with pytest.raises(UserError, match="holds CLIP: its activation and vocabulary come from a config with a stage"):
        convert(plain("configs/shapes.py:tiny"), source, tmp_path / "other.safetensors")


@pytest.mark.parametrize("classes", [0, 8])
def test_inception_is_written_for_scores_and_trunks(tmp_path, monkeypatch, classes):
    small = functools.partial(Inception, 1 / 16, repeats=(0, 1, 1))
    monkeypatch.setattr(adopt, "Inception", small)
    image = jax.ShapeDtypeStruct((1, 299, 299, 3), np.float32)
    shapes = {n: jax.eval_shape(small(classes=n).init, jax.random.key(0), image) for n in (0, 8)}
    made = jax.device_get(tiny.fill(shapes[classes], 3))
    names = originals.inception(made["params"]) + (originals.ends("fc") if classes else [])
    given = originals.undone(made, names, inception.torchvision(classes=classes)) | {"AuxLogits.fc.bias": np.zeros(3)}
    save(tmp_path / "a.safetensors", given)
    assert "AuxLogits.fc.bias" in convert(None, tmp_path / "a.safetensors", tmp_path / "b.safetensors")[0]
    assert weights.load(tmp_path / "b.safetensors", "inception")[1]["classes"] == classes
    for wanted in {0, classes}:
        for file in ("a", "b"):
            found = inceptions.loaded(tmp_path / f"{file}.safetensors", shapes[wanted], wanted)
            trunk = {kind: {k: v for k, v in tree.items() if k != "fc" or wanted} for kind, tree in made.items()}
            assert tiny.same(found, trunk)
    if not classes:
        with pytest.raises(UserError, match="the file lacks: params/fc"):
            inceptions.loaded(tmp_path / "b.safetensors", shapes[8], 8)
    with pytest.raises(UserError, match="holds 'inception', which neither draws nor encodes"):
        api_load(str(tmp_path / "b.safetensors"))


@pytest.mark.parametrize(("depth", "small", "classes"), [(18, False, 7), (50, True, 0)])
def test_a_resnet_is_written_for_trunks(tmp_path, depth, small, classes):
    """Depth, width, stem and classes are read off the tensors; as a trunk either file serves, without its last layer."""
    module = ResNet(depth, 1 / 16, small, classes=classes)
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    made = jax.device_get(tiny.fill(jax.eval_shape(module.init, jax.random.key(0), image), 3))
    given = originals.undone(made, originals.resnet(depth, classes), resnet.torchvision(classes))
    save(tmp_path / "a.safetensors", given)
    convert(None, tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    tree, about, _ = weights.load(tmp_path / "b.safetensors", "resnet")
    assert tiny.same(tree, made)
    assert about == {"kind": "resnet", "depth": depth, "width": 1 / 16, "small": small, "classes": classes}
    config = plain("configs/emoji.py:tiny")
    config["damsm"]["nets"]["image"] = {"net": "resnet", "dim": 16, "depth": depth, "width": 1 / 16, "small": small}
    made["params"].pop("fc", None)
    for file in "ab":
        config["damsm"]["frozen"]["trunk"] = str(tmp_path / f"{file}.safetensors")
        assert tiny.same(trunks.load(config, "damsm", "trunk")[0], made)
    config["damsm"]["frozen"]["trunk"] = ""
    with pytest.raises(UserError, match="damsm.nets.image.frozen=True needs torchvision's weights of that ResNet"):
        trunks.load(config, "damsm", "trunk")
    config["damsm"]["nets"]["image"]["frozen"] = False
    assert trunks.load(config, "damsm", "trunk") is None
    save(tmp_path / "c.safetensors", {name: a for name, a in given.items() if not name.startswith("layer3.1.")})
    with pytest.raises(UserError, match="a ResNet of .* is not known; those known have 18, 34, 50, 101, 152, 200 layers"):
        convert(None, tmp_path / "c.safetensors", tmp_path / "d.safetensors")


def test_fixed_trunks_go_to_the_towers_and_belong_to_nobody():
    """Encoders' weights parted as their stage has them: what learns, and the trunks that it is given."""
    tree = {
        "params": {
            "image": {"trunk": {"a": np.ones(1)}, "code": np.zeros(2)},
            "text": {"trunk": {"b": np.ones(3)}, "words": np.zeros(4)},
        },
        "stats": {"image": {"trunk": {"m": np.ones(5)}}},
    }  # fmt: skip
    nets = {"image": {"net": "effnet_lite0"}, "text": {"net": "bert", "trunk": {"width": 8}}}
    about = {"vocab": VOCAB.plain(), "nets": nets}
    for image, text in ((True, True), (True, False), (False, False)):
        settings = {"damsm.nets.image.frozen": str(image), "damsm.nets.text.frozen": str(text)}
        config = plain("configs/emoji.py:tiny,effnet,minilm", **settings)
        trees, told, hashes = adopt.towers(config, "damsm", None, tree, about, "sha")
        want = ({"trunk": {"params": {"a": 1}, "batch_stats": {"m": 5}}} if image else {}) | (
            {"text_trunk": {"params": {"b": 3}}} if text else {})  # fmt: skip
        assert jax.tree.map(np.size, trees) == want and hashes == dict.fromkeys(want, "sha")
        assert told["text_trunk"] == {"trunk": {"width": 8}} and told["own"] == {"vocab": VOCAB.plain()}
        kept = {"image": {} if image else {"trunk": {"a": 1}}, "text": {} if text else {"trunk": {"b": 3}}}
        params = {"image": {"code": 2} | kept["image"], "text": {"words": 4} | kept["text"]}
        own = jax.tree.map(np.size, adopt.owned(config, "damsm", tree)["model"])
        assert own == {"params": params} | ({} if image else {"batch_stats": {"image": {"trunk": {"m": 5}}}})
