"""Real processes, really killed: the same command then ends in the same bits as a run that nobody disturbed.

Two stages of pictures alone, with a queue and a teacher, in the slow tests; the main job's, which take five minutes to compile
and run, by hand.
"""

import dataclasses
import json
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from gates.command import environment

ROOT = pathlib.Path(__file__).parent.parent.parent
LIMIT = 300  # seconds that any one run may take on a busy machine


@dataclasses.dataclass(frozen=True)
class Job:
    """A config of two stages; steps of each, of which each `save`-th is saved: enough of them to be met on the way."""

    config: str
    stages: tuple[str, str]
    steps: int
    save: int
    settings: dict
    cache: pathlib.Path = None


JOBS = {
    "pictures": Job("image.py:moco_v2,linear,tiny", ("moco_v2", "linear"), 240, 80, {}),
    "main job": Job(
        "shapes.py:tiny", ("damsm", "attngan"), 6, 2,
        {"every.sample": 0, "damsm.nets.text.dropout": 0.5, "evals.matching.fakes": 4, "evals.matching.reals": 16,
         "evals.attributes.fakes": 4, "evals.attributes.reals": 4},
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=[
    pytest.param("pictures", marks=pytest.mark.slow), pytest.param("main job", marks=pytest.mark.long),
])  # fmt: skip
def job(request, tmp_path_factory):
    """With one compilation cache for all its runs."""
    return dataclasses.replace(JOBS[request.param], cache=tmp_path_factory.mktemp("cache"))


def start(workdir, job):
    """One device, little optimisation, quick to compile."""
    env = environment() | {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(job.cache)}
    env["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    settings = job.settings | {"every.save": job.save, **{f"{stage}.steps": job.steps for stage in job.stages}}
    command = [sys.executable, "-m", "supcon_jax.main", f"--config=configs/{job.config}", f"--workdir={workdir}"]
    command += [f"--config.{key}={value}" for key, value in settings.items()]
    log = pathlib.Path(f"{workdir}.log").open("ab")
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log, start_new_session=True)


def said(workdir):
    return pathlib.Path(f"{workdir}.log").read_text()


def finish(workdir, job):
    process = start(workdir, job)
    assert process.wait(LIMIT) == 0, said(workdir)
    return {stage: json.loads((workdir / stage / "DONE").read_text()) for stage in job.stages}


def killed(workdir, job, when, kind=signal.SIGKILL):
    """Starts a run and sends it a signal at the moment that `when(workdir)` turns true; returns its exit code."""
    process = start(workdir, job)
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


def finished(stage):
    return lambda workdir: (workdir / stage / "DONE").exists()


def steps(workdir, stage):
    return [json.loads(line)["step"] for line in (workdir / stage / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, job):
    """What an unbroken run says in its DONE files; it also fills the cache."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    return finish(workdir, job)


def test_a_run_killed_again_and_again_ends_in_the_same_bits(tmp_path, job, whole):
    """The same command, killed at one moment after another, then left alone."""
    workdir, (first, second), halfway = tmp_path / "run", job.stages, job.steps // 2
    moments = {  # and whether the first stage is finished then
        "in stage 1, before its first save": (reached(first, 1), False),
        "in stage 1": (reached(first, halfway), False),
        "between the stages": (finished(first), True),
        "in stage 2": (reached(second, halfway), True),
    }
    for moment, (when, done) in moments.items():
        assert killed(workdir, job, when) == -signal.SIGKILL, moment
        assert finished(first)(workdir) == done, moment
        assert moment != "between the stages" or not list((workdir / second).glob("checkpoints/*"))
    assert not finished(second)(workdir)
    found = finish(workdir, job)
    for stage in job.stages:
        for what in ("digest", "weights", "config", "steps", "skipped", "numbers"):
            assert found[stage][what] == whole[stage][what], f"{stage}: {what}"
        assert sorted(set(steps(workdir, stage))) == list(range(1, job.steps + 1))  # nothing lost, nothing left over
    assert said(workdir).count(f"{first}: finished before ({job.steps} steps), skipped") == 2


@pytest.mark.long  # a signal to one of two processes is in test_hosts.py, one to a small loop in train/test_loop.py
def test_sigterm_saves_at_once_and_the_same_command_goes_on(tmp_path, job, whole):
    workdir, (_, second) = tmp_path / "run", job.stages
    assert killed(workdir, job, reached(second, job.steps // 3), signal.SIGTERM) != 0
    lines = [line for line in said(workdir).splitlines() if "saved; the same command goes on from here" in line]
    assert len(lines) == 1 and "Traceback" not in said(workdir)
    stopped = int(lines[0].split("step ")[1].split(",")[0])
    assert (workdir / second / "checkpoints" / str(stopped)).is_dir() and steps(workdir, second)[-1] == stopped
    found = finish(workdir, job)
    assert f"{second}: resumed at step {stopped}" in said(workdir) or stopped == job.steps
    assert {stage: found[stage]["digest"] for stage in job.stages} == {stage: whole[stage]["digest"] for stage in job.stages}


def test_a_restart_compiles_nothing_again(tmp_path, job, whole):
    """With a warm cache no program of a step is added until the first step of a restart is reached; the time is told, not
    judged. Small programs enter the cache only where a busy machine takes long for them."""

    def programs():
        return {path.name for path in job.cache.rglob("*-cache") if path.stat().st_size > 2**16}

    names = programs()
    assert names
    workdir = tmp_path / "run"
    began = time.monotonic()
    killed(workdir, job, reached(job.stages[0], 1))
    print(f"\nfrom the command to step 1 with a warm cache: {time.monotonic() - began:.1f} s")
    assert programs() == names
