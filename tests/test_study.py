"""A paired comparison of two variants and two seeds through the command line, and what is wrong with a study file."""

import itertools
import json
import logging

import numpy as np
import pytest
from PIL import Image

import runs
from supcon_jax import study
from supcon_jax.config import UserError

METRICS = ("matching/r_precision", "matching/real_r_precision")
# one step of a generator with one stage: what is compared is not what is tested here
SMALL = {"attngan.nets.gen.sizes": (32,), "attngan.steps": 1, "data.args.records": 64, "every.sample": 0, "mesh.data": 1}
STUDY = {
    "title": "With and without", "config": "CONFIG:attngan,tiny", "stage": "attngan", "seeds": (0, 3),
    "variants": {"scl": {}, "no_scl": {"scl": 0.0}}, "pair": ("scl", "no_scl"), "metrics": METRICS,
    "prompts": ["a small red circle", "a green ring"], "all": SMALL,
}  # fmt: skip
ONE_EVAL = """
from supcon_jax import config


def get_config(word=""):
    c = config.load("configs/shapes.py:" + word)
    with c.unlocked():
        del c.evals.attributes
    return c
"""


def written(folder, changes=(), without=()):
    """A study file."""
    content = {key: value for key, value in {**STUDY, **dict(changes)}.items() if key not in without}
    (folder / "config.py").write_text(ONE_EVAL)
    content["config"] = content.get("config", "").replace("CONFIG", str(folder / "config.py"))
    if "config" in without:
        del content["config"]
    (folder / "study.py").write_text(f"def get_study():\n    return {content!r}\n")
    return folder / "study.py"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Folder and file of a finished study whose encoders come from a shared run."""
    folder = tmp_path_factory.mktemp("study")
    encoders = runs.shapes() / "damsm" / "weights.safetensors"
    file = written(folder, {"all": {**SMALL, "attngan.frozen.damsm": str(encoders)}})
    with runs.quick_to_compile():
        assert study.cli([f"--study={file}", f"--workdir={folder / 'w'}"]) == 0
    return folder, file


@pytest.mark.slow  # four runs
def test_every_variant_is_run_with_every_seed(ran):
    folder, _ = ran
    for name, scl in (("scl", 1.0), ("no_scl", 0.0)):
        for seed in (0, 3):
            said = json.loads((folder / "w" / name / f"seed{seed}" / "attngan" / "config.json").read_text())
            assert said["seed"] == seed and said["attngan"]["args"]["scl"] == pytest.approx(scl)
            assert runs.done(folder / "w" / name / f"seed{seed}", "attngan")["steps"] == 1
            lines = (folder / "w" / name / f"seed{seed}" / "attngan" / "metrics.jsonl").read_text()
            assert ("gen/scl" in lines) == bool(scl)


@pytest.mark.slow  # four runs
def test_equal_seeds_begin_equal(ran):
    """Discriminators move first and read no label term: after one step those of a pair are the same, seeds differ."""
    folder, _ = ran
    loss = {}
    for name, seed in itertools.product(("scl", "no_scl"), (0, 3)):
        lines = (folder / "w" / name / f"seed{seed}" / "attngan" / "metrics.jsonl").read_text().splitlines()
        loss[name, seed] = json.loads(lines[0])
    for seed in (0, 3):
        assert loss["scl", seed]["disc/loss"] == pytest.approx(loss["no_scl", seed]["disc/loss"], rel=1e-5)
    assert abs(loss["scl", 0]["disc/loss"] - loss["scl", 3]["disc/loss"]) > 1e-3


@pytest.mark.slow  # four runs
def test_the_files_hold_numbers_table_and_pictures(ran):
    folder, file = ran
    said = json.loads((folder / "w" / "STUDY.json").read_text())
    assert said["study"]["seeds"] == [0, 3] and said["study"]["pair"] == ["scl", "no_scl"]
    for name in ("scl", "no_scl"):
        ends = [runs.done(folder / "w" / name / f"seed{seed}", "attngan")["numbers"] for seed in (0, 3)]
        assert said["numbers"][name] == ends and set(METRICS) <= set(ends[0])
    text = (folder / "w" / "STUDY.md").read_text()
    assert text.startswith("# With and without\n") and f"--study={file} " in text and "seeds 0, 3" in text
    assert "| metric | scl | no_scl | scl - no_scl (95 %) |" in text and "![pictures](STUDY.png)" in text
    rows = [line for line in text.splitlines() if line.startswith("| matching/")]
    assert len(rows) == 2 and all("±" in row and "(n=2)" in row for row in rows)
    # the reals and the encoders are the same in both variants: that row differs by nothing
    mean = np.mean([numbers[METRICS[1]] for numbers in said["numbers"]["scl"]])
    assert rows[1].startswith(f"| {METRICS[1]} | {mean:.4g} | {mean:.4g} | +0 ± 0 ")
    picture = np.asarray(Image.open(folder / "w" / "STUDY.png").convert("L"))
    assert min(picture.shape) >= 2 * 96 and len(np.unique(picture)) > 4  # more than black on white


@pytest.mark.slow  # four runs
def test_again_trains_nothing_and_writes_beside_out(ran, caplog, capsys):
    folder, file = ran
    before = {path: path.stat().st_mtime_ns for path in (folder / "w").rglob("*") if path.is_file()}
    with caplog.at_level(logging.INFO, "supcon_jax"), runs.quick_to_compile():
        assert study.cli([f"--study={file}", f"--workdir={folder / 'w'}", f"--out={folder / 'results' / 'mine'}"]) == 0
    assert caplog.text.count("attngan: finished before (1 steps), skipped") == 4
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "w").rglob("*") if path.is_file()}
    assert sorted(path.name for path in (folder / "results").iterdir()) == ["mine.json", "mine.md", "mine.png"]
    assert "![pictures](mine.png)" in (folder / "results" / "mine.md").read_text()
    assert "| metric | scl | no_scl |" in capsys.readouterr().out
    for kind in ("json", "png"):
        assert (folder / "results" / f"mine.{kind}").read_bytes() == (folder / "w" / f"STUDY.{kind}").read_bytes()


def refused(capsys, *argv):
    """The one line that a study ends in."""
    assert study.cli([str(word) for word in argv]) == 2
    said = capsys.readouterr()
    lines = [line for line in said.err.splitlines() if not line.startswith("study: ")]
    assert said.out == "" and len(lines) == 1 and lines[0].startswith("error: "), said.err
    return lines[0]


def test_the_table_tells_the_first_of_the_pair_less_the_second():
    found = {"no_scl": [{"m": 1.0}, {"m": 2.0}], "scl": [{"m": 3.0}, {"m": 5.0}]}
    text = study.tabulate({**STUDY, "metrics": ("m",)}, found)
    assert "| metric | no_scl | scl | scl - no_scl (95 %) |" in text
    assert "| m | 1.5 | 4 | +2.5 ± 6.4 (n=2) |" in text  # t = 12.706, s = 1 / sqrt(2), n = 2


def test_a_metric_that_nobody_measured_is_told_with_those_there_are():
    found = {name: [{"matching/r_precision": 1.0}] for name in ("scl", "no_scl")}
    with pytest.raises(UserError, match="^study: metric 'fid' was not measured; use one of: matching/r_precision$"):
        study.tabulate({**STUDY, "metrics": ("matching/r_precision", "fid")}, found)


@pytest.mark.parametrize("key", ["config", "stage", "seeds", "variants", "metrics", "pair"])
def test_a_study_without_a_key(capsys, tmp_path, key):
    file = written(tmp_path, without=(key,))
    assert refused(capsys, f"--study={file}", f"--workdir={tmp_path / 'w'}") == f"error: {file}: the study lacks {key}"
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    "changes,said",
    [({"pair": ("scl", "none")}, "pair=('scl', 'none') must be two of the variants scl, no_scl"),
     ({"pair": ("scl",)}, "must be two of the variants"),
     ({"config": "configs/none.py"}, "no config file configs/none.py"),
     ({"stage": "damsm"}, "study: stage 'damsm' is not among those run: attngan"),
     ({"variants": {"scl": {"sclx": 1}, "no_scl": {}}}, "config.sclx is not a key of this config; did you mean config.scl?"),
     ({"all": {"batch": 1}}, "config.batch=1: must be at least 2")],
)  # fmt: skip
def test_a_study_with_a_wrong_value(capsys, tmp_path, changes, said):
    assert said in refused(capsys, f"--study={written(tmp_path, changes)}", f"--workdir={tmp_path / 'w'}")
    assert not (tmp_path / "w").exists()


def test_a_file_that_is_no_study(capsys, tmp_path):
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "b.py").write_text("x = 1\n")
    for name, said in (("none.py", f"no config file {tmp_path / 'none.py'}"), ("a.txt", "a.txt is no study: a Python file"),
                       ("b.py", "b.py is no study: it has no get_study()")):  # fmt: skip
        assert said in refused(capsys, f"--study={tmp_path / name}", f"--workdir={tmp_path / 'w'}")
