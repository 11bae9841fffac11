"""The command that a user types, as the learning gates run it: one device, as many threads as there are cores."""

import json
import os
import subprocess
import sys


def environment():
    """That of the tests without their simulated devices and the 64 threads that these need, which wait for each other where
    there are two cores: four times as long. What the tests can import, the command can."""
    kept = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "NPROC")}
    return kept | {"PYTHONPATH": os.pathsep.join(sys.path)}


def answer(*argv):
    """What `python ARGV` prints."""
    done = subprocess.run([sys.executable, *argv], capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def run(folder, config, stage, *settings):
    """The last numbers of a stage."""
    answer("-m", "supcon_jax.main", f"--config={config}", f"--workdir={folder}", *settings)
    return json.loads((folder / stage / "DONE").read_text())["numbers"]
