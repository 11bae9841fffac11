"""Label accuracy by weighted nearest neighbours: no training, so nothing to tune on what is measured."""

import numpy as np

from supcon_jax.evals.fid import finite
from supcon_jax.evals.r_precision import unit


def neighbours(records, classes):
    """k = min(200, records / (2 classes)), at least 1: half of a class, so that small classes can win."""
    return max(1, min(200, records // (2 * max(classes, 1))))


def scores(query, bank, labels, *, k, classes=None, temperature=0.1, chunk=256):
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
    if labels.ndim == 1:
        classes = int(labels.max()) + 1 if classes is None else classes
        labels = labels[:, None] == np.arange(classes)[None]
    labels = labels.astype(np.float64)
    out = np.zeros((len(query), labels.shape[1]))
    for start in range(0, len(query), chunk):
        s = query[start : start + chunk] @ bank.T
        near = np.argsort(-s, axis=1, kind="stable")[:, :k]
        weight = np.exp(np.take_along_axis(s, near, 1) / temperature)
        out[start : start + chunk] = np.einsum("mk,mkc->mc", weight, labels[near])
    return out


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
