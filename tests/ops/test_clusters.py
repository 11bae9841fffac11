"""Clusters of rows, and the agreement of two groupings, against loops."""

import math

import numpy as np
import pytest

from supcon_jax.ops import clusters


def test_mutual_information_is_that_of_the_table():
    a, b = (np.random.default_rng(seed).integers(0, 3 + seed, 40) for seed in (0, 1))
    p = {(i, j): np.mean((a == i) & (b == j)) for i in set(a) for j in set(b)}
    pa, pb = ({i: np.mean(x == i) for i in set(x)} for x in (a, b))
    info = sum(q * math.log(q / pa[i] / pb[j]) for (i, j), q in p.items() if q)
    both = -sum(q * math.log(q) for x in (pa, pb) for q in x.values())
    assert clusters.nmi(a, b) == pytest.approx(2 * info / both, rel=1e-12)
    assert clusters.nmi(a, 7 - a) == pytest.approx(1) and clusters.nmi(a, 0 * a) == 0 and clusters.nmi(0 * a, 0 * a) == 1


def test_clusters_are_found_where_there_are_some():
    truth = np.repeat(np.arange(6), 9)
    x = np.eye(6)[truth] + 0.1 * np.random.default_rng(0).normal(size=(54, 6))
    found = clusters.kmeans(x, 6, seed=3)
    assert clusters.nmi(found, truth) == pytest.approx(1) and (found == clusters.kmeans(x, 6, seed=3)).all()
    centres = np.stack([x[found == c].mean(0) for c in range(6)])
    assert (((x[:, None] - centres[None]) ** 2).sum(-1).argmin(1) == found).all()  # nothing wants to move any more
    assert (clusters.kmeans(x, 6, seed=4) != found).any()  # other seeds, other names


def test_every_cluster_is_used_as_long_as_there_are_rows():
    x = np.array([[0.0], [0.1], [0.2], [50.0], [51.0], [52.0]], np.float32)
    start = np.array([[0.1], [51.0], [500.0]], np.float32)  # nothing is near the third
    found, total = clusters.lloyd(x, start)
    assert found.tolist() == [0, 0, 0, 2, 1, 1] and found.dtype == np.int32  # it takes the first of those farthest from theirs
    assert total == pytest.approx(0.01 + 0.01 + 0.25 + 0.25, rel=1e-3)
    alone = np.array([[0.0], [0.1], [0.3], [130.0]])  # the farthest row is all that the second has
    with np.errstate(all="raise"):  # nothing is divided by an empty cluster
        found, total = clusters.lloyd(alone, np.array([[0.0], [100.0], [500.0]]))
    assert found.tolist() == [0, 0, 2, 1] and total == pytest.approx(0.005)
    with pytest.raises(ValueError, match="3 clusters of 2 rows"):
        clusters.kmeans(x[:2], 3)
    with pytest.raises(ValueError, match="3 clusters, and only 1 rows differ"):
        clusters.kmeans(np.ones((4, 2)), 3)
