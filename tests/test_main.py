"""The command line on a run of two steps in each stage: files, reruns, refusals, evaluation and pictures."""

import json
import logging
import pathlib
import shutil

import pytest
from PIL import Image

import runs
from supcon_jax import api, main
from supcon_jax.train import alarms

TINY = "--config=configs/shapes.py:tiny"


@pytest.fixture(scope="module")
def workdir():
    return runs.shapes()


def logged(workdir, stage):
    return [json.loads(line) for line in (workdir / stage / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("stage,player", [("damsm", "model"), ("attngan", "gen")])
def test_every_stage_says_whether_its_contrast_is_normal(workdir, stage, player):
    """16 rows of two branches; without itself and with, among keys of the other modality; sentences leave their class out."""
    first, *_ = (line for line in logged(workdir, stage) if "images_per_s" in line)
    said = alarms.Contrast().lines({name: value for name, value in first.items() if name != "step"})
    standing = {line.split(":")[0]: line for line in said if not line.startswith("warning")}
    assert set(standing) == {f"{player}/scl", f"{player}/sentences"}
    assert " of ln 15." in standing[f"{player}/scl"] and "0 % of negatives share" in standing[f"{player}/scl"]
    assert 1 < first[f"{player}/scl/positives_per_anchor"] < 15 and first[f"{player}/sentences/positives_per_anchor"] == 1


def test_a_run_leaves_all_its_files(workdir):
    for stage in ("damsm", "attngan"):
        said = runs.done(workdir, stage)
        assert said["steps"] == 2 and said["skipped"] == 0 and len(said["digest"]) == len(said["weights"]) == 64
        assert (workdir / stage / "weights.safetensors").is_file()
        assert (workdir / stage / "checkpoints" / "2").is_dir()
        assert list((workdir / stage / "tensorboard").iterdir())
        assert [line["step"] for line in logged(workdir, stage) if "images_per_s" in line] == [1, 2]
        assert json.loads((workdir / stage / "config.json").read_text())["seed"] == 0
    assert Image.open(workdir / "attngan" / "samples" / "0000002.png").width > 8 * 32
    assert not (workdir / "damsm" / "samples").exists()
    assert json.loads((workdir / "vocab.json").read_text())["<end>"] == 0
    assert not list(workdir.rglob("*.part"))


def test_metrics_name_players_and_terms(workdir):
    damsm, gan = logged(workdir, "damsm")[0], logged(workdir, "attngan")[0]
    assert {"model/loss", "model/scl", "model/w0_0", "model/s1_1", "model/grad_norm", "skipped"} <= set(damsm)
    assert {"disc/loss", "gen/loss", "gen/scl", "gen/kl", "gen/w0_1"} <= set(gan)
    assert not any(key.startswith("gen/") for key in damsm)


def test_every_number_has_its_protocol(workdir):
    for stage in ("damsm", "attngan"):
        found = json.loads((workdir / stage / "evals.json").read_text())
        numbers = {key.partition("/")[2] for key in runs.done(workdir, stage)["numbers"]}
        assert numbers and numbers <= set(found)
        for record in found.values():
            assert record["step"] == 2 and "protocol" in record
    told = json.loads((workdir / "attngan" / "evals.json").read_text())["r_precision"]["protocol"]
    assert "damsm" in json.dumps(told) and runs.done(workdir, "damsm")["weights"] in json.dumps(told)


def test_the_same_command_again_trains_nothing(workdir, caplog):
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file()}
    with caplog.at_level(logging.INFO, "supcon_jax"):
        code, out = runs.command(TINY, f"--workdir={workdir}")
    assert code == 0 and "done: damsm 0 s, attngan 0 s" in out and "matching/real_r_precision" in out
    for stage in ("damsm", "attngan"):
        assert f"{stage}: finished before (2 steps), skipped" in caplog.text
    assert before == {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "setting,said",
    [("scl=0.5", "damsm.args.scl: 1.0 -> 0.5"), ("seed=1", "seed: 0 -> 1"), ("damsm.steps=3", "damsm.steps: 2 -> 3"),
     ("attngan.args.z=16", "attngan.args.z: 8 -> 16"), ("data.args.records=128", "data.args.records: 256 -> 128")],
)  # fmt: skip
def test_another_config_in_the_same_folder_is_refused_with_the_difference(workdir, capsys, setting, said):
    code, _ = runs.command(TINY, f"--workdir={workdir}", f"--config.{setting}")
    line = capsys.readouterr().err.splitlines()[-1]
    assert code == 2 and line.startswith("error: ") and said in line and "use another --workdir" in line


@pytest.mark.parametrize("setting", ("every.log=5", "eval_batch=8", "data.threads=1", "keep.latest=5", "skip_limit=7"))
def test_what_changes_no_result_may_change(workdir, setting):
    assert runs.command(TINY, f"--workdir={workdir}", f"--config.{setting}")[0] == 0


@pytest.mark.slow
def test_eval_mode_tells_the_numbers_of_the_end_again(workdir):
    code, out = runs.command(TINY, f"--workdir={workdir}", "--mode=eval")
    assert code == 0
    for stage in ("damsm", "attngan"):
        for key, value in runs.done(workdir, stage)["numbers"].items():
            assert f"{stage} at step 2  {key}  {value:.6g}\n    metric=\"{key.partition('/')[2]}\" network=" in out


def test_print_config_prints_json_and_trains_nothing(capsys):
    with pytest.raises(SystemExit) as end:
        main.main([TINY, "--print_config", "--config.scl=0"])
    assert not end.value.code
    assert json.loads(capsys.readouterr().out)["attngan"]["args"]["scl"] == 0


def test_help_lists_the_flags(capsys):
    with pytest.raises(SystemExit) as end:
        main.main(["--help"])
    said = capsys.readouterr().out
    assert end.value.code == 0 and all(flag in said for flag in ("--config", "--workdir", "--mode", "--prompt", "--from"))


def test_sample_draws_every_caption_into_single_pictures_and_a_grid(workdir, tmp_path):
    (tmp_path / "captions.txt").write_text("a small red circle at the top left\n\n  a green ring \n")
    code, out = runs.command(
        "--mode=sample", f"--from={workdir}", f"--prompts={tmp_path / 'captions.txt'}", "--prompt=a large unicorn, blue square!",  # noqa: E501
        "--number=2", f"--workdir={tmp_path / 'out'}",
    )  # fmt: skip
    assert code == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [
        "000_00_a_large_unicorn_blue_square.png", "000_01_a_large_unicorn_blue_square.png",
        "001_00_a_small_red_circle_at_the_top_left.png", "001_01_a_small_red_circle_at_the_top_left.png",
        "002_00_a_green_ring.png", "002_01_a_green_ring.png", "grid.png",
    ]  # fmt: skip
    assert "unknown words left out of 'a large unicorn, blue square!': unicorn" in out
    assert "6 pictures of 32 px" in out and "grid.png" in out
    assert len({(tmp_path / "out" / name).read_bytes() for name in names}) == 7  # no two alike


def test_the_seed_of_sample_decides(workdir, tmp_path):
    def drawn(seed, name):
        code, _ = runs.command(
            "--mode=sample",
            f"--from={workdir}",
            "--prompt=a red circle",
            "--number=1",
            f"--seed={seed}",
            f"--workdir={tmp_path / name}",
        )
        assert code == 0
        return next((tmp_path / name).glob("000_*")).read_bytes()

    assert drawn(3, "a") == drawn(3, "b") != drawn(4, "c")


def test_sample_refuses_captions_without_a_known_word(workdir, tmp_path, capsys):
    code, _ = runs.command("--mode=sample", f"--from={workdir}", "--prompt=zebra unicorn", f"--workdir={tmp_path / 'out'}")
    line = capsys.readouterr().err.splitlines()[-1]
    assert code == 2 and line.startswith("error: 'zebra unicorn' has no word that these weights know") and "red" in line
    assert not list(tmp_path.glob("out/*.png"))


def test_a_stage_alone_takes_the_encoders_of_a_file(workdir, tmp_path, capsys):
    """--config=...:attngan with frozen.damsm=FILE; a file of another kind is refused by name."""
    wrong = workdir / "attngan" / "weights.safetensors"
    code, _ = runs.command(
        "--config=configs/shapes.py:attngan,tiny", f"--workdir={tmp_path / 'w'}", f"--config.attngan.frozen.damsm={wrong}"
    )
    line = capsys.readouterr().err.splitlines()[-1]
    assert code == 2 and str(wrong) in line and "'attngan', not 'damsm'" in line


def test_a_done_stage_with_a_damaged_newest_checkpoint_still_samples(workdir, tmp_path):
    """Weights stand alone: sampling needs no checkpoint."""
    shutil.copytree(workdir / "attngan", tmp_path / "attngan", ignore=shutil.ignore_patterns("checkpoints"))
    assert api.load(str(tmp_path)).generate(["a red circle"]).shape == (1, 32, 32, 3)


def test_the_digest_in_done_is_that_of_the_newest_checkpoint(workdir):
    files = [path for path in (workdir / "damsm" / "checkpoints" / "2" / "extra").iterdir() if "digest" in path.read_text()]
    extra = json.loads(files[0].read_text())
    assert extra["digest"] == runs.done(workdir, "damsm")["digest"]
    assert extra["data"]["position"] == 2 * 8


def test_importing_the_package_imports_nothing_heavy():
    import subprocess
    import sys

    code = (
        "import sys, supcon_jax, supcon_jax.config; print([m for m in ('jax', 'flax', 'grain', 'orbax') if m in sys.modules])"
    )
    root = pathlib.Path(__file__).parent.parent
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("words,flag,said", [
    ("simclr,seed", "student.nets.project.dim=5", "gives codes of 5 numbers, the teacher's have 8: use dim=0 for as many"),
    ("simclr,finetune", "finetune.args.layers=3", ", and the encoder's projection has 2 that can be kept: use at most as many"),
])  # fmt: skip
def test_what_a_later_stage_cannot_work_with_is_told_before_the_first(words, flag, said, tmp_path, capsys):
    code, _ = runs.command(f"--config=configs/image.py:{words},tiny", f"--workdir={tmp_path / 'w'}", f"--config.{flag}")
    assert code == 2 and capsys.readouterr().err.splitlines()[-1] == f"error: config.{flag}{' ' * (said[0] == 'g')}{said}"
    assert not (tmp_path / "w").exists()
