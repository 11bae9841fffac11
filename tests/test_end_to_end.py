"""Tiny presets of every data set run end to end on generated files, twice, and once more with another config."""

import json
import logging
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

import runs
from data.layouts import all_layouts
from supcon_jax import config
from supcon_jax.data import fetch


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    return all_layouts(tmp_path_factory.mktemp("layouts"))


# config, which files, more flags
RUNS = {
    "cub": ("configs/cub.py:tiny", "cub", ()),
    "coco": ("configs/coco.py:tiny", "coco", ()),
    "cub, one stage": ("configs/cub.py:ssagan,tiny", "cub", ()),
    "shapes, flow": ("configs/shapes.py:flow,tiny", "shapes", ()),
    "folder, one label, label head": ("configs/folder.py:tiny", "folder", ("--config.term=label_head",)),
    "folder, no labels": ("configs/folder.py:tiny", "folder none", ()),
    "folder, several labels": ("configs/folder.py:multi,tiny", "folder multi", ()),
    "emoji": ("configs/emoji.py:tiny", "emoji", ("--config.data.args.uses=1", "--config.data.args.test=2")),
}
LONG = ("cub", "cub, one stage", "folder, one label, label head", "folder, no labels", "folder, several labels", "emoji")


def check_run(path, root, folder, caplog, capsys, *more):
    """Both stages, their files, the same command again, and another config in the same folder."""
    stages = config.load(path).stages
    argv = (f"--config={path}", f"--workdir={folder}", f"--config.data.root={root}", "--config.mesh.data=1", *more)
    code, _ = runs.command(*argv)
    assert code == 0, capsys.readouterr().err
    for part in stages:
        said = runs.done(folder, part)
        assert said["steps"] == 2 and said["skipped"] == 0
        records = json.loads((folder / part / "evals.json").read_text())
        assert {key.partition("/")[2] for key in said["numbers"]} <= set(records)
        assert all("protocol" in record for record in records.values())
        lines = [json.loads(line) for line in (folder / part / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines if "skipped" in line] == [1, 2]
        assert all(isinstance(value, int | float) for line in lines for value in line.values())  # nothing but numbers
    assert Image.open(folder / stages[-1] / "samples" / "0000002.png").size[0] >= 8 * 32
    caplog.clear()
    with caplog.at_level(logging.INFO, "supcon_jax"):
        assert runs.command(*argv)[0] == 0
    assert caplog.text.count("finished before (2 steps), skipped") == 2
    capsys.readouterr()
    assert runs.command(*argv, "--config.scl=0.5")[0] == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ") and "damsm.args.scl: 1.0 -> 0.5" in line


# each compiles programs of its own; the shapes' two stages are run in the plain tests, several labels in coco's
@pytest.mark.parametrize("case", [
    pytest.param(case, marks=pytest.mark.long if case in LONG else pytest.mark.slow) for case in RUNS
])  # fmt: skip
def test_two_steps_of_both_stages_end_to_end(case, roots, tmp_path, caplog, capsys):
    path, root, more = RUNS[case]
    check_run(path, roots[root], tmp_path / "w", caplog, capsys, *more)


@pytest.mark.slow
@pytest.mark.parametrize("words,stages", [("simclr,linear", ("simclr", "linear")), ("pcl", ("pcl",))])
def test_two_steps_of_pictures_alone(words, stages, tmp_path, caplog, capsys):
    """A method and its second stage; one that clusters before its first step. Twice: the second time all is there."""
    argv = (f"--config=configs/image.py:{words},tiny", f"--workdir={tmp_path / 'w'}", "--config.mesh.data=1")
    with caplog.at_level(logging.INFO, "supcon_jax"):
        assert runs.command(*argv)[0] == 0, capsys.readouterr().err
    assert caplog.text.count("pcl: refresh before step 0") == (words == "pcl")
    for part in stages:
        said = runs.done(tmp_path / "w", part)
        assert said["steps"] == 2 and said["skipped"] == 0 and any(key.startswith("knn/") for key in said["numbers"])
        lines = [json.loads(line) for line in (tmp_path / "w" / part / "metrics.jsonl").read_text().splitlines()]
        losses = [line["model/loss"] for line in lines if "model/loss" in line]
        assert len(losses) == 2 and all(isinstance(value, float) for value in losses)
        assert all("probe/right_percent" in line for line in lines if "model/loss" in line) == (part != "linear")
    caplog.clear()
    with caplog.at_level(logging.INFO, "supcon_jax"):
        assert runs.command(*argv)[0] == 0
    assert caplog.text.count("finished before (2 steps), skipped") == len(stages)


@pytest.mark.slow
def test_a_student_of_a_fine_tuned_encoders_answers(tmp_path, capsys):
    """Two steps of pretraining, of fine-tuning from the projection's first layer, and of distillation. Weights alone are
    evaluated as the run was."""
    argv = ("--config=configs/image.py:simclr,finetune,distil,tiny", f"--workdir={tmp_path / 'w'}", "--config.mesh.data=1",
            "--config.finetune.args.layers=1", "--config.distil.args.alpha=0.5", "--config.data.label_share=0.5")  # fmt: skip
    assert runs.command(*argv)[0] == 0, capsys.readouterr().err
    said = {name: runs.done(tmp_path / "w", name)["numbers"] for name in ("simclr", "finetune", "distil")}
    for name in ("finetune", "distil"):
        assert {"knn/knn_h_top1", "spectrum/spectrum_h_rank", "labels/label_accuracy"} <= set(said[name])
    lines = [json.loads(line) for line in (tmp_path / "w" / "distil" / "metrics.jsonl").read_text().splitlines()]
    assert all({"model/agree_percent", "model/right_percent"} <= set(line) for line in lines if "model/loss" in line)
    for folder in (tmp_path / "w").glob("*/checkpoints"):
        shutil.rmtree(folder)
    code, out = runs.command(*argv, "--mode=eval")
    assert code == 0, capsys.readouterr().err
    for name, numbers in said.items():
        for key, value in numbers.items():
            found = [line for line in out.splitlines() if line.startswith(f"{name} at step 2  {key}  ")]
            if (name, key) == ("simclr", "labels/label_accuracy"):  # of the online probe, which no weights hold
                assert not found
            else:
                assert float(found[0].split()[-1]) == pytest.approx(value, rel=1e-4)


@pytest.mark.data
def test_two_steps_on_the_real_emoji(tmp_path, caplog, capsys):
    root = pathlib.Path(fetch.home()) / "emoji"
    if not root.is_dir():
        pytest.skip("python -m supcon_jax.data.fetch emoji")
    check_run("configs/emoji.py:tiny", root, tmp_path / "w", caplog, capsys)


@pytest.mark.slow
def test_a_folder_of_classes_with_every_evaluation(tmp_path, capsys):
    """Pictures of several shapes below train/CLASS and test/CLASS, few of them labelled for the last stage."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for level, name in enumerate(("bright", "dark", "grey")):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                picture = rng.integers(0, 60, (40 + 8 * (i % 3), 56, 3)) + 80 * level
                Image.fromarray(picture.astype(np.uint8)).save(tmp_path / split / name / f"{i}.png")
    words = "simclr,folder,tiny,linear,ten_percent,fewshot,clusters,robustness"
    small = {"shots": "(1,)", "sweep": "1", "steps": "5", "kinds": "('fog',)", "eps": "(2.0,)", "pgd_steps": "2", "reals": "8"}
    sections = {"fewshot": ("shots",), "robustness": ("sweep", "steps", "kinds", "eps", "pgd_steps", "reals")}
    settings = [f"--config.evals.{name}.{key}={small[key]}" for name, keys in sections.items() for key in keys]
    argv = (f"--config=configs/image.py:{words}", f"--workdir={tmp_path / 'w'}", f"--config.data.root={tmp_path}", *settings)
    assert runs.command(*argv, "--config.mesh.data=1")[0] == 0, capsys.readouterr().err
    numbers = runs.done(tmp_path / "w", "simclr")["numbers"]
    for key in ("fewshot/fewshot_h_1", "clusters/clusters_h_nmi", "robustness/corruption_fog", "knn/knn_h_top1"):
        assert any(name.startswith(key) for name in numbers), f"{key}: {sorted(numbers)}"
    assert any(name.startswith("robustness/adversarial") for name in numbers)
    assert "labels/label_accuracy" in runs.done(tmp_path / "w", "linear")["numbers"]
