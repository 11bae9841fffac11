"""BERT's tokenizer: words and punctuation, each cut into the longest pieces of a list, with a start and an end token.

The list is no part of this library: it is read from the vocab.txt that came with the weights.
"""

import hashlib
import json
import unicodedata

from etils import epath

from supcon_jax.config import UserError
from supcon_jax.data.vocab import padded

PAD, UNKNOWN, START, END = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
LONGEST = 100  # characters; a longer word is unknown
KEPT = 1 << 16  # words whose pieces are remembered
# ideographs, which stand alone: first and last of each block
IDEOGRAPHS = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
              (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F))


def words(text, lower=True):
    """Text -> its words and marks, in order: cut at white space, each mark and each ideograph on its own.

    lower: also without accents and in lower case, as the models called uncased want it.
    """
    text = "".join(spaced(character) for character in text)
    if lower:
        text = "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn").lower()
    return "".join(f" {c} " if mark(c) else c for c in text).split()


def spaced(character):
    """One character as it is read: white space as a blank, control characters dropped, an ideograph between blanks."""
    code = ord(character)
    if character in "\t\n\r" or unicodedata.category(character) == "Zs":
        return " "
    if code in (0, 0xFFFD) or unicodedata.category(character) in ("Cc", "Cf", "Co"):
        return ""
    return f" {character} " if any(a <= code <= b for a, b in IDEOGRAPHS) else character


def mark(character):
    """Whether it stands on its own: punctuation, and every sign of ASCII that is no letter, digit or blank."""
    ascii_sign = "!" <= character <= "~" and not character.isalnum()
    return ascii_sign or unicodedata.category(character).startswith("P")


class WordPiece:
    """A list of pieces; the place in the list is the id. A piece that goes on inside a word begins with ##.

    Devlin et al. 2019, arXiv 1810.04805: of each word the longest piece that is in the list is cut off, again and again;
    a word of which something is left over is one unknown token.

    pieces: in order. lower: see `words`. Raises UserError: a piece stands there twice, or one of the four tokens does not.
    """

    def __init__(self, pieces, lower=True):
        self.pieces, self.lower, self.known = tuple(pieces), lower, {}
        self.ids = {piece: i for i, piece in enumerate(self.pieces)}
        lacking = [token for token in (PAD, UNKNOWN, START, END) if token not in self.ids]
        if lacking or len(self.ids) != len(self.pieces) or self.ids[PAD]:
            what = f"lacks {lacking[0]}" if lacking else f"has a piece twice, or {PAD} not at its head"
            raise UserError(f"the list of word pieces {what}: take the vocab.txt of the model")
        self.start, self.end = self.ids[START], self.ids[END]

    def __len__(self):
        return len(self.pieces)

    @classmethod
    def load(cls, folder):
        """Read vocab.txt, a piece a line, and whether the model is uncased from tokenizer_config.json, if that is there.

        Raises UserError: no such file, or not a list of pieces.
        """
        folder = epath.Path(folder)
        try:
            lines = (folder / "vocab.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")  # no other ends of lines
            beside = folder / "tokenizer_config.json"
            lower = json.loads(beside.read_text()).get("do_lower_case", True) if beside.exists() else True
        except (OSError, ValueError, AttributeError) as error:
            raise UserError(f"{folder / 'vocab.txt'} cannot be read ({type(error).__name__}): give a folder with the model's "
                            "vocab.txt") from None
        return cls(lines, lower)

    def cut(self, word):
        """One word -> ids of its pieces, or that of the unknown token alone."""
        if word in self.known:
            return self.known[word]
        found, at = [], 0
        while at < len(word) <= LONGEST:
            head = "##" if at else ""
            end = next((end for end in range(len(word), at, -1) if head + word[at:end] in self.ids), at)
            if end == at:
                break
            found.append(self.ids[head + word[at:end]])
            at = end
        if len(self.known) > KEPT:
            self.known = {}
        self.known[word] = found if at == len(word) else [self.ids[UNKNOWN]]
        return self.known[word]

    def tokenise(self, text):
        """Text -> ids, without start and end."""
        return [i for word in words(text, self.lower) for i in self.cut(word)]

    def read(self, text, length=512):
        """One text -> (start, its ids, of which `length` - 2 are kept, and end; how many of its words are unknown)."""
        ids = self.tokenise(text)
        return [self.start, *ids[: length - 2], self.end], ids.count(self.ids[UNKNOWN])

    def encode(self, text, length=512, rng=None):
        """One text -> (ids i32[length]: start, text, end, zeros; how many stand before the zeros; unknown words).

        A text that is too long loses its last tokens, never the end token. rng is not used.
        """
        kept, unknown = self.read(text, length)
        return *padded(kept, length), unknown

    def decode(self, ids):
        """Ids up to the first end token -> text, words with blanks between; the start token is left out."""
        ids = [int(i) for i in ids]
        ids = ids[: ids.index(self.end)] if self.end in ids else ids
        return " ".join(self.pieces[i] for i in ids if i != self.start).replace(" ##", "")

    def plain(self):
        """{"pieces", "lower"}, ready for JSON: WordPiece(**plain) is the same tokenizer."""
        return {"pieces": list(self.pieces), "lower": self.lower}

    def digest(self):
        """SHA-256 of the pieces and how text is read: an encoder stores it and refuses another vocabulary."""
        return hashlib.sha256(json.dumps([self.pieces, self.lower]).encode()).hexdigest()
