"""The two primitives of ops.tiles as Pallas kernels for TPU: same arguments, same numbers.

A kernel takes a block of at most BLOCK x BLOCK pairs and walks its tiles, row tile by row tile: sums of the rows stay in
fast memory over a row of tiles, sums of the keys (and the keys' gradients) over the whole block. Logits never leave the
chip. Larger matrices are swept block by block. Rules run inside the kernel, so they may read all that travels with the
rows but the embeddings, and capture no arrays; several readings are taken of each tile while it is there.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from supcon_jax.ops import sweep, tiles
from supcon_jax.ops.rows import Rows
from supcon_jax.ops.tiles import PLAIN, Asked, empty_tallies, plus_all

BLOCK = 4096  # rows and keys of one kernel call: with d = 768 the keys' gradients take 12 MiB of fast memory
LANES = 128  # a tile's sides are multiples of it
VECTORS = 8  # numbers kept for each row, those of all readings' tallies or pulls, fill whole hardware tiles of so many
FAST_MEMORY = 100 * 2**20  # bytes a kernel may take; v5e, v5p and v6e accept it


def block_stats(z, q, k, rules, *, tile, columns=False, half=False, form=PLAIN, start=None, interpret=False):
    """As tiles.block_stats, in float32. interpret: run the kernel's steps on any device, slowly, for tests.

    Raises ValueError: float64 rows, a score in place of the inner product, or a rule that computes with embeddings.
    """
    columns = columns or half
    tile = (min(tile),) * 2 if half else tile

    def visit(alone, left, right):
        (z, q, mine), (k, theirs) = left, right
        rows, keys = _stats(alone, z, q, k, rules, tile, columns, form, interpret)
        return plus_all(mine, rows), plus_all(theirs, keys) if columns else None

    _refuse(form, z.x, k.x)
    states = tiles.first_tallies(z.x, k.x, rules, form, columns, start, jnp.float32)
    return sweep.sweep(visit, (z, q), (k,), *states, tile=(BLOCK, BLOCK), half=half)


def block_grads(z, q, k, rows, keys, rules, *, tile, half=False, moves=(True, True), form=PLAIN, start=None, interpret=False):
    """As tiles.block_grads, in float32. interpret and errors: as for block_stats."""
    tile = (min(tile),) * 2 if half else tile

    def visit(alone, left, right):
        (z, q, mine, dz), (k, theirs, dk) = left, right
        dz, more = _grads(alone, z, q, k, mine, theirs, dz, rules, tile, moves, form, interpret)
        return dz, None if dk is None else dk + more

    _refuse(form, z.x, k.x)
    states = tiles.first_grads(z, k.x, moves, start, jnp.float32)
    return sweep.sweep(visit, (z, q, rows), (k, keys), *states, tile=(BLOCK, BLOCK), half=half)


def _refuse(form, *arrays):
    if form.score is not None:
        raise ValueError("the TPU kernels know inner products only, no other score: use XLA's tiles")
    if any(a.dtype == jnp.float64 for a in arrays):
        raise ValueError("the TPU kernels count in float32: give float32 or bfloat16 rows, or use XLA's tiles")


# ---- one block


def _stats(alone, z, q, k, rules, tile, columns, form, interpret):
    """Tallies of one block's rows and, with columns, keys, for each of the rules."""
    block, given = _laid(alone, z, q, k, tile)
    none = functools.partial(empty_tallies, dtype=jnp.float32, rules=rules, form=form)

    def kernel(ref, i, j, mine, theirs):
        _begin(j == 0, mine, _beside(none(block.bm), 1))
        if columns:
            _begin(i == 0, theirs.at[j], _beside(none(block.bn), 0))

        @pl.when(ref.visited(i, j))
        def _():
            s, q, k, lone = ref.tile(i == j)
            rows, keys = tiles.tallies(s, q, k, rules, lone, columns, form)
            mine[...] = _beside(plus_all(_apart(mine, rows, 1), rows), 1)
            if columns:
                theirs[j] = _beside(plus_all(_apart(theirs.at[j], keys, 0), keys), 0)

    like = none(0)
    width = _width(like)
    out = (block.row_shape(width), block.key_shape(width, block.bn) if columns else None)
    rows, keys = block.call(kernel, given, out, interpret)
    keys = keys.swapaxes(0, 1).reshape(width, -1)[:, : block.m] if columns else None
    return _apart(rows[: block.n], like, 1), _apart(keys, like, 0) if columns else None


