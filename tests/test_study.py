"""A paired comparison of two variants and two seeds through the command line, and what is wrong with a study file."""

import itertools
import json
import logging

import numpy as np
import pytest
from etils import epath
from PIL import Image

import runs
from supcon_jax import storage, study
from supcon_jax.build import stage

METRICS = ("matching/r_precision", "matching/real_r_precision")
# one step of a generator with one stage: what is compared is not what is tested here
SMALL = {"attngan.nets.gen.sizes": (32,), "attngan.steps": 1, "data.args.records": 64, "every.sample": 0, "mesh.data": 1}
STUDY = {
    "title": "With and without", "config": "CONFIG:attngan,tiny", "stage": "attngan", "seeds": (0, 3),
    "variants": {"scl": {}, "no_scl": {"last.args.scl": 0.0}}, "reference": "no_scl", "metrics": METRICS,
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


def test_a_variant_may_add_words_to_the_config(tmp_path):
    variants = {"plain": {"words": "plain", "batch": 4}, "as_it_is": {}}
    found = study.load(written(tmp_path, {"variants": variants, "reference": "as_it_is"}))
    plain, usual = (study.configured(found, name, 0, epath.Path(tmp_path)) for name in variants)
    assert plain["scl"] == 0 and plain["attngan"]["args"]["branches"] == 1 and plain["batch"] == 4
    assert usual["scl"] == 1 and usual["attngan"]["args"]["branches"] == 2
    found["config"] = "configs/shapes.py"
    assert study.configured({**found, "all": {}}, "plain", 0, epath.Path(tmp_path))["scl"] == 0


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


def test_what_a_run_logged_is_a_metric_and_its_warnings_are_counted(tmp_path):
    """The last value of each name, whatever line it stands in; a run without a log has none."""
    lines = [{"step": 1, "a": 3.0, "warnings": 1}, {"step": 2, "a": 2.0, "warnings": 2, "b": "nan"}, {"step": 3, "x": 1.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert study.logged(epath.Path(tmp_path)) == {"log/step": 3, "log/a": 2.0, "log/warnings": 3, "log/x": 1.0}
    assert study.logged(epath.Path(tmp_path), {"x"}) == {"log/step": 3, "log/a": 2.0, "log/warnings": 3}  # a score
    assert study.logged(epath.Path(tmp_path / "none")) == {}
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "a": 3.0}\n')
    assert study.logged(epath.Path(tmp_path)) == {"log/step": 1, "log/a": 3.0}  # not that it never warned


@pytest.mark.slow  # four runs
def test_the_files_hold_numbers_table_and_pictures(ran):
    folder, file = ran
    said = json.loads((folder / "w" / "STUDY.json").read_text())
    assert said["study"]["seeds"] == [0, 3] and said["study"]["reference"] == "no_scl"
    for name, seed in itertools.product(("scl", "no_scl"), (0, 3)):
        end = runs.done(folder / "w" / name / f"seed{seed}", "attngan")["numbers"]
        told = said["runs"][name][str(seed)]["attngan"]
        log = {key: told.pop(key) for key in list(told) if key.startswith("log/")}
        assert told.pop("seconds") > 0 and told == end and set(METRICS) <= set(end)
        assert log["log/step"] == 1 and log["log/warnings"] == 0 and "log/gen/loss" in log
    text = (folder / "w" / "STUDY.md").read_text()
    assert text.startswith("# With and without\n") and f"--study={file} " in text and "seeds 0, 3" in text
    assert "| metric | scl | no_scl |" in text and "| metric | scl |" in text and "![pictures](STUDY.png)" in text
    rows = [line for line in text.splitlines() if line.startswith("| matching/")]
    assert len(rows) == 4 and all("±" in row and "(n=2)" in row for row in rows[2:])
    # the reals and the encoders are the same in both variants: that row differs by nothing
    mean = np.mean([run["attngan"][METRICS[1]] for run in said["runs"]["scl"].values()])
    assert rows[1].startswith(f"| {METRICS[1]} | {mean:.4g} | {mean:.4g} |") and "| +0 ± 0 " in rows[3]
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


@pytest.mark.parametrize("key", ["config", "stage", "seeds", "variants", "metrics", "reference"])
def test_a_study_without_a_key(capsys, tmp_path, key):
    file = written(tmp_path, without=(key,))
    assert refused(capsys, f"--study={file}", f"--workdir={tmp_path / 'w'}") == f"error: {file}: the study lacks {key}"
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    "changes,said",
    [({"reference": "none"}, "reference='none' must be one of the variants scl, no_scl"),
     ({"axis": {"scl": 1, "none": 2}}, "axis names none, and the variants are scl, no_scl"),
     ({"grid": {"none": ("a", "b")}}, "grid names none, and the variants are scl, no_scl"),
     ({"pairs": ("scl", "no_scl")}, "pairs is no key of a study; it may have against, all"),
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


# ---- runs, without training


SHARED = {"config": "configs/shapes.py:tiny", "all": {}, "seeds": (0, 1), "prompts": [], "metrics": ["damsm:m", "m"],
          "variants": {"a": {}, "b": {"last.args.scl": 0.5}, "c": {"first.args.scl": 0.5}}, "reference": "a",
          "against": []}  # fmt: skip
DRAWN = {"axis": {"a": 0, "b": 1, "c": 2}, "axis_title": "letters", "against": [("damsm:m", "m")]}


@pytest.fixture
def trained(monkeypatch):
    """Stages as if they were trained: (folder, seed, weight of the term) of each, in the order of training."""
    made = []

    def train(config, name, folder):
        if said := stage.done(config, name, folder):
            return said["numbers"]
        made.append((folder.parent.name, name, config["seed"]))
        (folder / name / "samples").mkdir(parents=True)
        numbers = {"m": 10 * config["damsm"]["args"]["scl"] + config[name]["args"]["scl"] + config["seed"]}
        (folder / name / "weights.safetensors").write_text(f"{name} of {folder.parent.name}")
        (folder / name / "config.json").write_text(json.dumps(stage.depends(config, name)))
        said = {"config": stage.digest(stage.depends(config, name)), "numbers": numbers, "steps": 1}
        (folder / name / "DONE").write_text(json.dumps(said))
        return numbers

    monkeypatch.setattr(study, "train_stage", train)
    return made


def called(folder, *more, changes=()):
    file = written(folder, {**SHARED, **dict(changes)})
    return study.cli([f"--study={file}", f"--workdir={folder / 'w'}", *more])


@pytest.mark.slow
def test_runs_of_equal_seed_and_first_stage_share_it(tmp_path, trained):
    pytest.importorskip("matplotlib")
    assert called(tmp_path, changes=DRAWN) == 0
    firsts = [(name, seed) for name, part, seed in trained if part == "damsm"]
    assert firsts == [("a", 0), ("c", 0), ("a", 1), ("c", 1)]  # b differs in its second stage only
    assert [name for name, part, seed in trained if part == "attngan"] == ["a", "b", "c"] * 2
    copied = tmp_path / "w" / "b" / "seed1"
    assert (copied / "damsm" / "weights.safetensors").read_text() == "damsm of a"
    assert json.loads((copied / "run.json").read_text())["damsm"]["copied"] == "a/seed1"
    text = (tmp_path / "w" / "STUDY.md").read_text()
    assert "damsm 2 steps of batch 8, attngan 2 steps of batch 8; data shapes/train, 32 px, records=256, seed=0" in text
    assert "3 variants, seeds 0, 1, one run each" in text and "| b | attngan.args.scl=0.5 |" in text
    assert "| damsm:m | 11.5 | 11.5 | 6 |" in text and "| m | 11.5 | 11 | 6.5 |" in text
    assert "| damsm:m | +0 ± 0 (n=2) | -5.5 ± 0 (n=2) |" in text and "| m | -0.5 ± 0 (n=2) | -5 ± 0 (n=2) |" in text
    assert "Rank correlation of `damsm:m` with `m`: +0.97 over 6 runs, +0.87 over 3 means of variants" in text
    for name in ("axis", "against"):
        assert f"![{name}](STUDY_{name}.png)" in text and (tmp_path / "w" / f"STUDY_{name}.svg").stat().st_size > 1000
    made = len(trained)
    assert called(tmp_path) == 0 and len(trained) == made


def test_variants_of_other_stages_are_scored_by_their_own_last_one(tmp_path, trained):
    changes = {
        "stage": "last", "metrics": ["m", "first:m"], "all": {"last.steps": 7}, "grid": {"a": ("x", "x"), "b": ("x", "y")},
        "variants": {"a": {"first.args.scl": 0.5}, "b": {"words": "damsm", "last.args.scl": 0.2}},
    }  # fmt: skip
    assert called(tmp_path, changes=changes) == 0
    assert [(name, part) for name, part, seed in trained if not seed] == [("a", "damsm"), ("a", "attngan"), ("b", "damsm")]
    steps = {part: json.loads((tmp_path / "w" / part / "config.json").read_text()) for part in
             ("a/seed0/damsm", "a/seed0/attngan", "b/seed0/damsm")}  # fmt: skip
    assert steps["a/seed0/damsm"]["damsm"]["steps"] == 2 and steps["a/seed0/attngan"]["attngan"]["steps"] == 7
    assert steps["b/seed0/damsm"]["damsm"]["steps"] == 7
    text = (tmp_path / "w" / "STUDY.md").read_text()
    assert "`a` is damsm 2 steps of batch 8, attngan 7 steps of batch 8" in text
    assert "| b | words=damsm, damsm.args.scl=0.2 |" in text
    assert "| m | 6.5 | 2.7 |" in text and "| first:m | 6 | 2.7 |" in text  # 10 * 0.5 + 1, 10 * 0.2 + 0.2, and the seed
    assert "`m`:\n\n|  | x | y |\n|---|---:|---:|\n| x | 6.5 | 2.7 |\n" in text


def test_a_stage_is_shared_only_with_equal_numbers(tmp_path, trained):
    """What is measured belongs to it: a run with other evaluations trains its own."""
    assert called(tmp_path, changes={"variants": {"a": {}, "b": {"evals.matching.reals": 8}, "d": {}}}) == 0
    assert [name for name, part, seed in trained if part == "damsm"] == ["a", "b"] * 2
    assert [name for name, part, seed in trained if part == "attngan"] == ["a", "b"] * 2  # d is a, to its end


def test_processes_fill_one_folder_by_parts(tmp_path, trained, capsys):
    assert called(tmp_path, "--only=a,b", "--seeds=1") == 0
    assert capsys.readouterr().out == (
        "not finished yet: a seed 0, b seed 0, c seed 0, c seed 1; tables are written when all are, or by --tabulate of "
        "those that are\n"
    )
    assert not (tmp_path / "w" / "STUDY.md").exists()
    assert refused(capsys, *flags_of(tmp_path, "--tabulate")).startswith("error: study: no finished run of c; call it")
    assert called(tmp_path, "--tabulate", "--only=a,b") == 0
    said = capsys.readouterr().out
    assert "2 variants, seeds 1, one run each" in said and "left out, as they are not finished: a seed 0, b seed 0" in said
    assert "reference a must be among" in refused(capsys, *flags_of(tmp_path, "--tabulate", "--only=b"))
    assert called(tmp_path) == 0 and len(trained) == 2 * 5
    assert "3 variants, seeds 0, 1, one run each" in (tmp_path / "w" / "STUDY.md").read_text()
    assert called(tmp_path, "--seeds=2") == 0  # more than the study has
    assert "3 variants, seeds 0, 1, 2, one run each" in capsys.readouterr().out


@pytest.mark.slow  # two stages
def test_a_copied_stage_leads_to_the_weights_of_one_trained_alone(tmp_path):
    changes = {"config": "configs/shapes.py:tiny", "all": {"mesh.data": 1}, "variants": {"x": {"last.args.scl": 0.5}, "a": {}},
               "reference": "a"}  # fmt: skip
    found, w = study.load(str(written(tmp_path, {**SHARED, **changes}))), epath.Path(tmp_path / "w")
    with runs.quick_to_compile():
        study.trained(study.configured(found, "x", 0, w), "damsm", w / "x" / "seed0")
        study.run(found, w, ["a"], [0])
    told = json.loads((w / "a" / "seed0" / "run.json").read_text())
    assert told["damsm"]["copied"] == "x/seed0" and "copied" not in told["attngan"]
    for part in ("damsm", "attngan"):
        assert runs.done(w / "a" / "seed0", part)["digest"] == runs.done(runs.shapes(), part)["digest"]


def flags_of(folder, *more):
    return [f"--study={folder / 'study.py'}", f"--workdir={folder / 'w'}", *more]


def test_a_run_that_another_process_holds_is_left_to_it(tmp_path, trained, caplog):
    with storage.held(tmp_path / "w" / "a" / "seed0" / "lock") as mine, caplog.at_level(logging.INFO, "supcon_jax"):
        assert mine and called(tmp_path) == 0
    assert ("a", "damsm", 0) not in trained and ("a", "damsm", 1) in trained
    assert "study: a, seed 0 is being run by another process, left to it" in caplog.text


def test_another_config_in_the_studys_place(tmp_path, trained, capsys):
    """Its last stage is scored, whatever it is called, and metrics that it does not measure are left out and told."""
    changes = {"metrics": ["first:m", "last:m", "generation/fid_*"], "prompts": ["a red circle"]}
    assert called(tmp_path, "--config=configs/shapes.py:dfgan,tiny", changes=changes) == 0
    said = capsys.readouterr().out
    assert "configs/shapes.py:dfgan,tiny" in said and "| dfgan:m | 11.5 | 11 | 6.5 |" in said and "pictures" not in said
    assert "Not measured by this config: generation/fid_*" in said and "| b | dfgan.args.scl=0.5 |" in said


@pytest.mark.parametrize(
    "more,said",
    [(["--only=a,x"], "--only=a,x: x is no variant; they are a, b, c"), (["--seeds=one"], "--seeds=one: whole numbers")],
)
def test_wrong_flags(tmp_path, capsys, more, said):
    written(tmp_path, SHARED)
    assert said in refused(capsys, *flags_of(tmp_path, *more))
