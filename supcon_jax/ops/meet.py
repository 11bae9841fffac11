"""How queries that stay on their device meet keys that lie on all of them. Runs inside shard_map, on each device.

A visit brings the device's queries together with a block of keys and gives what it adds for the queries and for the
keys. Keys are gathered over the inner axis and travel around the outer one; what is found for a key travels with it and
is home at the end. Both passes of the engine, and every driver, are this one walk.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from supcon_jax.ops.arrays import LOWEST
from supcon_jax.ops.sweep import at, put, vary
from supcon_jax.ops.tiles import Tally, plus_all

FEW = 4  # pieces of a block up to which each is an array of its own and visited by its own part of the program: on TPU
# all of them then stay in fast memory, where a block in a loop does not. More pieces are one array, visited in a loop


class Shares(NamedTuple):
    """The arithmetic of what visits give: how two add, what nothing is, and the sum over an axis, split over it."""

    add: Callable
    empty: Callable
    scatter: Callable


def _scatter(share, axis):
    return jax.tree.map(lambda a: lax.psum_scatter(a, axis, tiled=True), share)


def _scatter_tally(share, axis):
    shift = lax.pmax(share.shift, axis)
    rival, top = (None if a is None else _first(lax.pmax(a, axis), axis) for a in (share.rival, share.top))
    total = share.total * jnp.exp(share.shift - shift)
    return _scatter(Tally(_first(shift, axis), total, share.weighed, rival, top), axis)


def _first(a, axis):
    """The array on the axis' first device and zeros on the others, so that a sum over the axis is the array."""
    return jnp.where(lax.axis_index(axis) == 0, a, 0)


def _empty_tally(share):
    none = jax.tree.map(jnp.zeros_like, share)
    lowest = jnp.full_like(share.shift, LOWEST)
    rival, top = (None if a is None else lowest for a in (share.rival, share.top))
    return none._replace(shift=lowest, rival=rival, top=top)


def _each(fn):
    """What is done to one tally, for each reading."""
    return lambda share, *how: tuple(fn(one, *how) for one in share)


TALLIES = Shares(plus_all, _each(_empty_tally), _each(_scatter_tally))
GRADIENTS = Shares(lambda a, b: jax.tree.map(jnp.add, a, b), lambda share: jax.tree.map(jnp.zeros_like, share), _scatter)


def meet(visit, keys, kind, shares, piece, *, inner=None, outer=None):
    """Brings this device's queries together with all keys.

    visit: (keys, kind, start) -> (share of the queries with what it was so far, `start` or None, share of these keys or
    None). keys: the own block, a tree of arrays [m, ...]. kind: "rows" (sums for the queries), "both" (and for the
    keys), or "half": the keys are the queries, each pair is visited once, by one of its two devices. shares: TALLIES or
    GRADIENTS. piece: a block travels in pieces of at least so many rows; see `_ring`.
    inner, outer: mesh axes, or tuples of them; keys are gathered over the first and travel around the second.
    Returns (share of the queries, share of the own keys or None).
    """
    if inner:
        visit = _gathered(visit, shares, inner)
    rows, back = visit(keys, kind, None)
    return _ring(visit, keys, kind, shares, piece, outer, rows, back) if outer else (rows, back)


