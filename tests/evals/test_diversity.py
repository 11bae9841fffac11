"""Diversity against loops in float64, and of pictures that are equal, alike and not alike."""

import itertools

import numpy as np
import pytest

from supcon_jax.evals.diversity import spread


def layers(images):
    """Two layers of different size, with dead places."""
    x = images.astype(np.float32)
    return np.maximum(x - 100, 0), x[:, ::2, ::2] - 60


def draws(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 4, 6, 3), np.uint8)


def distance(x, y):
    total = 0.0
    for a, b in zip(layers(x[None]), layers(y[None]), strict=True):
        a, b = a[0].astype(np.float64), b[0].astype(np.float64)
        places = []
        for i, j in itertools.product(range(a.shape[0]), range(a.shape[1])):
            u, v = (p / max(np.sqrt(sum(c * c for c in p)), 1e-10) for p in (a[i, j], b[i, j]))
            places.append(sum((u - v) ** 2))
        total += np.mean(places)
    return total


def test_against_loops():
    """Each caption counts once, however many pictures it has; single pictures count nowhere."""
    images, same = draws(8), np.array([5, 1, 5, 7, 1, 5, 9, 9])
    groups = [[0, 2, 5], [1, 4], [6, 7]]
    want = np.mean([np.mean([distance(images[i], images[j]) for i, j in itertools.combinations(g, 2)]) for g in groups])
    value, captions, pairs = spread(layers, images, same)
    assert value == pytest.approx(want, rel=1e-12) and (captions, pairs) == (3, 5)


def test_the_network_sees_one_shape():
    seen = set()
    spread(lambda x: seen.add(len(x)) or layers(x), draws(7), np.array([0, 0, 1, 1, 1, 2, 2]))
    assert seen == {3}


def test_equal_pictures_and_brightness():
    one = draws(1).repeat(4, 0)
    assert spread(layers, one, np.zeros(4, int))[0] == 0.0
    far = spread(lambda x: (x.astype(float),), np.concatenate([one // 2 * 2, one // 2]), np.zeros(8, int))[0]
    assert far == pytest.approx(0, abs=1e-12)  # a factor is no difference: channels are made unit
    assert spread(layers, draws(4), np.zeros(4, int))[0] > 0.1


def test_nothing_to_compare_and_broken_layers():
    with pytest.raises(ValueError, match="no caption has two pictures"):
        spread(layers, draws(3), np.arange(3))
    with pytest.raises(ValueError, match="layer: 2 of 2 rows"):
        spread(lambda x: (x * np.nan,), draws(2), np.zeros(2))
