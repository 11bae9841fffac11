"""Pretrained trunks of the encoders: read from their files, trained with, begun from, written out and put to use again."""

import functools
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import originals
import runs
from build.test_clip import SMALL, own_file
from data.layouts import emoji_layout
from data.test_wordpiece import PIECES
from gans import tiny
from supcon_jax import config as configs
from supcon_jax.build import compile as compile_
from supcon_jax.build import model, stage, trunks
from supcon_jax.config import UserError
from supcon_jax.convert import bert, efficientnet
from supcon_jax.convert.rename import place
from supcon_jax.core import Task
from supcon_jax.data.wordpiece import WordPiece
from supcon_jax.nets.efficientnet import STAGES, EfficientNetLite0

FIELDS = {"vocab": 40, "length": 40, "width": 8, "depth": 1, "heads": 2, "hidden": 16, "eps": 1e-12, "act": "gelu"}
SAID = {theirs: FIELDS[ours] for ours, theirs in bert.FIELDS.items()} | {"model_type": "bert", "hidden_act": "gelu"}


@pytest.fixture(scope="module")
def minilm(tmp_path_factory):
    """A folder as Hugging Face keeps a BERT, with a tiny one in it: (folder, its weights)."""
    folder = tmp_path_factory.mktemp("minilm")
    (folder / "config.json").write_text(json.dumps(SAID))
    (folder / "vocab.txt").write_text("\n".join(PIECES), encoding="utf-8")
    tree = jax.device_get(tiny.fill(trunks.blank(FIELDS), 2))
    at, ends = "encoder.layer.0.", ("weight", "bias")
    names = [f"embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type")] + ["pooler.dense.weight"]
    names += [f"embeddings.LayerNorm.{end}" for end in ends]
    parts = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense", "output.dense",
             "attention.output.LayerNorm", "intermediate.dense", "output.LayerNorm")  # fmt: skip
    names += [f"{at}{part}.{end}" for part in parts for end in ends]
    given = originals.undone(tree, names, bert.huggingface())
    save_file({name: np.ascontiguousarray(a) for name, a in given.items()}, folder / "model.safetensors")
    return folder, tree


@pytest.fixture(scope="module")
def effnet(tmp_path_factory):
    """EfficientNet-Lite0 with random weights under the names of its package: (file, its weights without the last layer)."""
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    tree = jax.device_get(tiny.fill(jax.eval_shape(EfficientNetLite0().init, jax.random.key(0), image), 4))
    bn = ("weight", "bias", "running_mean", "running_var")
    blocks = range(sum(s[0] for s in STAGES))
    names = [f"_blocks.{i}.{n}" for i in blocks for n in (
        "_depthwise_conv.weight", "_project_conv.weight", *(f"_bn{k}.{b}" for k in (1, 2) for b in bn))]  # fmt: skip
    names += [f"_blocks.{i}.{n}" for i in blocks[1:] for n in ("_expand_conv.weight", *(f"_bn0.{b}" for b in bn))]
    names += ["_conv_stem.weight", "_conv_head.weight", "_fc.weight", "_fc.bias", *(f"_bn{k}.{b}" for k in (0, 1) for b in bn)]
    given = originals.undone(tree, [name for name in names if place(name, efficientnet.lite0())], efficientnet.lite0())
    path = tmp_path_factory.mktemp("effnet") / "lite0.safetensors"
    save_file({name: np.ascontiguousarray(a) for name, a in given.items()}, path)
    tree["params"].pop("fc")
    return path, tree


def plain(word, **settings):
    return configs.plain(configs.override(configs.load(f"configs/emoji.py:{word}"), settings))


def test_bert_is_read_with_its_words(minilm):
    folder, tree = minilm
    found, about, sha = trunks.load(plain("tiny,minilm", **{"damsm.frozen.text_trunk": str(folder)}), "damsm", "text_trunk")
    assert tiny.same(found, tree) and about["trunk"] == FIELDS and len(sha) == 64
    assert WordPiece(**about["vocab"]).digest() == WordPiece(PIECES).digest()


def test_effnet_is_read_without_its_last_layer(effnet):
    path, tree = effnet
    config = plain("tiny,effnet", **{"damsm.frozen.trunk": str(path)})
    found, about, _ = trunks.load(config, "damsm", "trunk")
    assert tiny.same(found, tree) and about == {}
    assert trunks.load(config, "damsm", "text_trunk") is None  # a recurrent encoder has no trunk


def test_both_towers_of_clip(tmp_path):
    file = own_file(tmp_path / "clip.safetensors")
    config = plain("tiny,clip", **{"damsm.frozen.trunk": str(file), "damsm.frozen.text_trunk": str(file), "data.words": "16"})
    (image, seen, _), (text, read, _) = (trunks.load(config, "damsm", key) for key in trunks.OF)
    whole = tiny.fill(jax.eval_shape(SMALL.init, jax.random.key(0), np.zeros((1, 16, 16, 3)), np.zeros((1, 16), np.int32)), 3)
    assert tiny.same(image, {"params": whole["params"]["image"]}) and tiny.same(text, {"params": whole["params"]["text"]})
    assert seen["trunk"]["patch"] == 4 and "vocab" not in seen and read["trunk"]["end"] == SMALL.text.end and read["vocab"]
    said = plain("tiny,clip", **{"damsm.frozen.trunk": str(file), "damsm.frozen.text_trunk": str(file), "data.words": "17"})
    with pytest.raises(UserError, match="^config.data.words=17: clip_text reads 3 to 16 tokens"):
        trunks.load(said, "damsm", "text_trunk")


