"""Row and column sums of a similarity matrix, and their gradients, tile by tile: the matrix is never kept.

Forward, a tile of logits is made, read into running sums and dropped; backward it is made once more:

    G_ij = dlse_i exp(s_ij - lse_i) + w_ij dpos_i    (and the same from the keys' side where their sums were read)
    dz = G k,   dk = G^T z,   s = z k^T

The online logsumexp is that of Milakov and Gimelshein 2018, arXiv 1805.02867; the recomputed backward pass
that of Dao et al. 2022, arXiv 2205.14135. With row and column sums of one visit the two passes cost
8 n m d operations; where the keys are the queries, tiles above the diagonal serve both sides: 4 n^2 d.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from supcon_jax.ops.arrays import LOWEST, wide
from supcon_jax.ops.pairs import Pairs
from supcon_jax.ops.rows import Sums, live_pairs
from supcon_jax.ops.rules import ways
from supcon_jax.ops.sweep import sweep


class Rules(NamedTuple):
    """One reading of the logits: who is whose positive for the queries (weigh; None: no weights are summed) and for the
    keys (back), who is left out, and what the logits are multiplied by."""

    weigh: Callable | None
    back: Callable | None = None
    veto: Callable | None = None
    factor: float = 1.0


class Form(NamedTuple):
    """How logits are made and read. score: what stands in place of the inner product (ops.scores). sigmoid: each logit
    is read alone, log(1 + exp s), in place of the logsumexp. bound: no |s| is larger; the logsumexp is shifted by it."""

    score: Callable | None = None
    sigmoid: bool = False
    bound: float | None = None


PLAIN = Form()


class Asked(NamedTuple):
    """Queries as they meet keys: x [n, d] times scale, as they are multiplied, and what is added to each row's logits,
    [n] or None. Where a score stands in place of the inner product: x [n, t, d], and factor [n] is the scale."""

    x: Array
    shift: Array | None = None
    factor: Array | None = None

    def logits(self, q, k, score=None):
        s = product(self.x, k.x) if score is None else score(q.replace(x=self.x), k) * self.factor[:, None]
        return s if self.shift is None else s + self.shift[:, None]

    def slopes(self, g, q, k, moves, score=None):
        """(Asked, [m, ...]) of gradients with respect to self and k.x, where wanted, from that of the logits, [n, m]."""
        if score is not None:
            mine, theirs = jax.vjp(lambda z, x: z.logits(q, k.replace(x=x), score), self, k.x)[1](g)
            return mine if moves[0] else None, theirs if moves[1] else None
        low, dz, dk = g.astype(self.x.dtype), None, None
        if moves[0]:
            dz = Asked(product(low, k.x.T), None if self.shift is None else jnp.sum(g, axis=1))
        if moves[1]:
            dk = product(low.T, self.x.T)
        return dz, dk


class Tally(NamedTuple):
    """Sums over some of a row's pairs in a form that adds: `total` is sum exp(s - shift), or with shift = 0 the sum of
    log(1 + exp s); weighed: (pos, wgt, cnt), or () without weights; top: None where the shift is the top. Each [n]."""

    shift: Array
    total: Array
    weighed: tuple
    top: Array | None = None

    def sums(self):
        some = self.total > 0
        lse = jnp.where(some, jnp.log(jnp.where(some, self.total, 1)) + self.shift, LOWEST)
        return Sums(lse, *(self.weighed or (None,) * 3), self.shift if self.top is None else self.top)

    def pairs(self):
        return Pairs(self.total, *self.weighed)


class Pull(NamedTuple):
    """What the backward pass knows of each row: its logsumexp and the gradients of it and of pos, None where nothing
    reads them. Each [n]."""

    lse: Array | None
    dlse: Array | None
    dpos: Array | None


def plus(a, b):
    """The tally of two disjoint sets of pairs."""
    shift = jnp.maximum(a.shift, b.shift)
    total = a.total * jnp.exp(a.shift - shift) + b.total * jnp.exp(b.shift - shift)
    top = None if a.top is None else jnp.maximum(a.top, b.top)
    return Tally(shift, total, jax.tree.map(jnp.add, a.weighed, b.weighed), top)


def plus_all(a, b):
    """`plus` for each reading."""
    return tuple(map(plus, a, b))


def block_stats(z, q, k, rules, *, tile, columns=False, half=False, form=PLAIN):
    """Sums of s = z.x k.x^T + z.shift for each query and, asked for, for each key, by each of several readings.

    z: Asked, n queries. q, k: what the rules read of n queries and m keys; k.x [m, d] is multiplied. rules: a tuple of
    Rules. tile: (rows, keys) of a tile. columns: sums for the keys too. half: z.x and k.x are the same rows up to a
    scalar; tiles on and above the diagonal are made, and what is found for a row as a query and as a key adds (`plus`)
    to its sums. form: how the logits are made and read.
    Returns (a Tally of the queries for each of the rules, the same of the keys or None).
    """
    columns = columns or half

    def visit(alone, left, right):
        (z, q, mine), (k, theirs) = left, right
        s = z.logits(q, k, form.score)
        found = [(*views(q, k, rule, s.dtype, alone, columns), rule.factor) for rule in rules]
        mine = plus_all(mine, [tally(s, *rows, factor, 1, form) for rows, _, factor in found])
        return mine, plus_all(theirs, [tally(s, *keys, factor, 0, form) for _, keys, factor in found]) if columns else None

    mine, theirs = (tuple(empty_tally(len(x), wide(z.x, k.x), rule, form) for rule in rules) for x in (z.x, k.x))
    return sweep(visit, (z, q), (k,), mine, theirs if columns else None, tile=tile, half=half)


def block_grads(z, q, k, rows, keys, rules, *, tile, half=False, moves=(True, True), form=PLAIN):
    """Gradients with respect to z and k.x [m, d], from the tiles made once more.

    rows: a Pull of the queries for each of the rules. keys: the same of the keys, None where their sums were not read.
    moves: whether the queries and whether the keys want a gradient. The other arguments as for block_stats.
    Returns (dz as Asked, dk [m, d]) in float32 or wider, None where not wanted.
    """

    def visit(alone, left, right):
        (z, q, mine, dz), (k, theirs, dk) = left, right
        s, g = z.logits(q, k, form.score), 0.0
        for i, rule in enumerate(rules):
            by_row, by_key = views(q, k, rule, s.dtype, alone, theirs is not None)
            g = g + pulled(s, *by_row, rule.factor, mine[i], 1, form)
            if theirs is not None:
                g = g + pulled(s, *by_key, rule.factor, theirs[i], 0, form)
        more = z.slopes(g, q, k, moves, form.score)
        return jax.tree.map(lambda a, b: a + b.astype(a.dtype), (dz, dk), more)

    acc = wide(z.x, k.x)
    dz, dk = (
        jax.tree.map(lambda a: jnp.zeros(a.shape, acc), side) if wanted else None
        for side, wanted in zip((z, k.x), moves, strict=True)
    )
    return sweep(visit, (z, q, rows), (k, keys), dz, dk, tile=tile, half=half)


def product(a, b):
    """<a_i, b_j>, [n, m], in float32 or wider: bf16 rows are multiplied as such, others at the highest precision."""
    return jnp.einsum("nd,md->nm", a, b, precision=lax.Precision.HIGHEST, preferred_element_type=wide(a, b))


def views(q, k, rules, dtype, alone, columns):
    """(live pairs, weights) of a tile, [n, m] each, as the queries see it and, with columns, as the keys see it.

    alone: bool; the keys see nothing: the tile's rows and keys are the same and the queries' side has it all.
    """

    def side(weight, out, silent):
        seen = live if out is None else live & ~out
        seen = seen & jnp.logical_not(silent)
        return seen, None if weight is None else jnp.where(seen, weight.astype(dtype), 0)

    live, veto = live_pairs(q, k), rules.veto
    if not columns:  # a rule may have no meaning from the other side
        return side(rules.weigh and rules.weigh(q, k), veto and veto(q, k), False), None
    weights = ways(rules.weigh, q, k, rules.back) if rules.weigh else (None, None)
    out = ways(veto, q, k) if veto else (None, None)
    return side(weights[0], out[0], False), side(weights[1], out[1], alone)


def tally(s, live, weight, factor, axis, form):
    """Tally of a tile of logits over an axis. live: bool, weight: 0 where not live or None, both [n, m]."""
    s = jnp.where(live, times(s, factor), LOWEST)
    weighed = ()
    if weight is not None:
        number = jnp.sum(weight > 0, axis=axis).astype(s.dtype)
        weighed = jnp.sum(weight * s, axis=axis), jnp.sum(weight, axis=axis), number
    if form.sigmoid:
        total = jnp.sum(jax.nn.softplus(s), axis=axis)
        return Tally(jnp.zeros_like(total), total, weighed)
    top = jnp.max(s, axis=axis)
    if form.bound is not None:
        shift = shift_of(form, factor)
        return Tally(jnp.full_like(top, shift), jnp.sum(jnp.exp(s - shift), axis=axis), weighed, top)
    # a row without live pairs counts exp(0) above LOWEST, which no number feels
    return Tally(top, jnp.sum(jnp.exp(s - jnp.expand_dims(top, axis)), axis=axis), weighed)


def empty_tally(n, dtype, rule, form):
    nothing, none = jnp.full(n, LOWEST, dtype), jnp.zeros(n, dtype)
    return Tally(nothing, none, (none,) * 3 if rule.weigh else (), None if form.bound is None else nothing)


def pulled(s, live, weight, factor, pull, axis, form):
    """The gradient of a tile's logits from the sums over an axis."""
    lse, dlse, dpos = (None if one is None else jnp.expand_dims(one, axis) for one in pull)
    s, g = times(s, factor), 0.0
    if dlse is not None and form.sigmoid:
        g = dlse * jax.nn.sigmoid(jnp.where(live, s, LOWEST))
    elif dlse is not None and form.bound is not None:  # the same exponential for rows and keys
        shift = shift_of(form, factor)
        some = lse > LOWEST / 2
        g = dlse * jnp.where(some, jnp.exp(shift - jnp.where(some, lse, 0)), 0) * jnp.exp(jnp.where(live, s, LOWEST) - shift)
    elif dlse is not None:
        g = dlse * jnp.exp(jnp.where(live, s - lse, LOWEST))  # never the exp of a row without live pairs
    return times(g if dpos is None or weight is None else g + weight * dpos, factor)


def times(a, factor):
    return a if factor == 1 else a * factor


def shift_of(form, factor):
    """What no logit of a reading is above."""
    return form.bound * abs(factor)
