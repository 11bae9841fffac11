"""CLIP as a frozen tower: from a foreign file or one of this library, and GALIP trained and sampled with it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import originals
import runs
from data.layouts import cub_layout
from data.test_bpe import PAIRS, write
from gans import tiny
from supcon_jax.build import clip, model, weights
from supcon_jax.build import compile as compile_
from supcon_jax.build.names import net
from supcon_jax.config import UserError
from supcon_jax.convert.clip import openai
from supcon_jax.data.bpe import Bpe
from supcon_jax.nets.clip import CLIP, ImageResNet, ImageTransformer, TextTransformer

BPE = Bpe.from_pairs(PAIRS)
SMALL = CLIP(ImageTransformer(6, 16, 4, 8, 9, 2), TextTransformer(6, len(BPE), 16, 8, 1, 2, end=BPE.end))
WIDE = CLIP(ImageTransformer(6, 16, 8, 64, 1, 1, 256), TextTransformer(6, len(BPE), 16, 64, 1, 1, 256, end=BPE.end))


def own_file(path, module=SMALL):
    """A CLIP with random weights as a file of this library."""
    tree = jax.device_get(tiny.fill(clip.blank(module), 3))
    weights.save(path, tree, {"kind": "clip", "nets": {"clip": clip.described(module)}, "vocab": BPE.plain()})
    return path


def section(**frozen):
    return {"galip": {"frozen": {"clip": "", "clip_act": "gelu", "clip_vocab": ""} | frozen}}


def test_options_make_the_same_network_again():
    for module in (SMALL, WIDE, CLIP(ImageResNet(6, 32, 4, (1, 1, 1, 1)), SMALL.text)):
        assert net(clip.described(module), "here") == module
    assert net(clip.described(SMALL), "here", "bf16").image.dtype == jnp.bfloat16


def test_a_file_of_this_library(tmp_path):
    tree, about, sha = clip.load(section(clip=str(own_file(tmp_path / "a.safetensors"))), "galip")
    assert net(about["nets"]["clip"], "here") == SMALL and Bpe(**about["vocab"]).digest() == BPE.digest()
    assert jax.tree.structure(tree) == jax.tree.structure(clip.blank(SMALL)) and len(sha) == 64


def openai_file(folder):
    """(random weights, a file of them with OpenAI's names)"""
    made = jax.device_get(tiny.fill(clip.blank(WIDE), 3))
    names = ["logit_scale", "positional_embedding", "text_projection", "token_embedding.weight", "visual.proj"]
    names += originals.transformer("", 1) + originals.vision_tower("visual.", 1)
    names += originals.ends("ln_final", "visual.ln_post")
    given = originals.undone(made, names, openai())
    save_file({name: np.ascontiguousarray(a) for name, a in given.items()}, folder / "openai.safetensors")
    return made, folder / "openai.safetensors"


def test_a_foreign_file_with_its_vocabulary(tmp_path):
    """OpenAI's names, joint projections; the activation is the config's, the end token the vocabulary's."""
    made, file = openai_file(tmp_path)
    given = section(clip=str(file), clip_vocab=str(write(tmp_path / "merges.txt")))
    tree, about, _ = clip.load(given, "galip")
    assert tiny.same(tree, made)
    found = net(about["nets"]["clip"], "here")
    assert found.text.end == BPE.end and found.image == WIDE.image.clone(act="gelu")
    more = write(tmp_path / "more.txt", [*PAIRS, ("s", "s</w>")])
    with pytest.raises(UserError, match="knows 523 tokens, its vocabulary has 524"):
        clip.load(section(clip=given["galip"]["frozen"]["clip"], clip_vocab=str(more)), "galip")


@pytest.mark.parametrize(("place", "said"), [("", "pretrained CLIP.*give --config.galip.frozen.clip=FILE$"),
                                             ("absent.pth", "absent.pth is missing")])
def test_a_missing_file_is_said_in_one_line(place, said):
    with pytest.raises(UserError, match=said):
        clip.load(section(clip=place), "galip")


RESNET = CLIP(ImageResNet(6, 32, 4, (1, 1, 1, 1)), SMALL.text)
HEADS = {"stage": "clip_heads", "config": {"clip_heads": {"args": {"clip_preproc": "compat"}}}}


@pytest.mark.parametrize(
    ("module", "words", "args", "about", "said"),
    [(RESNET, 12, {}, {}, "vision transformer of more than 8 blocks; the file holds one with a ResNet: give another"),
     (SMALL.clone(image=SMALL.image.clone(depth=8)), 12, {}, {}, "holds one with a vision transformer of 8 blocks"),
     (SMALL, 17, {}, {}, "^config.data.words=17: this CLIP reads 16 at most$"),
     (SMALL, 12, {"blocks": 2}, {}, "^config.galip.args.blocks=2: this CLIP's smaller tower has 1 blocks; use 1 at most$"),
     (SMALL, 12, {"clip_preproc": "correct"}, HEADS, "clip_preproc='correct', but .* trained with 'compat': use one")],
)  # fmt: skip
def test_what_galip_cannot_work_with_is_said_in_one_line(module, words, args, about, said):
    with pytest.raises(UserError, match=said) as caught:
        clip.check({"data": {"words": words}, "galip": {"args": args}}, "galip", module, about)
    assert "\n" not in str(caught.value)


def test_what_galip_can_work_with():
    for args in ({"blocks": 1}, {"clip_preproc": "compat"}):
        clip.check({"data": {"words": 16}, "galip": {"args": args}}, "galip", SMALL, HEADS if "blocks" not in args else {})


@pytest.mark.slow  # it compiles GALIP's step, its evaluation and its sampling
def test_two_steps_and_pictures_end_to_end(tmp_path, capsys):
    root, file = cub_layout(tmp_path / "cub"), own_file(tmp_path / "clip.safetensors")
    argv = ("--config=configs/cub.py:galip,tiny", f"--workdir={tmp_path / 'w'}", f"--config.data.root={root}",
            "--config.mesh.data=1", "--config.eval_batch=8")
    assert runs.command(*argv)[0] == 2
    assert "clip_heads.frozen.clip=FILE" in capsys.readouterr().err
    assert runs.command(*argv, f"--config.clip_heads.frozen.clip={file}")[0] == 0, capsys.readouterr().err
    for stage in ("clip_heads", "galip"):
        said = runs.done(tmp_path / "w", stage)
        assert said["steps"] == 2 and said["skipped"] == 0
    before = model.load(str(tmp_path / "w" / "clip_heads"))
    assert before.encode_text(["red"]).shape == (1, 8) and before.tree["heads"]["image"].shape == (6, 8)
    made = model.load(str(tmp_path / "w"))
    assert tiny.same(made.tree["clip"], before.tree)
    texts = ["this bird is red", "lower"]
    images = made.generate(texts)
    assert images.shape == (2, 32, 32, 3) and np.abs(images).max() <= 1 and made.unknown("lower xyz") == []
    assert made.encode_text(texts).shape == made.encode_image(images).shape == (2, 6)


def test_without_a_file_the_usual_size_stands_for_it_in_shape(tmp_path):
    trees, about, _ = compile_.frozen_shapes(section(), "galip", tmp_path)
    assert trees["clip"]["params"]["image"]["trunk"]["patch"]["kernel"].shape == (32, 32, 3, 768)
    assert about["clip"]["nets"]["clip"]["text"]["vocab"] == 49408
    own = section(clip=str(own_file(tmp_path / "a.safetensors")))
    trees, _, _ = compile_.frozen_shapes(own, "galip", tmp_path)
    assert trees["clip"]["params"]["text"]["project"]["kernel"] == jax.ShapeDtypeStruct((8, 6), np.float32)


def test_stage_one_stands_for_itself_in_shape(tmp_path):
    """To compile GALIP before its stage 1 was trained: CLIP with heads, its nets and its vocabulary."""
    from supcon_jax import config

    file = own_file(tmp_path / "clip.safetensors")
    flags = {"data.root": str(cub_layout(tmp_path / "cub")), "clip_heads.frozen.clip": str(file), "mesh.data": "1"}
    flags["clip_heads.args.blocks"] = "1"
    plain = config.plain(config.override(config.load("configs/cub.py:galip_blocks,tiny"), flags))
    trees, about, _ = compile_.frozen_shapes(plain, "galip", tmp_path)
    assert trees["clip"]["heads"]["text"] == jax.ShapeDtypeStruct((6, 8), np.float32)
    assert jax.tree.structure(trees["clip"]["params"]) == jax.tree.structure(clip.blank(SMALL)["params"])
    assert about["clip"]["nets"] == {"clip": clip.described(SMALL)} and Bpe(**about["clip"]["vocab"]).digest() == BPE.digest()
