"""The search for the largest batch, on machines whose limit is known."""

import importlib.util
import json
import pathlib
import shlex

import pytest

import runs
from supcon_jax import config as configs
from supcon_jax.build import compile, fit
from supcon_jax.config import UserError

PLAIN = configs.plain(configs.load("configs/shapes.py:tiny"))
GIB = 2**30


def test_the_grid_is_no_wider_than_an_eighth():
    found = fit.grid(8, 1000)
    assert found[:3] == [8, 16, 24] and found[-1] == 960 and all(batch % 8 == 0 for batch in found)
    assert all(b - a <= max(8, a / 8) for a, b in zip(found, found[1:]))
    assert fit.grid(256, 255) == []


@pytest.mark.parametrize("fixed", [0, 300])
@pytest.mark.parametrize("unit, begin, limit", [(8, 8, 1000), (8, 32, 1000), (8, 4096, 1000), (256, 512, 70000), (8, 8, 15)])
def test_the_largest_batch_is_found_in_few_tries(unit, begin, limit, fixed):
    """Memory grows with the batch from a fixed part, as it does for parameters and activations."""
    tried = []

    def attempt(batch):
        tried.append(batch)
        return {"batch": batch, "fits": batch <= limit, "needs": fixed + batch, "has": fixed + limit}

    batches = fit.grid(unit, 2**20)
    found = fit.largest(attempt, batches, begin)["batch"]
    assert found == max(batch for batch in batches if batch <= limit)
    assert len(set(tried)) == len(tried) <= 5  # a try costs minutes


@pytest.mark.parametrize("limit", [3, 8, 100, 999, 2**20])
def test_memory_that_says_nothing_costs_only_more_tries(limit):
    tried = []

    def attempt(batch):
        tried.append(batch)
        return {"batch": batch, "fits": batch <= limit, "needs": 7, "has": 7}

    batches = fit.grid(1, 2**20)
    assert fit.largest(attempt, batches, 1)["batch"] == max(batch for batch in batches if batch <= limit)
    assert len(tried) <= fit.AIMED + len(batches).bit_length()


def test_nothing_fits():
    assert fit.largest(lambda batch: {"batch": batch, "fits": False, "needs": 2, "has": 1}, [8, 16, 24], 16) is None
    assert fit.largest(None, [], 8) is None


@pytest.fixture
def machine(monkeypatch):
    """Eight devices of 160 GiB. damsm: a GiB for each row that is encoded at once, 1/32 for each row's codes, and keys of
    `keys` GiB a row where they are gathered. attngan: 2 GiB a row, and no sums."""
    asked, made = [], {"keys": 0.0, "records": 10**6}

    def one(config, name, target):
        batch, door = config[name]["batch"], config["mesh"]["door"]
        slices = config[name]["args"].get("slices", 1)
        gathered = made["keys"] * batch if door == "auto" else 0
        needs = {"damsm": batch / slices + batch / 32 + gathered, "attngan": 2 * batch}[name] * GIB
        asked.append((name, batch, door, slices))
        sums = [{"n": batch, "m": batch, "d": int(made["keys"] * GIB / 8), "width": 4, "why": "test"}]
        sums[0]["door"] = "gather" if door == "auto" else door
        return {
            "stage": name, "topology": "v5e:2x4", "devices": 8, "batch": batch, "fits": needs <= 160 * GIB, "run": False,
            "slices": slices, "records": made["records"], "compile_seconds": 1, "needs": needs, "has": 160 * GIB,
            "memory": {"peak": needs}, "collectives": {}, "sums": sums if name == "damsm" else [], "flop": 1e12,
            "gradients": GIB, "floor_seconds": {"products": 5e-3, "links": 1e-3},
            "modelled_seconds": {"compute": 1e-3, "links": 2e-3, "all": 3e-3},
        }  # fmt: skip

    class Eight:
        devices = range(8)

    monkeypatch.setattr(compile, "one", one)
    monkeypatch.setattr(fit, "find", lambda name: Eight)
    return asked, made


def searched(workdir=None, words=("--config=configs/shapes.py:tiny",)):
    *lines, last = fit.stages(PLAIN, "v5e:2x4", workdir, words)
    return "\n".join(lines), shlex.split(last)


