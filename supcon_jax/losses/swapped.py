"""Swapped prediction: each crop predicts the codes of the others."""

import jax
import jax.numpy as jnp

from supcon_jax.ops.arrays import wide
from supcon_jax.ops.sinkhorn import sinkhorn

CODED = 2  # the first crops, those of full size, give codes


def swapped(z, prototypes, *, scale, eps=0.05, rounds=3, queue=None, full=True):
    """SwAV: the codes of the first two crops are predicted from every other crop's scores.

        L = mean_{u in {0, 1}} mean_{v != u} mean_i -sum_k q_iuk log softmax_k( scale <z_iv, c_k> )

    Caron et al. 2020, arXiv 2006.09882, eq. 2, over crops as in its section 3.3; q: ops.sinkhorn of <z_iu, c_k>, u by u.

    z: unit rows [n, v, d], v >= 2 crops of each example, those of full size first. prototypes: unit rows [k, d].
    scale: 1/temperature. eps, rounds: of sinkhorn. queue: Rows of m earlier examples, x [m, 2, d] the same two crops'
    embeddings, as ops.queue.keys gives them: scored with the prototypes of now, further rows in the sums over the batch;
    only the batch's own codes are used. full: leave the queue out until all its rows are valid, as the authors' code does;
    else those that are valid count.
    Returns f32[] (f64 for f64 rows). Gradients flow into z and prototypes, not through codes.
    Raises ValueError: fewer than two crops, or a queue of other shape.
    """
    n, v, d = z.shape
    if v < CODED:
        raise ValueError(f"codes of {CODED} crops are swapped: the rows are [n, {v}, d]")
    if queue is not None and queue.x.shape[1:] != (CODED, d):
        raise ValueError(f"the queue holds rows {list(queue.x.shape[1:])}, codes need [{CODED}, {d}]")
    scores = _scores(z, prototypes)
    log_p = jax.nn.log_softmax(scores * jnp.asarray(scale, scores.dtype), axis=-1)
    total = jnp.sum(log_p, axis=1)
    loss = jnp.zeros((), scores.dtype)
    for u in range(CODED):
        own, valid = scores[:, u], None
        if queue is not None:
            held = jnp.ones(len(queue.x), bool) if queue.valid is None else queue.valid.astype(bool)
            held = held & jnp.all(held) if full else held
            own = jnp.concatenate([own, _scores(queue.x[:, u].astype(z.dtype), prototypes)])
            valid = jnp.concatenate([jnp.ones(n, bool), held])
        codes = sinkhorn(own, eps=eps, rounds=rounds, valid=valid)[:n]
        loss = loss - jnp.sum(codes * (total - log_p[:, u])) / (n * (v - 1) * CODED)
    return loss


def _scores(z, prototypes):
    exact = {"precision": jax.lax.Precision.HIGHEST, "preferred_element_type": wide(z, prototypes)}
    return jnp.einsum("...d,kd->...k", z, prototypes, **exact)