@pytest.mark.parametrize(("word", "settings", "said"), [
    ("tiny,minilm", {"damsm.frozen.text_trunk": "/nowhere"}, "^/nowhere/model.safetensors is missing: .*fetch minilm, or give"),
    ("tiny", {"damsm.frozen.text_trunk": "/a"}, "^config.damsm.frozen.text_trunk='/a', but .*text.net='rnn' has no trunk: "),
    ("tiny,resnet", {}, "^damsm.nets.image.frozen=True needs torchvision's weights of that ResNet"),
    ("tiny,effnet", {"damsm.frozen.trunk": "/nowhere.pth"}, "^--config.damsm.frozen.trunk=/nowhere.pth: no such file"),
    ("tiny,clip", {}, "nets.image.net='clip_image' needs a pretrained CLIP.*--config.damsm.frozen.trunk=FILE$"),
    ("tiny,minilm", {"damsm.nets.text.net": "effnet_lite0"}, "^config.damsm.nets.text.net='effnet_lite0' does not read texts$"),
])  # fmt: skip
def test_what_is_missing_is_said_in_one_line(word, settings, said):
    config = plain(word, **settings)
    with pytest.raises(UserError, match=said) as caught:
        [trunks.load(config, "damsm", key) for key in trunks.OF]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("changes", "said"), [
    ({"model_type": "roberta"}, "tells of 'roberta' with 'gelu'"), ({"hidden_act": "relu"}, "tells of 'bert' with 'relu'"),
    ({"position_embedding_type": "relative_key"}, "only BERT with gelu and absolute positions"),
    ({"vocab_size": 20}, "vocab.txt has 33 pieces, config.json tells of 20"),
    ({"hidden_size": None}, "cannot be read as BERT's"),
])  # fmt: skip
def test_another_model_is_refused(minilm, tmp_path, changes, said):
    said_there = {key: value for key, value in (SAID | changes).items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(said_there))
    for name in ("vocab.txt", "model.safetensors"):
        (tmp_path / name).symlink_to(minilm[0] / name)
    with pytest.raises(UserError, match=said):
        trunks.load(plain("tiny,minilm", **{"damsm.frozen.text_trunk": str(tmp_path)}), "damsm", "text_trunk")


def test_a_trunk_that_learns_begins_as_in_its_file(minilm):
    folder, tree = minilm
    config = plain("tiny,minilm", **{"damsm.frozen.text_trunk": str(folder), "damsm.nets.text.frozen": "False"})
    drawn = {"params": {"model": {"image": 1, "text": {"trunk": 2, "words": 3}}}, "stats": {"model": {"image": 4}}}
    made = trunks.begun(Task(lambda key, batch: drawn, ()), config, "damsm").init(None, None)
    assert tiny.same(made["params"]["model"]["text"].pop("trunk"), tree["params"])
    assert made == {"params": {"model": {"image": 1, "text": {"words": 3}}}, "stats": {"model": {"image": 4}}}
    trees, about, _ = stage.load_frozen(config, "damsm", None)
    assert trees == {} and about["text_trunk"]["trunk"] == FIELDS
    config = plain("tiny,minilm", **{"damsm.frozen.text_trunk": str(folder)})
    task = Task(None, ())
    assert trunks.begun(task, config, "damsm") is task  # a fixed one is no part of what learns


def test_without_files_the_usual_networks_stand_for_them_in_shape(tmp_path, monkeypatch):
    monkeypatch.setattr(trunks.clip, "shapes", functools.cache(trunks.clip.shapes))  # of both towers, once
    trees, about, _ = compile_.frozen_shapes(plain("tiny,effnet,minilm"), "damsm", tmp_path)
    assert trees["text_trunk"]["params"]["embed"]["embedding"].shape == (30522, 384) and about["text_trunk"]["vocab"]
    assert trees["trunk"]["params"]["head"]["conv"]["kernel"].shape == (1, 1, 320, 1280)
    trees, about, _ = compile_.frozen_shapes(plain("tiny,clip"), "damsm", tmp_path)
    assert trees["trunk"]["params"]["trunk"]["patch"]["kernel"].shape == (32, 32, 3, 768)
    assert about["text_trunk"]["trunk"]["vocab"] == 49408
    trees, about, _ = compile_.frozen_shapes(plain("tiny"), "damsm", tmp_path)
    assert trees == about == {}


@pytest.mark.long  # it compiles both stages and EfficientNet's gradient
def test_both_stages_on_pretrained_encoders_end_to_end(tmp_path, minilm, effnet, capsys):
    """Stage 1 with fixed trunks, the GAN behind it, and the weights put to use: the trunks are in the files as they were."""
    argv = ("--config=configs/emoji.py:tiny,effnet,minilm", f"--workdir={tmp_path / 'w'}", "--config.mesh.data=1",
            f"--config.data.root={emoji_layout(tmp_path / 'emoji')}", "--config.damsm.nets.image.size=32",
            f"--config.damsm.frozen.trunk={effnet[0]}", f"--config.damsm.frozen.text_trunk={minilm[0]}")  # fmt: skip
    assert runs.command(*argv)[0] == 0, capsys.readouterr().err
    encoders, drawn = model.load(str(tmp_path / "w" / "damsm")), model.load(str(tmp_path / "w"))
    text = encoders.tree["params"]["text"]
    assert tiny.same(text["trunk"], minilm[1]["params"]) and tiny.same(drawn.tree["text"], text)
    assert tiny.same(encoders.tree["params"]["image"]["trunk"], effnet[1]["params"])
    assert tiny.same(encoders.tree["stats"]["image"]["trunk"], effnet[1]["batch_stats"])
    assert encoders.encode_text(["a cat", "emoji face"]).shape == (2, 16)
    assert drawn.generate(["a cat"]).shape == (1, 32, 32, 3)
