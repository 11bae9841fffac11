"""Whether groups that form by themselves are the classes: k-means of features against their labels."""

import numpy as np
from scipy.optimize import linear_sum_assignment

from supcon_jax.evals.fid import finite
from supcon_jax.evals.protocol import Protocol, record
from supcon_jax.evals.r_precision import unit
from supcon_jax.ops.clusters import kmeans, nmi

SHUFFLES = 5  # of the labels, for the level of chance


def clusters(x, label, *, protocol=Protocol(), seed=0, name="clusters"):  # noqa: B008  (frozen)
    """Agreement of k-means clusters of unit rows, as many as there are classes, with the labels.

    x: [n, f]; label: i[n], -1 for none (such rows are left out), or [n, c] multi-hot, which has no single groups.
    Returns {metric: {"value", "protocol", "line"}}: NAME_nmi, NAME_ari, NAME_accuracy (percent) and each with _chance, its
    mean over shuffled labels; nothing where the labels give no groups.
    Raises ValueError: rows that are not finite.
    """
    values, said = grouped(unit(finite("features", x)), label, seed)
    number = int(np.sum(np.asarray(label) >= 0)) if values else 0
    return record(
        {f"{name}_{key}": value for key, value in values.items()},
        protocol.replace(real_number=number, subsets=said, settings=f"{SHUFFLES} shuffles for chance", seed=seed),
    )


def grouped(x, label, seed):
    """(agreement of k-means with the labels, by name, and with shuffled ones under NAME_chance; how it was measured in
    words); nothing where rows have no single labels to compare with."""
    if label is None or np.ndim(label) != 1:
        return {}, ""
    x, label = x[label >= 0], label[label >= 0]
    kinds, count = np.unique(label, return_counts=True)
    if len(kinds) < 2 or count.max() < 2 or len(np.unique(x, axis=0)) < len(kinds):
        return {}, ""
    found, rng = kmeans(x, len(kinds), seed), np.random.default_rng(seed)
    values = agreement(found, label)
    by_chance = [agreement(found, rng.permutation(label)) for _ in range(SHUFFLES)]
    chance = {f"{key}_chance": float(np.mean([one[key] for one in by_chance])) for key in values}
    return values | chance, f"k-means, {len(kinds)} clusters of {len(x)} rows"


def agreement(a, b):
    """{"nmi": 0..1, "ari", "accuracy": percent} of two groupings i[n] of the same rows."""
    return {"nmi": nmi(a, b), "ari": ari(a, b), "accuracy": accuracy(a, b)}


def table(a, b):
    """How many rows each group of a shares with each of b, i64[groups of a, groups of b]."""
    a, b = (np.unique(x, return_inverse=True)[1] for x in (a, b))
    joint = np.zeros((a.max() + 1, b.max() + 1), np.int64)
    np.add.at(joint, (a, b), 1)
    return joint


def ari(a, b):
    """Adjusted Rand index of two groupings: 1 equal, 0 as random groupings of these sizes, below 0 worse.

        (s - e) / ((p + q) / 2 - e),   s = sum_ij C(n_ij, 2), p = sum_i C(a_i, 2), q = sum_j C(b_j, 2), e = p q / C(n, 2)

    Hubert & Arabie 1985, eq. 5. a, b: i[n]. Returns a float; 1 where both are one group, or both all single rows.
    """
    joint = table(a, b).astype(np.float64)
    pairs = lambda x: float((x * (x - 1) / 2).sum())  # noqa: E731
    shared, one, two, every = pairs(joint), pairs(joint.sum(1)), pairs(joint.sum(0)), pairs(joint.sum())
    expected = one * two / every if every else 0.0
    most = (one + two) / 2
    return (shared - expected) / (most - expected) if most != expected else 1.0


def accuracy(found, label):
    """Share of rows whose cluster is their class, in percent, where each class is given one cluster of its own so that the
    share is the largest (the Hungarian method, Kuhn 1955).

    found, label: i[n]. Returns a float in 0..100.
    """
    joint = table(found, label)
    rows, columns = linear_sum_assignment(joint, maximize=True)
    return float(100 * joint[rows, columns].sum() / len(label))
