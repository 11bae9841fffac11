"""Collapse, rank and evenness against plain loops, numbers of the published formulas, and rows whose answer is known."""

import itertools
import json
import math

import numpy as np
import pytest

from supcon_jax.evals import spectrum
from supcon_jax.evals.protocol import Protocol, numbers
from supcon_jax.evals.r_precision import unit


def rows(n=23, d=5, seed=0):
    return unit(np.random.default_rng(seed).normal(size=(n, d)))


def sines(a, b, c, f, n=8, d=16):
    i, j = np.arange(n)[:, None], np.arange(d)[None]
    return np.sin(a * i + b * j + c * i * j + f)


ONE = sines(0.7, 1.3, 0.11, 0)
TWO = sines(0.7, 1.3, 0.11, 0.4) + 1.5 * sines(1.9, 0.5, 0.07, 0)


def test_numbers_of_a_torch_evaluation_on_the_same_rows():
    both = np.concatenate([ONE, TWO])
    assert spectrum.alignment(unit(ONE), unit(TWO)) == pytest.approx(0.9786654973, rel=1e-9)
    assert spectrum.uniformity(unit(ONE)) == pytest.approx(-4.1713078353, rel=1e-9)
    assert spectrum.rank(both, 1e-7) == pytest.approx(10.1432537631, rel=1e-9)
    assert spectrum.deviation(unit(ONE)) / 4 == pytest.approx(0.2647318007, rel=1e-9)
    assert spectrum.effective_rank(both) == pytest.approx(7.7715285041, rel=1e-9)
    assert spectrum.participation(both) == pytest.approx(6.6766165139, rel=1e-9)


def test_uniformity_is_the_log_mean_of_all_pairs(monkeypatch):
    monkeypatch.setattr(spectrum, "CHUNK", 7)
    x = rows()
    for t in (2, 0.5):
        pairs = [math.exp(-t * sum((p - q) ** 2 for p, q in zip(a, b))) for a, b in itertools.combinations(x.tolist(), 2)]
        assert spectrum.uniformity(x, t) == pytest.approx(math.log(math.fsum(pairs) / len(pairs)), rel=1e-12)
    assert spectrum.uniformity(np.repeat(x[:1], 4, 0)) == pytest.approx(0, abs=1e-12)


def test_the_rank_counts_directions_that_are_used():
    x = rows()
    sigma = np.sqrt(np.linalg.eigvalsh(x.T @ x))
    p = [s / sigma.sum() for s in sigma]
    assert spectrum.rank(x) == pytest.approx(math.exp(-sum(q * math.log(q) for q in p)), rel=1e-9)
    assert spectrum.rank(np.eye(6)) == pytest.approx(6) and spectrum.rank(np.ones((6, 4))) == pytest.approx(1, abs=1e-6)
    assert spectrum.rank(np.zeros((3, 2))) is None


def test_ranks_of_the_covariance_are_of_what_differs():
    x = np.concatenate([np.eye(4), -np.eye(4)]) + 5
    assert spectrum.effective_rank(x) == pytest.approx(4) and spectrum.participation(x) == pytest.approx(4)
    assert spectrum.rank(x) < 2  # not centred: the shift is one large direction
    uneven = np.concatenate([np.eye(2), -np.eye(2)]) * [2.0, 1.0]
    assert spectrum.participation(uneven) == pytest.approx((4 + 1) ** 2 / (16 + 1))
    assert spectrum.effective_rank(uneven) == pytest.approx(math.exp(-0.8 * math.log(0.8) - 0.2 * math.log(0.2)))
    same = np.ones((6, 4)) * np.pi
    assert spectrum.participation(same) is None and spectrum.effective_rank(same) is None


def test_lidar_counts_directions_that_views_leave_alone():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(9, 1, 3)) * [3.0, 2.0, 1.0] + 0.5 * rng.normal(size=(9, 4, 3))
    mean = x.mean(1)
    between, within = np.zeros((3, 3)), 1e-4 * np.eye(3)
    for i in range(9):
        between += np.outer(mean[i] - mean.mean(0), mean[i] - mean.mean(0)) / 8
        for v in range(4):
            within += np.outer(x[i, v] - mean[i], x[i, v] - mean[i]) / 36
    l = np.sort(np.linalg.eigvals(np.linalg.inv(within) @ between).real)
    p = l / l.sum()
    assert spectrum.lidar(x) == pytest.approx(math.exp(-(p * np.log(p)).sum()), rel=1e-8)
    flat = rng.normal(size=(60, 1, 2)) + 0.1 * rng.normal(size=(60, 4, 2))
    noisy = flat + rng.normal(size=(60, 4, 2)) * [9.0, 0.0]  # a direction in which views of one picture differ counts no more
    assert spectrum.lidar(flat) > 1.9 and spectrum.lidar(noisy) < 1.2 and spectrum.lidar(np.ones((4, 2, 3))) is None
    with pytest.raises(ValueError, match="9 pictures of 1 views"):
        spectrum.lidar(x[:, :1])


def test_each_number_has_its_protocol_and_what_cannot_be_is_left_out():
    views = rows(8 * 2, 5, 1).reshape(8, 2, 5)
    said = Protocol(network="net h", real_origin="toys/test")
    out = json.loads(json.dumps(spectrum.spectrum(rows(), views, protocol=said, name="spectrum_h")))
    kinds = ("std", "uniformity", "rank", "effective_rank", "participation", "alignment", "lidar")
    assert set(out) == {f"spectrum_h_{kind}" for kind in kinds}
    own = out["spectrum_h_rank"]["protocol"]
    assert (own["real_number"], own["settings"], own["network"]) == (23, "5 dimensions", "net h")
    assert out["spectrum_h_lidar"]["protocol"]["settings"] == "2 views of each picture, 5 dimensions"
    assert out["spectrum_h_lidar"]["protocol"]["real_number"] == 8
    dead = numbers(spectrum.spectrum(np.ones((4, 3))))
    assert set(dead) == {"spectrum_std", "spectrum_uniformity", "spectrum_rank"} and dead["spectrum_std"] == pytest.approx(0)
    with pytest.raises(ValueError, match="features: 1 of 4"):
        spectrum.spectrum(np.where(np.eye(4) > 0, [np.nan, 1, 1, 1], 0.0))


def test_a_collapse_is_seen():
    spread, centre = rows(200, 16), np.ones((1, 16))
    near = centre + 0.01 * spread
    good, bad = (numbers(spectrum.spectrum(x)) for x in (spread, near))
    assert good["spectrum_std"] > 0.9 and bad["spectrum_std"] < 0.01
    assert (
        bad["spectrum_rank"] < 0.2 * good["spectrum_rank"] and bad["spectrum_uniformity"] > -0.01 > good["spectrum_uniformity"]
    )
