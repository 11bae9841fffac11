"""The judge of birds: two steps of its tiny preset, and what its weights then measure of pictures in a folder."""

import json

import numpy as np
import pytest

import runs
from build.test_fakes import save
from data.layouts import BIRDS, cub_layout
from supcon_jax.convert import tensors


@pytest.mark.slow  # it compiles a training step
def test_trained_recorded_and_used(tmp_path, capsys):
    root, work = cub_layout(tmp_path / "cub"), tmp_path / "w"
    code, out = runs.command("--config=configs/cub.py:classifier,tiny", f"--workdir={work}", f"--config.data.root={root}",
                             "--config.mesh.data=1")  # fmt: skip
    assert code == 0, capsys.readouterr().err
    said, file = runs.done(work, "classifier"), work / "classifier" / "weights.safetensors"
    assert said["weights"] == tensors.sha256(file) and 0 <= said["numbers"]["labels/label_accuracy"] <= 100
    told = json.loads((work / "classifier" / "evals.json").read_text())["label_accuracy"]["protocol"]
    assert told["real_origin"] == "cub/official_test" and told["real_number"] == 8 and told["subsets"] == "4 classes"
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    lines = [{"captions": ["this small red bird"], "labels": [BIRDS[i % 4]]} for i in range(8)]
    folder = save(tmp_path / "fakes", images, lines)
    code, out = runs.command(
        "--config=configs/cub.py", "--mode=eval", f"--fakes={folder}", f"--config.data.root={root}",
        "--config.evals.generation.networks=('cub_ours',)", f"--config.networks.cub_ours={file}", "--config.data.size=32",
        "--config.evals.generation.fakes=8", "--config.eval_batch=8",
    )  # fmt: skip
    assert code == 0, capsys.readouterr().err
    assert "fakes  generation/is_cub_ours  " in out and "fakes  generation/label_accuracy_cub_ours  " in out
    assert said["weights"] in out and "fid_cub_ours" not in out
