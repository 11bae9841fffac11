"""Parity tests run over whatever cases a directory of reference numbers holds: `--fixtures DIR`, this folder
if left out.

DIR/index.json names every file with its family and its cases, or its weight file. A test asks for the families it can
judge with `@pytest.mark.golden("supcon", ...)` and takes an argument `case`; its id is the file's stem and the case.
Marking with a dictionary of options narrows a family: `only=` and `skip=` are patterns of case names. `kept="slow"` or
"long" keeps this folder's cases for runs with that mark, and a test that takes `dtype` runs in float32 in slow ones; a
directory that was asked for is always judged whole.
"""

import fnmatch
import pathlib

import jax
import jax.numpy as jnp
import pytest

from golden.cases import read_cases


def pytest_configure(config):
    what = "golden(*families, only='*', skip=(), kept=None): parity with the cases of these families"
    config.addinivalue_line("markers", what)


def pytest_generate_tests(metafunc):
    mark = metafunc.definition.get_closest_marker("golden")
    if mark is None or "case" not in metafunc.fixturenames:
        return
    asked = metafunc.config.getoption("--fixtures")
    cases = read_cases(asked or pathlib.Path(__file__).parent)
    only, skip = mark.kwargs.get("only", "*"), mark.kwargs.get("skip", ())
    chosen = [
        case
        for case in cases
        if case.family in mark.args
        and fnmatch.fnmatch(case.name, only)
        and not any(fnmatch.fnmatch(case.name, pattern) for pattern in skip)
    ]
    marks = [getattr(pytest.mark, mark.kwargs["kept"])] if mark.kwargs.get("kept") and not asked else []
    metafunc.parametrize("case", [pytest.param(case, id=str(case), marks=marks) for case in chosen])
    if "dtype" in metafunc.fixturenames:
        single = pytest.param("float32", marks=[] if asked else [pytest.mark.slow])
        metafunc.parametrize("dtype", [single, "float64"], indirect=True)


@pytest.fixture
def dtype(request):
    with jax.enable_x64(request.param == "float64"), jax.default_matmul_precision("highest"):
        yield jnp.dtype(request.param)
