"""Words and ids."""

import json

import numpy as np
import pytest

from supcon_jax.config import UserError
from supcon_jax.data.vocab import Vocab, table, tokenise

CAPTIONS = [["This bird is red, with a RED crown.", "a bird"], ["the bird's wing_tip"], []]


def test_tokenise():
    assert tokenise("This Bird's wing_tip: 2 café\t—!") == ["this", "bird", "s", "wing_tip", "2", "caf"]
    assert tokenise("日本 ...") == []


def test_from_captions_does_not_depend_on_order():
    vocab = Vocab.from_captions(CAPTIONS)
    assert vocab.words[:4] == ("<end>", "bird", "a", "red")
    assert Vocab.from_captions(CAPTIONS[::-1]).words == vocab.words
    assert len(vocab) == 1 + len({w for r in CAPTIONS for c in r for w in tokenise(c)})


def test_round_trip_and_unknown():
    vocab = Vocab.from_captions(CAPTIONS)
    ids, length, unknown = vocab.encode("A red zebra, bird!", 6)
    assert ids.dtype == np.int32 and ids.shape == (6,) and (length, unknown) == (3, 1)
    assert (ids[3:] == 0).all() and vocab.decode(ids) == "a red bird"
    assert vocab.encode("zebra", 3)[1:] == (0, 1)


def test_long_captions_keep_random_words_in_order():
    vocab = Vocab(["<end>", *"abcdefghij"])
    starts = set()
    for seed in range(200):
        ids, length, _ = vocab.encode("a b c d e f g h i j", 4, np.random.default_rng(seed))
        assert length == 4 and (np.diff(ids) > 0).all()
        starts.add(tuple(ids))
    assert len(starts) > 100  # of 210
    assert vocab.decode(vocab.encode("a b c d e f", 4)[0]) == "a b c d"


def test_save_load_digest(tmp_path):
    vocab = Vocab.from_captions(CAPTIONS)
    vocab.save(tmp_path / "vocab.json")
    assert json.loads((tmp_path / "vocab.json").read_text())["<end>"] == 0
    again = Vocab.load(tmp_path / "vocab.json")
    assert again.words == vocab.words and again.digest() == vocab.digest()
    swapped = list(vocab.words)
    swapped[1], swapped[2] = swapped[2], swapped[1]
    assert Vocab(swapped).digest() != vocab.digest()


BROKEN = ["{", "[1]", '{"<end>": 0, "a": 2}', '{"a": 0}', '{"<end>": 0, "a": "1"}', '{"<end>": [0]}']


@pytest.mark.parametrize("text", BROKEN)
def test_broken_files(tmp_path, text):
    (tmp_path / "v.json").write_text(text)
    with pytest.raises(UserError):
        Vocab.load(tmp_path / "v.json")


@pytest.mark.parametrize("words", [[], ["a"], ["<end>", "a", "a"], ["<end>", 3]])
def test_broken_lists(words):
    with pytest.raises(UserError):
        Vocab(words)


def test_table_is_encode():
    vocab = Vocab.from_captions(CAPTIONS)
    got = table([*CAPTIONS, ["zebra", "red zebra"]], vocab, 4)
    assert got.count.tolist() == [2, 1, 0, 1] and got.start.tolist() == [0, 2, 3, 3] and got.unknown == 2
    usable = ["This bird is red, with a RED crown.", "a bird", "the bird's wing_tip", "red zebra"]
    for row, caption in enumerate(usable):
        ids, length, _ = vocab.encode(caption, 4)
        assert got.text[row].tolist() == ids.tolist() and got.length[row] == length
    assert list(got.long) == [0] and vocab.decode(got.long[0]) == "this bird is red with a red crown"
