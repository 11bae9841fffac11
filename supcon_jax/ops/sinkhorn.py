"""Soft assignment of rows to prototypes such that all prototypes are used alike: Sinkhorn's iteration in logarithms."""

import jax
import jax.numpy as jnp
from jax.nn import logsumexp

from supcon_jax.ops.arrays import wide


def sinkhorn(scores, *, eps=0.05, rounds=3, valid=None):
    """Codes of rows: nearly the transport plan of greatest score and entropy whose prototypes have equal mass.

        Q_ik = exp( s_ik/eps + a_i + b_k );   a round:  b_k = -log sum_i exp(s_ik/eps + a_i)
                                                        a_i = -log sum_k exp(s_ik/eps + b_k)

    Cuturi 2013, arXiv 1306.0895; as codes: Caron et al. 2020, arXiv 2006.09882, eq. 3 to 5, whose factors 1/K and 1/B
    drop out. In logarithms, in float32 or wider: at eps 0.05 the exponentials themselves leave float16.

    scores: [n, k], cosines of rows with prototypes; rows may be split over devices, sums are over all of them. eps: how
    soft. rounds: 1 or more. valid: bool [n], rows that are left out; their codes are zero.
    Returns f32[n, k] (f64 for f64 scores); valid rows sum to 1. No gradient flows through them.
    Raises ValueError: rounds < 1.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}: a code needs one round or more")
    s = jax.lax.stop_gradient(scores).astype(wide(scores)) / eps
    out = jnp.zeros(len(s), bool) if valid is None else ~valid.astype(bool)

    def again(_, b):
        a = -logsumexp(s + b[None, :], axis=1)
        return used(a)

    def used(a):
        b = -logsumexp(jnp.where(out[:, None], -jnp.inf, s + a[:, None]), axis=0)
        return jnp.where(jnp.isfinite(b), b, 0)  # no valid row at all

    b = jax.lax.fori_loop(1, rounds, again, used(jnp.zeros_like(s[:, 0])))
    return jnp.where(out[:, None], 0, jax.nn.softmax(s + b[None, :], axis=1))  # which is exp(s + a + b)
