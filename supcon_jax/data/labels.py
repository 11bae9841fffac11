"""What training is told of its pictures: labels of the set or made from captions, some wrong, some missing; or all shuffled.

Whatever is drawn depends on (seed, record) alone, and a smaller share is part of a larger one: what is wrong at 10 % is
wrong in the same way at 30 %, so that runs of one seed can be compared.
"""

import dataclasses

import numpy as np

from supcon_jax.config import UserError
from supcon_jax.data.partners import below, draws
from supcon_jax.data.source import chosen
from supcon_jax.data.vocab import tokenise
from supcon_jax.ops.clusters import kmeans

ORIGINS = ("set", "clusters", "captions")
KINDS = ("symmetric", "asymmetric")
WRONG, OTHER, MISSING, CENTRES, KEPT = range(5)  # lanes of the draws
WORDS = 2000  # most words that captions are told apart by
BLOCK = 1024  # records compared at once


def taught(
    source, *, origin="set", clusters=64, similar=0.5, noise=0.0, kind="symmetric", swaps=(), missing=0.0, share=1.0,
    only=False, seed=0,
):  # fmt: skip
    """A split with the labels that training is told. Evaluation reads the split as it was.

    source: a Source. origin: "set": its own labels. "clusters": k-means (ops.clusters) of the captions' `tfidf` into so many
        `clusters`. "captions": one label for records whose captions are alike, by `leaders` of the same vectors, with
        a cosine of at least `similar`. Neither looks at the set's own labels; both give one label to each record.
    share: share of records that keep their labels, some of each class, see `kept`; it comes first.
    noise: share of labels that are replaced by another. kind: "symmetric": by any, see `wrong`; "asymmetric": by the one
        that `swaps` gives for their class, see `confused`.
    missing: share of records that lose all of theirs, whatever their class, see `without`; drawn apart from the noise, which
        comes before it.
    only: leave out the records that have no label then, as fine-tuning on few labels does.
    seed: of everything drawn.
    Returns the Source itself if nothing changes, else one with other labels and classes, or fewer records.
    Raises UserError: an unknown origin; labels from captions that the set lacks; noise or missing labels where there are
    none; more clusters than records; `swaps` that name no class; no label left.
    """
    if origin not in ORIGINS:
        raise UserError(f"config.data.labels_from={origin!r}: must be one of {', '.join(ORIGINS)}")
    if kind not in KINDS:
        raise UserError(f"config.data.label_noise_kind={kind!r}: must be one of {', '.join(KINDS)}")
    if origin != "set":
        if source.captions is None:
            raise UserError(f"config.data.labels_from={origin!r} reads captions, and {source.name} has none: use set")
        vectors = tfidf(source.captions)
        found = clustered(vectors, clusters, seed) if origin == "clusters" else leaders(vectors, similar)
        names = tuple(f"{origin} {i}" for i in range(int(found.max()) + 1))
        source = dataclasses.replace(source, labels=found, classes=names)
    if not noise and not missing and share == 1 and not only:
        return source
    if source.labels is None:
        raise UserError("config.data.label_noise, label_missing, label_share, only_labelled need labels; the records have none")
    labels = source.labels
    if share < 1:
        labels = blank(labels, ~kept(labels, share, seed))
    if noise:
        pairs = pairs_of(swaps, source.classes) if kind == "asymmetric" else None
        labels = wrong(labels, noise, seed) if pairs is None else confused(labels, noise, pairs, seed)
    if missing:
        labels = without(labels, missing, seed)
    source = dataclasses.replace(source, labels=labels)
    if not only:
        return source
    rows = np.flatnonzero(labelled(labels))
    if not len(rows):
        raise UserError("config.data.only_labelled leaves the records without a label out, and none has one")
    return chosen(source, rows)


