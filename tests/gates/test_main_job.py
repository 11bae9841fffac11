"""The main job learns what captions say, and its broken twin does not: same steps, same scorer."""

import json
import subprocess
import sys

import pytest


def run(folder, *settings):
    """The command a user types, on one device; returns the last numbers of the GAN stage."""
    command = [sys.executable, "-m", "supcon_jax.main", f"--workdir={folder}", *settings]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads((folder / "attngan" / "DONE").read_text())["numbers"]


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")


@pytest.mark.slow
def test_pictures_show_what_captions_say_and_the_twin_does_not(tmp_path):
    """The preset itself, and the same steps and scorer on captions and labels shuffled against the pictures."""
    ours = run(tmp_path / "ours", "--config=configs/shapes.py")
    twin = run(tmp_path / "twin", "--config=configs/shapes.py:twin")
    assert ours["attributes/real_attribute_colour"] >= 99 and ours["attributes/real_attribute_shape"] >= 95
    assert ours["attributes/attribute_colour"] >= 85
    assert twin["attributes/attribute_colour"] < 25
    assert ours["attributes/attribute_row"] >= 90 and twin["attributes/attribute_row"] < 50
    assert ours["matching/r_precision"] >= 50 and twin["matching/r_precision"] < 5


@pytest.mark.long
def test_half_an_hour_tells_shapes_apart(tmp_path):
    numbers = run(tmp_path, "--config=configs/shapes.py:long")
    assert numbers["attributes/attribute_colour"] >= 97
    assert numbers["attributes/attribute_shape"] >= 60