def _ring(visit, keys, kind, shares, piece, axis, rows, back):
    """The rest of the walk after the visit at home: keys move on by one device a step, and so do their shares.

    Matrices travel in pieces, and a piece takes the place of the one that left: a second block is never held. The next
    keys of a piece and its share so far are sent before it is visited: nothing waits for them meanwhile. Vectors are
    small and travel whole, in fewer messages.
    """
    parts, m = lax.axis_size(axis), len(jax.tree.leaves(keys)[0])
    steps = (parts - 1) // 2 if kind == "half" else parts - 1
    pieces = next(count for count in range(max(1, m // piece), 0, -1) if m % count == 0)
    shapes = jax.tree.structure(keys), jax.tree.structure(back)

    def move(tree, by=1):
        way = [(i, (i + by) % parts) for i in range(parts)]
        return jax.tree.map(lambda a: lax.ppermute(a, axis, way), tree)

    def cut(tree):
        """Leaves in pieces: stacked, or few matrices each as a list."""
        few = [jnp.split(a, pieces) if a.ndim > 1 and pieces <= FEW else None for a in jax.tree.leaves(tree)]
        return [a.reshape(pieces, -1, *a.shape[1:]) if b is None else b for a, b in zip(jax.tree.leaves(tree), few)]

    def vector(a):
        return not isinstance(a, list) and a.ndim == 2

    def met(rows, here, back, kind):
        """One piece visited: sums of the queries, the next keys, the share so far; leaves of a piece."""
        beyond, coming = ([move(a) if a.ndim > 1 else a for a in side] for side in (here, back))
        rows, new = visit(shapes[0].unflatten(here), kind, rows)
        coming = shapes[1].unflatten(coming)
        return rows, beyond, jax.tree.leaves(coming if new is None else shares.add(coming, new))

    def further(carry, kind):
        """Every piece visited and the keys sent on."""
        rows, keys, back = carry
        following, back = ([move(a) if vector(a) else a for a in side] for side in (keys, back))

        def one(p, carry):
            rows, keys, back = carry
            rows, beyond, coming = met(rows, at(keys, p), at(back, p), kind)
            return rows, put(keys, beyond, p), put(back, coming, p)

        if pieces > FEW:
            rows, keys, back = lax.fori_loop(0, pieces, one, (rows, keys, back))
        else:
            beyond, coming = [], []
            for p in range(pieces):
                rows, *two = met(rows, [a[p] for a in keys], [a[p] for a in back], kind)
                beyond.append(two[0])
                coming.append(two[1])
            keys = [list(one) for one in zip(*beyond)]
            back = [jnp.stack(one) if vector(a) else list(one) for a, one in zip(back, zip(*coming))]
        return rows, [a if vector(a) else b for a, b in zip(following, keys, strict=True)], back

    carry = vary((rows, cut(move(keys)), cut(back)))
    if steps:
        now = "both" if kind == "half" else kind
        carry, _ = lax.scan(lambda carry, _: (further(carry, now), None), carry, length=steps)
    if kind == "half" and parts % 2 == 0:  # half-way round, both devices hold the pair: each takes its own rows' side
        carry = further(carry, "rows")
        steps += 1
    rows, _, back = carry
    home = move(back, by=-steps)
    return rows, shapes[1].unflatten([jnp.concatenate(a) if isinstance(a, list) else a.reshape(m, *a.shape[2:]) for a in home])


def _gathered(visit, shares, axis):
    """The visit to the keys of all devices of an axis."""
    parts = lax.axis_size(axis)

    def whole(keys, kind, start):
        everyone = jax.tree.map(lambda a: lax.all_gather(a, axis, tiled=True), keys)
        if kind == "half":
            rows, back = _circle(visit, keys, everyone, shares, axis, parts, start)
        else:
            rows, back = visit(everyone, kind, start)
        return rows, None if back is None else shares.scatter(back, axis)

    return whole


def _circle(visit, own, everyone, shares, axis, parts, start):
    """Each pair of blocks once: this device takes its own block and those of the next half of the circle."""
    here = lax.axis_index(axis)
    blocks = jax.tree.map(lambda a: a.reshape(parts, -1, *a.shape[1:]), everyone)
    rows, back = visit(own, "half", start)
    nothing = jax.tree.map(lambda a: jnp.broadcast_to(a[None], (parts, *a.shape)), shares.empty(back))
    rows, back, nothing = vary((rows, back, nothing))

    def step(t, carry, kind="both"):
        rows, found = carry
        there = (here + t) % parts
        rows, new = visit(at(blocks, there), kind, rows)
        return rows, found if new is None else put(found, new, there)

    carry = rows, put(nothing, back, here)
    if parts > 2:
        carry = lax.fori_loop(1, (parts - 1) // 2 + 1, step, carry)
    if parts % 2 == 0:
        carry = step(parts // 2, carry, "rows")
    rows, found = carry
    return rows, jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), found)
