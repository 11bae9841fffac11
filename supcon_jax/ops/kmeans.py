"""Clusters of many rows, on the devices that hold them: the k-means of ops.clusters for whole data sets of features.

ops.clusters is its definition, on the host in numpy: labels of data are made there, before there is a device, and must not
depend on which one there is. From the same centres both take the same steps.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from supcon_jax.ops.arrays import wide

LOGITS = 2**26  # products of rows and centres that are held at once
FIRST = ("plus", "rows")


class Clusters(NamedTuple):
    """centre: f32[k, d]. cluster: i32[n], the one of each row, -1 for rows that are not valid. square: f32[n], squared
    distance of each row to its centre, 0 for rows that are not valid."""

    centre: Array
    cluster: Array
    square: Array


@functools.partial(jax.jit, static_argnames=("k", "starts", "rounds", "first", "held"))
def kmeans(x, k, key, *, starts=1, rounds=20, first="plus", valid=None, held=LOGITS):
    """Clusters by Lloyd's algorithm, the best of some starts of at most so many rounds.

        minimise  sum_i |x_i - mu_{c(i)}|^2

    Lloyd 1982. Compiled; rows may be split over devices, and stay where they are. Same key and devices, same answer; on
    other devices sums are taken in another order.

    x: f[n, d]; 1 <= k <= valid rows. key: of the first centres. first: "plus", k-means++ (Arthur & Vassilvitskii 2007), k
    passes one after the other; or "rows", random rows. valid: bool [n]. held: how many products are held at once.
    Returns Clusters. Each of 0 .. k - 1 occurs: a cluster without rows takes the row farthest from its own centre, of those
    that do not stand for theirs. Where fewer than k rows differ, some clusters have one place.
    Raises ValueError: k out of range, or an unknown word.
    """
    if not 1 <= k <= len(x):
        raise ValueError(f"k: {k} clusters of {len(x)} rows")
    if first not in FIRST:
        raise ValueError(f'first is {first!r}: say "plus" or "rows"')
    x = x.astype(wide(x))
    valid = jnp.ones(len(x), bool) if valid is None else valid.astype(bool)

    def one(key):
        centre = seeds(x, k, key, valid) if first == "plus" else x[jax.lax.top_k(_lot(key, valid), k)[1]]
        return lloyd(x, centre, rounds=rounds, valid=valid, held=held)

    if starts == 1:
        return one(key)
    found = jax.lax.map(one, jax.random.split(key, starts))
    best = jnp.argmin(jnp.sum(found.square, axis=1))
    return jax.tree.map(lambda a: a[best], found)


def _lot(key, valid):
    """A random number for each row, negative for those that are not valid."""
    return jnp.where(valid, jax.random.uniform(key, valid.shape), -1)


def seeds(x, k, key, valid):
    """k rows, each drawn in proportion to the squared distance from those drawn before: f[k, d]."""

    def draw(i, carry):
        chosen, far = carry
        at = jax.random.categorical(jax.random.fold_in(key, i), jnp.where(far > 0, jnp.log(far), -jnp.inf))
        new = x[at[None]]  # a gather, which leaves split rows in place; a slice would bring all of them together
        return chosen.at[i].set(new[0]), jnp.minimum(far, jnp.sum((x - new) ** 2, axis=1))

    begin = jnp.where(valid, jnp.finfo(x.dtype).max, 0)
    return jax.lax.fori_loop(0, k, draw, (jnp.zeros((k, x.shape[1]), x.dtype), begin))[0]


@functools.partial(jax.jit, static_argnames=("rounds", "held"))
def lloyd(x, centre, *, rounds=20, valid=None, held=LOGITS):
    """Clusters from given centres, after `rounds` moves of the centres or once nothing changes any more.

    x: f[n, d]. centre: f[k, d]. Others as for kmeans. Returns Clusters; `cluster` and `square` are those of `centre`.
    """
    acc = wide(x)
    x, centre = x.astype(acc), centre.astype(acc)
    valid = jnp.ones(len(x), bool) if valid is None else valid.astype(bool)
    k = len(centre)

    def settle(centre):
        cluster, square = nearest(x, centre, held=held)
        found = Clusters(centre, jnp.where(valid, cluster, k), jnp.where(valid, square, 0))  # k: dropped by every sum
        return _filled(x, found, valid)

    def step(carry):
        i, found, _ = carry
        number = jax.ops.segment_sum(valid.astype(acc), found.cluster, k)
        mean = jax.ops.segment_sum(x, found.cluster, k) / jnp.maximum(number, 1)[:, None]
        new = settle(mean)
        return i + 1, new, jnp.any(new.cluster != found.cluster)

    def more(carry):
        return (carry[0] < rounds) & carry[2]

    _, found, _ = jax.lax.while_loop(more, step, (jnp.int32(0), settle(centre), jnp.bool_(True)))
    return found._replace(cluster=jnp.where(valid, found.cluster, -1))


def _filled(x, found, valid):
    """Clusters none of which is empty."""
    n, k = len(x), len(found.centre)
    row = jnp.arange(n, dtype=jnp.int32)
    empty = jax.ops.segment_sum(valid.astype(jnp.int32), found.cluster, k) == 0

    def fill(found):
        centre, cluster, square = found
        at = jnp.minimum(cluster, k - 1)
        least = jax.ops.segment_min(square, cluster, k)[at] == square
        stands = jax.ops.segment_min(jnp.where(least, row, n), cluster, k)[at] == row  # each cluster keeps its nearest row
        spare, far = jax.lax.top_k(jnp.where(valid & ~stands, square, -1), k)
        which = jnp.nonzero(empty, size=k, fill_value=k)[0].astype(jnp.int32)
        which = jnp.where(spare >= 0, which, k)
        far = jnp.where(which < k, far, n)
        return Clusters(
            centre.at[which].set(x[jnp.minimum(far, n - 1)], mode="drop"),
            cluster.at[far].set(which, mode="drop"),
            square.at[far].set(0, mode="drop"),
        )

    return jax.lax.cond(jnp.any(empty), fill, lambda found: found, found)


@functools.partial(jax.jit, static_argnames="held")
def nearest(x, centre, *, held=LOGITS):
    """The centre nearest to each row and the squared distance, block by block: (i32[n], f[n]).

    x: [n, d], rows may be split over devices. centre: [k, d]. held: as for kmeans. The first of centres that are equally near.
    """
    acc = wide(x, centre)
    x, centre = x.astype(acc), centre.astype(acc)
    half = jnp.sum(centre * centre, axis=1) / 2

    def block(rows):
        near = jnp.einsum("nd,kd->nk", rows, centre, precision=jax.lax.Precision.HIGHEST) - half[None, :]
        cluster = jnp.argmax(near, axis=1).astype(jnp.int32)
        return cluster, jnp.sum((rows - centre[cluster]) ** 2, axis=1)

    n, d = x.shape
    parts = -(-n * len(centre) // held)
    if parts == 1:
        return block(x)
    parts = next((p for p in range(parts, 2 * parts) if n % p == 0), parts)
    x = jnp.pad(x, ((0, -n % parts), (0, 0)))
    found = jax.lax.map(block, x.reshape(-1, parts, d).swapaxes(0, 1))  # row r of block s: s + r parts, nothing moves
    return tuple(a.swapaxes(0, 1).reshape(-1)[:n] for a in found)
