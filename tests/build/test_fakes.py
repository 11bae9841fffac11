"""A folder of pictures is scored as the generator that made them; what cannot be scored is told in one line."""

import functools
import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import runs
from build.test_clip import WIDE, own_file
from supcon_jax import config as configs
from supcon_jax import core
from supcon_jax.build import evaluations, fakes, stage, weights
from supcon_jax.config import UserError
from supcon_jax.data.source import Source
from supcon_jax.evals import streams

RECORDS, DRAWS = 16, 2
NUMBER = RECORDS * DRAWS
EVALS = {
    "matching": {"every": 0, "fakes": NUMBER, "reals": RECORDS, "seed": 3},
    "generation": {"every": 0, "fakes": NUMBER, "reals": 0, "bank": RECORDS, "diversity": RECORDS, "split": "test", "seed": 3,
                   "networks": ["shapes_classifier"]},
}  # fmt: skip


def plain(**more):
    settings = {"data.args.records": str(RECORDS), "mesh.data": "1"} | more
    made = configs.plain(configs.override(configs.load("configs/shapes.py:tiny"), settings))
    return made | {"evals": json.loads(json.dumps(EVALS))}


def generator(config, workdir):
    """(context, state) of the trained generator, as its own evaluations get them."""
    built = stage.build(config, "attngan", workdir)
    context = built.run.evals[0].fn.args[1]
    tree, *_ = weights.load(workdir / "attngan" / "weights.safetensors")
    tree = {kind: jax_tree(tree["gen"][kind]) for kind in ("params", "stats")}
    return context, core.State(*[None] * 3, {}, {}, {"gen": tree["stats"]}, {"ema": tree["params"]})


def jax_tree(tree):
    return {key: jax_tree(value) for key, value in tree.items()} if isinstance(tree, dict) else jnp.asarray(tree)


def save(folder, images, lines=()):
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i:05d}.png")
    if lines:
        said = [json.dumps({"image": f"{i:05d}.png", **line}) for i, line in enumerate(lines)]
        (folder / "captions.jsonl").write_text("\n".join(said) + "\n")
    return folder


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """(numbers of the generator, lines and numbers of its pictures in a folder, work folder, folder)."""
    folder = tmp_path_factory.mktemp("fakes")
    shutil.copytree(runs.shapes(), folder / "w", ignore=shutil.ignore_patterns("checkpoints", "samples"))
    workdir, patch = folder / "w", pytest.MonkeyPatch()
    patch.setattr(evaluations, "DRAWS", DRAWS)
    config = plain(**{"networks.clip": str(own_file(folder / "clip.safetensors", WIDE))})
    with runs.quick_to_compile():
        context, state = generator(config, workdir)
        images, lines = [], []
        for part in streams.fakes(context.generate(state), context.captions(), NUMBER, 3):
            for i in np.flatnonzero(part.keep):
                images.append(part.images[i])
                label = context.data.test.classes[part.batch["label"][i, 0]]
                lines.append({"captions": [str(part.batch["caption"][i, 0])], "labels": [label]})
        save(folder / "mine", images, lines)
        own = {}
        for name, function in fakes.MEASURES.items():
            own |= function(context, state, config["evals"][name])
        found = fakes.score(config, str(folder / "mine"), workdir)
    patch.undo()
    return own, *found, workdir, folder / "mine"


@pytest.mark.slow
def test_our_own_pictures_in_a_folder_score_as_the_generator(scored):
    """Every number to the last bit, from the same pixels; only what is said of their origin differs."""
    own, _, found, _, folder = scored
    assert set(found) == set(own)
    for name, record in own.items():
        assert found[name]["value"] == record["value"], name
        ours, theirs = record["protocol"], found[name]["protocol"]
        apart = {key for key in ours if ours[key] != theirs[key]}
        assert apart <= {"fake_origin", "captions", "ema", "truncation"}, (name, apart)
    told = found["fid_shapes_classifier"]["protocol"]
    assert told["fake_origin"] == f"the first of {NUMBER} pictures in {folder}" and told["ema"] == "unknown"
    assert told["captions"] == f"captions.jsonl of {folder}" and len(told["fake_content"]) == 16
    wanted = {"fid", "kid", "is", "precision", "density", "label_accuracy", "diversity"}
    assert {f"{name}_shapes_classifier" for name in wanted} <= set(found)
    assert {"r_precision", "r_within", "r_precision_clip", "clip_score", "real_clip_score"} <= set(found)
    assert found["diversity_shapes_classifier"]["protocol"]["subsets"] == f"{RECORDS} pairs of {RECORDS} captions"


