"""What training is told of its pictures: labels of the set or made from captions, some wrong, some missing; or all shuffled.

Whatever is drawn depends on (seed, record) alone, and a smaller share is part of a larger one: what is wrong at 10 % is
wrong in the same way at 30 %, so that runs of one seed can be compared.
"""

import dataclasses

import numpy as np

from supcon_jax.config import UserError
from supcon_jax.data.partners import below, draws
from supcon_jax.data.vocab import tokenise
from supcon_jax.ops.clusters import kmeans

ORIGINS = ("set", "clusters", "captions")
WRONG, OTHER, MISSING, CENTRES = range(4)  # lanes of the draws
WORDS = 2000  # most words that captions are told apart by
BLOCK = 1024  # records compared at once


def taught(source, *, origin="set", clusters=64, similar=0.5, noise=0.0, missing=0.0, seed=0):
    """A split with the labels that training is told. Evaluation reads the split as it was.

    source: a Source. origin: "set": its own labels. "clusters": k-means (ops.clusters) of the captions' `tfidf` into so many
        `clusters`. "captions": one label for records whose captions are alike, by `leaders` of the same vectors, with
        a cosine of at least `similar`. Neither looks at the set's own labels; both give one label to each record.
    noise: share of labels that are replaced by another, see `wrong`. missing: share of records that lose all of theirs,
        see `without`; drawn apart from the noise, which comes first.
    seed: of everything drawn.
    Returns the Source itself if nothing changes, else one with other labels and classes.
    Raises UserError: an unknown origin; noise or missing labels where there are none; more clusters than records.
    """
    if origin not in ORIGINS:
        raise UserError(f"config.data.labels_from={origin!r}: must be one of {', '.join(ORIGINS)}")
    if origin != "set":
        vectors = tfidf(source.captions)
        found = clustered(vectors, clusters, seed) if origin == "clusters" else leaders(vectors, similar)
        names = tuple(f"{origin} {i}" for i in range(int(found.max()) + 1))
        source = dataclasses.replace(source, labels=found, classes=names)
    if not noise and not missing:
        return source
    if source.labels is None:
        raise UserError("config.data.label_noise and label_missing change labels, and the records have none")
    labels = wrong(source.labels, noise, seed) if noise else source.labels
    return dataclasses.replace(source, labels=without(labels, missing, seed) if missing else labels)


def shuffle_pairs(source, seed):
    """The broken twin of a set: what is said about a picture was said about another one.

    One permutation without fixed points moves captions and labels together; images, keys and known latents stay.
    Everything that needs the pairing must fail on it, everything that does not must not notice.
    """
    order = np.random.default_rng(seed).permutation(len(source))
    takes = np.empty_like(order)
    takes[order] = np.roll(order, 1)
    labels = None if source.labels is None else source.labels[takes]
    return dataclasses.replace(source, captions=[source.captions[i] for i in takes], labels=labels)


def share(entries, part, seed, lane):
    """The `part` of some entries (integers >= 0, [n]) that hash lowest: bool[n]; round(part * n) of them."""
    chosen = np.zeros(len(entries), bool)
    chosen[np.argsort(draws(seed, entries, lane), kind="stable")[: round(part * len(entries))]] = True
    return chosen


def wrong(labels, part, seed):
    """Labels of which a share is replaced by other classes, uniformly among those that occur in the split.

    labels: i32[n], -1 for none: that share of the records that have a label gets another one. Or u8[n, c] multi-hot:
        that share of all labels moves to classes that their record did not have, so that each record keeps its number
        of labels (one that cannot move, since the record has all classes, stays).
    Returns the same shape and type.
    Raises UserError: all labels are of one class.
    """
    single = labels.ndim == 1
    present = np.flatnonzero(np.bincount(labels[labels >= 0]) if single else labels.any(0))
    if len(present) < 2:
        raise UserError("config.data.label_noise puts another class in place, and the records have one class only")
    out = labels.copy()
    if single:
        records = np.flatnonzero(labels >= 0)
        records = records[share(records, part, seed, WRONG)]
        own = np.searchsorted(present, labels[records])
        step = 1 + below(draws(seed, records, OTHER), len(present) - 1)  # never 0: never its own class
        out[records] = present[(own + step) % len(present)]
        return out
    record, label = np.nonzero(labels)
    moved = share(record * labels.shape[1] + label, part, seed, WRONG)
    record, label = record[moved], label[moved]
    for one in np.unique(record):
        leaving, free = label[record == one], present[labels[one, present] == 0]
        order = np.argsort(draws(seed, one * labels.shape[1] + free, OTHER), kind="stable")
        taken = free[order][: len(leaving)]
        out[one, leaving[: len(taken)]] = 0
        out[one, taken] = 1
    return out


