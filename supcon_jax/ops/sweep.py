"""Two sides cut into tiles, every pair of tiles visited in turn: the loops of the engine, whatever a visit does."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from supcon_jax.ops.rows import Rows


def sweep(visit, left, right, left_state, right_state, *, tile, half=False):
    """Visits every pair of tiles of two sides, row tile by row tile; each side has a state that its tiles carry on.

    visit: (alone, (*left tile, its state), (*right tile, its state)) -> both new states; alone: the tile lies on the
    diagonal of a half sweep. left, right: tuples of trees of arrays [n, ...] and [m, ...]. half: tiles on and above
    the diagonal only. Returns both states. They are written in place, tile by tile: there is never a second copy of one.
    """
    size = (min(tile),) * 2 if half else tile
    rows, keys = (cut_of(side, most) for side, most in zip((left, right), size, strict=True))
    left, left_state, right, right_state = vary((rows(left), rows(left_state), keys(right), keys(right_state)))

    def row(i, states):
        left_state, right_state = states
        mine = at(left, i)

        def key(j, states):
            state, right_state = states
            state, new = visit(half and i == j, (*mine, state), (*at(right, j), at(right_state, j)))
            return state, put(right_state, new, j)

        state, right_state = lax.fori_loop(i if half else 0, keys.tiles, key, (at(left_state, i), right_state))
        return put(left_state, state, i), right_state

    left_state, right_state = lax.fori_loop(0, rows.tiles, row, (left_state, right_state))
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
