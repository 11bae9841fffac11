"""BERT's tokenizer: what the package tokenizers gives for the same list, and its rules one by one."""

import json

import numpy as np
import pytest

from supcon_jax.config import UserError
from supcon_jax.data.wordpiece import WordPiece, words

PIECES = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "##s", "cafe", "em", "##oji", "un", "##aff", "##able", "face",
    "-", "!", ",", "\u4e2d", "\u6587", "3", "##0", "##x", "x", "of", "'", "s", "\u00df", "##e", "$", "t", "the", "\u2019",
]  # fmt: skip
# what tokenizers 0.23.3 gives with this list, uncased, without the start and end tokens
READ = {
    "A cat": ["a", "cat"],
    "Cats, emoji!": ["cat", "##s", ",", "em", "##oji", "!"],
    "Caf\u00c9\u2019s": ["cafe", "\u2019", "s"],
    "unaffable unaffables dog": ["un", "##aff", "##able", "un", "##aff", "##able", "##s", "[UNK]"],
    "\u4e2d\u6587x": ["\u4e2d", "\u6587", "x"],
    "30x 30xy 30x30": ["3", "##0", "##x", "[UNK]", "[UNK]"],
    "co\u00adcat a\u00adcat the\u200bcat": ["[UNK]", "[UNK]", "[UNK]"],
    "ca\u00adt \ufffdcat\u0000": ["cat", "cat"],
    "a\tcat\n\u00a0of\u2003cats": ["a", "cat", "of", "cat", "##s"],
    "\u00df $t-face": ["\u00df", "$", "t", "-", "face"],
    "\u20cbcat": ["[UNK]"],
    "": [],
}


@pytest.fixture(scope="module")
def tokenizer():
    return WordPiece(PIECES)


@pytest.mark.parametrize("text", READ)
def test_reads_as_the_reference_does(tokenizer, text):
    assert [PIECES[i] for i in tokenizer.tokenise(text)] == READ[text]


def test_a_long_word_is_unknown(tokenizer):
    assert tokenizer.tokenise("x" * 100) == [PIECES.index("x")] + 99 * [PIECES.index("##x")]
    assert tokenizer.tokenise("x" * 101) == [PIECES.index("[UNK]")]


def test_a_caption_cannot_write_the_tokens_that_begin_and_end_it(tokenizer):
    assert not {tokenizer.start, tokenizer.end, 0} & set(tokenizer.tokenise("[CLS] cat [SEP] [PAD]"))


def test_cased_lists_keep_case_and_accents():
    assert words("Caf\u00e9 A,b", lower=False) == ["Caf\u00e9", "A", ",", "b"]
    assert WordPiece([*PIECES, "Cat"], lower=False).tokenise("Cat") == [len(PIECES)]


def test_encoding_pads_and_keeps_the_end(tokenizer):
    ids, length, unknown = tokenizer.encode("a cat of dogs", 8)
    assert ids.tolist() == [2, 5, 6, 24, 1, 3, 0, 0] and (length, unknown) == (6, 1) and ids.dtype == np.int32
    ids, length, _ = tokenizer.encode("a cat of cats", 5)
    assert ids.tolist() == [2, 5, 6, 24, 3] and length == 5
    assert tokenizer.decode(tokenizer.encode("Cats of emoji", 12)[0]) == "cats of emoji"


def test_it_can_be_told_and_made_again(tokenizer):
    again = WordPiece(**json.loads(json.dumps(tokenizer.plain())))
    assert again.digest() == tokenizer.digest() and again.ids == tokenizer.ids
    assert WordPiece(PIECES, lower=False).digest() != tokenizer.digest() != WordPiece([*PIECES, "more"]).digest()


def test_files(tmp_path, tokenizer):
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    assert WordPiece.load(tmp_path).digest() == tokenizer.digest()
    more = [*PIECES, "\u2028", "last"]  # a piece that is itself an end of a line to some: later ones keep their ids
    (tmp_path / "vocab.txt").write_text("\n".join(more), encoding="utf-8")
    assert WordPiece.load(tmp_path).pieces == tuple(more)
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert not WordPiece.load(tmp_path).lower
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(UserError, match="vocab.txt cannot be read"):
        WordPiece.load(tmp_path)
    with pytest.raises(UserError, match="vocab.txt cannot be read"):
        WordPiece.load(tmp_path / "nowhere")


@pytest.mark.parametrize("pieces, what", [
    (PIECES[1:], r"lacks \[PAD\]"), ([*PIECES, "cat"], "twice"), (["a", *(p for p in PIECES if p != "a")], "not at its head"),
])  # fmt: skip
def test_what_is_no_list_of_pieces_is_refused(pieces, what):
    with pytest.raises(UserError, match=what):
        WordPiece(pieces)
