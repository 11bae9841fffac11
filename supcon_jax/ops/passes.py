"""Both passes of a door: the custom gradient lies outside, a shard_map for each pass inside, so that no collective is
ever transposed."""

import functools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.sharding import PartitionSpec

from supcon_jax.ops.meet import GRADIENTS, TALLIES, meet
from supcon_jax.ops.tiles import Form, Pull, Rules, Tally, block_grads, block_stats, plus_all

TILES = {"cpu": (512, 1024), "tpu": (1024, 1024)}  # rows and keys of a tile where none is asked for
LARGE_TILE = (2048, 4096)


@dataclass(frozen=True)
class Plan:
    """What both passes know of a call beside its arrays."""

    door: object  # sharded.Door
    kind: str
    rules: tuple[Rules, ...]
    form: Form

    def run(self, local, *args):
        """local(*args) with all rows split over the door's devices."""
        if self.door.parts == 1:
            return local(*args)
        split = PartitionSpec(self.door.axes)
        names = frozenset(self.door.axes)
        how = {"mesh": self.door.mesh, "axis_names": names, "check_vma": not self.interpreted}
        return jax.shard_map(local, in_specs=split, out_specs=split, **how)(*args)

    @property
    def platform(self):
        mesh = self.door.mesh
        return jax.default_backend() if mesh is None else mesh.devices.flat[0].platform

    @property
    def interpreted(self):
        """Whether kernels are interpreted: JAX's interpreter fails the replication check that all else passes."""
        return self.door.kernel == "pallas" and self.platform == "cpu"

    def primitives(self):
        """block_stats and block_grads of the kernel asked for."""
        if self.door.kernel == "xla":
            return block_stats, block_grads
        from supcon_jax.ops import tiles_tpu

        if self.platform not in ("tpu", "cpu"):
            raise ValueError(f'kernel="pallas" is written for TPU, not for {self.platform}: use kernel="xla"')
        how = {"interpret": self.interpreted}
        return functools.partial(tiles_tpu.block_stats, **how), functools.partial(tiles_tpu.block_grads, **how)

    def cast(self, q, k, z):
        """The rows as they are multiplied."""
        full = z.x.dtype
        narrow = q.x.dtype if q.x.dtype == k.x.dtype else full
        dtype = {"bf16": jnp.bfloat16, "f32": full, None: narrow}[self.door.precision]
        return *(rows.replace(x=rows.x.astype(dtype)) for rows in (q, k)), z._replace(x=z.x.astype(dtype))

    def how(self, z, k, kind):
        """What both passes say of a visit to a block of keys."""
        tile = self.door.tile
        if tile is None:
            tile = TILES.get(self.platform, LARGE_TILE)
            if self.form.score is not None:  # as many numbers as a tile of inner products has
                tile = (max(8, math.isqrt(math.prod(tile) // tokens(z, k))),) * 2
        return {"tile": tile, "half": kind == "half", "form": self.form}

    def piece(self, z, k):
        """How many keys travel at a time at least: those of a tile, or half of what one call of a kernel takes."""
        if self.door.kernel == "pallas":
            from supcon_jax.ops.tiles_tpu import BLOCK

            return BLOCK // 2
        return self.how(z, k, self.kind)["tile"][1]

    def meet(self, visit, keys, shares, piece):
        split = self.door.parts > 1
        names = {"inner": self.door.inner, "outer": self.door.outer} if split else {}
        return meet(visit, keys, self.kind, shares, piece, **names)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def sums(plan, q, k, z):
    return _forward(plan, q, k, z)


@functools.partial(jax.jit, static_argnums=0)
def _forward(plan, q, k, z):
    stats, _ = plan.primitives()

    def local(q, k, z):
        def visit(keys, kind, start):
            return stats(z, q, keys, plan.rules, columns=kind == "both", start=start, **plan.how(z, keys, kind))

        q, k, z = plan.cast(q, k, z)
        rows, keys = plan.meet(visit, k, TALLIES, plan.piece(z, k))
        if plan.kind == "half":
            rows, keys = plus_all(rows, keys), None
        read = Tally.pairs if plan.form.sigmoid else Tally.sums
        return tuple(map(read, rows)), None if keys is None else tuple(map(read, keys))

    return plan.run(local, q, k, z)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _backward(plan, moves, q, k, z, pulls):
    _, grads = plan.primitives()

    def local(q, k, z, pulls):
        def visit(keys, kind, start):
            k, theirs = keys
            theirs = None if kind == "rows" else theirs
            return grads(z, q, k, pulls[0], theirs, plan.rules, moves=moves, start=start, **plan.how(z, k, kind))

        q, k, z = plan.cast(q, k, z)
        keys = k, pulls[0] if plan.kind == "half" else pulls[1]
        return plan.meet(visit, keys, GRADIENTS, plan.piece(z, k))

    return plan.run(local, q, k, z, pulls)


def _sums_fwd(plan, q, k, z):
    moves = any(a.perturbed for a in jax.tree.leaves(z)), k.x.perturbed
    q, k, z = jax.tree.map(lambda a: a.value, (q, k, z))
    found = _forward(plan, q, k, z)
    lse = [None if side is None else [one[0] for one in side] for side in found]
    return found, (q, k, z, lse, tuple(() if moved else None for moved in moves))  # a flag may be no array: a shape it is


def _sums_bwd(plan, kept, given):
    q, k, z, lse, moves = kept
    moves = tuple(moved is not None for moved in moves)
    if not any(moves):
        return None, None, None
    pulls = [side and tuple(map(_pull, side, g)) for side, g in zip(lse, given, strict=True)]
    if not jax.tree.leaves(pulls):
        return None, None, None
    dz, dk = _backward(plan, moves, q, k, z, pulls)
    nothing = jax.tree.map(lambda a: None, k)
    return None, nothing if dk is None else nothing.replace(x=dk.astype(k.x.dtype)), dz


def _pull(lse, given):
    """The Pull of rows whose sums have the given gradients; what nothing reads costs no exponential."""
    dlse, dpos = (None if g is None or isinstance(g, SymbolicZero) else g for g in (given[0], given.pos))
    return Pull(None if dlse is None else lse, dlse, dpos)


sums.defvjp(_sums_fwd, _sums_bwd, symbolic_zeros=True)


def tokens(q, k):
    """Numbers behind each logit of rows x [n, ..., d]: 1, or the pairs of tokens of two rows."""
    return math.prod(q.x.shape[1:-1] + k.x.shape[1:-1])