def without(labels, part, seed):
    """Labels of which a share is gone: -1, or a row of zeros, for that share of the records that have any.

    Such a record is nobody's positive but its own, and its partner is the same picture with another caption.
    """
    records = np.flatnonzero(labels >= 0 if labels.ndim == 1 else labels.any(1))
    out = labels.copy()
    out[records[share(records, part, seed, MISSING)]] = -1 if labels.ndim == 1 else 0
    return out


# ---- labels from captions


def tfidf(captions, words=WORDS):
    """Unit vectors of what the captions of each record say, all of them taken together.

        x_iw = n_iw log(N / N_w), then x_i / |x_i|

    n_iw: how often word w stands in record i's captions; N_w: records with that word. Kept are the `words` most frequent
    words (by N_w, ties by alphabet) of those that neither a single record nor every record has.
    captions: for each record its captions. Returns f32[records, w]; a record without any such word is zero.
    """
    counts = []
    for record in captions:
        said = {}
        for caption in record:
            for word in tokenise(caption):
                said[word] = said.get(word, 0) + 1
        counts.append(said)
    holders = {}
    for said in counts:
        for word in said:
            holders[word] = holders.get(word, 0) + 1
    known = [word for word, n in sorted(holders.items(), key=lambda item: (-item[1], item[0])) if 1 < n < len(counts)][:words]
    place = {word: i for i, word in enumerate(known)}
    out = np.zeros((len(counts), len(known)), np.float32)
    for row, said in enumerate(counts):
        for word, n in said.items():
            if word in place:
                out[row, place[word]] = n * np.log(len(counts) / holders[word])
    length = np.linalg.norm(out, axis=1, keepdims=True)
    return out / np.where(length > 0, length, 1)


def clustered(x, clusters, seed):
    """k-means of the rows of x, from one start: i32[n]. Raises UserError: more clusters than rows that differ."""
    try:
        return kmeans(x, clusters, [seed, CENTRES], starts=1)
    except ValueError as error:
        raise UserError(f"config.data.clusters={clusters} is too many for these captions; use fewer ({error})") from None


def leaders(x, similar):
    """Groups of like rows: in their order, a row joins the most similar leader so far if their cosine is at least
    `similar`, and leads a group of its own if not. i32[n]: the groups in the order of their leaders.

    Every member is so similar to its leader; groups do not chain, as connected components above a threshold do: on short
    captions those soon hold nearly everything.
    x: unit rows f32[n, d]; a zero row is alone.
    """
    out = np.empty(len(x), np.int32)
    led = np.zeros((0, x.shape[1]), x.dtype)
    for start in range(0, len(x), BLOCK):
        block = x[start : start + BLOCK]
        among = block @ block.T
        score = block @ led.T if len(led) else np.full((len(block), 1), -np.inf, x.dtype)
        best, old = score.argmax(1), score.max(1)
        new = []  # rows of this block that lead
        for row in range(len(block)):
            near = int(among[row, new].argmax()) if new else 0
            if new and among[row, new[near]] > old[row] and among[row, new[near]] >= similar:
                out[start + row] = len(led) + near
            elif old[row] >= similar:
                out[start + row] = best[row]
            else:
                out[start + row] = len(led) + len(new)
                new.append(row)
        led = np.concatenate([led, block[new]])
    return out
