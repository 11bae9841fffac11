"""Clusters of rows, and how well two groupings of the same rows agree: on the host, in numpy.

ops.kmeans takes the same steps on devices, for whole data sets of features.
"""

import numpy as np

STARTS, ROUNDS = 3, 50
ROUNDING = 1e-6  # of the squared lengths: float32 rows are no nearer than that, if not equal


def kmeans(x, k, seed=0, starts=STARTS):
    """Cluster of each row by Lloyd's algorithm from k-means++ seeds, the best of some starts of at most ROUNDS rounds.

        minimise  sum_i |x_i - mu_{c(i)}|^2

    Lloyd 1982; seeds: Arthur & Vassilvitskii 2007. Same seed, same answer.

    x: f[n, d]; 1 <= k <= n. Returns i32[n] in 0 .. k - 1, each of which occurs: a cluster that loses all its rows takes the
    row farthest from its own centre, of those that are not the nearest to theirs.
    Raises ValueError: k out of range, or more clusters than rows that differ.
    """
    if not 1 <= k <= len(x):
        raise ValueError(f"k: {k} clusters of {len(x)} rows")
    rng = np.random.default_rng(seed)
    return min((lloyd(x, seeds(x, k, rng)) for _ in range(starts)), key=lambda found: found[1])[0]


def seeds(x, k, rng):
    """k rows, each drawn in proportion to the squared distance from those drawn before: f[k, d]."""
    chosen = [int(rng.integers(len(x)))]
    far = distances(x, x[chosen])[:, 0]
    for _ in range(k - 1):
        total = far.sum()
        if total <= 0:
            raise ValueError(f"k: {k} clusters, and only {len(chosen)} rows differ")
        chosen.append(int(rng.choice(len(x), p=far / total)))
        far = np.minimum(far, distances(x, x[chosen[-1:]])[:, 0])
    return x[chosen]


def lloyd(x, centre):
    """(cluster of each row, sum of squared distances) once nothing changes any more."""
    before = None
    for _ in range(ROUNDS):
        apart = distances(x, centre)
        found = apart.argmin(1)
        own = apart[np.arange(len(x)), found]
        empty = np.setdiff1d(np.arange(len(centre)), found)
        if len(empty):
            spare = own.copy()
            spare[nearest(found, own)] = -1
            far = np.argsort(-spare, kind="stable")[: len(empty)]
            found[far], own[far] = empty, 0
        if before is not None and (found == before).all():
            break
        before = found
        centre = np.zeros_like(centre)
        np.add.at(centre, found, x)
        centre /= np.bincount(found, minlength=len(centre))[:, None]
    return found.astype(np.int32), float(own.sum())


def nearest(found, own):
    """The nearest row of each cluster that has one: it stays, so that no cluster is emptied to fill another."""
    order = np.lexsort((own, found))
    return order[np.unique(found[order], return_index=True)[1]]


def distances(x, centre):
    """Squared distances f64[n, k]; what rounding makes of equal rows is zero."""
    square = [(a.astype(np.float64) ** 2).sum(1) for a in (x, centre)]
    apart = square[0][:, None] + square[1] - 2 * (x @ centre.T)
    return np.where(apart > ROUNDING * (square[0][:, None] + square[1]), apart, 0)


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
