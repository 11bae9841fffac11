"""Classification by weighted nearest neighbours: no training, so nothing to tune on what is measured."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from supcon_jax.evals.fid import finite
from supcon_jax.evals.protocol import Protocol, record
from supcon_jax.evals.r_precision import unit

CHUNK, BLOCK = 256, 8192  # queries and bank rows that are compared at once
NEGATIVES = 10  # nearest other rows among which false negatives are counted


def neighbours(records, classes):
    """k = min(200, records / (2 classes)), at least 1: half of a class, so that small classes can win."""
    return max(1, min(200, records // (2 * max(classes, 1))))


def scores(query, bank, labels, *, k, classes=None, temperature=0.1, chunk=CHUNK):
    """Class scores of a weighted k-nearest-neighbour vote.

        score_ic = sum over the k bank rows j most similar to query i of exp(cos_ij / T) [label_j has c]

    Wu et al. 2018, arXiv 1805.01978, section 3.4.

    query: [m, d]; bank: [n, d] (made unit here); labels: i[n], or [n, c] multi-hot; k <= n;
    classes: c where labels are integers.
    Returns f64[m, c]. Among equal similarities the earlier bank row counts as nearer.
    """
    query, bank = unit(finite("query", query)), unit(finite("bank", bank))
    labels = np.asarray(labels)
    if len(labels) != len(bank) or not 1 <= k <= len(bank):
        raise ValueError(f"bank: {len(bank)} rows, {len(labels)} labels, k = {k}: need equal counts, 1 <= k <= rows")
    classes = int(labels.max()) + 1 if classes is None and labels.ndim == 1 else classes
    out = []
    for cosine, near in nearest(query, bank, k, chunk):
        weight = np.exp(np.float64(cosine) / temperature)
        if labels.ndim == 2:
            out.append(np.einsum("mk,mkc->mc", weight, np.float64(labels[near])))
            continue
        cell = np.arange(len(near))[:, None] * classes + labels[near]
        out.append(np.bincount(cell.ravel(), weight.ravel(), len(near) * classes).reshape(len(near), classes))
    return np.concatenate(out)


def nearest(query, bank, k, chunk=CHUNK, block=BLOCK):
    """The k rows of a bank that are most similar to each query, nearest first, the earlier first among equal ones.

    query: f[m, d]; bank: f[n, d]; k <= n. Their products are taken in float32 on the device, chunk x block at a time.
    Yields (f32[c, k] products, i32[c, k] bank rows) for c queries after the other.
    """
    block = max(k, min(block, len(bank)))
    filled = -len(bank) % block
    blocks = jnp.asarray(np.pad(np.float32(bank), ((0, filled), (0, 0))).reshape(-1, block, bank.shape[1]))
    for start in range(0, len(query), chunk):
        rows = np.float32(query[start : start + chunk])
        padded = np.pad(rows, ((0, chunk - len(rows)), (0, 0))) if start else rows
        value, place = jax.device_get(_nearest(padded, blocks, len(bank), k))
        yield value[: len(rows)], place[: len(rows)]


@functools.partial(jax.jit, static_argnums=(2, 3))
def _nearest(query, blocks, number, k):
    count, block, _ = blocks.shape

    def merge(best, item):
        rows, first = item
        place = first + jnp.arange(block, dtype=jnp.int32)
        s = jnp.where(place[None] < number, jnp.dot(query, rows.T, precision="highest"), -jnp.inf)
        s = jnp.concatenate([best[0], s], axis=1)  # those found so far come first: they win a tie, as top_k is stable
        place = jnp.concatenate([best[1], jnp.broadcast_to(place[None], (len(query), block))], axis=1)
        value, chosen = jax.lax.top_k(s, k)
        return (value, jnp.take_along_axis(place, chosen, axis=1)), None

    begin = jnp.full((len(query), k), -jnp.inf), jnp.zeros((len(query), k), jnp.int32)
    return jax.lax.scan(merge, begin, (blocks, block * jnp.arange(count, dtype=jnp.int32)))[0]


def ranking(score):
    """Class ids by descending score, i[m, c]; equal scores in the order of the ids."""
    return np.argsort(-score, axis=1, kind="stable")


def average_precision(score, truth):
    """Mean over classes of the area under the precision-recall steps; equal scores share one step.

    score: f64[m, c]; truth: [m, c] of 0/1. Classes without a true row are left out. Returns float in 0..1.
    """
    values = []
    for c in np.flatnonzero(truth.any(0)):
        level, place = np.unique(-score[:, c], return_inverse=True)
        right = np.cumsum(np.bincount(place, weights=truth[:, c] > 0, minlength=len(level)))
        found = np.cumsum(np.bincount(place, minlength=len(level)))
        values.append(np.sum(np.diff(right, prepend=0) * right / found) / right[-1])
    if not values:
        raise ValueError("truth: no class has a true row")
    return float(np.mean(values))


def label_accuracy(query, truth, bank, labels, *, temperature=0.1):
    """How often the neighbours of a picture among real ones say its label, in percent.

    truth: i[m] or [m, c] multi-hot; labels: the same kind for the bank. k by `neighbours`.
    One label: share of top-1 answers that are right. Several: mean average precision over classes, of scores divided
    by a row's total weight (so that rows can be compared within a class).
    Returns float in 0..100.
    """
    truth, labels = np.asarray(truth), np.asarray(labels)
    if truth.ndim == 1:
        classes = int(max(truth.max(), labels.max())) + 1
        k = neighbours(len(labels), len(np.unique(labels)))
        score = scores(query, bank, labels, k=k, classes=classes, temperature=temperature)
        return float(100 * np.mean(score.argmax(1) == truth))
    k = neighbours(len(labels), labels.shape[1])
    extended = np.concatenate([labels, np.ones((len(labels), 1))], 1)  # a class that every row has: the total weight
    score = scores(query, bank, extended, k=k, temperature=temperature)
    return 100 * average_precision(score[:, :-1] / score[:, -1:], truth)


def hits(score, truth):
    """How often the true class is the best one and among the best five, in percent; the lower class id wins a tie.

    score: f[m, c]; truth: i[m]. Returns {"top1", "top5"}; no top5 where there are not more than five classes.
    """
    order = ranking(score)[:, :5]
    right = order == np.asarray(truth)[:, None]
    out = {"top1": float(100 * right[:, 0].mean())}
    return out | ({"top5": float(100 * right.any(1).mean())} if np.shape(score)[1] > 5 else {})


def knn(
    query, truth, bank, labels, *, classes, k=0, temperature=0.1,
    protocol=Protocol(), name="knn",  # noqa: B008  (frozen)
):  # fmt: skip
    """Classification by the vote of a picture's neighbours in the training split, see `scores`.

    query: [m, f] features of the test split, truth: i[m], -1 for none (left out), or [m, c] multi-hot; bank, labels: the
    same of the training split. k: neighbours, 0: by `neighbours`, 200 at most (ImageNet: 20 or 200 at T = 0.07).
    Returns {metric: {"value", "protocol", "line"}}: NAME_top1, NAME_top5 in percent, or NAME_map of several labels; with
    single ones NAME_false_negative and its _chance, see `false_negatives`.
    Raises ValueError: features that are not finite, k above the bank's rows, no labelled rows.
    """
    (query, truth), (bank, labels) = labelled_rows(query, truth, "test"), labelled_rows(bank, labels, "train")
    k = k or neighbours(len(bank), classes)
    own = protocol.replace(
        real_number=len(query), train_number=len(bank), neighbours=k, settings=f"cosine, weights exp(cos / {temperature:g})"
    )
    if truth.ndim == 2:
        several = np.concatenate([labels, np.ones((len(labels), 1))], 1)  # a class that every row has: the total weight
        score = scores(query, bank, several, k=k, temperature=temperature)
        return record({f"{name}_map": 100 * average_precision(score[:, :-1] / score[:, -1:], truth)}, own)
    score = scores(query, bank, labels, k=k, classes=classes, temperature=temperature)
    out = record({f"{name}_{key}": value for key, value in hits(score, truth).items()}, own)
    among = min(NEGATIVES, len(query) - 1)
    if among < 1:
        return out
    share, chance = false_negatives(query, truth, among)
    own = own.replace(train_number=0, train_origin="", train_content="", neighbours=among, settings="of the nearest others")
    return out | record({f"{name}_false_negative": share, f"{name}_false_negative_chance": chance}, own)


def labelled_rows(x, label, what):
    """(features f64, labels) of the rows that have a label. Raises ValueError: there are none, or other numbers of both."""
    x, label = finite(f"{what} features", x), np.asarray(label)
    if len(x) != len(label):
        raise ValueError(f"{what}: {len(x)} rows of features for {len(label)} labels")
    has = label >= 0 if label.ndim == 1 else label.any(1)
    if not has.any():
        raise ValueError(f"{what}: no row has a label")
    return x[has], label[has]


def false_negatives(x, label, k):
    """Of the k other rows that are most similar to a row, those that share its label: the hardest of the negatives that a
    method without labels pushes away although it should not.

    x: [n, f]; label: i[n]; k < n. Returns (percent, percent of all other rows, which is chance).
    """
    x, label = unit(finite("features", x)), np.asarray(label)
    if not 1 <= k < len(x):
        raise ValueError(f"k: {k} of {len(x) - 1} other rows")
    near = np.concatenate([place for _, place in nearest(x, x, k + 1)])
    own = near == np.arange(len(x))[:, None]
    own[~own.any(1), -1] = True  # a row with more than k twins may not find itself: one of them goes in its stead
    share = (label[near] == label[:, None])[~own].mean()
    count = np.unique(label, return_counts=True)[1]
    return float(100 * share), float(100 * (count * (count - 1)).sum() / (len(x) * (len(x) - 1)))
