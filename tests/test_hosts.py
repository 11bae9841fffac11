"""Several processes: the roll call at the start, what they must agree on, and a real run of two on this machine."""

import concurrent.futures
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from supcon_jax import hosts, main
from supcon_jax.config import UserError
from supcon_jax.convert import tensors

ROOT = pathlib.Path(__file__).parent.parent


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def called(ids, processes, seconds):
    """What each of these processes hears at the roll call: {(place, id): its error, or None}; and how long it took."""
    address, began = ("127.0.0.1", free_port()), time.monotonic()

    def one(process):
        try:
            (hosts.call_roll if process == 0 else hosts.answer)(address, processes, process, seconds)
        except UserError as error:
            return str(error)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        found = list(pool.map(one, ids))
    return found, time.monotonic() - began


def test_all_present_go_at_once():
    found, took = called([3, 1, 0, 2], 4, 30)
    assert found == [None] * 4 and took < 10


def test_every_process_hears_who_is_missing():
    found, took = called([0, 2], 4, 1)
    assert found == ["processes 1, 3 are missing: 4 were to start within 1 s (--start_seconds)"] * 2
    assert 1 <= took < 6


def test_a_missing_first_process_is_named_with_its_address():
    (said,), _ = called([1], 2, 0.5)
    assert said.startswith("process 0 is missing: 2 were to start within 0.5 s (--start_seconds) at 127.0.0.1:")


def test_two_of_one_id_are_refused():
    found, _ = called([0, 1, 1], 3, 20)
    assert found == ["two processes have the id 1"] * 3


def test_a_stranger_on_the_port_is_passed_over():
    port = free_port()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        first = pool.submit(hosts.call_roll, ("127.0.0.1", port), 2, 0, 30)
        for text in (b"GET / HTTP/1.1\n", b"7\n", b"0\n", b"\xff\xfe\n", b""):
            for _ in range(100):
                try:
                    with socket.create_connection(("127.0.0.1", port), timeout=1) as line:
                        line.sendall(text)
                    break
                except ConnectionRefusedError:
                    time.sleep(0.05)
        hosts.answer(("127.0.0.1", port), 2, 1, 30)
        assert first.result(30) is None


TINY = "--config=configs/shapes.py:damsm,tiny"


