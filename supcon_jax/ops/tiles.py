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
    """One reading of the logits: who is whose positive for the queries (weigh) and for the keys (back), who is left out,
    what the logits are multiplied by, and whether the weights are summed or only tell the best of those without any."""

    weigh: Callable
    back: Callable | None = None
    veto: Callable | None = None
    factor: float = 1.0
    weighed: bool = True


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
    log(1 + exp s); weighed: (pos, wgt, cnt), or () where weights are not summed; rival: None where each logit is read
    alone; top: None where the shift is the top. Each [n]."""

    shift: Array
    total: Array
    weighed: tuple
    rival: Array | None = None
    top: Array | None = None

    def sums(self):
        some = self.total > 0
        lse = jnp.where(some, jnp.log(jnp.where(some, self.total, 1)) + self.shift, LOWEST)
        return Sums(lse, *(self.weighed or (None,) * 3), self.shift if self.top is None else self.top, self.rival)

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
    best = (None if one is None else jnp.maximum(one, other) for one, other in ((a.rival, b.rival), (a.top, b.top)))
    return Tally(shift, total, jax.tree.map(jnp.add, a.weighed, b.weighed), *best)


def plus_all(a, b):
    """`plus` for each reading."""
    return tuple(map(plus, a, b))


def block_stats(z, q, k, rules, *, tile, columns=False, half=False, form=PLAIN, start=None):
    """Sums of s = z.x k.x^T + z.shift for each query and, asked for, for each key, by each of several readings.

    z: Asked, n queries. q, k: what the rules read of n queries and m keys; k.x [m, d] is multiplied. rules: a tuple of
    Rules. tile: (rows, keys) of a tile. columns: sums for the keys too. half: z.x and k.x are the same rows up to a
    scalar; tiles on and above the diagonal are made, and what is found for a row as a query and as a key adds (`plus`)
    to its sums. form: how the logits are made and read. start: Tallies of the queries that these are added to.
    Returns (a Tally of the queries for each of the rules, the same of the keys or None).
    """
    columns = columns or half

    def visit(alone, left, right):
        (z, q, mine), (k, theirs) = left, right
        rows, keys = tallies(z.logits(q, k, form.score), q, k, rules, alone, columns, form)
        return plus_all(mine, rows), plus_all(theirs, keys) if columns else None

    states = first_tallies(z.x, k.x, rules, form, columns, start, wide(z.x, k.x))
    return sweep(visit, (z, q), (k,), *states, tile=tile, half=half)


def block_grads(z, q, k, rows, keys, rules, *, tile, half=False, moves=(True, True), form=PLAIN, start=None):
    """Gradients with respect to z and k.x [m, d], from the tiles made once more.

    rows: a Pull of the queries for each of the rules. keys: the same of the keys, None where their sums were not read.
    moves: whether the queries and whether the keys want a gradient. start: a dz that this one is added to, in its place.
    The other arguments as for block_stats.
    Returns (dz as Asked, dk [m, d]) in float32 or wider, None where not wanted.
    """

    def visit(alone, left, right):
        (z, q, mine, dz), (k, theirs, dk) = left, right
        g = slope(z.logits(q, k, form.score), q, k, mine, theirs, rules, alone, form)
        more = z.slopes(g, q, k, moves, form.score)
        return jax.tree.map(lambda a, b: a + b.astype(a.dtype), (dz, dk), more)

    dz, dk = first_grads(z, k.x, moves, start, wide(z.x, k.x))
    return sweep(visit, (z, q, rows), (k, keys), dz, dk, tile=tile, half=half)


def product(a, b):
    """<a_i, b_j>, [n, m], in float32 or wider: bf16 rows are multiplied as such, others at the highest precision."""
    return jnp.einsum("nd,md->nm", a, b, precision=lax.Precision.HIGHEST, preferred_element_type=wide(a, b))


# ---- one tile: what every walk, here or in a kernel, does with its logits


def tallies(s, q, k, rules, alone, columns, form):
    """(a Tally of the tile's rows for each of the rules, the same of its keys or None); see `views`."""
    seen = [views(q, k, rule, s.dtype, alone, columns) for rule in rules]

    def side(which, axis):
        return tuple(tally(s, *view[which], rule, axis, form) for view, rule in zip(seen, rules, strict=True))

    return side(0, 1), side(1, 0) if columns else None


def slope(s, q, k, rows, keys, rules, alone, form):
    """The gradient of a tile's logits. rows, keys: Pulls as for block_grads, of the tile."""
    g = 0.0
    for i, rule in enumerate(rules):
        by_row, by_key = views(q, k, rule, s.dtype, alone, keys is not None)
        g = g + pulled(s, *by_row, rule.factor, rows[i], 1, form)
        if keys is not None:
            g = g + pulled(s, *by_key, rule.factor, keys[i], 0, form)
    return g


def views(q, k, rules, dtype, alone, columns):
    """(live pairs, weights) of a tile, [n, m] each, as the queries see it and, with columns, as the keys see it.

    alone: bool; the keys see nothing: the tile's rows and keys are the same and the queries' side has it all.
    """

    def side(weight, out, silent):
        seen = live if out is None else live & ~out
        seen = seen & jnp.logical_not(silent)
        return seen, jnp.where(seen, weight.astype(dtype), 0)

    live, veto = live_pairs(q, k), rules.veto
    if not columns:  # a rule may have no meaning from the other side
        return side(rules.weigh(q, k), veto and veto(q, k), False), None
    weights, out = ways(rules.weigh, q, k, rules.back), ways(veto, q, k) if veto else (None, None)
    return side(weights[0], out[0], False), side(weights[1], out[1], alone)


def tally(s, live, weight, rule, axis, form):
    """Tally of a tile of logits over an axis. live: bool, weight: 0 where not live, both [n, m]."""
    s, weighed, chosen = jnp.where(live, times(s, rule.factor), LOWEST), (), weight > 0
    if rule.weighed:
        weighed = jnp.sum(weight * s, axis=axis), jnp.sum(weight, axis=axis), jnp.sum(chosen, axis=axis).astype(s.dtype)
    if form.sigmoid:
        total = jnp.sum(jax.nn.softplus(s), axis=axis)
        return Tally(jnp.zeros_like(total), total, weighed)
    top, rival = jnp.max(s, axis=axis), jnp.max(jnp.where(chosen, LOWEST, s), axis=axis)
    if form.bound is not None:
        shift = shift_of(form, rule.factor)
        return Tally(jnp.full_like(top, shift), jnp.sum(jnp.exp(s - shift), axis=axis), weighed, rival, top)
    # a row without live pairs counts exp(0) above LOWEST, which no number feels
    return Tally(top, jnp.sum(jnp.exp(s - jnp.expand_dims(top, axis)), axis=axis), weighed, rival)


def empty_tally(n, dtype, rule, form):
    """The Tally of no pairs, [n] each."""
    nothing, none = jnp.full(n, LOWEST, dtype), jnp.zeros(n, dtype)
    best = None if form.sigmoid else nothing, None if form.bound is None else nothing
    return Tally(nothing, none, (none,) * 3 if rule.weighed else (), *best)


def empty_tallies(n, dtype, rules, form):
    return tuple(empty_tally(n, dtype, rule, form) for rule in rules)


def first_tallies(z, k, rules, form, columns, start, dtype):
    """(Tallies of the queries, of the keys or None) before the first tile: `start`, if given, and those of no pairs."""
    mine, theirs = (empty_tallies(len(x), dtype, rules, form) for x in (z, k))
    return mine if start is None else start, theirs if columns else None


def first_grads(z, k, moves, start, dtype):
    """(dz, dk) before the first tile: `start`, if given, and zeros, None where not wanted."""
    dz, dk = (
        jax.tree.map(lambda a: jnp.zeros(a.shape, dtype), side) if wanted else None
        for side, wanted in zip((z, k), moves, strict=True)
    )
    return dz if start is None else start, dk


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
    return times(g if dpos is None else g + weight * dpos, factor)


def times(a, factor):
    return a if factor == 1 else a * factor


def shift_of(form, factor):
    """What no logit of a reading is above."""
    return form.bound * abs(factor)
