"""Row sums in which each pair stands alone: what a loss of sigmoids reads."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from supcon_jax.ops.arrays import wide
from supcon_jax.ops.rows import dense, live_pairs, logits


class Pairs(NamedTuple):
    """Sums over the keys j of each query row i, each [n] in float32 or wider; pairs under a veto and padding left out.

    soft: sum_j log(1 + exp s_ij). pos: sum_j w_ij s_ij. wgt: sum_j w_ij. cnt: number of j with w_ij > 0.
    """

    soft: Array
    pos: Array
    wgt: Array
    cnt: Array


def pairs(sums, q, k, *, scale, bias, weigh, veto=None):
    """Sums of s_ij = scale <q_i, k_j> + bias, pair by pair.

    sums: a door; rows.dense makes the whole matrix. q, k, scale, weigh, veto: as for rows.dense. bias: f32[] or [n].
    Returns Pairs.
    """
    if sums is not dense:
        return sums.pairs(q, k, scale=scale, bias=bias, weigh=weigh, veto=veto)
    return whole_pairs(q, k, scale=scale, bias=bias, weigh=weigh, veto=veto)


def whole_pairs(q, k, *, scale, bias, weigh, veto=None, score=None):
    """`pairs` from the whole matrix: the definition. score: as for rows.dense."""
    acc = wide(q.x, k.x)
    bias = jnp.asarray(bias, acc)
    s = logits(q, k, scale, score) + (bias[:, None] if bias.ndim else bias)
    live = live_pairs(q, k, veto)
    weight = jnp.where(live, weigh(q, k).astype(acc), 0)
    soft = jnp.sum(jnp.where(live, jax.nn.softplus(s), 0), axis=1)
    return Pairs(soft, jnp.sum(weight * s, axis=1), jnp.sum(weight, axis=1), jnp.sum(weight > 0, axis=1).astype(acc))
