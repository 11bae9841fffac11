"""Row and column sums of a similarity matrix, and their gradients, tile by tile: the matrix is never kept.

Forward, a tile of logits is made, read into running sums and dropped; backward it is made once more:

    G_ij = dlse_i exp(s_ij - lse_i) + w_ij dpos_i    (and the same from the keys' side where their sums were read)
    dz = G k,   dk = G^T z,   s = z k^T

The online logsumexp is that of Milakov and Gimelshein 2018, arXiv 1805.02867, section 3; the recomputed backward pass
that of Dao et al. 2022, arXiv 2205.14135, section 3.1. With row and column sums of one visit the two passes cost
8 n m d operations; where the keys are the queries, tiles above the diagonal serve both sides: 4 n^2 d.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from supcon_jax.ops.arrays import LOWEST, wide
from supcon_jax.ops.pairs import Pairs
from supcon_jax.ops.rows import Rows, Sums, live_pairs
from supcon_jax.ops.rules import ways


class Rules(NamedTuple):
    """Who is whose positive for the queries (weigh) and for the keys (back), and who is left out. sigmoid: each logit
    is read alone, log(1 + exp s), in place of the logsumexp."""

    weigh: Callable
    back: Callable | None = None
    veto: Callable | None = None
    sigmoid: bool = False


class Asked(NamedTuple):
    """Queries as they meet keys: x [n, d] times scale, as they are multiplied, and what is added to each row's logits,
    [n] or None."""

    x: Array
    shift: Array | None = None

    def logits(self, k):
        s = product(self.x, k.x)
        return s if self.shift is None else s + self.shift[:, None]


class Tally(NamedTuple):
    """Sums over some of a row's pairs in a form that adds: `total` is sum exp(s - top), or with top = 0 the sum of
    log(1 + exp s). Each [n]."""

    top: Array
    total: Array
    pos: Array
    wgt: Array
    cnt: Array
    rival: Array

    def sums(self):
        some = self.total > 0
        lse = jnp.where(some, jnp.log(jnp.where(some, self.total, 1)) + self.top, LOWEST)
        return Sums(lse, self.pos, self.wgt, self.cnt, self.top, self.rival)

    def pairs(self):
        return Pairs(self.total, self.pos, self.wgt, self.cnt)


class Pull(NamedTuple):
    """What the backward pass knows of each row: its logsumexp and the gradients of it and of pos. Each [n]."""

    lse: Array
    dlse: Array
    dpos: Array


def plus(a, b):
    """The tally of two disjoint sets of pairs."""
    top = jnp.maximum(a.top, b.top)
    total = a.total * jnp.exp(a.top - top) + b.total * jnp.exp(b.top - top)
    return Tally(top, total, a.pos + b.pos, a.wgt + b.wgt, a.cnt + b.cnt, jnp.maximum(a.rival, b.rival))


def block_stats(z, q, k, rules, *, tile, columns=False, half=False):
    """Sums of s = z.x k.x^T + z.shift for each query and, asked for, for each key.

    z: Asked, n queries. q, k: what the rules read of n queries and m keys; k.x [m, d] is multiplied. tile: (rows, keys)
    of a tile. columns: sums for the keys too. half: z.x and k.x are the same rows up to a scalar; tiles on and above the
    diagonal are made, and what is found for a row as a query and as a key adds (`plus`) to its sums.
    Returns (Tally of the queries, Tally of the keys or None).
    """
    columns = columns or half

    def visit(alone, left, right):
        (z, q, mine), (k, theirs) = left, right
        s = z.logits(k)
        rows, keys = views(q, k, rules, s.dtype, alone, columns)
        mine = plus(mine, tally(s, *rows, 1, rules.sigmoid))
        return mine, plus(theirs, tally(s, *keys, 0, rules.sigmoid)) if columns else None

    acc = wide(z.x, k.x)
    theirs = empty_tally(k.x.shape[0], acc) if columns else None
    return sweep(visit, (z, q), (k,), empty_tally(z.x.shape[0], acc), theirs, tile=tile, half=half)


def block_grads(z, q, k, rows, keys, rules, *, tile, half=False, moves=(True, True)):
    """Gradients with respect to z and k.x [m, d], from the tiles made once more.

    rows: Pull of the queries. keys: Pull of the keys, None where their sums were not read. moves: whether the queries
    and whether the keys want a gradient. The other arguments as for block_stats.
    Returns (dz as Asked, dk [m, d]) in float32 or wider, None where not wanted.
    """

    def visit(alone, left, right):
        (z, q, mine, dz), (k, theirs, dk) = left, right
        s = z.logits(k)
        by_row, by_key = views(q, k, rules, s.dtype, alone, theirs is not None)
        g = pulled(s, *by_row, mine, 1, rules.sigmoid)
        if theirs is not None:
            g = g + pulled(s, *by_key, theirs, 0, rules.sigmoid)
        low = g.astype(z.x.dtype)
        if dz is not None:
            shift = None if z.shift is None else dz.shift + jnp.sum(g, axis=1)
            dz = Asked(dz.x + product(low, k.x.T), shift)
        return dz, None if dk is None else dk + product(low.T, z.x.T)

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
        return seen, jnp.where(seen, weight.astype(dtype), 0)

    live, veto = live_pairs(q, k), rules.veto
    if not columns:  # a rule may have no meaning from the other side
        return side(rules.weigh(q, k), veto and veto(q, k), False), None
    weights, out = ways(rules.weigh, q, k, rules.back), ways(veto, q, k) if veto else (None, None)
    return side(weights[0], out[0], False), side(weights[1], out[1], alone)


def tally(s, live, weight, axis, sigmoid=False):
    """Tally of a tile of logits over an axis. live: bool, weight: 0 where not live, both [n, m]."""
    s = jnp.where(live, s, LOWEST)
    chosen = weight > 0
    rest = jnp.sum(weight * s, axis=axis), jnp.sum(weight, axis=axis), jnp.sum(chosen, axis=axis).astype(s.dtype)
    rest = *rest, jnp.max(jnp.where(chosen, LOWEST, s), axis=axis)
    if sigmoid:
        total = jnp.sum(jax.nn.softplus(s), axis=axis)
        return Tally(jnp.zeros_like(total), total, *rest)
    top = jnp.max(s, axis=axis)  # a row without live pairs counts exp(0) above LOWEST, which no number feels
    return Tally(top, jnp.sum(jnp.exp(s - jnp.expand_dims(top, axis)), axis=axis), *rest)


def empty_tally(n, dtype):
    return Tally(jnp.full(n, LOWEST, dtype), *(jnp.zeros(n, dtype) for _ in range(4)), jnp.full(n, LOWEST, dtype))


def pulled(s, live, weight, pull, axis, sigmoid=False):
    """The gradient of a tile's logits from the sums over an axis."""
    lse, dlse, dpos = (jnp.expand_dims(one, axis) for one in pull)
    if sigmoid:
        share = jax.nn.sigmoid(jnp.where(live, s, LOWEST))
    else:
        share = jnp.exp(jnp.where(live, s - lse, LOWEST))  # never the exp of a row without live pairs
    return dlse * share + weight * dpos


