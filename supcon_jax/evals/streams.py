"""Batches in, pictures out: what every evaluation of pictures shares.

A batch is a dict of numpy arrays with a branch axis v after the batch axis: image u8[b, v, s, s, 3], text i32[b, v, t],
text_len i32[b, v], label i32[b, v] or f32[b, v, c], index i32[b, v], perhaps caption str[b, v], and perhaps valid [b] or
[b, v] (0 is padding).
Evaluation looks at branch 0 alone. All functions of pictures take u8[b, h, w, 3]: fakes are rounded to 8 bits first,
as they would be in a file, for reals are.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import jax
import numpy as np

BRANCHED = ("image", "text", "text_len", "caption", "label", "index")


class Part(NamedTuple):
    """Pictures of one batch. images: u8[b, h, w, 3]; keep: bool[b], rows that count; batch: cut to branch 0;
    bad: rows refused because the generator made a value that is not finite there."""

    images: np.ndarray
    keep: np.ndarray
    batch: dict[str, np.ndarray]
    bad: int = 0


class Content:
    """Hash of pictures: of their size and of their pixels in order, whatever batches, files or generator they come in."""

    def __init__(self):
        self.hash, self.size = hashlib.sha256(), None

    def add(self, part: Part) -> None:
        if self.size is None:
            self.size = part.images.shape[1:]
            self.hash.update(str(self.size).encode())
        self.hash.update(np.ascontiguousarray(part.images[part.keep]))

    def __str__(self):
        return self.hash.hexdigest()[:16]


def first_branch(batch):
    """The batch cut to its first branch; the axis v stays, with length 1, so that heads see the shapes they know."""
    out = {k: np.asarray(x)[:, :1] if k in BRANCHED else np.asarray(x) for k, x in batch.items()}
    if "valid" in out and out["valid"].ndim > 1:
        out["valid"] = out["valid"][:, :1]
    return out


def valid_rows(batch):
    """bool[b]: rows that are no padding."""
    rows = len(next(iter(batch.values())))
    return np.asarray(batch["valid"]).reshape(rows, -1)[:, 0] > 0 if "valid" in batch else np.ones(rows, bool)


def quantise(images):
    """[-1, 1] -> (u8, finite bool[n]): x -> round(127.5 (x + 1)), clipped. Rows that are not finite come out black
    and are marked; the caller must leave them out.

    Raises ValueError: not [n, h, w, 3] floats.
    """
    x = np.asarray(images)
    if x.ndim != 4 or x.shape[-1] != 3 or x.dtype == np.uint8:
        raise ValueError(f"images: need floats [n, h, w, 3] in [-1, 1], got {x.dtype} {x.shape}")
    x = x.astype(np.float32)
    ok = np.isfinite(x).all((1, 2, 3))
    x = np.where(ok[:, None, None, None], x, -1)
    return np.clip(np.round((x + 1) * 127.5), 0, 255).astype(np.uint8), ok


def first(keep, room):
    """keep with only its first `room` true entries."""
    return keep & (np.cumsum(keep) <= room)


def reals(batches: Iterable[dict], limit: int | None = None) -> Iterator[Part]:
    """Real pictures of branch 0, all of them or the first `limit`. Batches keep their shape; `keep` marks rows."""
    left = limit
    for batch in batches:
        batch = first_branch(batch)
        keep = valid_rows(batch)
        if left is not None:
            keep = first(keep, left)
            left -= int(keep.sum())
        images = batch["image"][:, 0]
        if images.dtype != np.uint8:
            raise ValueError(f"image: real pictures come as u8, got {images.dtype}")
        yield Part(images, keep, batch)
        if left is not None and left <= 0:
            return


def fakes(generate: Callable, batches: Iterable[dict], number: int, seed: int) -> Iterator[Part]:
    """Pictures made from the captions of `batches`, `number` in all, bad ones among them.

    generate: (batch cut to branch 0, key) -> floats [b, h, w, 3] in [-1, 1]; the key is that of `seed` folded with the
    batch's number. A list of batches is passed over again (with new noise) until there are enough.
    Raises ValueError: the captions end before.
    """
    left, key, step, before = number, jax.random.key(seed), 0, None
    while left > 0 and left != before:
        before = left  # a pass that brings nothing (a spent iterator, padding alone) is the last
        for batch in batches:
            batch = first_branch(batch)
            keep = first(valid_rows(batch), left)
            left -= int(keep.sum())
            images, ok = quantise(generate(batch, jax.random.fold_in(key, step)))
            if len(images) != len(keep):
                raise ValueError(f"generate: {len(images)} pictures for {len(keep)} captions")
            yield Part(images, keep & ok, batch, int((keep & ~ok).sum()))
            step += 1
            if left <= 0:
                break
    if left > 0:
        raise ValueError(f"captions ended {left} short of {number} fakes: hand in a list of batches, or ask for fewer")


def column(parts: Iterable[Part], name: str):
    """Branch 0 of a field over all kept rows, or None where the batches do not have it."""
    rows = [part.batch[name][:, 0][part.keep] for part in parts if name in part.batch]
    return np.concatenate(rows) if rows else None


def alike(parts: Iterable[Part]):
    """i[n]: equal numbers for kept rows whose captions have equal tokens, or were written equally where that is told (a
    caption that is too long is cut elsewhere each time)."""
    tokens, ends, said = column(parts, "text"), column(parts, "text_len"), column(parts, "caption")
    words = [hashlib.sha256(row[:end].tobytes()).hexdigest() for row, end in zip(tokens, ends, strict=True)]
    if said is not None:
        seen: dict = {}
        words = [seen.setdefault(str(caption), word) for caption, word in zip(said, words, strict=True)]
    return np.unique(words, return_inverse=True)[1]


def leading(batches: Iterable[dict], rows: int) -> list[dict]:
    """The batches that hold the first `rows` valid rows; what stands behind those is marked as padding."""
    out, left = [], rows
    for batch in batches:
        if left <= 0:
            break
        keep = first(valid_rows(batch), left)
        left -= int(keep.sum())
        out.append({**batch, "valid": keep.astype(np.float32)})
    return out


def labelled(label):
    """The labels, or None where there are none at all (all -1, or no class anywhere)."""
    if label is None or not len(label) or (label.ndim == 1 and (label < 0).all()):
        return None
    return None if label.ndim == 2 and not label.any() else label
