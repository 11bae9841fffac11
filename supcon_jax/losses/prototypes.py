"""Contrast of rows with the prototypes of clusters, each with a temperature of its own: ProtoNCE."""

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array

from supcon_jax.losses.contrast import info_nce
from supcon_jax.ops.arrays import unit
from supcon_jax.ops.rows import Rows, dense

NEGATIVES = ("code", "paper")


@flax.struct.dataclass
class Prototypes:
    """One clustering. centre: unit rows f32[k, d]. spread: temperature of each, f32[k]. cluster: i32[n], of each row."""

    centre: Array
    spread: Array
    cluster: Array


def proto_nce(q, clusterings, *, negatives="code", drawn=None, sums=dense):
    """ProtoNCE: each row finds the prototype of its cluster, mean over rows and over clusterings.

        L = 1/M sum_m mean_i  -log( exp(<q_i, c_s>/phi_s) / sum_j exp(<q_i, c_j>/phi_j) ),   s the cluster of i in m

    Li et al. 2021, arXiv 2005.04966; PCL's loss is InfoNCE with a queue (bank.among) plus this.

    q: Rows of n unit rows [n, d], the online network's. clusterings: Prototypes, one for each m, `cluster` that of the n
    rows (negative: none, the row drops out). negatives: which j are summed over.
        "paper": all k prototypes.
        "code": the authors' code: the prototypes of all rows of the batch, one for each row, so that two rows of a cluster
        have each other's (equal) prototype as a negative, and some drawn ones.
    drawn: with "code", (i32[r], bool[r]) for each clustering, from `draw`; none if left out. sums: the door.
    Returns f32[]. Gradients flow into q alone.
    Raises ValueError: an unknown word, drawn ones with "paper", or not as many as clusterings.
    """
    if negatives not in NEGATIVES:
        raise ValueError(f'negatives is {negatives!r}: say "code" or "paper"')
    if drawn is not None and (negatives == "paper" or len(drawn) != len(clusterings)):
        raise ValueError("drawn holds prototypes for each clustering, beside those of the batch: negatives is 'code'")
    total = jnp.zeros((), jnp.float32)
    for m, one in enumerate(clusterings):
        whole = negatives == "paper"
        keys = _all(one) if whole else _batch(one, q, None if drawn is None else drawn[m])
        row = one.cluster if whole else jnp.where(one.cluster >= 0, jnp.arange(len(one.cluster), dtype=jnp.int32), -1)
        part = info_nce(q.replace(index=row), jax.lax.stop_gradient(keys), scale=1.0, sums=sums)
        total = total.astype(part.dtype) + part / len(clusterings)
    return total


def _all(one):
    """All prototypes as keys; their temperature divides them."""
    x = one.centre / one.spread[:, None]
    return Rows(x, index=jnp.arange(len(x), dtype=jnp.int32))


def _batch(one, q, drawn):
    """The prototype of each row of the batch, then those that were drawn."""
    x, n, some = _all(one).x, len(one.cluster), one.cluster >= 0
    valid = some if q.valid is None else some & q.valid.astype(bool)
    keys = Rows(x[jnp.maximum(one.cluster, 0)], index=jnp.arange(n, dtype=jnp.int32), valid=valid)
    if drawn is None:
        return keys
    ids, taken = drawn
    return Rows(
        jnp.concatenate([keys.x, x[ids]]),
        index=jnp.concatenate([keys.index, jnp.full(len(ids), -2, jnp.int32)]),
        valid=jnp.concatenate([valid, taken]),
    )


def prototypes(found, *, temperature, smooth=10.0, clip=(10.0, 90.0)):
    """What was found by ops.kmeans as Prototypes: unit centres, the temperature of each, the cluster of each row.

    found: kmeans.Clusters of unit rows f32[n, d]; the temperatures are of distances to the centres as they are. Others as
    for `concentration`. For a batch: one.replace(cluster=one.cluster[index]).
    """
    how = {"temperature": temperature, "smooth": smooth, "clip": clip}
    spread = concentration(found.square, found.cluster, len(found.centre), **how)
    return Prototypes(unit(found.centre), spread, found.cluster)


def draw(key, cluster, k, number):
    """Prototypes, no two alike, that no row of the batch belongs to.

    cluster: i32[n] of the batch (negative: none). k: prototypes in all. number: how many are wanted.
    Returns (i32[r], bool[r]), r = min(number, k): the second is False where there were no more, and the first is then any.
    """
    used = jnp.zeros(k, bool).at[jnp.where(cluster >= 0, cluster, k)].set(True, mode="drop")
    lot = jnp.where(used, -1.0, jax.random.uniform(key, (k,)))
    best, ids = jax.lax.top_k(lot, min(number, k))
    return ids.astype(jnp.int32), best >= 0


def concentration(square, cluster, k, *, temperature, smooth=10.0, clip=(10.0, 90.0), valid=None):
    """The temperature phi of each prototype: small where its rows lie close, T on average.

        d_c = mean_{i in c} |x_i - c| / log(n_c + smooth),   phi = T d / mean(d)

    Li et al. 2021, arXiv 2005.04966. As in the authors' code, a cluster of one row or none takes the largest d,
    then d is clipped to two percentiles of itself.

    square: squared distance of each row to its centre f32[n], as ops.clusters gives it; rows may be split over devices.
    cluster: i32[n], negative: in none. k: clusters. temperature: T. clip: percentiles. valid: bool [n].
    Returns f32[k] (f64 for f64 distances), positive; T for all where all distances are zero.
    """
    live = cluster >= 0 if valid is None else (cluster >= 0) & valid.astype(bool)
    place = jnp.where(live, cluster, k)  # out of range: dropped
    apart = jnp.sqrt(jnp.where(live, jnp.maximum(square, 0), 0))
    number = jax.ops.segment_sum(live.astype(apart.dtype), place, k)
    several = number > 1
    d = jax.ops.segment_sum(apart, place, k) / jnp.where(several, number, 1) / jnp.log(number + smooth)
    d = jnp.where(several, d, jnp.max(jnp.where(several, d, 0)))
    low, high = jnp.percentile(d, jnp.asarray(clip, d.dtype))
    d = jnp.clip(d, low, high)
    mean = jnp.mean(d)
    phi = temperature * d / jnp.where(mean > 0, mean, 1)
    return jnp.where(phi > 0, phi, temperature * jnp.ones_like(phi))
