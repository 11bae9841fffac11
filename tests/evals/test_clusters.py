"""Agreement of groups against loops, and k-means on classes that are known."""

import itertools

import numpy as np
import pytest

from supcon_jax.evals import clusters
from supcon_jax.evals.protocol import Protocol, numbers

RNG = np.random.default_rng(0)
A, B = RNG.integers(0, 4, 30), RNG.integers(0, 3, 30)
B[:15] = A[:15] % 3


def test_the_rand_index_counts_pairs():
    pairs = list(itertools.combinations(range(30), 2))
    one, two = ([x[i] == x[j] for i, j in pairs] for x in (A, B))
    both, expected = sum(p and q for p, q in zip(one, two)), sum(one) * sum(two) / len(pairs)
    assert clusters.ari(A, B) == pytest.approx((both - expected) / ((sum(one) + sum(two)) / 2 - expected), rel=1e-12)
    assert clusters.ari(A, (A + 1) % 4 * 7) == 1.0 and clusters.ari(A * 0, A * 0) == 1.0 and clusters.ari(A * 0, B) == 0.0


def test_the_best_naming_of_clusters_is_found():
    best = max(sum(names[a] == b for a, b in zip(A, B)) for names in itertools.permutations([0, 1, 2, -1]))
    assert clusters.accuracy(A, B) == pytest.approx(100 * best / 30)
    assert clusters.accuracy((A + 1) % 4, A) == 100.0


def test_clusters_of_known_classes_and_of_noise():
    label = np.arange(120) % 4
    x = np.eye(4)[label] * RNG.uniform(1, 9, (120, 1)) + 0.05 * RNG.normal(size=(120, 4))  # lengths play no role
    unlabelled = np.where(np.arange(120) < 20, -1, label)
    out = clusters.clusters(x, unlabelled, protocol=Protocol(network="net h"), seed=3)
    values = numbers(out)
    assert values["clusters_nmi"] == values["clusters_ari"] == 1.0 and values["clusters_accuracy"] == 100.0
    assert values["clusters_nmi_chance"] < 0.15 and abs(values["clusters_ari_chance"]) < 0.1
    assert values["clusters_accuracy_chance"] < 45
    own = out["clusters_nmi"]["protocol"]
    assert own["subsets"] == "k-means, 4 clusters of 100 rows" and (own["real_number"], own["seed"]) == (100, 3)
    blind = numbers(clusters.clusters(RNG.normal(size=(120, 4)), label))
    assert abs(blind["clusters_accuracy"] - blind["clusters_accuracy_chance"]) < 15 and blind["clusters_ari"] < 0.1


def test_labels_that_give_no_groups_are_left_out():
    x = RNG.normal(size=(8, 3))
    for label in (None, np.zeros(8, int), np.arange(8), np.eye(8, dtype=int)):
        assert clusters.clusters(x, label) == {}
