"""The two primitives of ops.tiles as Pallas kernels for TPU: same arguments, same numbers.

A kernel takes a block of at most BLOCK x BLOCK pairs and walks its tiles, row tile by row tile: sums of the rows stay in
fast memory over a row of tiles, sums of the keys (and the keys' gradients) over the whole block. Logits never leave the
chip. Larger matrices are swept block by block. Rules run inside the kernel, so they may read all that travels with the
rows but the embeddings, and capture no arrays; several readings are taken of each tile while it is there.
"""

import functools

import jax.numpy as jnp
from jax.experimental import pallas as pl

from supcon_jax.ops import sweep, tiles
from supcon_jax.ops.tiles import PLAIN, Asked, empty_tallies, plus_all
from supcon_jax.ops.tiles_tpu_block import VECTORS, apart, beside, dot, laid, lines_of

BLOCK = 4096  # rows and keys of one kernel call: with d = 768 the keys' gradients take 12 MiB of fast memory


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
    block, given = laid(alone, z, q, k, tile)
    none = functools.partial(empty_tallies, dtype=jnp.float32, rules=rules, form=form)

    def kernel(ref, i, j, mine, theirs):
        _begin(j == 0, mine, beside(none(block.bm), 1))
        if columns:
            _begin(i == 0, theirs.at[j], beside(none(block.bn), 0))

        @pl.when(ref.visited(i, j))
        def _():
            s, q, k, lone = ref.tile(i == j)
            rows, keys = tiles.tallies(s, q, k, rules, lone, columns, form)
            mine[...] = beside(plus_all(apart(mine, rows, 1), rows), 1)
            if columns:
                theirs[j] = beside(plus_all(apart(theirs.at[j], keys, 0), keys), 0)

    like = none(0)
    width = lines_of(like)
    out = (block.row_shape(width), block.key_shape(width, block.bn) if columns else None)
    rows, keys = block.call(kernel, given, out, interpret)
    keys = keys.swapaxes(0, 1).reshape(width, -1)[:, : block.m] if columns else None
    return apart(rows[: block.n], like, 1), apart(keys, like, 0) if columns else None


def _grads(alone, z, q, k, rows, keys, start, rules, tile, moves, form, interpret):
    """(start + dz as Asked, dk) of one block, None where not wanted. start.x is given up: the sum takes its place."""
    block, given = laid(alone, z, q, k, tile, rows, keys, start.x if moves[0] else None)
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
            mine, theirs = apart(ref.rows, rows, 1), None if keys is None else apart(lines, keys, 0)
            g = tiles.slope(s, q, k, mine, theirs, rules, lone, form)
            low = g.astype(z.x.dtype)
            if dz is not None:
                dz[...] += dot(low, ref.k.x[...], 1)
            if dshift is not None:
                dshift[...] += jnp.broadcast_to(jnp.sum(g, axis=1, keepdims=True), dshift.shape)
            if dk is not None:
                dk[j] += dot(low, ref.z.x[...], 0)

    shifted = moves[0] and z.shift is not None
    out = (
        block.row_shape(d) if moves[0] else None,
        block.row_shape(VECTORS) if shifted else None,
        block.key_shape(block.bn, d) if moves[1] else None,
    )
    dz, dshift, dk = block.call(kernel, given, out, interpret)
    dz = Asked(dz[: block.n], start.shift + dshift[: block.n, 0] if shifted else None) if moves[0] else None
    return dz, dk.reshape(-1, d)[: block.m] if moves[1] else None


def _begin(when, ref, value):
    """value: an array, or a reference to one."""

    @pl.when(when)
    def _():
        ref[...] = value[...]