def test_the_search_ends_in_a_command_to_paste(machine, tmp_path, caplog):
    asked, _ = machine
    words = [
        "--config=configs/shapes.py:tiny", "--config.damsm.batch=8", "--config.damsm.args.slices=2",
        "--config.data.root=my data",
    ]  # fmt: skip
    with caplog.at_level("INFO", "supcon_jax"):
        text, command = searched(tmp_path, words)
    assert command == [
        "python", "-m", "supcon_jax.main", "--config=configs/shapes.py:tiny", "--config.data.root=my data",
        "--config.damsm.batch=1664", "--config.damsm.args.slices=16", "--config.attngan.batch=80",
        "--config.mesh.door=auto", f"--workdir={tmp_path}",
    ]  # fmt: skip
    assert "batch 1664 in 16 slices over 8 devices" in text and "without slices: batch 144, needs 148.50 GiB of 160" in text
    damsm, attngan = ([one for one in asked if one[0] == name] for name in ("damsm", "attngan"))
    assert len(damsm) <= 8 and len(attngan) <= 4 and len(set(asked)) == len(asked)
    assert f"found with {len(damsm)} compilations in {len(damsm)} s" in text
    assert "modelled, not measured: 3 ms a step for the sums alone" in text
    assert "  batch 144, door auto: fits, needs 148.50 GiB of 160.00 GiB per device (1 s)" in caplog.messages  # as it comes
    assert not [one for one in asked if one[2] == "ring"]  # its keys take nothing worth a compilation
    said = json.loads((tmp_path / "compile_v5e_2x4.json").read_text())["damsm"]
    assert said["compilations"] == len(damsm) == len(said["tries"]) and said["batch"] == 1664
    settings = {"damsm.batch": "1664", "damsm.args.slices": "16", "mesh.door": "ring"}
    configs.override(configs.load("configs/shapes.py:tiny"), settings)  # all of them are keys


def test_a_ring_is_taken_where_gathered_keys_fill_the_memory(machine):
    asked, made = machine
    made["keys"] = 8.0
    text, command = searched()
    assert "--config.mesh.door=ring" in command
    assert ("damsm", 16, "auto", 1) in asked and ("damsm", 144, "ring", 1) in asked
    assert not [one for one in asked if one[3] > 1 and one[2] == "auto"]  # slices come on top of it


def test_no_batch_is_larger_than_the_data_and_slices_are_as_few_as_can_be(machine):
    asked, made = machine
    made["records"] = 700
    text, command = searched()
    assert "--config.damsm.batch=640" in command and "--config.damsm.args.slices=8" in command
    made["records"] = 100
    asked.clear()
    text, command = searched()
    assert "--config.damsm.batch=96" in command and "--config.damsm.args.slices=1" in command
    assert "the data has no more records" in text and not [one for one in asked if one[3] > 1]


def test_what_never_fits_is_told(machine, monkeypatch):
    said = {"fits": False, "sums": [], "batch": 8, "needs": 2**31, "has": GIB, "records": 99, "slices": 1, "compile_seconds": 1}
    monkeypatch.setattr(compile, "one", lambda *args: dict(said))
    with pytest.raises(UserError, match="damsm does not fit v5e:2x4 with one row for each device"):
        list(fit.stages(PLAIN, "v5e:2x4", None, []))


def test_a_failure_of_the_compiler_ends_the_search(machine, monkeypatch, capsys):
    """It is never taken for a batch that is too large."""
    asked, _ = machine
    one = compile.one

    def breaks(config, name, target):
        if len(asked) == 2:
            raise UserError("the compiler of v5e:2x4 failed, for another reason than memory: INTERNAL: Mosaic failed")
        return one(config, name, target)

    monkeypatch.setattr(compile, "one", breaks)
    code, out = runs.command("--config=configs/shapes.py:tiny", "--mode=compile", "--topology=v5e:2x4", "--fit")
    assert code == 2 and "supcon_jax.main" not in out and len(asked) == 2
    assert "for another reason than memory: INTERNAL: Mosaic failed" in capsys.readouterr().err.splitlines()[-1]


def test_the_benchmark_writes_each_line_once(machine, tmp_path, monkeypatch, capsys):
    asked, _ = machine
    spec = importlib.util.spec_from_file_location("benchmark", pathlib.Path(__file__).parents[2] / "benchmarks" / "fit.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    monkeypatch.setattr(benchmark, "find", fit.find)
    words = ["--only", "shapes:damsm", "shapes:attngan", f"--out={tmp_path / 'fit.json'}"]
    assert benchmark.main(words) == 0 and [one[:2] for one in asked] == [("damsm", 32), ("attngan", 16)]
    assert benchmark.main(words) == 0 and len(asked) == 2  # nothing is compiled again
    assert benchmark.main([*words, "--search"]) == 0
    found = json.loads((tmp_path / "fit.json").read_text())
    damsm, attngan = (found[f"shapes:{name} v5e:2x4"] for name in ("damsm", "attngan"))
    assert (damsm["batch"], damsm["needs"], attngan["most"]["batch"], attngan["most"]["slices"]) == (32, 33 * GIB, 80, 1)
    assert damsm["most"]["slices"] > 1 and damsm["most"]["batch"] > 152
    text = (tmp_path / "fit.md").read_text()
    assert "| shapes:attngan v5e:2x4 | 16 | 8 | 32.00 | 160.00 GiB | 80 | 160.00 |" in text
    assert f"{damsm['most']['batch']} in {damsm['most']['slices']} slices" in text
    monkeypatch.setattr(benchmark, "find", lambda name: (_ for _ in ()).throw(UserError("no such slice")))
    assert benchmark.main(words) == 2 and "error: no such slice" in capsys.readouterr().err
