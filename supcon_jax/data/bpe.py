"""CLIP's tokenizer: byte pairs of lower-case words, with a start and an end token.

The vocabulary is no part of this library: it is read from the file that came with the weights, or found in an installed
package.
"""

import gzip
import hashlib
import html
import importlib.util
import json
import re
import unicodedata
import zlib

from etils import epath

from supcon_jax.config import UserError
from supcon_jax.data.vocab import padded

START, END, LAST = "<|startoftext|>", "<|endoftext|>", "</w>"
CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
PLAIN = "bpe_simple_vocab_16e6.txt.gz"
PACKAGES = ("open_clip", "clip")  # packages that ship the plain file beside their modules
MERGES = 48_894  # of that file's lines, CLIP uses so many
KEPT = 1 << 16  # words whose pieces are remembered


def alphabet():
    """One printable character for each byte: bytes that print stand for themselves, the others follow from 256 on.

    Returns {byte: character} in the order of the vocabulary's ids.
    """
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printed]
    return {byte: chr(byte) for byte in printed} | {byte: chr(256 + i) for i, byte in enumerate(rest)}


BYTES = alphabet()
FROM = {character: byte for byte, character in BYTES.items()}


def clean(text):
    """Lower case, one blank for any white space, HTML entities undone (twice, as captions from the web need), NFC.

    Differs from OpenAI's code: that also repairs wrongly decoded text with the package ftfy.
    """
    text = html.unescape(html.unescape(unicodedata.normalize("NFC", text)))
    return re.sub(r"\s+", " ", text).strip().lower()


def kind(character):
    """"L" letter, "N" number, " " white space, else "." """
    if character.isspace():
        return " "
    group = unicodedata.category(character)[0]
    return group if group in "LN" else "."


def words(text):
    """Cleaned text -> runs of letters, single digits, runs of other signs, and English contractions, in order.

    Differs from OpenAI's code: the start or end token written out in a text is text, so that no caption ends itself.
    """
    found, i = [], 0
    while i < len(text):
        whole = next((w for w in CONTRACTIONS if text.startswith(w, i)), None)
        k = kind(text[i])
        end = i + (len(whole) if whole else 1)
        if whole is None and k in "L.":
            while end < len(text) and kind(text[end]) == k:
                end += 1
        if k != " ":
            found.append(text[i:end])
        i = end
    return found