@pytest.mark.slow
def test_the_numbers_lie_in_the_work_folder(scored):
    _, lines, found, workdir, folder = scored
    (path,) = (workdir / "fakes").glob("*/evals.json")
    assert path.parent.name == f"mine-{found['r_precision']['protocol']['fake_content']}" and f"written to {path}" in lines
    assert json.loads(path.read_text()) == found
    assert found["r_precision"]["eval"] == "matching" and found["fid_shapes_classifier"]["eval"] == "generation"


@functools.cache
def squares():
    return np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)


def refused(place, config=None, workdir=None):
    with pytest.raises(UserError) as caught:
        fakes.score(config or plain(), str(place), workdir)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def only(config, *names, **changes):
    kept = {name: config["evals"][name] | changes for name in names}
    return config | {"evals": kept}


def test_without_captions_there_are_the_scores_that_need_none(tmp_path):
    config = plain()
    config["evals"]["generation"] |= {"fakes": 20, "bank": 0}
    lines, found = fakes.score(config, str(save(tmp_path / "f", squares())), None)
    assert "no captions in captions.jsonl: no R-precision, CLIP-score or diversity" in lines
    assert "no labels of the data set's classes: no R-precision within the class, no label accuracy" in lines
    assert any(line.startswith("no encoders (--workdir of a finished stage damsm or") for line in lines)
    names = {name.removesuffix("_shapes_classifier") for name in found}
    assert names == {"fid", "kid", "kid_std", "precision", "recall", "density", "coverage", "is", "is_std", "fakes_not_finite"}
    assert found["fid_shapes_classifier"]["protocol"]["captions"] == "none"


def test_what_cannot_be_scored_is_told_in_one_line(tmp_path):
    folder = save(tmp_path / "f", squares())
    assert refused(tmp_path / "absent").endswith("absent is no folder: give the one that holds the pictures")
    (tmp_path / "empty").mkdir()
    assert "empty holds no .png or .jpg" in refused(tmp_path / "empty")
    few = refused(folder)
    assert few.endswith(f"f holds 20 pictures, config.evals.generation.fakes asks for {NUMBER}: give more, or "
                        "--config.evals.generation.fakes=20")
    config = only(plain(), "generation", fakes=20, bank=0)
    Image.fromarray(squares()[0]).resize((48, 48)).save(folder / "00007.png")
    assert refused(folder, config).endswith(
        "f/00007.png is 48 x 48: a protocol resizes from one size, so all must be 32 x 32 as 00000.png")
    Image.fromarray(squares()[0]).resize((48, 32)).save(folder / "00000.png")
    assert "f/00000.png is 48 x 32: a protocol resizes from one size, so all must be squares" in refused(folder, config)
    (folder / "00000.png").write_bytes(b"no picture")
    assert "f/00000.png: cannot be decoded" in refused(folder, config)
    assert "trains no generator (its stages: damsm)" in refused(folder, plain() | {"stages": ["damsm"]})
    good = save(tmp_path / "g", squares())
    bare = plain()
    bare["data"]["text"] = False
    assert "config.data has no captions (data.text, or the set itself)" in refused(good, bare)
    assert "network pt needs" in refused(good, only(plain(), "generation", fakes=20, networks=["pt"]))
    none = refused(good, only(plain(), "generation", networks=[]))
    assert none.startswith("nothing to measure: ") and "config.evals.generation.networks is empty" in none


