"""The search for the largest batch, on machines whose limit is known."""

import shlex

import pytest

from supcon_jax import config as configs
from supcon_jax.build import compile, fit
from supcon_jax.config import UserError

PLAIN = configs.plain(configs.load("configs/shapes.py:tiny"))


@pytest.mark.parametrize("unit, start, limit", [(8, 8, 1000), (8, 32, 1000), (8, 4096, 1000), (256, 32, 70000), (8, 8, 15), (6, 7, 100)])  # noqa: E501
def test_the_largest_batch_is_found_to_an_eighth(unit, start, limit):
    tried = []

    def fits(batch):
        tried.append(batch)
        return batch <= limit

    found = fit.largest(fits, unit, start)
    assert found <= limit and found % unit == 0
    assert limit < max(found * 9 / 8 + 1, found + unit)
    assert len(set(tried)) == len(tried) and all(batch % unit == 0 for batch in tried)  # a try costs minutes


def test_nothing_fits_and_only_growing():
    assert fit.largest(lambda batch: False, 8, 64) == 0
    assert fit.largest(lambda batch: batch < 64, 8, 64, grow_only=True) == 0


@pytest.fixture
def machine(monkeypatch):
    """Eight devices where damsm takes 20 rows by gather and 40 by ring, attngan 9 in any way, counted in GiB."""
    asked = []

    def one(config, name, target):
        batch, door = config[name]["batch"], config["mesh"]["door"]
        has = {"damsm": 40 if door == "ring" else 20, "attngan": 9}[name] * 8
        asked.append((name, door, batch))
        sums = [{"n": batch, "m": batch, "d": 4, "door": "gather" if door == "auto" else door, "why": "test"}]
        return {
            "stage": name, "topology": "v5e:2x4", "devices": 8, "batch": batch, "fits": batch <= has, "compile_seconds": 1,
            "needs": batch * 2**30, "has": has * 2**30, "memory": {"peak": batch * 2**30}, "collectives": {},
            "sums": sums if name == "damsm" else [], "modelled_seconds": {"compute": 1e-3, "links": 2e-3, "all": 3e-3},
        }  # fmt: skip

    class Eight:
        devices = range(8)

    monkeypatch.setattr(compile, "one", one)
    monkeypatch.setattr(fit, "find", lambda name: Eight)
    return asked


def test_the_search_ends_in_a_command_to_paste(machine, tmp_path):
    words = ["--config=configs/shapes.py:tiny", "--config.damsm.batch=8", "--config.data.root=my data"]
    *lines, last = fit.stages(PLAIN, "v5e:2x4", tmp_path, words)
    assert shlex.split(last) == [
        "python", "-m", "supcon_jax.main", "--config=configs/shapes.py:tiny", "--config.data.root=my data",
        "--config.damsm.batch=320", "--config.attngan.batch=72", "--config.mesh.door=ring", f"--workdir={tmp_path}",
    ]  # fmt: skip
    text = "\n".join(lines)
    assert "batch 160, mesh.door=auto: fits, needs 160.00 GiB of 160.00 GiB per device" in text
    assert "batch 320, mesh.door=ring: fits" in text and "modelled, not measured: 3 ms" in text
    assert (tmp_path / "compile_v5e_2x4.json").is_file()
    assert ("attngan", "ring", 72) not in machine  # no sums: no door to choose
    configs.override(configs.load("configs/shapes.py:tiny"), {"damsm.batch": "320", "mesh.door": "ring"})  # both are keys


def test_what_never_fits_is_told(machine, monkeypatch):
    monkeypatch.setattr(compile, "one", lambda *args: {"fits": False, "sums": [], "batch": 8, "needs": 2**31, "has": 2**30})
    with pytest.raises(UserError, match="damsm does not fit v5e:2x4 with one row for each device"):
        list(fit.stages(PLAIN, "v5e:2x4", None, []))
