"""Contrast along a hierarchy of labels, against the loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from dress import cases, dress
from supcon_jax.losses import contrast, hierarchy
from supcon_jax.ops.rows import Rows

N, D = 16, 5
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, D))
X /= np.linalg.norm(X, axis=1, keepdims=True)
RECORD = np.arange(N) // 2
LABEL = np.stack([RECORD % 2, RECORD % 4, RECORD % 6 // 2, RECORD], axis=1)  # the same id may stand under two parents


def loss(x, scale, sums, **how):
    q = Rows(x, jnp.asarray(LABEL, jnp.int32), jnp.arange(N), record=jnp.asarray(RECORD))
    return hierarchy.hierarchical(q, scale=scale, sums=sums, **how)


@pytest.mark.parametrize("kind, devices", cases(["hmc", "hce", "hmce"], ["hmce"]))
def test_equals_the_loops(kind, devices):
    value, _ = dress(lambda *args, sums: loss(*args, sums, kind=kind), [X, np.float64(4)], devices=devices)
    np.testing.assert_allclose(value, oracles.hierarchical(X, LABEL, RECORD, 4.0, kind), rtol=1e-12)


def test_padding_rows_change_nothing():
    """Those that stand first, too: they lead no group."""
    more = np.concatenate([X[:4][::-1], X])
    label, record = np.concatenate([LABEL[:4], LABEL]), np.concatenate([RECORD[:4] + 100, RECORD])
    q = Rows(jnp.asarray(more), jnp.asarray(label), valid=jnp.arange(N + 4) >= 4, record=jnp.asarray(record))
    got = jax.jit(hierarchy.hierarchical)(q, scale=4.0)
    np.testing.assert_allclose(got, oracles.hierarchical(X, LABEL, RECORD, 4.0, "hmce"), rtol=1e-5)


def test_two_levels_are_supcon():
    q = Rows(jnp.asarray(X), jnp.asarray(LABEL[:, 2:]), record=jnp.asarray(RECORD))
    got = jax.jit(lambda q: hierarchy.hierarchical(q, scale=4.0, kind="hce"))(q)
    want = contrast.supcon(q.replace(label=q.label[:, 0]), scale=4.0) / 2
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_mistakes_are_named():
    q = Rows(jnp.asarray(X), jnp.asarray(LABEL))
    with pytest.raises(ValueError, match="hmce"):
        hierarchy.hierarchical(q, scale=1.0, kind="max")
    with pytest.raises(ValueError, match="coarse"):
        hierarchy.hierarchical(q.replace(label=q.label[:, 0]), scale=1.0)
