"""Parity tests run over whatever cases a directory of reference numbers holds: `--fixtures DIR`, this folder
if left out.

DIR/index.json names every file with its family and its cases, or its weight file. A test asks for the families it can
judge with `@pytest.mark.golden("supcon", ...)` and takes an argument `case`; its id is the file's stem and the case.
Marking with a dictionary of options narrows a family: `only=` and `skip=` are patterns of case names.
"""

import fnmatch
import pathlib

import jax
import jax.numpy as jnp
import pytest

from golden.cases import read_cases


def pytest_configure(config):
    config.addinivalue_line("markers", "golden(*families, only='*', skip=()): parity with the cases of these families")


def pytest_generate_tests(metafunc):
    mark = metafunc.definition.get_closest_marker("golden")
    if mark is None or "case" not in metafunc.fixturenames:
        return
    cases = read_cases(metafunc.config.getoption("--fixtures") or pathlib.Path(__file__).parent)
    only, skip = mark.kwargs.get("only", "*"), mark.kwargs.get("skip", ())
    chosen = [
        case
        for case in cases
        if case.family in mark.args
        and fnmatch.fnmatch(case.name, only)
        and not any(fnmatch.fnmatch(case.name, pattern) for pattern in skip)
    ]
    metafunc.parametrize("case", chosen, ids=[str(case) for case in chosen])


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    with jax.enable_x64(request.param == "float64"), jax.default_matmul_precision("highest"):
        yield jnp.dtype(request.param)
