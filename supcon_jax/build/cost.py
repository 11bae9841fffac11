"""The modelled time of contrastive sums on many devices. Modelled, never measured."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp

from supcon_jax.build.target import Chip
from supcon_jax.ops.sharded import Auto


@dataclasses.dataclass(frozen=True)
class Call:
    """Sums that a loss asked for. n queries, m keys of d numbers of `width` bytes; half: the keys are the queries.
    door: "dense", "gather", "ring", ...; why: the choice in words."""

    n: int
    m: int
    d: int
    width: int
    half: bool
    door: str
    why: str


@dataclasses.dataclass(frozen=True, eq=False)
class Heard:
    """A door that writes down what it is asked for while a step is traced, and passes it on."""

    door: Any
    calls: list

    def __call__(self, q, k, *, scale, **how):
        self._hear(q, k, scale)
        return self.door(q, k, scale=scale, **how)

    def both(self, q, k, *, scale, **how):
        self._hear(q, k, scale)
        return self.door.both(q, k, scale=scale, **how)

    def pairs(self, q, k, *, scale, **how):
        self._hear(q, k, scale)
        return self.door.pairs(q, k, scale=scale, **how)

    def _hear(self, q, k, scale):
        n, (m, d), width = q.x.shape[0], k.x.shape, k.x.dtype.itemsize
        door = self.door
        if isinstance(door, Auto):
            why = door.choose(n, m, d, width)[1]
            name = why.partition(":")[0].split()[0].rstrip(",")
        else:
            why, name = "asked for", "ring" if door.outer else "gather"
        self.calls.append(Call(n, m, d, width, q is k and jnp.ndim(scale) == 0, name, why))


def seconds(call: Call, devices: int, chip: Chip, overlap: bool) -> dict[str, float]:
    """{"compute": s, "links": s, "all": s} of the sums' forward and backward pass.

        compute = 8 n m d / (devices F)          4 n m d where the keys are the queries
        links = ((b + (b + 4)) m d) / B          keys of b bytes forward and back, with their float32 gradients back

    all: the larger of the two where they overlap, their sum where not. F: the chip's rate for the keys' width, B: one
    link for a ring, all links of the device for a gather. Left out: latencies, the row sums' own few bytes, and the
    encoders.
    """
    share = 0.5 if call.half else 1.0
    rate = chip.flops if call.width <= 2 else chip.single
    compute = share * 8 * call.n * call.m * call.d / (devices * rate)
    bandwidth = chip.link * (1 if call.door == "ring" else chip.links)
    moved = (2 * call.width + 4) * call.m * call.d * (share if call.door == "ring" else 1.0)
    links = moved / bandwidth if devices > 1 else 0.0
    return {"compute": compute, "links": links, "all": max(compute, links) if overlap else compute + links}


def modelled(calls: list[Call], devices: int, chip: Chip, collectives: dict) -> dict[str, float]:
    """`seconds` of all calls of a step. A ring overlaps where all permutes are asynchronous, a gather never does: its
    keys are there before the first tile."""
    permutes = collectives.get("collective-permute", {"asynchronous": 0, "synchronous": 0})
    apart = permutes["asynchronous"] > 0 and not permutes["synchronous"]
    parts = [seconds(call, devices, chip, call.door == "ring" and apart) for call in calls]
    return {key: sum(part[key] for part in parts) for key in ("compute", "links", "all")}
