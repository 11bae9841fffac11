"""The word list of captions.pickle: read as it was written, and never run."""

import collections
import os
import pickle

import numpy as np
import pytest

import originals
from supcon_jax.config import UserError
from supcon_jax.convert import captions

WORDS = ["<end>", "bird", "a", "caf"]


def test_words_come_in_the_order_of_their_ids(tmp_path):
    assert captions.words(originals.captions(tmp_path / "captions.pickle", WORDS)) == WORDS
    shuffled = {i: WORDS[i] for i in (2, 0, 3, 1)}  # the order of a dictionary says nothing
    assert captions.words(originals.captions(tmp_path / "captions.pickle", WORDS, by_id=shuffled)) == WORDS


def test_pickles_of_python_2_are_read(tmp_path):
    """Its byte strings (opcode U), as the released files have them."""
    table = b"(dq\x00K\x00U\x05<end>sK\x01U\x04birds"
    other = b"(dq\x01U\x05<end>K\x00sU\x04birdK\x01s"
    (tmp_path / "captions.pickle").write_bytes(b"\x80\x02](]]" + table + other + b"e.")
    assert captions.words(tmp_path / "captions.pickle") == ["<end>", "bird"]


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class Outside(pickle.Pickler):
    def persistent_id(self, value):
        return "elsewhere" if value == "there" else None


@pytest.mark.parametrize("value,said", [
    (Evil, "asks for .*mkdir"), (lambda path: collections.OrderedDict(a=1), "asks for collections.OrderedDict"),
    (lambda path: np.arange(3), "asks for numpy"), (lambda path: {1, 2}, r"asks for \S+set,")])  # fmt: skip
def test_code_is_refused_without_running_it(tmp_path, value, said):
    path, mark = tmp_path / "captions.pickle", tmp_path / "ran"
    originals.captions(path, WORDS, train=value(mark))
    with pytest.raises(UserError, match=said) as caught:
        captions.words(path)
    assert not mark.exists() and "\n" not in str(caught.value) and "captions.pickle" in str(caught.value)


def test_references_outside_are_refused(tmp_path):
    with open(tmp_path / "captions.pickle", "wb") as file:
        Outside(file, protocol=2).dump(["there", [], {}, {}])
    with pytest.raises(UserError, match="outside itself"):
        captions.words(tmp_path / "captions.pickle")


@pytest.mark.parametrize("changed,said", [
    ({"by_word": {"<end>": 0, "bird": 2, "a": 1, "caf": 3}}, "contradict each other"),
    ({"by_id": {0: "<end>", 2: "a"}}, "ids are not 0 to 1"), ({"by_id": {0: 5}}, "a word is no string"),
    ({"by_id": ["<end>"]}, "is no captions.pickle"), ({"more": 1}, "is no captions.pickle")])  # fmt: skip
def test_what_says_nothing_certain_is_refused(tmp_path, changed, said):
    with pytest.raises(UserError, match=said):
        captions.words(originals.captions(tmp_path / "captions.pickle", WORDS, **changed))


def test_damaged_files_end_in_one_line(tmp_path):
    path = originals.captions(tmp_path / "captions.pickle", WORDS)
    whole = path.read_bytes()
    for cut in (len(whole) - 1, len(whole) // 2, 0):
        path.write_bytes(whole[:cut])
        with pytest.raises(UserError, match="damaged or no pickle") as caught:
            captions.words(path)
        assert "\n" not in str(caught.value)
