"""What one call of a TPU kernel is given: a block of rows and keys laid out in whole tiles, and which part a tile sees."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from supcon_jax.ops import sweep
from supcon_jax.ops.rows import Rows
from supcon_jax.ops.tiles import Asked

LANES = 128  # a tile's sides are multiples of it
VECTORS = 8  # numbers kept for each row, those of all readings' tallies or pulls, fill whole hardware tiles of so many
FAST_MEMORY = 100 * 2**20  # bytes a kernel may take; v5e, v5p and v6e accept it


class Given(NamedTuple):
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
        s = dot(self.z.x[...], self.k.x[...].T, 1)
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


class Block(NamedTuple):
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

        return Given(
            pl.BlockSpec(memory_space=pltpu.SMEM),
            jax.tree.map(row, given.z),
            jax.tree.map(row, given.q),
            jax.tree.map(key, given.k),
            None if given.rows is None else row(given.rows),
            None if given.keys is None else pl.BlockSpec((1, given.keys.shape[1], self.bn), lambda i, j: (j, 0, 0)),
            None if given.start is None else row(given.start),
        )


def laid(alone, z, q, k, tile, rows=None, keys=None, start=None):
    """(the block, its arrays filled up to whole tiles): vectors of rows become columns, vectors of keys lines."""
    n, m = z.x.shape[0], k.x.shape[0]
    bm, bn = (min(side // LANES * LANES or LANES, -(-count // LANES) * LANES) for side, count in zip(tile, (n, m)))
    block = Block(n, m, bm, bn)
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

    given = Given(
        jnp.asarray(alone, jnp.int32).reshape(1),
        jax.tree.map(column, z),
        jax.tree.map(column, q.replace(x=None)),
        jax.tree.map(line, k),
        None if rows is None else beside(rows, 1),
        None if keys is None else beside(keys, 0).reshape(lines_of(keys), -1, bn).swapaxes(0, 1),
        start,
    )
    return block, given


def _no_single_column(label):
    """A multi-hot label of one column [n, 1] with one of zeros beside it: in a kernel [n, 1] is a vector."""
    return jnp.pad(label, ((0, 0), (0, 1))) if label.ndim == 2 and label.shape[1] == 1 else label


def dot(a, b, axis):
    """a's axis contracted with b's first, in float32; float32 factors at the highest precision."""
    precision = lax.Precision.HIGHEST if a.dtype == jnp.float32 else lax.Precision.DEFAULT
    return lax.dot_general(a, b, (((axis,), (0,)), ((), ())), precision=precision, preferred_element_type=jnp.float32)


def lines_of(tree):
    """Lines of whole hardware tiles that hold the vectors of a tree."""
    return -(-len(jax.tree.leaves(tree)) // VECTORS) * VECTORS


def beside(tree, axis):
    """The vectors [n] of a tree side by side, those of rows along axis 1 and those of keys along axis 0, then zeros."""
    vectors = jax.tree.leaves(tree)
    n, more = len(vectors[0]), lines_of(tree) - len(vectors)
    rest = [jnp.zeros((n, more) if axis else (more, n), jnp.float32)] if more else []
    return jnp.concatenate([*(jnp.expand_dims(a, axis) for a in vectors), *rest], axis)


def apart(ref, like, axis):
    """The tree of vectors that beside put together."""
    leaves, shape = jax.tree.flatten(like)
    return jax.tree.unflatten(shape, [ref[:, t] if axis else ref[t, :] for t in range(len(leaves))])
