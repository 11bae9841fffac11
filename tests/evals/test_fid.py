"""Scores of feature sets against loops in float64 and against distributions whose distance is known."""

import itertools
import tracemalloc

import numpy as np
import pytest
import scipy.linalg

from supcon_jax.evals.fid import frechet, gaussian, inception_score, kid, mmd2, prdc


def draws(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def test_gaussian_is_mean_and_unbiased_covariance():
    x = np.float32(draws(9, 4))
    mu, sigma = gaussian(x)
    y = x.astype(np.float64)
    want = sum(np.outer(r - y.mean(0), r - y.mean(0)) for r in y) / 8
    np.testing.assert_allclose(mu, y.mean(0), rtol=1e-12)
    np.testing.assert_allclose(sigma, want, rtol=1e-12)
    assert sigma.dtype == np.float64


def test_frechet_of_diagonal_gaussians_is_known():
    s1, s2 = np.array([1.0, 4.0, 0.0]), np.array([9.0, 4.0, 0.25])
    mu1, mu2 = np.zeros(3), np.array([1.0, 2.0, 2.0])
    want = 9 + np.sum((np.sqrt(s1) - np.sqrt(s2)) ** 2)
    np.testing.assert_allclose(frechet(mu1, np.diag(s1), mu2, np.diag(s2)), want, rtol=1e-12)


def test_frechet_agrees_with_the_matrix_square_root_and_is_symmetric():
    (mu1, s1), (mu2, s2) = gaussian(draws(60, 7)), gaussian(draws(50, 7, seed=1) @ draws(7, 7, seed=2) + 1)
    want = np.sum((mu1 - mu2) ** 2) + np.trace(s1 + s2 - 2 * scipy.linalg.sqrtm(s1 @ s2).real)
    np.testing.assert_allclose(frechet(mu1, s1, mu2, s2), want, rtol=1e-9)
    np.testing.assert_allclose(frechet(mu2, s2, mu1, s1), want, rtol=1e-9)


@pytest.mark.parametrize(("n", "d"), [(200, 16), (30, 100), (2, 5)])
def test_frechet_of_a_set_with_itself_is_zero(n, d):
    one = gaussian(np.float32(draws(n, d) * np.geomspace(30, 1e-3, d)))
    assert abs(frechet(*one, *one)) < 1e-6


def test_frechet_of_too_few_rows_matches_the_exact_low_rank_form():
    x, y = draws(12, 40), draws(15, 40, seed=1) + 0.5
    a, b = (x - x.mean(0)) / np.sqrt(11), (y - y.mean(0)) / np.sqrt(14)
    shared = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    want = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.sum(a**2) + np.sum(b**2) - 2 * shared
    np.testing.assert_allclose(frechet(*gaussian(x), *gaussian(y)), want, rtol=1e-9)


def test_frechet_of_constant_sets_is_the_distance_of_their_means():
    np.testing.assert_allclose(frechet(*gaussian(np.ones((4, 3))), *gaussian(np.full((5, 3), 3.0))), 12.0)


def test_sampled_gaussians_come_near_their_true_distance():
    x, y = draws(20000, 3), 2 * draws(20000, 3, seed=1) + 1
    np.testing.assert_allclose(frechet(*gaussian(x), *gaussian(y)), 3 + 3 * (2 - 1) ** 2, rtol=0.03)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rows_that_are_not_finite_are_named_not_hidden(bad):
    x, y = draws(20, 4), draws(20, 4, seed=1)
    x[3, 1] = x[7, 0] = bad
    for score in (gaussian, lambda x: kid(x, y, subsets=2, size=5), lambda x: prdc(y, x), lambda x: mmd2(y, x)):
        with pytest.raises(ValueError, match="2 of 20 rows are not finite"):
            score(x)
    with pytest.raises(ValueError, match="2 of 20 rows"):
        inception_score(x, 2)


def test_inception_score_of_known_answers():
    sure = np.where(np.eye(5) > 0, 1000.0, 0.0)
    np.testing.assert_allclose(inception_score(np.tile(sure, (4, 1)), 2), (5.0, 0.0), atol=1e-12)
    np.testing.assert_allclose(inception_score(np.zeros((10, 7)), 1), (1.0, 0.0), atol=1e-12)
    np.testing.assert_allclose(inception_score(np.tile(sure[:1], (10, 1)), 1)[0], 1.0)


def test_inception_score_splits_where_said():
    x = draws(11, 4)
    order = np.random.default_rng(1).permutation(11)
    p = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    want = []
    for rows in (order[:3], order[3:7], order[7:]):
        mean = p[rows].mean(0)
        want.append(np.exp(np.mean([sum(p[i] * (np.log(p[i]) - np.log(mean))) for i in rows])))
    np.testing.assert_allclose(inception_score(x, 3, order), (np.mean(want), np.std(want)), rtol=1e-10)
    with pytest.raises(ValueError, match="12 splits of 11"):
        inception_score(x, 12)


def test_mmd_against_double_loops():
    x, y = draws(6, 3), draws(6, 3, seed=1)

    def k(a, b):
        return (a @ b / 3 + 1) ** 3

    pairs = list(itertools.permutations(range(6), 2))
    own = sum(k(x[i], x[j]) for i, j in pairs) / 30 + sum(k(y[i], y[j]) for i, j in pairs) / 30
    cross = np.mean([k(a, b) for a in x for b in y])
    np.testing.assert_allclose(mmd2(x, y), own - 2 * cross, rtol=1e-10)
    u = own - 2 * sum(k(x[i], y[j]) for i, j in pairs) / 30
    np.testing.assert_allclose(mmd2(x, y, "u_statistic"), u, rtol=1e-10)
    full = np.mean([k(a, b) for a in x for b in x]) + np.mean([k(a, b) for a in y for b in y])
    np.testing.assert_allclose(mmd2(x, y, "biased"), full - 2 * cross, rtol=1e-10)
    with pytest.raises(ValueError, match="as many rows"):
        mmd2(x, y[:4], "u_statistic")


def test_kid_is_seeded_and_near_zero_for_one_distribution():
    x, y = draws(300, 4), draws(300, 4, seed=1)
    one = kid(x, y, subsets=20, size=100, seed=3)
    assert one == kid(x, y, subsets=20, size=100, seed=3) != kid(x, y, subsets=20, size=100, seed=4)
    assert abs(one[0]) < 0.1 < kid(x, y + 1, subsets=20, size=100)[0]
    assert kid(x, y, subsets=3, size=300)[1] < 1e-9  # no row twice: each is the whole set
    with pytest.raises(ValueError, match="subsets of 301"):
        kid(x, y, size=301)


def test_prdc_against_loops():
    real, fake, k = draws(14, 3), draws(11, 3, seed=1) + 0.7, 2

    def radius(x, i):
        return sorted(np.linalg.norm(x[i] - x[j]) for j in range(len(x)) if j != i)[k - 1]

    inside = [[np.linalg.norm(r - f) < radius(real, i) for f in fake] for i, r in enumerate(real)]
    about = [[np.linalg.norm(r - f) < radius(fake, j) for j, f in enumerate(fake)] for r in real]
    got = prdc(real, fake, k)
    np.testing.assert_allclose(got["precision"], np.mean(np.any(inside, 0)))
    np.testing.assert_allclose(got["recall"], np.mean(np.any(about, 1)))
    np.testing.assert_allclose(got["density"], np.mean(np.sum(inside, 0)) / k)
    np.testing.assert_allclose(got["coverage"], np.mean(np.any(inside, 1)))


def test_prdc_of_known_sets():
    real = draws(100, 3)
    same = prdc(real, real, 5)
    assert same["precision"] == same["recall"] == same["coverage"] == 1.0
    far = prdc(real, real + 100, 5)
    assert set(far.values()) == {0.0}
    collapsed = prdc(real, np.repeat(real[:1], 50, 0), 5)
    assert collapsed["precision"] == 1.0 and collapsed["recall"] == 0.0 and collapsed["coverage"] < 0.2
    with pytest.raises(ValueError, match="100 neighbours"):
        prdc(real, real, 100)


def plain(real, fake, k):
    """Precision, recall, density and coverage from whole matrices of differences."""

    def apart(a, b):
        return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))

    reals, fakes = (np.sort(apart(x, x), axis=1)[:, k] for x in (real, fake))
    between = apart(real, fake)
    inside = between < reals[:, None]
    return {
        "precision": inside.any(0).mean(), "recall": (between < fakes[None]).any(1).mean(),
        "density": inside.sum(0).mean() / k, "coverage": inside.any(1).mean(),
    }  # fmt: skip


