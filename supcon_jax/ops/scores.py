"""Logits that are no inner product of two rows: a score of two sets of rows, such as late interaction of their tokens.

A score is a function of query rows and key rows that gives [n, m] in float32 or wider, `score(q, k)_ij` from row i of q
and row j of k alone, so that it may be taken tile by tile. It reads x [n, t, d] and mask, has a gradient with respect to
x, and is hashable and made of constants: a function, or a frozen dataclass of numbers. Padding rows hold zeros: a score
must be finite there.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from supcon_jax.ops.arrays import LOWEST, wide
from supcon_jax.ops.pairs import whole_pairs
from supcon_jax.ops.rows import dense


def by(sums, score):
    """The door with s_ij = scale * score(q, k)_ij in place of scale <q_i, k_j>.

    Sums over the keys and over the queries of one visit (rows.both) are those of the one matrix score(q, k).
    """
    return Whole(score) if sums is dense else sums.by(score)


@dataclass(frozen=True)
class Turned:
    """The transposed score: score(k, q)."""

    score: Callable

    def __call__(self, q, k):
        return self.score(k, q).T


@dataclass(frozen=True)
class Whole:
    """rows.dense of a score."""

    score: Callable | None

    def __call__(self, q, k, **how):
        return dense(q, k, score=self.score, **how)

    def both(self, q, k, *, weigh, back=None, **how):
        turned = self.score and Turned(self.score)
        one = dense(q, k, weigh=weigh, score=self.score, **how)
        return one, dense(k, q, weigh=back or weigh, score=turned, **how)

    def pairs(self, q, k, **how):
        return whole_pairs(q, k, score=self.score, **how)


@dataclass(frozen=True)
class MaxSim:
    """Late interaction: each token of the query finds its best token of the key.

        s_ij = sum_t max_u <q_it, k_ju>,   with mean: 1/|q_i| of it

    Khattab and Zaharia 2020, arXiv 2004.12832 (sum: ColBERT); Yao et al. 2021, arXiv 2111.07783 (mean: FILIP).

    q.x: [n, t, d] unit tokens. k.x: [m, u, d]. mask: bool [n, t] and [m, u], all tokens if left out. A row without any
    token scores 0. Returns [n, m].
    """

    mean: bool = False

    def __call__(self, q, k):
        acc = wide(q.x, k.x)
        exact = {"precision": jax.lax.Precision.HIGHEST, "preferred_element_type": acc}
        s = jnp.einsum("ntd,mud->ntmu", q.x, k.x, **exact)
        if k.mask is not None:
            s = jnp.where(k.mask[None, None], s, LOWEST)
        best = jnp.max(s, axis=3)
        if k.mask is not None:
            best = jnp.where(jnp.any(k.mask, axis=1)[None, None], best, 0)
        if q.mask is not None:
            best = jnp.where(q.mask[:, :, None], best, 0)
        if not self.mean:
            return jnp.sum(best, axis=1)
        number = jnp.asarray(q.x.shape[1], acc) if q.mask is None else jnp.sum(q.mask.astype(acc), axis=1)[:, None]
        return jnp.sum(best, axis=1) / jnp.maximum(number, 1)
