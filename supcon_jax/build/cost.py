"""The modelled time of a step's products and of its contrastive sums on many devices. Modelled, never measured."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax.numpy as jnp

from supcon_jax.build.target import Chip
from supcon_jax.ops.readings import read
from supcon_jax.ops.scores import by
from supcon_jax.ops.sharded import Auto


@dataclasses.dataclass(frozen=True)
class Call:
    """Sums that a loss asked for. n queries, m keys of d numbers of `width` bytes; rows of several tokens count as so many
    of them. half: the keys are the queries. door: "dense", "gather", "ring", ...; why: the choice in words."""

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

    def read(self, q, k, *, scale, **how):
        self._hear(q, k, scale)
        return read(self.door, q, k, scale=scale, **how)

    def by(self, score):
        """The same listener at the door for another score."""
        return dataclasses.replace(self, door=by(self.door, score))

    def pairs(self, q, k, *, scale, bias, **how):
        self._hear(q, k, scale, bias)
        return self.door.pairs(q, k, scale=scale, bias=bias, **how)

    def _hear(self, q, k, *by_row):
        (n, m), d, width = (math.prod(rows.x.shape[:-1]) for rows in (q, k)), k.x.shape[-1], k.x.dtype.itemsize
        half = q is k and q.x.ndim == 2 and not any(map(jnp.ndim, by_row))
        if isinstance(self.door, Auto):
            why = self.door.choose_for(q, k)[1]
            name = why.partition(":")[0].split()[0].rstrip(",")
        else:
            why, name = "asked for", "ring" if self.door.outer else "gather"
        self.calls.append(Call(n, m, d, width, half, name, why))


def seconds(call: Call, devices: int, chip: Chip, overlap: bool) -> dict[str, float]:
    """{"compute": s, "links": s, "all": s} of the sums' forward and backward pass.

        compute = 8 n m d / (devices F)          4 n m d where the keys are the queries
        links = ((b + (b + 4)) m d) / B          keys of b bytes forward and back, with their float32 gradients back

    all: the larger of the two where they overlap, their sum where not. F: the chip's rate for the keys' width, B: one
    link for a ring, all links of the device for a gather. Left out: latencies, the row sums' own few bytes, what a
    score does beyond one product of all tokens, and the encoders.
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


def floor(flop: float, gradients: int, devices: int, chip: Chip) -> dict[str, float]:
    """{"products": s, "links": s}: what a step's products take at the chip's bfloat16 peak, and the sum of its gradients
    over all links, 2 B (D - 1) / D bytes out of each device."""
    moved = 2 * gradients * (devices - 1) / devices
    return {"products": flop / chip.flops, "links": moved / (chip.link * chip.links)}


def products(program) -> float:
    """FLOP of all matrix products and convolutions of a traced program (a Jaxpr), on all devices together.

        2 |out| c   for each: |out| numbers, each a sum of c terms; terms that a stride fills with zeros do not count

    The body of a loop counts as often as it runs, once where that is not known; of branches the largest counts. As the
    program is written: what the compiler then leaves out or repeats is not seen.
    """
    total = 0.0
    for one in getattr(program, "jaxpr", program).eqns:
        name, how = one.primitive.name, one.params
        inside = [products(part) for part in programs(how.values())]
        if name == "dot_general":
            terms = math.prod(one.invars[0].aval.shape[axis] for axis in how["dimension_numbers"][0][0])
            total += 2 * _size(one.outvars[0]) * terms
        elif name == "conv_general_dilated":
            kernel = one.invars[1].aval.shape
            terms = math.prod(kernel) / kernel[how["dimension_numbers"].rhs_spec[0]]
            total += 2 * _size(one.outvars[0]) * terms / math.prod(how["lhs_dilation"])
        elif name == "scan":
            total += how["length"] * sum(inside)
        elif name == "cond":
            total += max(inside, default=0.0)
        elif name == "shard_map":  # the text of one device
            axes = how.get("newly_manual_axes", how["mesh"].axis_names)
            total += math.prod(how["mesh"].shape[axis] for axis in axes) * sum(inside)
        else:
            total += sum(inside)
    return total


def programs(values):
    """The programs among an instruction's parameters."""
    for value in values:
        if hasattr(value, "eqns") or hasattr(value, "jaxpr"):
            yield value
        elif isinstance(value, tuple | list):
            yield from programs(value)


def _size(variable) -> int:
    return math.prod(variable.aval.shape)