def test_captions_that_do_not_fit_are_told(tmp_path):
    names = [["red circle"], ["red circle"], []]
    folder = save(tmp_path / "f", squares()[:3], [{"captions": said} for said in names])
    assert "captions.jsonl, line 3 has no caption but other lines have" in refused(folder)
    (folder / "00001.png").unlink()
    (folder / "captions.jsonl").write_text('{"image": "00001.png", "captions": ["a red circle"]}\n')
    assert "line 1: " in refused(folder) and "00001.png is missing" in refused(folder)
    lines = [{"captions": ["a red circle"], "labels": ["unicorn"]}] * 3
    assert "label 'unicorn' is no class of the config's data; they are " in refused(save(tmp_path / "g", squares()[:3], lines))
    zebra = save(tmp_path / "z", squares()[:6], [{"captions": ["zebra"]}] * 6)
    assert "z/00000.png: no caption with a known word" in refused(zebra, only(plain(), "generation", fakes=6, bank=0))
    line = refused(zebra, plain(**{"networks.clip": str(tmp_path / "absent.pt")}))
    assert line.startswith(f"--config.networks.clip={tmp_path / 'absent.pt'}: no such file")


def source(classes, labels):
    return Source("folder", "fakes", [()] * len(labels), labels, tuple(classes), None, list(range(len(labels))))


def test_labels_are_renumbered_as_the_data_has_them():
    class Data:
        train = source(("b", "a", "c"), np.int32([0, 1, 2]))

    one = source(("a", "c"), np.int32([1, 0, 1]))
    assert fakes.renamed(one, Data, "f").tolist() == [2, 1, 2]
    assert fakes.renamed(source(("0", "2"), np.int32([1, 0])), Data, "f").tolist() == [2, 0]  # numbers from 0
    with pytest.raises(UserError, match="f: label '3' is no class of the config's data; they are b, a, c$"):
        fakes.renamed(source(("3",), np.int32([0])), Data, "f")
    several = source(("a", "c"), np.uint8([[1, 1], [0, 1]]))
    with pytest.raises(UserError, match="several labels or none, the config's data has one each"):
        fakes.renamed(several, Data, "f")
    Data.train = source(("b", "a", "c"), np.uint8([[1, 0, 1]]))
    assert fakes.renamed(several, Data, "f").tolist() == [[0, 1, 1], [0, 0, 1]]
    assert fakes.renamed(one, Data, "f").tolist() == [[0, 0, 1], [0, 1, 0], [0, 0, 1]]
    assert fakes.renamed(Source("folder", "fakes", [()], None, (), None, [0]), Data, "f") is None


def test_repeated_captions():
    said = ["a", "b", "", "a", "c", "b", "a", "", "c"]
    assert fakes.repeated(said, 2, 2).tolist() == [0, 1, 3, 5]
    assert fakes.repeated(said, 9, 9).tolist() == [0, 1, 4, 3, 5, 8, 6]
    assert fakes.repeated(["a", "b", ()], 2, 2).size == 0


def test_the_command_line(tmp_path, capsys):
    """Numbers and their protocols are printed; a mistake is one line and exit code 2."""
    folder = save(tmp_path / "f", squares())
    argv = ("--config=configs/shapes.py", "--mode=eval", f"--fakes={folder}", "--config.data.args.records=16")
    settings = ("--config.evals.generation.bank=0", "--config.evals.generation.reals=16")
    code, out = runs.command(*argv, *settings, "--config.evals.generation.fakes=20")
    lines = out.splitlines()
    assert code == 0 and any(line.startswith("fakes  generation/fid_shapes_classifier  ") for line in lines)
    told = lines[lines.index(next(line for line in lines if "/fid_shapes" in line)) + 1]
    assert told.startswith('    metric="fid_shapes_classifier"') and f"pictures in {folder}" in told
    assert runs.command(*argv, *settings)[0] == 2
    err = capsys.readouterr().err.splitlines()
    assert err[-1].startswith(f"error: {folder} holds 20 pictures, config.evals.generation.fakes asks for 512")
