"""Real processes, really killed: the same command then ends in the same bits as a run that nobody disturbed."""

import json
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from gates.command import environment

ROOT = pathlib.Path(__file__).parent.parent.parent
STAGES = ("damsm", "attngan")
pytestmark = pytest.mark.slow
LIMIT = 300  # seconds that any one run may take on a busy machine


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One compilation cache for all runs of this page."""
    return tmp_path_factory.mktemp("cache")


def start(workdir, cache):
    """Six steps in each stage, saved every second one; no evaluations; one device, little optimisation, quick to compile."""
    env = environment() | {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(cache)}
    env["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    settings = {
        "every.save": 2, "every.sample": 0, "damsm.steps": 6, "attngan.steps": 6, "damsm.nets.text.dropout": 0.5,
        "evals.matching.fakes": 4, "evals.matching.reals": 16, "evals.attributes.fakes": 4, "evals.attributes.reals": 4,
    }  # fmt: skip
    command = [sys.executable, "-m", "supcon_jax.main", "--config=configs/shapes.py:tiny", f"--workdir={workdir}"]
    command += [f"--config.{key}={value}" for key, value in settings.items()]
    log = pathlib.Path(f"{workdir}.log").open("ab")
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log, start_new_session=True)


def said(workdir):
    return pathlib.Path(f"{workdir}.log").read_text()


def finish(workdir, cache):
    process = start(workdir, cache)
    assert process.wait(LIMIT) == 0, said(workdir)
    return {stage: json.loads((workdir / stage / "DONE").read_text()) for stage in STAGES}


def killed(workdir, cache, when, kind=signal.SIGKILL):
    """Starts a run and sends it a signal at the moment that `when(workdir)` turns true; returns its exit code."""
    process = start(workdir, cache)
    end = time.monotonic() + LIMIT
    while not when(workdir):
        assert process.poll() is None, f"ended before its moment: {said(workdir)}"
        assert time.monotonic() < end, said(workdir)
        time.sleep(0.002)
    process.send_signal(kind)
    return process.wait(LIMIT)


def reached(stage, step):
    """Whether metrics.jsonl tells of this step."""

    def when(workdir):
        path = workdir / stage / "metrics.jsonl"
        return path.exists() and f'"step": {step},' in path.read_text()

    return when


def between(workdir):
    return (workdir / "damsm" / "DONE").exists()


def steps(workdir, stage):
    return [json.loads(line)["step"] for line in (workdir / stage / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cache):
    """What an unbroken run says in its DONE files; it also fills the cache."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    return finish(workdir, cache)


MOMENTS = {
    "in stage 1, before its first save": reached("damsm", 1),
    "in stage 1": reached("damsm", 3),
    "between the stages": between,
    "in stage 2": reached("attngan", 3),
}


def test_a_run_killed_again_and_again_ends_in_the_same_bits(tmp_path, cache, whole):
    """The same command, killed at one moment after another, then left alone."""
    workdir = tmp_path / "run"
    for moment, when in MOMENTS.items():
        assert killed(workdir, cache, when) == -signal.SIGKILL, moment
        assert (workdir / "damsm" / "DONE").exists() == (moment in ("between the stages", "in stage 2")), moment
        assert moment != "between the stages" or not list((workdir / "attngan").glob("checkpoints/*"))
    assert not (workdir / "attngan" / "DONE").exists()
    found = finish(workdir, cache)
    for stage in STAGES:
        for what in ("digest", "weights", "config", "steps", "skipped", "numbers"):
            assert found[stage][what] == whole[stage][what], f"{stage}: {what}"
        assert sorted(set(steps(workdir, stage))) == list(range(1, 7))  # nothing lost, nothing left over
    assert said(workdir).count("damsm: finished before (6 steps), skipped") == 2


def test_sigterm_saves_at_once_and_the_same_command_goes_on(tmp_path, cache, whole):
    workdir = tmp_path / "run"
    assert killed(workdir, cache, reached("attngan", 2), signal.SIGTERM) != 0
    lines = [line for line in said(workdir).splitlines() if "saved; the same command goes on from here" in line]
    assert len(lines) == 1 and "Traceback" not in said(workdir)
    stopped = int(lines[0].split("step ")[1].split(",")[0])
    assert (workdir / "attngan" / "checkpoints" / str(stopped)).is_dir() and steps(workdir, "attngan")[-1] == stopped
    found = finish(workdir, cache)
    assert f"attngan: resumed at step {stopped}" in said(workdir) or stopped == 6
    assert {stage: found[stage]["digest"] for stage in STAGES} == {stage: whole[stage]["digest"] for stage in STAGES}


def test_a_restart_compiles_nothing_again(tmp_path, cache, whole):
    """With a warm cache no program of a step is added until the first step of a restart is reached; the time is told, not
    judged. Small programs enter the cache only where a busy machine takes long for them."""

    def programs():
        return {path.name for path in cache.rglob("*-cache") if path.stat().st_size > 2**16}

    names = programs()
    assert names
    workdir = tmp_path / "run"
    began = time.monotonic()
    killed(workdir, cache, reached("damsm", 1))
    print(f"\nfrom the command to step 1 with a warm cache: {time.monotonic() - began:.1f} s")
    assert programs() == names
