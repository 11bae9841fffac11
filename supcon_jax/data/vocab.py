"""Words <-> ids, as AttnGAN and its descendants write captions."""

import hashlib
import json
import re
from typing import NamedTuple

import numpy as np
from etils import epath

from supcon_jax import storage
from supcon_jax.config import UserError

END = "<end>"  # id 0, which is also the padding


def tokenise(text):
    """Lower-case words of letters, digits and _; what is not ASCII is dropped from inside a word ("café" -> "caf").

    So do the loaders of AttnGAN, whose released vocabularies expect it.
    """
    words = (word.encode("ascii", "ignore").decode() for word in re.findall(r"\w+", text.lower()))
    return [word for word in words if word]


class Vocab:
    """An ordered list of words; the place in the list is the id.

    words: the first one "<end>" (id 0, also the padding), no word twice.
    Raises UserError: the list breaks either rule.
    """

    def __init__(self, words):
        self.words = tuple(words)
        self.ids = {word: i for i, word in enumerate(self.words)}
        if not self.words or self.words[0] != END:
            raise UserError(f"vocabulary: word 0 must be {END!r}, found {self.words[:1]}: convert the original again")
        if len(self.ids) != len(self.words) or not all(isinstance(word, str) for word in self.words):
            raise UserError("vocabulary: a word stands in it twice, or is no string: convert the original again")

    def __len__(self):
        return len(self.words)

    @classmethod
    def from_captions(cls, captions):
        """All words of all captions (a sequence per record), the most frequent first, ties by alphabet.

        The order does not depend on the order of records. Differs from AttnGAN: its order is that of a Python dict, so
        a vocabulary of a released encoder cannot be made again and must be loaded.
        """
        counts = {}
        for record in captions:
            for caption in record:
                for word in tokenise(caption):
                    counts[word] = counts.get(word, 0) + 1
        return cls([END, *sorted(counts, key=lambda word: (-counts[word], word))])

    def read(self, text, words):
        """All known words of a text as ids, however many, and how many of its words are unknown."""
        tokens = tokenise(text)
        known = [self.ids[word] for word in tokens if word in self.ids]
        return known, len(tokens) - len(known)

    def encode(self, text, words, rng=None):
        """One caption -> (ids i32[words] padded with 0, its length, how many of its words are unknown and left out).

        rng: of a caption longer than `words`, that many words at random places, in their order (AttnGAN); None keeps
        the first ones.
        """
        known, unknown = self.read(text, words)
        return *padded(shorten(np.asarray(known, np.int32), words, rng), words), unknown

    def decode(self, ids):
        """Ids up to the first 0 -> the words, with blanks between."""
        ids = [int(i) for i in ids]
        return " ".join(self.words[i] for i in (ids[: ids.index(0)] if 0 in ids else ids))

    def plain(self):
        """The words as a list, ready for JSON."""
        return list(self.words)

    def digest(self):
        """SHA-256 of the words in order: an encoder stores it and refuses another vocabulary."""
        return hashlib.sha256("\n".join(self.words).encode()).hexdigest()

    def save(self, path):
        """Write {word: id} as JSON, in the order of ids."""
        storage.write(path, json.dumps(self.ids, ensure_ascii=False, indent=0) + "\n")

    @classmethod
    def load(cls, path):
        """Read what `save` wrote. Raises UserError: no such file, not {word: id}, ids that are not 0..n-1."""
        try:
            ids = json.loads(epath.Path(path).read_text())
        except (OSError, ValueError) as error:
            raise UserError(f"vocabulary {path} cannot be read ({type(error).__name__}): make it again") from error
        if not isinstance(ids, dict) or sorted(ids.values(), key=str) != sorted(range(len(ids)), key=str):
            raise UserError(f"vocabulary {path} is not a map of words to ids 0..n-1: make it again")
        return cls(sorted(ids, key=ids.get))


def padded(ids, words):
    """Ids -> (i32[words] with zeros behind them, how many they are)."""
    return np.concatenate([np.asarray(ids, np.int32), np.zeros(words - len(ids), np.int32)]), len(ids)


def shorten(ids, words, rng):
    """Word ids -> at most `words` of them: at random places and in order, or the first ones where rng is None."""
    if len(ids) <= words:
        return ids
    return ids[:words] if rng is None else ids[np.sort(rng.permutation(len(ids))[:words])]


class Table(NamedTuple):
    """All captions of a split as ids, made once: a batch is then an indexing.

    Record r owns rows start[r] .. start[r] + count[r] - 1; captions without one known word are left out.
    """

    text: np.ndarray  # i32[m, words]
    length: np.ndarray  # i32[m], at most words
    start: np.ndarray  # i64[records]
    count: np.ndarray  # i64[records]
    place: np.ndarray  # i32[m], which of its record's captions it is
    long: dict[int, np.ndarray]  # all ids of the captions that are longer than words
    unknown: int  # words that the vocabulary lacks


def table(captions, vocab, words):
    """Captions (a sequence per record) -> Table. vocab: a Vocab, or a bpe.Bpe."""
    rows, lengths, counts, places, long, unknown = [], [], [], [], {}, 0
    seen = {}
    for record in captions:
        counts.append(0)
        for place, caption in enumerate(record):
            if caption not in seen:
                seen[caption] = vocab.read(caption, words)
            ids, missing = seen[caption]
            unknown += missing
            if ids:
                if len(ids) > words:
                    long[len(rows)] = np.asarray(ids, np.int32)
                rows.append(ids)
                lengths.append(min(len(ids), words))
                places.append(place)
                counts[-1] += 1
    text = np.zeros((len(rows), words), np.int32)
    for row, ids in zip(text, rows, strict=True):
        row[: len(ids)] = ids[:words]
    count = np.asarray(counts, np.int64)
    start, place = np.cumsum(count) - count, np.asarray(places, np.int32)
    return Table(text, np.asarray(lengths, np.int32), start, count, place, long, unknown)
