"""Codes by Sinkhorn's iteration: against the loops, over split rows, at its ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles_unimodal as slow
from dress import split
from supcon_jax.ops.sinkhorn import sinkhorn

S = np.random.default_rng(0).uniform(-1, 1, size=(16, 5))


@pytest.mark.parametrize("eps, rounds", [(0.05, 3), (0.5, 1), (0.03, 10)])
def test_equals_the_loops(eps, rounds):
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        got = sinkhorn(jnp.asarray(S), eps=eps, rounds=rounds)
    np.testing.assert_allclose(got, slow.sinkhorn(S, eps, rounds), rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(np.asarray(got).sum(1), 1, rtol=1e-12)


def test_rows_split_over_devices_and_low_precision():
    run = jax.jit(sinkhorn)
    want = slow.sinkhorn(S, 0.05, 3)
    np.testing.assert_allclose(run(split(jnp.asarray(S, jnp.float32), 8)), want, rtol=1e-4, atol=1e-6)
    low = jnp.asarray(S, jnp.bfloat16)
    got = run(low)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, slow.sinkhorn(np.asarray(low, np.float64), 0.05, 3), rtol=1e-4, atol=1e-6)


def test_rows_left_out_count_for_nobody():
    valid = np.arange(16) % 3 > 0
    with jax.enable_x64(True):
        noise = np.where(valid[:, None], S, 50.0)
        got = sinkhorn(jnp.asarray(noise), valid=jnp.asarray(valid))
        assert not np.asarray(got)[~valid].any()
        np.testing.assert_allclose(np.asarray(got)[valid], slow.sinkhorn(S[valid], 0.05, 3), rtol=1e-10, atol=1e-15)
        assert not np.any(sinkhorn(jnp.asarray(S), valid=jnp.zeros(16, bool)))


def test_prototypes_are_used_alike():
    got = sinkhorn(jnp.asarray(S, jnp.float32), rounds=200, eps=0.2)
    np.testing.assert_allclose(got.sum(0), 16 / 5, rtol=1e-3)
    np.testing.assert_allclose(sinkhorn(jnp.zeros((16, 5))), 0.2, rtol=1e-6)
    far = sinkhorn(jnp.asarray(1e3 * S, jnp.float32))
    assert np.isfinite(far).all()
    np.testing.assert_allclose(far.sum(1), 1, rtol=1e-6)


def test_codes_carry_no_gradient_and_need_a_round():
    assert not np.any(jax.grad(lambda s: jnp.sum(sinkhorn(s) ** 2))(jnp.asarray(S, jnp.float32)))
    with pytest.raises(ValueError, match="rounds is 0"):
        sinkhorn(jnp.zeros((4, 2)), rounds=0)
