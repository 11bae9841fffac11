import gzip
import json
import random
import string

import numpy as np
import pytest

from supcon_jax.config import UserError
from supcon_jax.data import bpe
from supcon_jax.data.bpe import Bpe, clean, words

# worked by hand: "lower" l o w e r</w> -> lo w e r</w> -> low e r</w> -> low er</w> -> lower</w>
PAIRS = [("l", "o"), ("lo", "w"), ("e", "r</w>"), ("low", "er</w>"), ("lo", "w</w>"), ("1", "2</w>"), ("'", "s</w>"),
         ("a", "b"), ("b", "c</w>")]
MADE = 512  # id of the first merge: 256 bytes, 256 bytes that end a word


def write(path, pairs=PAIRS):
    text = '"vocabulary#version: 0.2\n' + "\n".join(" ".join(pair) for pair in pairs) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.fixture
def tokenizer(tmp_path):
    return Bpe.load(write(tmp_path / bpe.PLAIN))


def test_ids_are_bytes_then_ends_then_merges_then_start_and_end(tokenizer):
    assert len(tokenizer) == 512 + len(PAIRS) + 2
    assert tokenizer.ids["!"] == 0 and tokenizer.ids["a"] == 64 and tokenizer.ids["a</w>"] == 320
    assert tokenizer.ids["\u0100"] == 188 and tokenizer.ids["lo"] == MADE  # byte 0 follows the 188 that print
    assert (tokenizer.start, tokenizer.end) == (MADE + len(PAIRS), MADE + len(PAIRS) + 1)


@pytest.mark.parametrize(("text", "tokens"), [
    ("lower", [MADE + 3]),
    ("low", [MADE + 4]),              # l o w</w> -> lo w</w> -> low</w>: (lo, w) is another pair
    ("slow lowers", ["s", MADE + 4, MADE + 1, "e", "r", "s</w>"]),
    ("LOWER  lower", [MADE + 3, MADE + 3]),
    ("lower's", [MADE + 3, MADE + 6]),
    ("12", ["1</w>", "2</w>"]),       # digits stand alone, so that no merge joins them
    ("abc", [MADE + 7, "c</w>"]),     # both pairs are there; the first one in the list is made first
    ("&amp;amp;", ["&</w>"]),
    ("\u00e9", ["\u00c3", "\u00a9</w>"]),  # two bytes of UTF-8
    ("", [])])
def test_hand_worked(tokenizer, text, tokens):
    assert tokenizer.tokenise(text) == [t if isinstance(t, int) else tokenizer.ids[t] for t in tokens]


@pytest.mark.parametrize(("text", "cut"), [
    ("it's a bird, isn't it?", ["it", "'s", "a", "bird", ",", "isn", "'t", "it", "?"]),
    ("we'll we've 2026!!! x'dy", ["we", "'ll", "we", "'ve", "2", "0", "2", "6", "!!!", "x", "'d", "y"]),
    ("a_b --'s", ["a", "_", "b", "--'", "s"]),
    ("<|endoftext|>a", ["<|", "endoftext", "|>", "a"])])
def test_words(text, cut):
    assert words(text) == cut


def test_start_end_padding_and_what_a_long_text_loses(tokenizer):
    ids, length, unknown = tokenizer.encode("lower low")
    assert ids.dtype == np.int32 and ids.shape == (77,) and (length, unknown) == (4, 0)
    assert ids[:5].tolist() == [tokenizer.start, MADE + 3, MADE + 4, tokenizer.end, 0] and not ids[4:].any()
    ids, length, _ = tokenizer.encode("lower " * 100)
    assert length == 77 and ids[0] == tokenizer.start and ids[-1] == tokenizer.end
    assert (ids[1:-1] == MADE + 3).all() and ids.argmax() == 76
    ids, length, _ = tokenizer.encode("lower " * 75)
    assert length == 77 and ids[-1] == tokenizer.end and (ids[1:-1] == MADE + 3).all()


def test_decoding_gives_the_words_of_ascii_text(tokenizer):
    source = random.Random(0)
    for _ in range(300):
        text = "".join(source.choice(string.printable + "lower" * 20) for _ in range(source.randrange(40)))
        assert tokenizer.decode(tokenizer.tokenise(text)) == " ".join(words(clean(text)))
        assert tokenizer.decode(tokenizer.encode(text, 300)[0]).replace(" ", "") == clean(text).replace(" ", "")


def test_every_form_of_file_gives_the_same_ids(tmp_path, tokenizer):
    hf = tmp_path / "hf"
    hf.mkdir()
    (hf / "vocab.json").write_text(json.dumps(tokenizer.ids))
    write(hf / "merges.txt")
    one = {"model": {"vocab": tokenizer.ids, "merges": [" ".join(pair) for pair in PAIRS]}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(one))
    two = {"model": {"vocab": tokenizer.ids, "merges": PAIRS}}
    (tmp_path / "newer.json").write_text(json.dumps(two))
    for path in (hf, tmp_path / "tokenizer.json", tmp_path / "newer.json", write(tmp_path / "plain.txt")):
        assert Bpe.load(path).digest() == tokenizer.digest()
    assert Bpe.from_pairs(PAIRS[:-1]).digest() != tokenizer.digest()


def test_an_installed_package_is_found_and_its_lack_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(bpe, "PACKAGES", ("package_with_merges",))
    with pytest.raises(UserError, match="no CLIP vocabulary.*pip install"):
        Bpe.load()
    folder = tmp_path / "package_with_merges"
    folder.mkdir()
    (folder / "__init__.py").touch()
    write(folder / bpe.PLAIN)
    monkeypatch.syspath_prepend(tmp_path)
    assert len(Bpe.load()) == 514 + len(PAIRS)


@pytest.mark.parametrize(("name", "raw"), [
    ("absent.txt.gz", None), ("v.txt.gz", b"no gzip"), ("v.txt", b"#version\na b c\n"), ("v.json", b"{}"),
    ("v.json", b'{"model": {"vocab": {}, "merges": []}}')])
def test_what_is_no_vocabulary_is_refused(tmp_path, name, raw):
    if raw is not None:
        (tmp_path / name).write_bytes(raw)
    with pytest.raises(UserError, match="vocabulary"):
        Bpe.load(tmp_path / name)
