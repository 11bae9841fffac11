"""Running a stage: a finished one is only read, an unfinished one is trained and finished."""

import json
import types

import pytest

from supcon_jax import config as configs
from supcon_jax.build import run, stage
from supcon_jax.config import UserError

PLAIN = configs.plain(configs.load("configs/shapes.py:damsm,tiny"))


def write(folder, name, config=PLAIN):
    folder.mkdir(parents=True, exist_ok=True)
    record = {"config": configs.digest(stage.depends(config, "damsm")), "steps": 2, "numbers": {"matching/r1": 0.5}}
    (folder / name).write_text(json.dumps(record))
    (folder / "config.json").write_text(json.dumps(stage.depends(config, "damsm")))


@pytest.fixture
def trained(monkeypatch):
    """Stands for the build and the loop; tells what was built and what was finished."""
    calls = []

    def build(config, name, workdir):
        calls.append(("build", name, workdir))
        return types.SimpleNamespace(run="the run", finish=lambda state, values: calls.append(("finish", state, values)))

    monkeypatch.setattr(stage, "build", build)
    monkeypatch.setattr(run.loop, "train", lambda given: (f"state of {given}", {"matching/r1": 0.25}))
    return calls


def test_a_finished_stage_is_only_read(tmp_path, trained):
    write(tmp_path / "damsm", "DONE")
    assert run.train_stage(PLAIN, "damsm", tmp_path) == {"matching/r1": 0.5}
    assert trained == []


@pytest.mark.parametrize("name", ("DONE.part", "done", "weights.safetensors"))
def test_half_a_record_is_no_end(tmp_path, trained, name):
    write(tmp_path / "damsm", name)
    assert run.train_stage(PLAIN, "damsm", tmp_path) == {"matching/r1": 0.25}
    assert trained == [("build", "damsm", tmp_path), ("finish", "state of the run", {"matching/r1": 0.25})]


def test_a_stage_finished_with_another_config_is_neither_read_nor_trained(tmp_path, trained):
    write(tmp_path / "damsm", "DONE")
    changed = configs.plain(configs.override(configs.load("configs/shapes.py:damsm,tiny"), {"damsm.args.scl": "0"}))
    with pytest.raises(UserError, match=r"damsm\.args\.scl: 1\.0 -> 0\.0.*use another --workdir"):
        run.train_stage(changed, "damsm", tmp_path)
    assert trained == []