class Bpe:
    """Byte pair encoding as CLIP's text tower expects it.

    Sennrich et al. 2016, arXiv 1508.07909; over bytes as in Radford et al. 2021, arXiv 2103.00020.

    ids: {token: id}; pairs: the merges, the first one is made first. Without a pair every byte is a token.
    Raises UserError: a token that a merge makes, a byte, or the start or end token has no id.
    """

    def __init__(self, ids, pairs):
        self.ids, self.rank = dict(ids), {tuple(pair): i for i, pair in enumerate(pairs)}
        needed = [c + last for c in FROM for last in ("", LAST)] + ["".join(p) for p in self.rank] + [START, END]
        missing = [token for token in needed if token not in self.ids]
        if missing:
            raise UserError(f"the vocabulary lacks {len(missing)} tokens that its merges make, {missing[0]!r} first: "
                            "take both from the same model")
        self.tokens = {i: token for token, i in self.ids.items()}
        self.start, self.end = self.ids[START], self.ids[END]
        self.known = {}

    def __len__(self):
        return len(self.ids)

    @classmethod
    def from_pairs(cls, pairs):
        """The vocabulary that OpenAI's code makes of the merges: bytes, bytes that end a word, merges, start and end."""
        pairs = [tuple(pair) for pair in pairs]
        singles = list(BYTES.values())
        tokens = [*singles, *(c + LAST for c in singles), *("".join(pair) for pair in pairs), START, END]
        return cls({token: i for i, token in enumerate(tokens)}, pairs)

    @classmethod
    def load(cls, path=None):
        """Read a vocabulary: OpenAI's bpe_simple_vocab_16e6.txt.gz, a tokenizer.json, or a folder with one of them or
        with vocab.json and merges.txt. Without a path, the plain file of an installed package.

        Raises UserError: nothing found, or a file that is none of these.
        """
        path = epath.Path(path) if path else installed()
        if path.is_dir():
            path = next((path / name for name in ("tokenizer.json", "merges.txt", PLAIN) if (path / name).exists()), path)
        try:
            if path.name.endswith(".json"):
                model = json.loads(path.read_text())["model"]
                return cls(model["vocab"], [p.split(" ") if isinstance(p, str) else p for p in model["merges"]])
            raw = path.read_bytes()
            pairs = lines((gzip.decompress(raw) if path.name.endswith(".gz") else raw).decode())
            beside = path.with_name("vocab.json")
            if path.name == "merges.txt" and beside.exists():
                return cls(json.loads(beside.read_text()), pairs)
            return cls.from_pairs(pairs)
        except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, zlib.error) as error:
            raise UserError(f"CLIP's vocabulary {path} cannot be read ({type(error).__name__}): give {PLAIN}, a "
                            "tokenizer.json, or a folder with vocab.json and merges.txt") from error

    def pieces(self, word):
        """One word -> ids, merging the neighbours whose pair stands first in the list until none is left."""
        if word in self.known:
            return self.known[word]
        parts = [BYTES[byte] for byte in word.encode()]
        parts[-1] += LAST
        while len(parts) > 1:
            best = min(zip(parts[:-1], parts[1:], strict=True), key=lambda pair: self.rank.get(pair, len(self.rank)))
            if best not in self.rank:
                break
            merged, i = [], 0
            while i < len(parts):
                both = tuple(parts[i : i + 2]) == best
                merged.append("".join(best) if both else parts[i])
                i += 2 if both else 1
            parts = merged
        if len(self.known) > KEPT:
            self.known = {}
        self.known[word] = [self.ids[part] for part in parts]
        return self.known[word]

    def tokenise(self, text):
        """Text -> ids, without start and end."""
        return [i for word in words(clean(text)) for i in self.pieces(word)]

    def read(self, text, length=77):
        """One text -> (start, its ids, of which `length` - 2 are kept, and end; 0 unknown words)."""
        return [self.start, *self.tokenise(text)[: length - 2], self.end], 0

    def encode(self, text, length=77, rng=None):
        """One text -> (ids i32[length]: start, text, end, zeros; how many stand before the zeros; 0 unknown words).

        A text that is too long loses its last tokens, never the end token: `length` - 2 are kept. rng is not used.
        """
        kept, unknown = self.read(text, length)
        return *padded(kept, length), unknown

    def decode(self, ids):
        """Ids up to the first end token -> text, words with blanks between; the start token is left out."""
        ids = [int(i) for i in ids]
        ids = ids[: ids.index(self.end)] if self.end in ids else ids
        joined = "".join(self.tokens[i] for i in ids if i != self.start).replace(LAST, " ")
        return bytearray(FROM.get(c, ord(" ")) for c in joined).decode(errors="replace").strip()

    def plain(self):
        """{"ids", "pairs"}, ready for JSON: Bpe(**bpe.plain()) is the same tokenizer."""
        return {"ids": self.ids, "pairs": [list(pair) for pair in self.rank]}

    def digest(self):
        """SHA-256 of tokens, ids and merges: an encoder stores it and refuses another vocabulary."""
        told = json.dumps([sorted(self.ids.items()), list(self.rank)])
        return hashlib.sha256(told.encode()).hexdigest()


def lines(text):
    """Merges of a text file: a line with its version, then two tokens a line, of which CLIP uses the first 48,894."""
    rows = text.strip().split("\n")
    rows = [row.split() for row in (rows[1:] if "#version" in rows[0] else rows)][:MERGES]
    if any(len(row) != 2 for row in rows):
        raise ValueError("a line that is no pair")
    return rows


def installed():
    """The plain file inside an installed package. Raises UserError: none has it."""
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            if (epath.Path(folder) / PLAIN).exists():
                return epath.Path(folder) / PLAIN
    raise UserError(f"no CLIP vocabulary: give the path of {PLAIN} or of a tokenizer.json, or pip install open_clip_torch")
