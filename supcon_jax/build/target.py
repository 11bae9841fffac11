"""Machines that are not here, to compile for: TPU slices through libtpu, GPU hosts through the CUDA plugin."""

from __future__ import annotations

import dataclasses
import fcntl
import functools
import importlib.util
import logging
import os
import pathlib
import re
import time
from collections.abc import Sequence

import jax
from jax.experimental import topologies

from supcon_jax import shard
from supcon_jax.config import UserError

log = logging.getLogger("supcon_jax")
GIB = 2**30
LOCK = pathlib.Path("/tmp/libtpu_lockfile")  # libtpu's own: a second process that loads it meanwhile fails
TRIES = 20


@dataclasses.dataclass(frozen=True)
class Chip:
    """One kind of device. memory: bytes a program may take. flops: products in bfloat16, FLOP/s; single: in float32.

    link: bytes/s of one link, one way; links: how many of them a gather keeps busy, where a ring uses one.
    """

    platform: str
    memory: int
    flops: float
    single: float
    link: float
    links: int


# memory: what the compiler says it has (TPU), or what jax takes by default, three quarters (GPU). flops: the makers'
# peaks, H200 measured; float32 is six bfloat16 products on TPU. Link rates are nominal and were not measured.
CHIPS = {
    "v5e": Chip("tpu", int(15.75 * GIB), 197e12, 197e12 / 6, 45e9, 4),
    "v5p": Chip("tpu", int(95.73 * GIB), 459e12, 459e12 / 6, 90e9, 6),
    "v6e": Chip("tpu", int(31.24 * GIB), 918e12, 918e12 / 6, 90e9, 4),
    "a100": Chip("cuda", 85100068864 * 3 // 4, 312e12, 19.5e12, 300e9, 1),
    "h100": Chip("cuda", 84942979072 * 3 // 4, 989e12, 67e12, 450e9, 1),
    "h200": Chip("cuda", 150754820096 * 3 // 4, 790e12, 67e12, 450e9, 1),
}


def description(name, capability, cores, units, shared, cache, rate, memory, bandwidth) -> str:
    """What XLA must know of a GPU to compile for it, as the text of a GpuTargetConfigProto.

    capability: the major number. cores: multiprocessors, each with `units` float32 units and `shared` bytes of shared
    memory, of which a block gets all but 1 KiB. cache: bytes of L2. rate: GHz. memory, bandwidth: bytes, bytes/s.
    """
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: {shared}
  shared_memory_per_block_optin: {shared - 1024} threads_per_core_limit: 2048 core_count: {cores} fpus_per_core: {units}
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: {bandwidth}
  l2_cache_size: {cache} clock_rate_ghz: {rate} device_memory_size: {memory} registers_per_core_limit: 65536
  registers_per_block_limit: 65536 cuda_compute_capability {{ major: {capability} minor: 0 }}
}}
platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 8 }} device_description_str: "{name}"
"""


DESCRIPTIONS = {
    "a100": description("NVIDIA A100-SXM4-80GB", 8, 108, 64, 167936, 41943040, 1.41, 85100068864, 2039040000000),
    "h100": description("NVIDIA H100 80GB HBM3", 9, 132, 128, 233472, 52428800, 1.98, 84942979072, 3352320000000),
    "h200": description("NVIDIA H200", 9, 132, 128, 233472, 62914560, 1.98, 150754820096, 4800000000000),
}


@dataclasses.dataclass(frozen=True)
class Target:
    """A machine to compile for. name: "v5e:16x16". devices: of a description; programs for them cannot run here."""

    name: str
    chip: Chip
    devices: Sequence

    def mesh(self, batch: int, wanted: int | str = "auto") -> jax.sharding.Mesh:
        """The mesh that a batch is split over.

        Raises UserError: the batch cannot be split over all devices; a TPU slice has no programs for some of them.
        """
        count = len(self.devices)
        if wanted not in ("auto", count) or batch % count:
            of = "" if wanted == "auto" else f", and config.mesh.data={wanted}"
            raise UserError(f"{self.name} has {count} devices{of}: give a batch that is a multiple of {count}, not {batch}")
        return shard.data_mesh(count, list(self.devices))

    @property
    def options(self) -> dict:
        """Compiler options: no kernels whose tiles are found by timing them, which is not possible here."""
        return {"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False} if self.chip.platform == "cuda" else {}


def find(name: str) -> Target:
    """The target of a name such as "v5e:16x16" (chips along each axis) or "h200:1x1x8" (slices, hosts, devices).

    Raises UserError: an unknown chip, a shape that it does not come in, or its compiler is not installed.
    """
    kind, _, shape = name.partition(":")
    if kind not in CHIPS or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)+", shape):
        known = ", ".join(CHIPS)
        raise UserError(f"--topology={name}: give chip:shape such as v5e:16x16 or h200:1x1x8; chips: {known}")
    chip = CHIPS[kind]
    jax.config.update("jax_platforms", "cpu")  # a compiler of devices that are not here must not look for them
    need(chip, name)
    try:
        described = libtpu(name) if chip.platform == "tpu" else cuda(kind, shape)
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"--topology={name}: {str(error).partition(': ')[2] or error}") from None
    return Target(name, chip, tuple(described.devices))


def need(chip: Chip, name: str) -> None:
    """Raises UserError: the compiler of a chip is not installed."""
    extra, modules = {"tpu": ("tpu", ("libtpu",)), "cuda": ("gpu", ("jax_cuda13_plugin", "jax_cuda12_plugin"))}[chip.platform]
    if not any(importlib.util.find_spec(module) for module in modules):
        what = f"{modules[0]}, which compiles for it without the device"
        raise UserError(f'--topology={name} needs {what}: pip install -c constraints.txt -e ".[{extra}]"')


@functools.cache
def libtpu(name: str):
    """A TPU slice. Only one process of a machine can have libtpu loaded: waits for others to end."""
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # no cloud is asked what this machine is
    for _ in range(TRIES):
        try:
            return topologies.get_topology_desc(platform="tpu", topology_name=name)
        except jax.errors.JaxRuntimeError as error:
            if "lockfile" not in str(error):
                raise
        wait()
    raise UserError(f"other processes hold libtpu's {LOCK}: end them, or remove the file if there are none")


def wait() -> None:
    """Until no other process holds libtpu's lock. Only where this one does not: closing the file gives up its own."""
    time.sleep(0.5)
    with LOCK.open("r+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            log.info("another process compiles with libtpu: waiting for its end")
            fcntl.lockf(file, fcntl.LOCK_EX)


@functools.cache
def cuda(kind: str, shape: str):
    """A GPU host by its description."""
    config = DESCRIPTIONS[kind]
    return topologies.get_topology_desc(platform="cuda", topology_name=kind, target_config=config, topology=shape)