def sweep(visit, left, right, left_state, right_state, *, tile, half=False):
    """Visits every pair of tiles of two sides, row tile by row tile; each side has a state that its tiles carry on.

    visit: (alone, (*left tile, its state), (*right tile, its state)) -> both new states; alone: the tile lies on the
    diagonal of a half sweep. left, right: tuples of trees of arrays [n, ...] and [m, ...]. half: tiles on and above
    the diagonal only. Returns both states.
    """
    size = (min(tile),) * 2 if half else tile
    rows, keys = (cut_of(side, most) for side, most in zip((left, right), size, strict=True))
    left, left_state, right, right_state = vary((rows(left), rows(left_state), keys(right), keys(right_state)))

    def row(right_state, this):
        i, mine, state = this

        def key(j, states):
            state, right_state = states
            state, new = visit(half and i == j, (*mine, state), (*at(right, j), at(right_state, j)))
            return state, put(right_state, new, j)

        state, right_state = lax.fori_loop(i if half else 0, keys.tiles, key, (state, right_state))
        return right_state, state

    order = jnp.arange(rows.tiles, dtype=jnp.int32)
    right_state, left_state = lax.scan(row, right_state, (order, left, left_state))
    return rows.joined(left_state), keys.joined(right_state)


def at(tree, i):
    """Entry i of the first axis of every array."""
    return jax.tree.map(lambda a: lax.dynamic_index_in_dim(a, i, 0, keepdims=False), tree)


def put(tree, new, i):
    """The tree with entry i of the first axis replaced in every array."""
    return jax.tree.map(lambda a, one: lax.dynamic_update_index_in_dim(a, one, i, 0), tree, new)


class Cut(NamedTuple):
    """How n rows are cut into tiles of one size, the last one filled up with rows that are not valid."""

    rows: int
    tiles: int
    size: int

    def __call__(self, tree):
        more = self.tiles * self.size - self.rows
        tree = jax.tree.map(lambda a: pad(a, more), tree, is_leaf=lambda a: isinstance(a, Rows))
        return jax.tree.map(lambda a: a.reshape(self.tiles, self.size, *a.shape[1:]), tree)

    def joined(self, tree):
        return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[: self.rows], tree)


def cut_of(side, most):
    """The cut of a side's rows into the fewest tiles of at most so many, as even as multiples of eight allow."""
    rows = jax.tree.leaves(side)[0].shape[0]
    tiles = -(-rows // most)
    size = rows if tiles == 1 else -(-rows // tiles // 8) * 8
    return Cut(rows, -(-rows // size), size)


def pad(rows, more):
    """Rows, or an array, with so many rows of zeros at the end; those of Rows are not valid."""
    if not more:
        return rows
    if isinstance(rows, Rows) and rows.valid is None:
        rows = rows.replace(valid=jnp.ones(rows.x.shape[0], bool))
    return jax.tree.map(lambda a: jnp.pad(a, [(0, more)] + [(0, 0)] * (a.ndim - 1)), rows)


def vary(tree):
    """The arrays of a tree, all of them marked as varying over the mesh axes that any of them varies over.

    Inside shard_map a loop's constants and its data must agree on that; outside nothing changes.
    """
    axes = frozenset().union(*(jax.typeof(a).manual_axis_type.varying for a in jax.tree.leaves(tree)))

    def mark(a):
        missing = tuple(axes - jax.typeof(a).manual_axis_type.varying)
        return lax.pcast(a, missing, to="varying") if missing else a

    return jax.tree.map(mark, tree)
