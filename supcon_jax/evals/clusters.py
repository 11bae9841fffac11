"""Clusters of rows, and how well two groupings of the same rows agree."""

import numpy as np

STARTS, ROUNDS = 3, 50


def kmeans(x, k, seed=0):
    """Cluster of each row by Lloyd's algorithm from k-means++ seeds, the best of STARTS runs of at most ROUNDS rounds.

        minimise  sum_i |x_i - mu_{c(i)}|^2

    Lloyd 1982; seeds: Arthur & Vassilvitskii 2007. Same seed, same answer.

    x: f64[n, d]; 1 <= k <= n. Returns i[n] in 0 .. k - 1; a cluster that loses all rows keeps its centre.
    Raises ValueError: k out of range.
    """
    if not 1 <= k <= len(x):
        raise ValueError(f"k: {k} clusters of {len(x)} rows")
    rng = np.random.default_rng(seed)
    return min((lloyd(x, seeds(x, k, rng)) for _ in range(STARTS)), key=lambda found: found[1])[0]


def seeds(x, k, rng):
    """k rows, each drawn in proportion to the squared distance from those drawn before: f64[k, d]."""
    chosen = [int(rng.integers(len(x)))]
    far = distances(x, x[chosen])[:, 0]
    for _ in range(k - 1):
        total = far.sum()
        chosen.append(int(rng.choice(len(x), p=far / total if total else None)))  # fewer places than centres: anywhere
        far = np.minimum(far, distances(x, x[chosen[-1:]])[:, 0])
    return x[chosen]


def lloyd(x, centre):
    """(cluster of each row, sum of squared distances) once nothing changes any more."""
    before = None
    for _ in range(ROUNDS):
        apart = distances(x, centre)
        found = apart.argmin(1)
        if before is not None and (found == before).all():
            break
        before = found
        count = np.bincount(found, minlength=len(centre))
        total = np.zeros_like(centre)
        np.add.at(total, found, x)
        centre = np.where(count[:, None] > 0, total / np.maximum(count, 1)[:, None], centre)
    return found, float(apart.min(1).sum())


def distances(x, centre):
    """Squared distances f64[n, k], never negative."""
    return np.maximum((x * x).sum(1)[:, None] - 2 * x @ centre.T + (centre * centre).sum(1)[None], 0)


def nmi(a, b):
    """Normalised mutual information of two groupings of the same rows, 0..1.

        NMI = 2 I(A; B) / (H(A) + H(B))

    With few rows for each group it stands far above 0 for groupings that know nothing of each other: read it beside the
    value of shuffled ones.

    a, b: i[n]. Returns a float; 1 where both are one group.
    """
    a, b = (np.unique(x, return_inverse=True)[1] for x in (a, b))
    joint = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(joint, (a, b), 1 / len(a))
    whole = entropy(joint.sum(1)) + entropy(joint.sum(0))
    return float(np.clip(2 * (whole - entropy(joint.ravel())) / whole, 0, 1)) if whole > 0 else 1.0


def entropy(p):
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())
