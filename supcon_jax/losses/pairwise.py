"""Contrastive losses in which each pair stands alone: no row of logits is normalised."""

import jax.numpy as jnp

from supcon_jax.losses.contrast import with_index
from supcon_jax.ops import rows as rule
from supcon_jax.ops.pairs import pairs
from supcon_jax.ops.rows import dense


def siglip(q, k=None, *, scale, bias, weights=rule.same_index, veto=None, sums=dense):
    """Sigmoid pair loss (SigLIP): every pair is a yes-or-no question.

        L = -1/n sum_ij log sigmoid( z_ij (scale <q_i, k_j> + bias) ),   z_ij = 1 for positives, -1 for all others

    Zhai et al. 2023, arXiv 2303.15343.

    q, k: rows [n, d] and [m, d]; the queries themselves, each without itself, if k is left out. scale: f32[] or [n],
    the exponential of the paper's t'. bias: f32[], the paper starts at -10.
    weights: the rule for positives; the own pair (same index, the position if left out) if left out. Weights between 0
    and 1 are targets of a cross entropy. veto: pairs left out; same_index if k is left out. sums: the door.
    Returns f32[], a sum over keys and a mean over valid queries.
    Differs from: losses.contrast (no denominator: the value grows with the number of keys).
    """
    q = with_index(q)
    if k is None:
        k, veto = q, veto or rule.same_index
    weigh, q, k = rule.ready(weights, q, with_index(k), veto)
    s = pairs(sums, q, k, scale=scale, bias=bias, weigh=weigh, veto=veto)
    number = q.x.shape[0] if q.valid is None else jnp.maximum(jnp.sum(q.valid.astype(s.soft.dtype)), 1)
    return jnp.sum(s.soft - s.pos) / number