@pytest.mark.parametrize(
    "flags,said",
    [
        (("--coordinator=127.0.0.1:{port}", "--processes=3", "--process=0", "--start_seconds=1"),
         "error: processes 1, 2 are missing: 3 were to start within 1 s (--start_seconds)"),
        (("--coordinator=127.0.0.1:{port}",), "error: --coordinator needs --processes=N and --process=I, or"),
        (("--coordinator=127.0.0.1:{port}", "--processes=2", "--process=2"), "error: --process=2: one of 0 to 1"),
        (("--coordinator=here", "--processes=2", "--process=1"), "error: --coordinator=here: must be HOST:PORT"),
        (("--coordinator=192.0.2.1:{port}", "--processes=2", "--process=0"), "error: process 0 cannot listen on 192.0.2.1:"),
        (("--coordinator=127.0.0.1:1", "--processes=two", "--process=0"), "error: argument --processes: invalid int"),
    ],
)  # fmt: skip
def test_a_bad_start_is_one_line_and_code_2(tmp_path, capsys, flags, said):
    flags = [flag.format(port=free_port()) for flag in flags]
    assert main.main([TINY, f"--workdir={tmp_path / 'w'}", *flags]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith(said) and len(lines) == 1
    assert not (tmp_path / "w").exists()


def test_the_environment_gives_the_flags(monkeypatch):
    for name, value in (("COORDINATOR_ADDRESS", "10.0.0.2:8476"), ("NUM_PROCESSES", "4"), ("PROCESS_ID", "3")):
        monkeypatch.setenv(f"JAX_{name}", value)
    flags, _ = main.parse([])
    assert (flags.coordinator, flags.processes, flags.process) == ("10.0.0.2:8476", 4, 3)


def test_alone_nothing_is_waited_for():
    hosts.agree({"config": "a"})
    hosts.wait("nobody")
    assert hosts.chief() and not hosts.several() and not hosts.preempted(1) and hosts.end(2) == 2


# ---- real processes

SETTINGS = {"classifier.steps": 5, "every.save": 2, "data.args.records": 64, "mesh.data": 2, "keep.latest": 1}
SMALL = "--config=configs/shapes.py:classifier,tiny"  # BatchNorm over the global batch, noise from the step's key


def start(workdir, cache, devices, *flags, **settings):
    """A process with so many devices of its own."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("XLA_", "JAX_", "NPROC"))}
    env |= {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    env |= {"JAX_NUM_CPU_DEVICES": str(devices), "NPROC": "16"}
    command = [sys.executable, "-m", "supcon_jax.main", SMALL, f"--workdir={workdir}", *flags]
    command += [f"--config.{key}={value}" for key, value in (SETTINGS | settings).items()]
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(*processes):
    """(exit codes, outputs)"""
    said = [process.communicate(timeout=600)[0] for process in processes]
    return [process.returncode for process in processes], said


def pair(workdir, cache, **settings):
    flags = f"--coordinator=127.0.0.1:{free_port()}", "--processes=2"
    others = settings.pop("second", {})
    return [start(workdir, cache, 1, *flags, f"--process={i}", **settings, **(others if i else {})) for i in range(2)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def lines(workdir):
    return [json.loads(line) for line in (workdir / "classifier" / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow  # three starts of the command line and their compilation
def test_two_processes_train_as_one(tmp_path, cache):
    codes, said = finish(*pair(tmp_path / "two", cache))
    assert codes == [0, 0], said
    assert "done: classifier" in said[0] and "classifier 5/5" in said[0]
    assert "classifier" not in said[1]  # one of them tells
    codes, one = finish(start(tmp_path / "one", cache, 2))
    assert codes == [0], one
    found, want = lines(tmp_path / "two"), lines(tmp_path / "one")
    assert [line["step"] for line in found] == [line["step"] for line in want]
    for mine, theirs in zip(found, want, strict=True):
        if "model/loss" in theirs:  # the last line holds the numbers of the end
            assert mine["model/loss"] == pytest.approx(theirs["model/loss"], rel=1e-4)
    a, b = (tensors.read(tmp_path / name / "classifier" / "weights.safetensors") for name in ("two", "one"))
    assert set(a) == set(b)
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-3, atol=1e-3 * max(np.abs(b[name]).max(), 1e-3), err_msg=name)
    done = json.loads((tmp_path / "two" / "classifier" / "DONE").read_text())
    (tmp_path / "two" / "classifier" / "DONE").unlink()
    codes, alone = finish(start(tmp_path / "two", cache, 1, **{"mesh.data": 1}))  # one process reads what two wrote
    assert codes == [0] and "resumed at step 5" in alone[0], alone
    assert json.loads((tmp_path / "two" / "classifier" / "DONE").read_text())["digest"] == done["digest"]


@pytest.mark.slow
def test_a_signal_to_one_stops_both_after_the_same_step(tmp_path, cache):
    processes = pair(tmp_path / "w", cache, **{"classifier.steps": 5000, "every.save": 5000})
    end = time.monotonic() + 500
    while not (tmp_path / "w" / "classifier" / "metrics.jsonl").exists() or len(lines(tmp_path / "w")) < 3:
        assert time.monotonic() < end and processes[0].poll() is None
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGTERM)
    codes, said = finish(*processes)
    assert codes == [1, 1], said
    steps = [re.search(r"stopped at step (\d+), saved; the same command goes on", text)[1] for text in said]
    assert steps[0] == steps[1] and lines(tmp_path / "w")[-1]["step"] == int(steps[0])
    assert [path.name for path in (tmp_path / "w" / "classifier" / "checkpoints").iterdir()] == [steps[0]]


@pytest.mark.slow
def test_processes_of_other_configs_end_with_the_reason(tmp_path, cache):
    codes, said = finish(*pair(tmp_path / "w", cache, second={"seed": 1}))
    assert codes == [2, 2], said
    assert all("error: process 1 has another config than process 0" in text for text in said)
    assert not (tmp_path / "w" / "classifier").exists()