@pytest.mark.parametrize("block", [1, 7, 26, 1000])
@pytest.mark.parametrize("kind", ["drawn", "grid"])
def test_prdc_in_blocks_is_the_plain_definition(block, kind):
    """Whatever the block leaves over; on the grid most distances are ties and many rows are equal."""
    if kind == "drawn":
        real, fake = draws(53, 3), draws(40, 3, seed=1) + 0.5
    else:
        rng = np.random.default_rng(0)
        real, fake = rng.integers(0, 5, (53, 3)) * 1.0, rng.integers(1, 7, (40, 3)) * 1.0
    for k in (1, 3, 6):
        want = plain(real, fake, k)
        assert prdc(real, fake, k, block=block) == want and len(set(want.values()) - {0, 1}) >= 3


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_mmd_in_blocks_is_the_plain_definition(block):
    for n, m in ((20, 33), (23, 23)):
        x, y = draws(n, 3), draws(m, 3, seed=1)
        xx, yy, xy = ((a @ b.T / 3 + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
        others = [(k.sum() - k.diagonal().sum()) / (len(k) * (len(k) - 1)) for k in (xx, yy)]
        want = {"biased": xx.mean() + yy.mean() - 2 * xy.mean(), "unbiased": sum(others) - 2 * xy.mean()}
        if n == m:
            want["u_statistic"] = sum(others) - 2 * (xy.sum() - xy.diagonal().sum()) / (n * (n - 1))
        for kind, value in want.items():
            np.testing.assert_allclose(mmd2(x, y, kind, block=block), value, rtol=1e-11, err_msg=kind)


@pytest.mark.parametrize(("n", "block", "most"), [(700, {"block": 50}, 0.5), (2200, {}, 2)])
def test_memory_is_of_a_block_of_rows_and_not_of_all_pairs(n, block, most):
    """In f64 matrices [n, n], of which whole distances need five and whole kernels four."""
    real, fake = draws(n, 3), draws(n, 3, seed=1)
    for score in (prdc, mmd2):
        tracemalloc.start()
        score(real, fake, **block)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < most * 8 * n * n, (score.__name__, peak / (8 * n * n))
