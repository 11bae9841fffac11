"""Distillation of similarities against the loop, in every dress, and what it becomes at its ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
import oracles_matching
import oracles_unimodal
from dress import dress
from supcon_jax.losses import bank, contrast, distill
from supcon_jax.ops import rows, sharded
from supcon_jax.ops.rows import Rows

N, D, E = 12, 5, 3
RNG = np.random.default_rng(0)
X, Y = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in RNG.normal(size=(2, N, D)))
S, T = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in RNG.normal(size=(2, N, E)))
LABEL = np.arange(N) // 3
OUT = (LABEL[:, None] == LABEL[None, :]) & ~np.eye(N, dtype=bool)


def test_equals_the_loop():
    """With a veto that reads the labels, which travel beside the teacher."""

    def loss(x, y, scale, sums):
        q, k = Rows(x, jnp.asarray(LABEL), jnp.arange(N)), Rows(y, jnp.asarray(LABEL), jnp.arange(N))
        s, t = jnp.asarray(S, x.dtype), jnp.asarray(T, x.dtype)
        return distill.distilled(q, k, s, t, scale=scale, teacher_scale=5.0, veto=rows.same_label_other, sums=sums)

    value, _ = dress(loss, [X, Y, np.float64(7)])
    teacher = np.where(OUT, -np.inf, 5 * S @ T.T)
    teacher = np.array([oracles_matching.softmax(row) for row in teacher])
    np.testing.assert_allclose(value, oracles.supcon(X, Y, teacher, 7.0, OUT), rtol=1e-12)


def test_a_sure_teacher_is_info_nce_and_no_gradient_reaches_it():
    def loss(s, sums):
        own = Rows(jnp.asarray(X)), Rows(jnp.asarray(Y))
        return distill.distilled(*own, s, s, scale=7.0, teacher_scale=1e4, sums=sums)

    for sums in (rows.dense, sharded.tiled(tile=(4, 8))):
        value, grad = jax.jit(jax.value_and_grad(loss), static_argnums=1)(jnp.asarray(S), sums)
        np.testing.assert_allclose(value, contrast.info_nce(Rows(jnp.asarray(X)), Rows(jnp.asarray(Y)), scale=7.0), rtol=1e-4)
        assert not np.any(grad)


@pytest.mark.parametrize("hot", [3.0, 1e4])
def test_an_own_key_for_each_query(hot):
    """SEED: the teacher's row of the same image, which only its own student sees, and a queue of the teacher's."""

    def loss(x, scale, sums):
        taught, kept = jnp.asarray(Y, x.dtype), jnp.asarray(T[:, [0, 1, 2, 0, 1]] / 2, x.dtype)
        q = Rows(x)
        return distill.distilled(q, Rows(kept), taught, kept, own=taught, scale=scale, teacher_scale=hot, sums=sums)

    value, _ = dress(loss, [X, np.float64(7)], rtol=1e-4 if hot > 10 else 1e-5)
    kept = T[:, [0, 1, 2, 0, 1]] / 2
    student = np.concatenate([7 * np.sum(X * Y, 1, keepdims=True), 7 * X @ kept.T], 1)
    teacher = np.concatenate([hot * np.sum(Y * Y, 1, keepdims=True), hot * Y @ kept.T], 1)
    np.testing.assert_allclose(value, oracles_unimodal.distilled(student, teacher), rtol=1e-10)
    if hot > 10:  # a sure teacher: MoCo
        with jax.enable_x64(True):
            moco = bank.among(Rows(jnp.asarray(X)), jnp.asarray(Y), Rows(jnp.asarray(kept)), scale=7.0)
        np.testing.assert_allclose(value, moco, rtol=1e-9)


def test_divergence_from_the_teacher():
    def loss(x, y, scale, sums):
        return distill.compress(Rows(x), Rows(y), jnp.asarray(S, x.dtype), jnp.asarray(T, x.dtype), scale=scale, sums=sums)

    value, _ = dress(loss, [X, Y, np.float64(7)])
    np.testing.assert_allclose(value, oracles_unimodal.distilled(7 * X @ Y.T, 7 * S @ T.T, kl=True), rtol=1e-10)
    with jax.enable_x64(True):
        own = Rows(jnp.asarray(S)), Rows(jnp.asarray(T))
        np.testing.assert_allclose(distill.compress(*own, own[0].x, own[1].x, scale=7.0), 0, atol=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_soft_labels(temperature):
    def loss(x, y):
        return distill.soft_labels(3 * x, 3 * y, temperature=temperature)

    value, (dx, dy) = dress(loss, [X, Y], sums=False, full=temperature == 4)
    np.testing.assert_allclose(value, oracles_unimodal.distilled(3 * X / temperature, 3 * Y / temperature), rtol=1e-12)
    assert dx.any() and not dy.any()
    valid = np.arange(N) > 3
    got = distill.soft_labels(jnp.asarray(X, jnp.float32), jnp.asarray(Y, jnp.float32), valid=jnp.asarray(valid))
    np.testing.assert_allclose(got, oracles_unimodal.distilled(X[valid], Y[valid]), rtol=1e-5)
