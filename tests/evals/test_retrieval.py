"""Ranks against a sort, and what a constant encoder may score."""

import numpy as np
import pytest

from supcon_jax.evals.r_precision import unit
from supcon_jax.evals.retrieval import ranks, recalls, summary


def codes(n, c, d=8, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(n, d))
    return unit(image), unit(np.repeat(image, c, 0) + 0.8 * rng.normal(size=(n * c, d)))


@pytest.mark.parametrize("c", [1, 3])
def test_ranks_against_a_sort(c):
    image, text = codes(13, c)
    forth, back, top = ranks(image, text, c, chunk=5)
    s = image @ text.T
    for i in range(13):
        order = list(np.argsort(-s[i]))
        assert forth[i] == min(order.index(i * c + j) for j in range(c)) and top[i] == order[0]
    for j in range(13 * c):
        assert back[j] == list(np.argsort(-s[:, j])).index(j // c)


def test_rank_counts_wrong_answers_only():
    """Two right captions ahead of a wrong one: the best of them stands at 0."""
    image = np.eye(2)
    text = unit(np.array([[1, 0.1], [1, 0.2], [0.2, 1], [1, 0.05]]))
    forth, back, _ = ranks(image, text, 2)
    assert forth.tolist() == [1, 0] and back.tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("c", [1, 5])
@pytest.mark.parametrize("value", [1.0, 0.1, 0.0])
def test_constant_embeddings_are_never_right(c, value):
    n, d = 50, 37
    got = recalls(np.full((n, d), value), np.full((n * c, d), value), c)
    assert got["i2t_r1"] <= 100 / n and got["t2i_r1"] <= 100 / n
    assert got["t2i_median"] == n


def test_summary_of_known_ranks():
    assert summary([0, 1, 4, 9]) == {"r1": 25.0, "r5": 75.0, "r10": 100.0, "median": 3.0, "mean": 4.5}


def test_mistakes_are_refused():
    image, text = codes(4, 1)
    with pytest.raises(ValueError, match="4 images with 2 captions"):
        ranks(image, text, 2)
    text[1, 0] = np.nan
    with pytest.raises(ValueError, match="text: 1 of 4 rows"):
        recalls(image, text)
