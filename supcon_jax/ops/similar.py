"""Pairs that look too much alike to be negatives: left out by a threshold, or the nearest few cancelled or made positives."""

import functools

import jax
import jax.numpy as jnp

from supcon_jax.ops.arrays import LOWEST, wide
from supcon_jax.ops.rows import logits, same_index, same_record
from supcon_jax.ops.rules import two_sided, ways


def false_negatives(threshold, weigh):
    """Veto: pairs that `weigh` does not join although <q_i, k_j> >= threshold.

    Between the rows of a batch, of all devices, and between them and keys of a queue. A row that is its own key is such
    a pair unless `weigh` joins it; where it is to be left out, rules.either(same_index, ...) says so. The similarity is
    a constant: no gradient flows through it. It is one more product in each tile.

    threshold: a cosine where the rows are unit, at any scale of the logits. weigh: the rule for positives, not Counted.
    """

    @two_sided
    def veto(q, k):
        alike = logits(q, k, 1.0) >= threshold
        return tuple(alike & ~w.astype(bool) for w in ways(weigh, q, k))

    return veto


def cancelled(q, support=None, *, most=10, threshold=0.7, attract=False):
    """Rows and rules for false-negative cancellation: the nearest other rows of an example are no negatives.

        score_ij = max_s <u_is, z_j>,   FN(i): the `most` rows j of other examples of greatest score, those above the threshold
        eliminated:  L = mean_i  log sum_{a != i, a not in FN(i)} exp s_ia - mean_{p in P(i)} s_ip
        attracted:   L = mean_i  log sum_{a != i} exp s_ia - mean_{p in P(i) or FN(i)} s_ip

    Huynh et al. 2020, arXiv 2011.11765; P(i): the other views of the example. No gradient flows through scores,
    of which there is one for each pair of rows at once.

    q: unit rows [n, d] with record i32[n]. support: unit rows [n, s, d], further views of each row's example, by whatever
    network; the views of the example in the batch if left out. most: 1 or more. threshold: a cosine. attract: positives
    instead of nothing.
    Returns (rows, {"weights": rule, "veto": rule}), for use as in contrast.supcon(rows, scale=..., **rules).
    Raises ValueError: rows without records, or most out of range.
    """
    n = q.x.shape[0]
    if q.record is None or not 1 <= most <= n:
        raise ValueError(f"cancelled reads Rows(x, record=example of each row [n]) and takes 1 to {n} of them, not {most}")
    index = jnp.arange(n, dtype=jnp.int32) if q.index is None else q.index
    q = q.replace(index=index)
    score = jnp.where(same_record(q, q), LOWEST, _scores(q, support))
    if q.valid is not None:
        score = jnp.where(q.valid.astype(bool)[None, :], score, LOWEST)
    return q.replace(label=nearest(score, index, most, threshold)), cancelling(attract)


def nearest(score, index, most, threshold):
    """Who is no negative: ids of the `most` keys of greatest score, i32[n, most], -1 in the place of those not above the
    threshold. score: [n, m], LOWEST where a key is none of these. index: i32[m], the keys' ids."""
    best, place = jax.lax.top_k(score, most)
    return jnp.where(best > jnp.maximum(threshold, LOWEST / 2), index[place], -1)


def cancelling(attract):
    """{"weights", "veto"} for query rows whose label holds ids of false negatives, i32[n, most], -1 for none: positives with
    `attract`, else left out. A row is no key of itself, and the other rows of its record are its positives."""

    def found(q, k):
        return jnp.any((q.label[:, None, :] == k.index[None, :, None]) & (k.index >= 0)[None, :, None], axis=2)

    if attract:
        return {"weights": lambda q, k: same_record(q, k) | found(q, k), "veto": same_index}
    return {"weights": same_record, "veto": lambda q, k: same_index(q, k) | found(q, k)}


def closest(support, k):
    """The greatest product of any of a row's support with each key, [n, m]: one [n, m] at a time, and no gradient.

    support: [n, s, d]. k: [m, d].
    """
    support, k = jax.lax.stop_gradient((support.astype(k.dtype), k))
    exact = {"precision": jax.lax.Precision.HIGHEST, "preferred_element_type": wide(k)}
    products = (jnp.einsum("nd,md->nm", support[:, i], k, **exact) for i in range(support.shape[1]))
    return functools.reduce(jnp.maximum, products)


def _scores(q, support):
    """The greatest cosine of each row's support with each row, [n, n]."""
    x = jax.lax.stop_gradient(q.x)
    if support is not None:
        return closest(support, x)
    n = len(x)
    s = logits(q.replace(x=x), q.replace(x=x), 1.0)
    if q.valid is not None:
        s = jnp.where(q.valid.astype(bool)[:, None], s, LOWEST)
    group = jnp.unique(q.record, size=n, return_inverse=True)[1]
    return jax.ops.segment_max(s, group, n)[group]
