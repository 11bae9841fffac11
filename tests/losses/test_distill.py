"""Distillation of similarities against the loop, in every dress, and what it becomes at its ends."""

import jax
import jax.numpy as jnp
import numpy as np

import oracles
import oracles_matching
from dress import dress
from supcon_jax.losses import contrast, distill
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