def _grads(alone, z, q, k, rows, keys, start, rules, tile, moves, form, interpret):
    """(start + dz as Asked, dk) of one block, None where not wanted. start.x is given up: the sum takes its place."""
    block, given = _laid(alone, z, q, k, tile, rows, keys, start.x if moves[0] else None)
    d = z.x.shape[1]

    def kernel(ref, i, j, dz, dshift, dk):
        if dz is not None:
            _begin(j == 0, dz, ref.start)
        if dshift is not None:
            _begin(j == 0, dshift, jnp.zeros(dshift.shape, jnp.float32))
        if dk is not None:
            _begin(i == 0, dk.at[j], jnp.zeros((block.bn, d), jnp.float32))

        @pl.when(ref.visited(i, j))
        def _():
            s, q, k, lone = ref.tile(i == j)
            lines = None if ref.keys is None else ref.keys.at[0]
            mine, theirs = _apart(ref.rows, rows, 1), None if keys is None else _apart(lines, keys, 0)
            g = tiles.slope(s, q, k, mine, theirs, rules, lone, form)
            low = g.astype(z.x.dtype)
            if dz is not None:
                dz[...] += _dot(low, ref.k.x[...], 1)
            if dshift is not None:
                dshift[...] += jnp.broadcast_to(jnp.sum(g, axis=1, keepdims=True), dshift.shape)
            if dk is not None:
                dk[j] += _dot(low, ref.z.x[...], 0)

    shifted = moves[0] and z.shift is not None
    out = (
        block.row_shape(d) if moves[0] else None,
        block.row_shape(VECTORS) if shifted else None,
        block.key_shape(block.bn, d) if moves[1] else None,
    )
    dz, dshift, dk = block.call(kernel, given, out, interpret)
    dz = Asked(dz[: block.n], start.shift + dshift[: block.n, 0] if shifted else None) if moves[0] else None
    return dz, dk.reshape(-1, d)[: block.m] if moves[1] else None


class _Given(NamedTuple):
    """What a kernel reads, as arrays laid out for it or as references to one tile of each."""

    alone: jax.Array
    z: Asked
    q: Rows
    k: Rows
    rows: jax.Array | None
    keys: jax.Array | None
    start: jax.Array | None  # the last of them: a kernel's first result takes its place

    def visited(self, i, j):
        """Whether the tile is one of those that are made: in a half sweep those on and above the diagonal."""
        return (self.alone[0] == 0) | (j >= i)

    def tile(self, diagonal):
        """Of the tile in fast memory: (logits, what rules read of its rows and of its keys, whether the two are the same
        rows of a half sweep)."""
        s = _dot(self.z.x[...], self.k.x[...].T, 1)
        if self.z.shift is not None:
            s = s + self.z.shift[...]
        q = jax.tree.map(lambda a: a[:, 0] if a.shape[1] == 1 else a[...], self.q.replace(x=None))
        k = jax.tree.map(lambda a: a[0, :] if a.shape[0] == 1 else a[...], self.k.replace(x=None))
        q, k = (side.replace(x=_Unread(a.shape, a.dtype)) for side, a in ((q, self.z.x), (k, self.k.x)))
        return s, q, k, diagonal & (self.alone[0] != 0)


class _Unread:
    """Stands where a rule would find embeddings: a kernel holds those that are multiplied, perhaps rounded and scaled."""

    def __init__(self, shape, dtype):
        self.shape, self.dtype = shape, dtype

    def __getattr__(self, name):
        raise ValueError("a rule of the TPU kernels may not read embeddings: use XLA's tiles")


