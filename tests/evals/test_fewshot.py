"""The ridge classifier against least squares, and few labels on classes that are known."""

import numpy as np
import pytest

from supcon_jax.evals import fewshot
from supcon_jax.evals.protocol import numbers

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("n,f", [(9, 20), (30, 4)])
def test_ridge_is_least_squares_with_a_penalty(n, f):
    x, label = RNG.normal(size=(n, f)), np.arange(n) % 3
    w, b = fewshot.ridge(x, label, classes=3, penalty=0.7)
    design = np.r_[np.c_[x, np.ones(n)], np.c_[np.sqrt(0.7) * np.eye(f), np.zeros(f)]]  # the level is not shrunk
    want = np.linalg.lstsq(design, np.r_[np.eye(3)[label], np.zeros((f, 3))], rcond=None)[0]
    np.testing.assert_allclose(w, want[:-1], atol=1e-9)
    np.testing.assert_allclose(b, want[-1], atol=1e-9)


def test_a_draw_has_as_many_of_each_class():
    label = RNG.permutation(np.repeat(np.arange(4), 9))
    rows = fewshot.draw(label, 5, np.random.default_rng(1))
    assert len(set(rows)) == 20 and (np.bincount(label[rows]) == 5).all()


def world(n, spread, seed):
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 4
    return 3 * np.eye(6)[label] * rng.uniform(1, 5, (n, 1)) + spread * rng.normal(size=(n, 6)), label


def test_more_shots_are_better_and_spread_less():
    x, label = world(200, 4.0, 0)
    query, truth = world(100, 4.0, 1)
    out = fewshot.fewshot(x, label, query, truth, classes=4, draws=12, shots=(1, 10, 40), name="fewshot_h")
    values = numbers(out)
    assert list(out) == [f"fewshot_h_{k}{end}" for k in (1, 10, 40) for end in ("", "_std")]
    assert 30 < values["fewshot_h_1"] < values["fewshot_h_10"] < values["fewshot_h_40"]
    assert values["fewshot_h_40_std"] < values["fewshot_h_1_std"]
    assert out["fewshot_h_10"]["protocol"]["train_number"] == 40 and out["fewshot_h_10"]["protocol"]["real_number"] == 100
    assert out["fewshot_h_10"]["protocol"]["settings"] == "ridge 1 on centred unit rows, 10 of each class, 12 draws"
    clear = numbers(fewshot.fewshot(*world(40, 0.1, 2), *world(40, 0.1, 3), classes=4))
    assert clear["fewshot_1"] == clear["fewshot_10"] == 100 and clear["fewshot_5_std"] == 0


def test_the_spread_is_that_of_the_draws():
    x, label = world(60, 4.0, 0)
    query, truth = world(40, 4.0, 1)
    rng, found = np.random.default_rng((7, 2)), []
    sphere, seen = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (x, query))
    for _ in range(3):
        rows = fewshot.draw(label, 2, rng)
        w, b = fewshot.ridge(sphere[rows], label[rows], classes=4)
        found.append(100 * np.mean((seen @ w + b).argmax(1) == truth))
    values = numbers(fewshot.fewshot(x, label, query, truth, classes=4, shots=(2,), draws=3, seed=7))
    assert values == {"fewshot_2": pytest.approx(np.mean(found)), "fewshot_2_std": pytest.approx(np.std(found, ddof=1))}
    assert values["fewshot_2_std"] > 0


def test_what_the_rows_cannot_give():
    x, label = world(12, 0.1, 0)
    assert set(fewshot.fewshot(x, label, x, label, classes=4)) == {"fewshot_1", "fewshot_1_std"}
    with pytest.raises(ValueError, match="draws: 2"):
        fewshot.fewshot(x, label, x, label, classes=4, draws=2)
    with pytest.raises(ValueError, match="one label of each row"):
        fewshot.fewshot(x, np.eye(4)[label], x, label, classes=4)
