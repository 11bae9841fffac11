"""Row sums of a similarity matrix: what a contrastive loss reads. Who is whose positive is a rule on two sets of rows.

A rule is a function of query rows and key rows that gives [n, m]: weights w_ij >= 0 for positives, or booleans for a
veto (True: the pair is left out of everything). It sees only what travels with the rows, so it works on any tile of the
matrix. A rule that needs counts over all keys is `Counted`: `ready` lets it put them into the rows before
any door opens.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array

from supcon_jax.ops.arrays import LOWEST, wide
from supcon_jax.ops.rules import mutual, two_sided, ways


@flax.struct.dataclass
class Rows:
    """n rows of a global batch and what travels with them.

    x: embeddings [n, d] (unit rows where the loss says so), or [n, t, d] sets of t tokens for a score of ops.scores.
    label: i32[n] class ids (negative: unlabelled), or [n, c] multi-hot (all zero: unlabelled), or what the rule reads.
    index: i32[n] identity of the row: self exclusion and pairs.
    valid: bool or f32 [n]; rows with 0 are padding, neither anchors nor keys.
    record: i32[n] identity of the example that the row is a view of.
    mask: bool [n, t], False for tokens that are padding.
    """

    x: Array
    label: Array | None = None
    index: Array | None = None
    valid: Array | None = None
    record: Array | None = None
    mask: Array | None = None


class Sums(NamedTuple):
    """Sums over the keys j of each query row i, each [n] in float32 or wider; pairs under a veto and padding left out.

    lse: log sum_j exp s_ij (LOWEST where no key is left). pos: sum_j w_ij s_ij. wgt: sum_j w_ij.
    cnt: number of j with w_ij > 0. Without a gradient, LOWEST where no such key is left: top: max_j s_ij; rival: the
    same over the j with w_ij = 0. The best key is a positive where top > rival.
    """

    lse: Array
    pos: Array
    wgt: Array
    cnt: Array
    top: Array
    rival: Array


Rule = Callable[[Rows, Rows], Array]


@dataclass(frozen=True)
class Counted:
    """A rule that needs counts over all keys: `prepare(q, k, veto) -> (q, k)` first, on the global rows,
    then `weigh`."""

    prepare: Callable
    weigh: Rule


def ready(rule, q, k, veto=None):
    """The rule as a plain function of tiles, and the rows that it wants to see: (weigh, q, k).

    Where k is q, the returned rows are one object again: doors know by that that the logits are symmetric.
    """
    if not isinstance(rule, Counted):
        return rule, q, k
    a, b = rule.prepare(q, k, veto)
    if k is not q or a is b:
        return rule.weigh, a, b
    one = q.replace(label=(a.label, b.label))  # in both roles at once
    return (lambda q, k: rule.weigh(q.replace(label=q.label[0]), k.replace(label=k.label[1]))), one, one


def merge(a, b):
    """Sums of the same query rows over two disjoint key sets, as one."""
    lse = jnp.logaddexp(a.lse, b.lse)
    best = jnp.maximum(a.top, b.top), jnp.maximum(a.rival, b.rival)
    return Sums(lse, a.pos + b.pos, a.wgt + b.wgt, a.cnt + b.cnt, *best)


def logits(q, k, scale, score=None):
    """s_ij = scale <q_i, k_j>, or scale times a score of q and k (ops.scores), [n, m] in float32 or wider."""
    acc = wide(q.x, k.x)
    exact = {"precision": jax.lax.Precision.HIGHEST, "preferred_element_type": acc}
    s = jnp.einsum("nd,md->nm", q.x, k.x, **exact) if score is None else score(q, k)
    scale = jnp.asarray(scale, acc)
    return s * (scale[:, None] if scale.ndim else scale)


def dense(q, k, *, scale, weigh, veto=None, score=None):
    """Row sums of s_ij = scale <q_i, k_j>, the definition that every other door must equal.

    q: n query rows, x [n, d]. k: m key rows, x [m, d]; bf16 rows are multiplied as such and accumulated in float32,
    float32 rows are multiplied at the highest precision. scale: 1/temperature, f32[] or [n]. weigh, veto: rules.
    score: what stands in place of the inner product (scores.by).
    Returns Sums. A row without any key left gives finite values (wgt = cnt = pos = 0) and zero gradients.
    """
    acc = wide(q.x, k.x)
    s = logits(q, k, scale, score)
    live = live_pairs(q, k, veto)
    weight = jnp.where(live, weigh(q, k).astype(acc), 0)
    chosen = weight > 0
    top, rival = (
        jax.lax.stop_gradient(jnp.max(jnp.where(those, s, LOWEST), axis=1, initial=LOWEST)) for those in (live, live & ~chosen)
    )
    some = jnp.any(live, axis=1)
    shift = jnp.where(some, top, 0)
    total = jnp.sum(jnp.where(live, jnp.exp(jnp.where(live, s - shift[:, None], 0)), 0), axis=1)
    lse = jnp.where(some, jnp.log(jnp.where(some, total, 1)) + shift, LOWEST)
    pos = jnp.sum(weight * jnp.where(chosen, s, 0), axis=1)
    return Sums(lse, pos, jnp.sum(weight, axis=1), jnp.sum(chosen, axis=1).astype(acc), top, rival)


def both(sums, q, k, *, scale, weigh, veto=None):
    """Sums of the queries over the keys and of the keys over the queries, in one visit where the door can.

    sums: a door. weigh: a rule, also one that is Counted. scale: f32[], or [n] for n queries and n keys alike.
    Returns (Sums [n], Sums [m]): what the door gives for (q, k) and for (k, q).
    """
    back = weigh
    if isinstance(weigh, Counted):  # the rows carry what either direction reads
        (a, b), (d, c), read = weigh.prepare(q, k, veto), weigh.prepare(k, q, veto), weigh.weigh
        q, k = q.replace(label=(a.label, c.label)), k.replace(label=(b.label, d.label))
        weigh, back = (lambda q, k, i=i: read(*(r.replace(label=r.label[i]) for r in (q, k))) for i in (0, 1))
    if hasattr(sums, "both"):
        return sums.both(q, k, scale=scale, weigh=weigh, back=back, veto=veto)
    return sums(q, k, scale=scale, weigh=weigh, veto=veto), sums(k, q, scale=scale, weigh=back, veto=veto)


def live_pairs(q, k, veto=None):
    """bool[n, m]: both rows valid and no veto."""
    live = jnp.ones((q.x.shape[0], k.x.shape[0]), bool)
    if q.valid is not None:
        live &= q.valid.astype(bool)[:, None]
    if k.valid is not None:
        live &= k.valid.astype(bool)[None, :]
    if veto is not None:
        live &= ~veto(q, k)
    return live


# ---- identity


@mutual
def same_index(q, k):
    """The same row: own pairs as positives, or itself as a veto."""
    return q.index[:, None] == k.index[None, :]


@mutual
def same_record(q, k):
    """Views of the same example."""
    return q.record[:, None] == k.record[None, :]


def other(rule):
    """Veto: pairs that `rule` joins although they are not the same row."""

    @two_sided
    def veto(q, k):
        apart = ~same_index(q, k)
        return tuple(joined.astype(bool) & apart for joined in ways(rule, q, k))

    return veto


def own_or(rule):
    """`rule`, and for query rows without a label the views of their own example, with weight 1."""
    if isinstance(rule, Counted):
        return Counted(rule.prepare, own_or(rule.weigh))

    @two_sided
    def weigh(q, k):
        acc, same = wide(q.x), same_record(q, k)
        mine, theirs = ways(rule, q, k)
        by_row = jnp.where(labelled(q)[:, None], mine.astype(acc), same.astype(acc))
        return by_row, jnp.where(labelled(k)[None, :], theirs.astype(acc), same.astype(acc))

    return weigh


# ---- labels


def labelled(rows):
    """bool[n]: rows that carry a label: a class id >= 0, or a multi-hot row that is not all zero."""
    return rows.label >= 0 if rows.label.ndim == 1 else jnp.any(rows.label.astype(bool), axis=1)


@mutual
def same_label(q, k):
    """w = 1[y_i = y_j] for class ids; unlabelled rows (negative) match nobody."""
    return (q.label[:, None] == k.label[None, :]) & (q.label >= 0)[:, None]


same_label_other = other(same_label)


def shared(q, k):
    """|Y_i and Y_j|, [n, m]: the labels in common of multi-hot rows, in float32 or wider."""
    acc = wide(q.x)
    precision = jax.lax.Precision.HIGHEST
    return jnp.einsum("nc,mc->nm", q.label.astype(acc), k.label.astype(acc), precision=precision)


def size(rows):
    """sum_l Y_l^2, [n]: the number of labels of a multi-hot row."""
    label = rows.label.astype(wide(rows.x))
    return jnp.sum(label * label, axis=1)


@mutual
def any_label(q, k):
    """w = 1[Y_i and Y_j share a label], multi-hot labels."""
    return shared(q, k) > 0


@mutual
def all_labels(q, k):
    """w = 1[Y_i = Y_j], multi-hot labels; rows without any label match nobody."""
    both = shared(q, k)
    return (both > 0) & (both == size(q)[:, None]) & (both == size(k)[None, :])


def jaccard(threshold=0.0):
    """w = J_ij = |Y_i and Y_j| / |Y_i or Y_j| where J_ij >= threshold and > 0, else 0; multi-hot labels [n, c].

    With columns weighted by sqrt(w_l) it is the weighted coefficient sum_{and} w_l / sum_{or} w_l.
    """

    def weigh(q, k):
        both = shared(q, k)
        union = size(q)[:, None] + size(k)[None, :] - both
        value = jnp.where(both > 0, both / jnp.where(union > 0, union, 1), 0)
        return jnp.where(value >= threshold, value, 0)

    return mutual(weigh)


@mutual
def label_cosine(q, k):
    """w = |Y_i and Y_j| / sqrt(|Y_i| |Y_j|), the cosine of multi-hot rows; 0 for rows without any label."""
    length = jnp.sqrt(size(q)[:, None] * size(k)[None, :])
    return shared(q, k) / jnp.where(length > 0, length, 1)


def idf(threshold=0.0):
    """w = sum_{l in both} w_l / sum_{l in either} w_l, w_l = log(N / n_l): a Jaccard that discounts common labels.

    N valid keys, n_l of them with label l. A label that every key carries weighs nothing.
    """

    def prepare(q, k, veto):
        acc = wide(q.x)
        valid = jnp.ones(k.x.shape[0], acc) if k.valid is None else k.valid.astype(bool).astype(acc)
        number = jnp.sum(k.label.astype(acc) * valid[:, None], axis=0)
        some = number > 0
        root = jnp.sqrt(jnp.where(some, jnp.log(jnp.sum(valid) / jnp.where(some, number, 1)), 0))[None, :]
        seen = k.replace(label=k.label.astype(acc) * root)
        return seen if q is k else q.replace(label=q.label.astype(acc) * root), seen

    return Counted(prepare, jaccard(threshold))


def _mulsupcon(q, k, veto):
    """Query labels Y_il / n_l(i), n_l(i) the keys with label l that row i may see."""
    acc = wide(q.x)
    valid = jnp.ones(k.x.shape[0], acc) if k.valid is None else k.valid.astype(bool).astype(acc)
    label = k.label.astype(acc) * valid[:, None]
    number = jnp.broadcast_to(jnp.sum(label, axis=0)[None, :], q.label.shape)
    mine = q.label.astype(acc)
    if veto is same_index:  # a row that is its own key does not count itself
        own = jnp.isin(q.index, k.index if k.valid is None else jnp.where(k.valid.astype(bool), k.index, -1))
        number = number - mine * own.astype(acc)[:, None]
    elif veto is not None:
        raise ValueError("mulsupcon counts positives before the pairs are seen: its veto can only be same_index or None")
    some = number > 0
    return q.replace(label=jnp.where(some, mine / jnp.where(some, number, 1), 0)), k


# MulSupCon (AAAI 2024): a SupCon term for each (anchor, label) pair, all of them in one matrix,
#     w_ij = sum_{l in Y_i and Y_j} 1 / n_l(i),   so that wgt_i is the number of labels of i that have a positive.
# Read with mean="terms" it is the mean over all terms, with mean="anchors" each anchor's terms weigh 1 / |Y_i|.
mulsupcon = Counted(_mulsupcon, shared)


def from_mask(q, k):
    """Weights given as a matrix: w_ij = q.label[i, k.label[j]], q.label f32[n, p] mask rows, k.label i32[m] columns."""
    return jnp.take(q.label, k.label, axis=1)