def shuffle_pairs(source, seed):
    """The broken twin of a set: what is said about a picture was said about another one.

    One permutation without fixed points moves captions and labels together; images, keys and known latents stay.
    Everything that needs the pairing must fail on it, everything that does not must not notice.
    """
    order = np.random.default_rng(seed).permutation(len(source))
    takes = np.empty_like(order)
    takes[order] = np.roll(order, 1)
    labels = None if source.labels is None else source.labels[takes]
    captions = None if source.captions is None else [source.captions[i] for i in takes]
    return dataclasses.replace(source, captions=captions, labels=labels)


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
    records = np.flatnonzero(labelled(labels))
    return blank(labels, records[share(records, part, seed, MISSING)])


def labelled(labels):
    """Which records have a label: bool[n]."""
    return labels >= 0 if labels.ndim == 1 else labels.any(1)


def blank(labels, rows):
    """Labels with those of some records gone. rows: i[m] or bool[n]."""
    out = labels.copy()
    out[rows] = -1 if labels.ndim == 1 else 0
    return out


def kept(labels, part, seed):
    """Which records keep their labels if only that share does, as in semi-supervised tests with 1 % or 10 % of them.

    labels: i32[n]: of each class round(part * its records), at least one. Or u8[n, c] multi-hot: round(part * records with
        a label) at random, and one more for each class that none of those has.
    Returns bool[n]; False where there was no label.
    """
    out = np.zeros(len(labels), bool)
    if labels.ndim == 1:
        for label in np.unique(labels[labels >= 0]):
            records = np.flatnonzero(labels == label)
            out[records[share(records, max(part, 1 / len(records)), seed, KEPT)]] = True
        return out
    records = np.flatnonzero(labels.any(1))
    out[records[share(records, part, seed, KEPT)]] = True
    for label in np.flatnonzero(labels.any(0)):
        records = np.flatnonzero(labels[:, label])
        out[records[share(records, 1 / len(records), seed, KEPT)]] = True
    return out


def confused(labels, part, pairs, seed):
    """Labels of which a share is replaced by the class that theirs is easily taken for: asymmetric noise.

    Patrini et al. 2017, arXiv 1609.03683, section 6: a share of trucks become cars, other classes stay as they are.
    labels: i32[n], -1 for none, or u8[n, c] multi-hot. part: share of all labels that have a pair. pairs: {class: class}.
    Returns the same shape and type; a record that has the other class already keeps both, so that none loses a label.
    """
    out, table = labels.copy(), np.arange(max(pairs) + 1)
    table[list(pairs)] = list(pairs.values())
    if labels.ndim == 1:
        records = np.flatnonzero(np.isin(labels, list(pairs)))
        records = records[share(records, part, seed, WRONG)]
        out[records] = table[labels[records]]
        return out
    record, label = np.nonzero(labels)
    there = np.isin(label, list(pairs))
    record, label = record[there], label[there]
    moved = share(record * labels.shape[1] + label, part, seed, WRONG)
    record, label = record[moved], label[moved]
    free = labels[record, table[label]] == 0
    first = np.unique([record, table[label]], axis=1, return_index=True)[1]  # two classes of a record may become one
    free &= np.isin(np.arange(len(free)), first)
    out[record[free], label[free]] = 0
    out[record[free], table[label[free]]] = 1
    return out


def pairs_of(swaps, classes):
    """("truck->automobile", "9->1", ...) as {class: class}, by the classes' names or else their numbers.

    Raises UserError: none are given; no such class; one that is given twice, or is to become itself.
    """
    place, pairs = {name: i for i, name in enumerate(classes)}, {}
    for swap in swaps:
        ends = []
        for name in map(str.strip, swap.split("->")):
            number = place.get(name, int(name) if name.isdecimal() and int(name) < len(classes) else None)
            if number is None:
                raise UserError(f"config.data.label_map: {name!r} in {swap!r} is no class; they are {', '.join(classes[:12])}")
            ends.append(number)
        if len(ends) != 2 or ends[0] == ends[1] or ends[0] in pairs:
            raise UserError(f"config.data.label_map: {swap!r} must lead from one class to another, each class once")
        pairs[ends[0]] = ends[1]
    if not pairs:
        raise UserError("config.data.label_noise_kind='asymmetric' needs config.data.label_map, as ('truck->automobile',)")
    return pairs


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
