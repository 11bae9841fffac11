"""Barlow Twins and VICReg: against the loops, in every dress, and what they are blind to."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles_unimodal as slow
from dress import dress
from supcon_jax.losses import decorrelate

RNG = np.random.default_rng(0)
A = RNG.normal(size=(16, 5))
B = A + 0.5 * RNG.normal(size=(16, 5))

LOSSES = {
    "barlow": (functools.partial(decorrelate.barlow, off=0.02), lambda a, b: slow.barlow(a, b, 0.02, 1e-5)),
    "vicreg": (decorrelate.vicreg, lambda a, b: slow.vicreg(a, b, (25, 25, 1), True, 1e-4)),
    "vicreg_paper": (
        functools.partial(decorrelate.vicreg, form="paper", invariance=3.0, variance=2.0, covariance=0.5),
        lambda a, b: slow.vicreg(a, b, (3, 2, 0.5), False, 1e-4),
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_equals_the_loops(name):
    fn, oracle = LOSSES[name]
    value, _ = dress(fn, [0.4 * A, 0.4 * B], sums=False, full=name != "vicreg_paper")
    np.testing.assert_allclose(value, oracle(0.4 * A, 0.4 * B), rtol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_order_views_and_shift(name):
    fn, order = jax.jit(LOSSES[name][0]), RNG.permutation(16)
    a, b = jnp.asarray(A, jnp.float32), jnp.asarray(B, jnp.float32)
    for again in (fn(b, a), fn(a[order], b[order]), fn(a + 2, b + 2)):
        np.testing.assert_allclose(again, fn(a, b), rtol=1e-5)
    if name == "barlow":  # columns are made alike first
        np.testing.assert_allclose(fn(3 * a, b - 7), fn(a, b), rtol=1e-4)


def test_views_that_agree_and_columns_that_do_not():
    """Orthogonal columns of deviation one and equal views: nothing is left but eps."""
    x = np.linalg.qr(A - A.mean(0))[0] * 4
    x = jnp.asarray(x, jnp.float32)
    assert decorrelate.barlow(x, x) < 1e-6 and decorrelate.vicreg(x, x) < 1e-2
    np.testing.assert_allclose(decorrelate.barlow(x, -x), 4 * 5, rtol=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_collapse_is_finite_and_costs(name):
    fn = jax.jit(jax.value_and_grad(LOSSES[name][0], (0, 1)))
    for x in (jnp.zeros((16, 5)), jnp.ones((16, 5)), jnp.asarray(A, jnp.float32) * (np.arange(16) > 0)[:, None]):
        value, grads = fn(x, x)
        assert np.isfinite(value) and all(np.isfinite(g).all() for g in grads)
    assert fn(jnp.ones((16, 5)), jnp.ones((16, 5)))[0] > fn(jnp.asarray(A, jnp.float32), jnp.asarray(A, jnp.float32))[0]


def test_mistakes_are_named():
    x = jnp.zeros((4, 3))
    with pytest.raises(ValueError, match="form is 'code'"):
        decorrelate.vicreg(x, x, form="code")
    with pytest.raises(ValueError, match="one shape"):
        decorrelate.barlow(x, x[:2])
    with pytest.raises(ValueError, match="two rows"):
        decorrelate.vicreg(x[:1], x[:1])
