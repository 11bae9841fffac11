"""Every page of the documentation that shows numbers computes them."""

import doctest
import pathlib

import pytest

DOCS = pathlib.Path(__file__).parent.parent / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if ">>>" in page.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page(page):
    failed, tried = doctest.testfile(str(page), module_relative=False, verbose=False)
    assert tried and not failed