class _Block(NamedTuple):
    """n rows and m keys of one kernel call, in tiles of bm rows and bn keys."""

    n: int
    m: int
    bm: int
    bn: int

    @property
    def grid(self):
        return -(-self.n // self.bm), -(-self.m // self.bn)

    def row_shape(self, width):
        """A result for each row: (shape, the part that stays in fast memory while a row of tiles is visited)."""
        return (self.grid[0] * self.bm, width), pl.BlockSpec((self.bm, width), lambda i, j: (i, 0))

    def key_shape(self, *size):
        """A result for each tile of keys, all of which stay in fast memory."""
        shape = (self.grid[1], *size)
        return shape, pl.BlockSpec(shape, lambda i, j: (0, 0, 0))

    def call(self, kernel, given, out, interpret):
        """Runs kernel(references, i, j, *results or None) on every tile; returns the results."""
        axes = sweep.vary(given)
        kind = jax.typeof(axes.z.x).manual_axis_type
        aliases = {} if given.start is None else {len(jax.tree.leaves(given)) - 1: 0}
        wanted = [one for one in out if one is not None]

        def run(*refs):
            ins, outs = refs[: -len(wanted)], iter(refs[-len(wanted) :])
            results = [None if one is None else next(outs) for one in out]
            kernel(jax.tree.unflatten(jax.tree.structure(given), ins), pl.program_id(0), pl.program_id(1), *results)

        found = iter(
            pl.pallas_call(
                run,
                grid=self.grid,
                in_specs=jax.tree.leaves(self.specs(given)),
                out_specs=[spec for _, spec in wanted],
                out_shape=[jax.ShapeDtypeStruct(shape, jnp.float32, manual_axis_type=kind) for shape, _ in wanted],
                compiler_params=pltpu.CompilerParams(
                    dimension_semantics=("arbitrary", "arbitrary"), vmem_limit_bytes=FAST_MEMORY
                ),
                input_output_aliases=aliases,
                interpret=interpret,
            )(*jax.tree.leaves(axes))
        )
        return [None if one is None else next(found) for one in out]

    def specs(self, given):
        """Which part of each array a tile sees."""

        def row(a):
            return pl.BlockSpec((self.bm, a.shape[1]), lambda i, j: (i, 0))

        def key(a):
            if a.shape[0] == 1:
                return pl.BlockSpec((1, self.bn), lambda i, j: (0, j))
            return pl.BlockSpec((self.bn, a.shape[1]), lambda i, j: (j, 0))

        return _Given(
            pl.BlockSpec(memory_space=pltpu.SMEM),
            jax.tree.map(row, given.z),
            jax.tree.map(row, given.q),
            jax.tree.map(key, given.k),
            None if given.rows is None else row(given.rows),
            None if given.keys is None else pl.BlockSpec((1, given.keys.shape[1], self.bn), lambda i, j: (j, 0, 0)),
            None if given.start is None else row(given.start),
        )


def _laid(alone, z, q, k, tile, rows=None, keys=None, start=None):
    """(the block, its arrays filled up to whole tiles): vectors of rows become columns, vectors of keys lines."""
    n, m = z.x.shape[0], k.x.shape[0]
    bm, bn = (min(side // LANES * LANES or LANES, -(-count // LANES) * LANES) for side, count in zip(tile, (n, m)))
    block = _Block(n, m, bm, bn)
    rows, keys = (side if jax.tree.leaves(side) else None for side in (rows, keys))  # nothing may read one of the sides
    more, further = block.grid[0] * bm - n, block.grid[1] * bn - m
    z, q, rows, start = (None if side is None else sweep.pad(side, more) for side in (z, q, rows, start))
    k, keys = sweep.pad(k, further), None if keys is None else sweep.pad(keys, further)
    q, k = (side.replace(label=jax.tree.map(_no_single_column, side.label)) for side in (q, k))

    def column(a):
        a = a.astype(jnp.int32) if a.dtype == jnp.bool_ else a
        return a[:, None] if a.ndim == 1 else a

    def line(a):
        a = a.astype(jnp.int32) if a.dtype == jnp.bool_ else a
        return a[None, :] if a.ndim == 1 else a

    given = _Given(
        jnp.asarray(alone, jnp.int32).reshape(1),
        jax.tree.map(column, z),
        jax.tree.map(column, q.replace(x=None)),
        jax.tree.map(line, k),
        None if rows is None else _beside(rows, 1),
        None if keys is None else _beside(keys, 0).reshape(_width(keys), -1, bn).swapaxes(0, 1),
        start,
    )
    return block, given


def _no_single_column(label):
    """A multi-hot label of one column [n, 1] with one of zeros beside it: in a kernel [n, 1] is a vector."""
    return jnp.pad(label, ((0, 0), (0, 1))) if label.ndim == 2 and label.shape[1] == 1 else label


def _begin(when, ref, value):
    """value: an array, or a reference to one."""

    @pl.when(when)
    def _():
        ref[...] = value[...]


def _dot(a, b, axis):
    """a's axis contracted with b's first, in float32; float32 factors at the highest precision."""
    precision = lax.Precision.HIGHEST if a.dtype == jnp.float32 else lax.Precision.DEFAULT
    return lax.dot_general(a, b, (((axis,), (0,)), ((), ())), precision=precision, preferred_element_type=jnp.float32)


def _width(tree):
    """Lines of whole hardware tiles that hold the vectors of a tree."""
    return -(-len(jax.tree.leaves(tree)) // VECTORS) * VECTORS


def _beside(tree, axis):
    """The vectors [n] of a tree side by side, those of rows along axis 1 and those of keys along axis 0, then zeros."""
    vectors = jax.tree.leaves(tree)
    n, more = len(vectors[0]), _width(tree) - len(vectors)
    rest = [jnp.zeros((n, more) if axis else (more, n), jnp.float32)] if more else []
    return jnp.concatenate([*(jnp.expand_dims(a, axis) for a in vectors), *rest], axis)


def _apart(ref, like, axis):
    """The tree of vectors that _beside put together."""
    leaves, shape = jax.tree.flatten(like)
    return jax.tree.unflatten(shape, [ref[:, t] if axis else ref[t, :] for t in range(len(leaves))])
