"""Doors that compute row sums with the rows split over devices. Same signature, value and gradients as rows.dense."""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from supcon_jax.ops.rows import dense


def gather(mesh, axis="data"):
    """A door for rows split over a mesh axis: every device gathers the keys and sums its own share of the query rows.

    The gather is differentiable (its transpose scatters and adds the gradients), so gradients reach all
    keys. Rows that do
    not divide by the number of devices are padded with rows of valid = 0. Memory per device: n / P x m logits.

    mesh: a mesh with Auto axes. axis: the name of the axis that splits the rows.
    Returns door(q, k, *, scale, weigh, veto=None) -> Sums, for use inside jit over global arrays or eagerly.
    Chen et al. 2020, arXiv 2002.05709, section 2.2 (global batch as negatives).
    """
    parts = mesh.shape[axis]
    split = PartitionSpec(axis)

    def door(q, k, *, scale, weigh, veto=None):
        rows = q.x.shape[0]
        scale = jnp.asarray(scale)
        by_row = scale.ndim == 1
        q, k = pad(q, parts), pad(k, parts)
        scale = jnp.pad(scale, (0, -rows % parts), constant_values=1) if by_row else scale

        def local(q, k, scale):
            k = jax.tree.map(lambda a: jax.lax.all_gather(a, axis, tiled=True), k)
            return dense(q, k, scale=scale, weigh=weigh, veto=veto)

        specs = (split, split, split if by_row else PartitionSpec())
        sums = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=split, check_vma=True)(q, k, scale)
        return jax.tree.map(lambda a: a[:rows], sums)

    return door


def pad(rows, parts):
    """Rows padded with zeros to a multiple of `parts`; the new ones are not valid."""
    count = rows.x.shape[0]
    more = -count % parts
    if not more:
        return rows
    if rows.valid is None:
        rows = rows.replace(valid=jnp.ones(count, bool))
    return jax.tree.map(lambda a: jnp.pad(a, [(0, more)] + [(0, 0)] * (a.ndim - 1)), rows)
