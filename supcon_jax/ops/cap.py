"""Positives up to a number of examples: the rest of a class is neither positive nor negative."""

import jax.numpy as jnp

from supcon_jax.ops.rows import same_index, same_record


def capped(q, most):
    """Rows and rules for at most so many positive examples of an anchor's class beside its own views.

    They are the first `most` other examples of the class in the order of the rows, with all their views; further ones are
    left out of numerator and denominator. Views of the anchor's own example are positives always.

    q: rows with label i32[n] class ids (negative: unlabelled) and record i32[n]. most: 0 or more.
    Returns (rows, {"weights": rule, "veto": rule}), for use as in contrast.supcon(rows, scale=..., **rules).
    Raises ValueError: rows without class ids or without records.
    """
    if q.label is None or q.label.ndim != 1 or q.record is None:
        raise ValueError("a cap on positives reads Rows(x, label=class ids [n], record=example of each row [n])")

    def kept(q, k):
        mine, theirs = q.label[:, None], k.label[None, :]
        place = theirs[..., 1] - (mine[..., 1] < theirs[..., 1])  # among the class without the anchor's example
        alike = (mine[..., 0] == theirs[..., 0]) & (mine[..., 0] >= 0) & ~same_record(q, k)
        return alike & (place < most), alike & (place >= most)

    rules = {
        "weights": lambda q, k: same_record(q, k) | kept(q, k)[0],
        "veto": lambda q, k: same_index(q, k) | kept(q, k)[1],
    }
    index = jnp.arange(q.x.shape[0], dtype=jnp.int32) if q.index is None else q.index
    return q.replace(label=jnp.stack([q.label, _places(q)], axis=1), index=index), rules


def _places(q):
    """i32[n]: how many examples of its class have their first valid row before the first valid row of its own."""
    n = q.x.shape[0]
    valid = jnp.ones(n, bool) if q.valid is None else q.valid.astype(bool)
    _, first, group = jnp.unique(
        jnp.stack([~valid, q.record], axis=1, dtype=jnp.int32), axis=0, size=n, return_index=True, return_inverse=True
    )
    first = first[group].astype(jnp.int32)
    leads = (first == jnp.arange(n, dtype=jnp.int32)) & valid
    order = jnp.argsort(q.label, stable=True)
    label, seen = q.label[order], jnp.cumsum(leads[order], dtype=jnp.int32)
    begin = jnp.searchsorted(label, label)
    before = jnp.where(begin > 0, seen[begin - 1], 0)
    place = jnp.zeros(n, jnp.int32).at[order].set(seen - 1 - before)
    return place[first]
