"""Mesh, shardings and global batches: the only place that builds a mesh."""

from __future__ import annotations

import os
import pathlib

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def start() -> None:
    """Compilation cache in ~/.cache/supcon_jax/xla (or $JAX_COMPILATION_CACHE_DIR): a restart compiles nothing again."""
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(pathlib.Path.home() / ".cache" / "supcon_jax" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def data_devices(batch: int, wanted: int | str = "auto", devices: int | None = None) -> int:
    """How many devices the batch is split over: the largest divisor of it that is not above the device count.

    Raises ValueError: a number asked for that does not divide the batch or is not there.
    """
    devices = devices or jax.device_count()
    if wanted == "auto":
        return max(d for d in range(1, min(batch, devices) + 1) if batch % d == 0)
    wanted = int(wanted)
    if wanted > devices or batch % wanted:
        raise ValueError(f"mesh.data={wanted}: batch {batch} cannot be split so over {devices} devices; use auto")
    return wanted


def data_mesh(count: int, devices=None) -> Mesh:
    """A mesh with the one axis "data" over the first `count` devices: this machine's, or those of a description."""
    return jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,), devices=(devices or jax.devices())[:count])


def place(batch, mesh: Mesh):
    """This host's share of a batch -> global arrays, rows split over "data"."""
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    return {name: jax.make_array_from_process_local_data(sharding, np.asarray(x)) for name, x in batch.items()}


def replicate(tree, mesh: Mesh):
    """The same values on every device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))
