"""The benchmark of the unimodal methods runs, ours alone, and says what it measured."""

import importlib.util
import json
import pathlib

import pytest

SPEC = importlib.util.spec_from_file_location("unimodal", pathlib.Path(__file__).parents[1] / "benchmarks" / "unimodal.py")
unimodal = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(unimodal)


@pytest.mark.slow  # compiles a step and views of its own
def test_ours_alone_is_measured_and_written(tmp_path):
    out = tmp_path / "ssl.json"
    drawn = unimodal.towers.views
    words = ["--net", "conv", "--methods", "simclr", "--views", "simclr:16:4", "--rounds=2", "--steps=1", "--batch=8"]
    unimodal.main([*words, f"--out={out}"])
    assert unimodal.towers.views is drawn
    step, views = json.loads(out.read_text())["rows"]
    assert step["what"] == "simclr" and step["peer"] is None and len(step["ours_ms"]) == 2 and step["ours_per_s"] > 0
    assert views["what"] == "views simclr, 16 px" and "ours_of_peer" not in views
    text = out.with_suffix(".md").read_text()
    assert "--peer-python" in text and "peer, 1/s" not in text


def test_medians_and_ratios_are_those_of_the_rounds():
    found = unimodal.row({"ours": [1.0, 2.0, 4.0], "peer": [2.0, 2.0, 2.0]}, 8, what="x")
    assert found["ours_per_s"] == 4.0 and found["peer_per_s"] == 4.0 and found["ours_range"] == "2 to 8"
    assert found["ours_of_peer"] == 1.0


@pytest.mark.parametrize("name", unimodal.METHODS)
def test_every_method_has_its_config(name):
    plain, of = unimodal.section_of(name, "resnet18", 4)
    assert plain[of]["batch"] == 4 and plain[of]["args"]["size"] == 32 and set(plain[of]["optim"]) == {"model"}
    assert "recipe" not in plain[of]["args"] or plain[of]["args"]["recipe"] != "swav"
