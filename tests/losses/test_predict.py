"""Prediction of another view: against the loops, in every dress, and where the gradient may go."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles_unimodal as slow
from dress import dress
from supcon_jax.losses import predict

P, Z = np.random.default_rng(0).normal(size=(2, 16, 6)) * 3
LOSSES = {"byol": (predict.byol, slow.byol), "simsiam": (predict.simsiam, slow.simsiam)}


@pytest.mark.parametrize("name", LOSSES)
def test_equals_the_loops(name):
    fn, oracle = LOSSES[name]
    value, (dp, dz) = dress(fn, [P, Z], sums=False, full=True)
    np.testing.assert_allclose(value, oracle(P, Z), rtol=1e-12)
    assert np.abs(dp).max() > 1e-3 and not dz.any()  # the target stands still
    np.testing.assert_allclose(np.sum(dp * P, axis=1), 0, atol=1e-12)  # and the length of a prediction does not count


def test_ends():
    x = jnp.asarray(P, jnp.float32)
    np.testing.assert_allclose([predict.byol(x, 5 * x), predict.byol(x, -x)], [0, 4], atol=1e-6)
    np.testing.assert_allclose([predict.simsiam(x, 5 * x), predict.simsiam(x, -x)], [-1, 1], atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_a_zero_row_is_finite(name):
    fn = LOSSES[name][0]
    for p, z in ((P * (np.arange(16) > 0)[:, None], Z), (P, Z * (np.arange(16) > 0)[:, None])):
        value, grad = jax.value_and_grad(fn)(jnp.asarray(p, jnp.float32), jnp.asarray(z, jnp.float32))
        assert np.isfinite(value) and np.isfinite(grad).all()
