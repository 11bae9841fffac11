"""Tiny runs through the command line in this process, each made once and shared by all tests that look at it."""

import contextlib
import fcntl
import functools
import io
import json
import os
import pathlib

import jax

from supcon_jax import main

SHARED = []  # the folder that all processes of one run of the tests share, from conftest


@contextlib.contextmanager
def quick_to_compile():
    """Little optimisation: the programs of tiny runs take longer to compile than to run."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


def command(*argv):
    """main in this process: (exit code, stdout)."""
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(jax.config.jax_compilation_cache_dir))
    out = io.StringIO()
    with quick_to_compile(), contextlib.redirect_stdout(out):
        code = main.main([str(word) for word in argv])
    return code, out.getvalue()


@functools.cache
def shapes() -> pathlib.Path:
    """Both stages of configs/shapes.py:tiny, on one device: eight simulated ones may wait for each other for ever.

    One process of the tests trains, the others wait for it: nobody writes to the folder afterwards.
    """
    folder = SHARED[0] / "shapes"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            code, _ = command("--config=configs/shapes.py:tiny", f"--workdir={folder / 'w'}", "--config.mesh.data=1")
            assert code == 0
            (folder / "done").touch()
    return folder / "w"


def done(workdir, stage):
    return json.loads((workdir / stage / "DONE").read_text())
