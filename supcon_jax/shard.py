"""Mesh, shardings and global batches: the only place that builds a mesh."""

from __future__ import annotations

import os
import pathlib

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def start() -> None:
    """Compilation cache in ~/.cache/supcon_jax/xla (or $JAX_COMPILATION_CACHE_DIR): a restart compiles nothing again."""
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(pathlib.Path.home() / ".cache" / "supcon_jax" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def data_devices(batch: int, wanted: int | str = "auto", devices: int | None = None, processes: int | None = None) -> int:
    """How many devices the batch is split over: the largest divisor of it that is not above the device count and gives
    every process as many.

    Raises ValueError: a number asked for that does not divide the batch, is not there, or leaves a process short.
    """
    devices, processes = devices or jax.device_count(), processes or jax.process_count()
    fitting = [d for d in range(processes, min(batch, devices) + 1, processes) if batch % d == 0]
    if wanted == "auto":
        if not fitting:
            raise ValueError(f"mesh.data=auto: batch {batch} cannot be split over {processes} processes; use a multiple of it")
        return fitting[-1]
    if int(wanted) not in fitting:
        among = f"{devices} devices" + (f" of {processes} processes" if processes > 1 else "")
        raise ValueError(f"mesh.data={wanted}: batch {batch} cannot be split so over {among}; use auto")
    return int(wanted)


def data_mesh(count: int, devices=None) -> Mesh:
    """A mesh with the one axis "data" over `count` devices: the first ones of every process, as many of each; or the
    first of those given, such as a description's."""
    if devices is None:
        each = count // jax.process_count()
        devices = sum((jax.local_devices(process)[:each] for process in range(jax.process_count())), [])
    return jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,), devices=devices[:count])


def place(batch, mesh: Mesh):
    """This host's share of a batch -> global arrays, rows split over "data"."""
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    return {name: jax.make_array_from_process_local_data(sharding, np.asarray(x)) for name, x in batch.items()}


def shardings(tree, mesh: Mesh, split: float | None = None):
    """Where each leaf of a tree lies: whole on every device, or cut over "data" along its largest axis that divides.

    The slots of a queue [slots, b, ...] are always cut along their rows: each device writes its own part of a batch into
    them, and nothing is sent. A queue is what lies below `memory` under a name with "queue" in it.
    split: leaves of so many bytes or more are cut, None cuts none. A leaf and what an optimiser keeps of it have the same
    shape and lie alike. The compiler gathers a cut leaf where a step reads it, and the values are those of a whole one
    (Rajbhandari et al. 2020, arXiv 1910.02054: parameters, gradients and optimiser state are all cut).
    Returns the tree with a NamedSharding for each leaf.
    """
    parts = mesh.shape["data"]

    def one(path, leaf):
        if in_queue(path):
            own = leaf.ndim > 1 and leaf.shape[1] % parts == 0
            return NamedSharding(mesh, PartitionSpec(None, "data") if own else PartitionSpec())
        axes = [axis for axis, n in enumerate(leaf.shape) if n and n % parts == 0]
        if split is None or parts == 1 or not axes or leaf.size * leaf.dtype.itemsize < split:
            return NamedSharding(mesh, PartitionSpec())
        longest = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, "data"))

    return jax.tree.map_with_path(one, tree)


def outline(tree, shardings):
    """Shapes and types of a tree's leaves, with where their arrays will lie: what a program can be traced and compiled for."""
    return jax.tree.map(lambda a, where: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=where), tree, shardings)


def in_queue(path) -> bool:
    """Whether a leaf's path leads into a queue of `core.State`."""
    names = [str(getattr(key, "name", getattr(key, "key", ""))) for key in path]
    return "memory" in names and any("queue" in name for name in names[names.index("memory") + 1 :])


def lay(tree, mesh: Mesh, split: float | None = None):
    """The tree on the mesh as `shardings` says. On several processes all of them must hold the same values."""

    def is_key(leaf):
        return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)

    plain = jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)
    placed = jax.device_put(plain, shardings(tree, mesh, split))  # the words of a key are never parted
    return jax.tree.map(lambda x, like: jax.random.wrap_key_data(x) if is_key(like) else x, placed, tree)


def replicate(tree, mesh: Mesh):
    """The same values on every device of the mesh."""
    return lay(tree, mesh)


def whole(tree):
    """The tree on the host as numpy arrays, also what is cut over several processes: then all of them must call this."""

    def one(leaf):
        here = not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated
        return np.asarray(leaf if here else multihost_utils.process_allgather(leaf, tiled=True))

    return jax.tree.map(one, tree)
