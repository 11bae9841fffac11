"""Doors that compute row sums in tiles, on one device or with the rows split over many. They equal rows.dense in value
and gradient, and never hold the matrix.

The custom gradient lies outside, a shard_map for each pass inside: no collective is ever transposed.
"""

import functools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.sharding import Mesh, PartitionSpec

from supcon_jax.ops import tiles
from supcon_jax.ops.arrays import wide
from supcon_jax.ops.meet import GRADIENTS, TALLIES, meet
from supcon_jax.ops.pairs import pairs
from supcon_jax.ops.rows import dense
from supcon_jax.ops.tiles import Asked, Pull, Rules, pad, plus

TILES = {"cpu": (512, 1024), "tpu": (1024, 1024)}  # rows and keys of a tile where none is asked for
LARGE_TILE = (2048, 4096)
SMALL = 2**22  # logits up to which one device holds the matrix: below, tiles save nothing
SHARE = 0.1  # of a device's memory that gathered keys and their gradients may take


@dataclass(frozen=True)
class Door:
    """A way to compute row sums in tiles, equal to rows.dense; call it as dense is called.

    Where the keys are the queries (the same object) and there is one scale, each pair is visited once. Keys without a
    gradient (a queue, a stopped tower) are recognised and their part of the backward pass is left out. Weights and
    vetoes are constants: no gradient flows through a rule. Gradients of gradients are not defined.

    mesh: a mesh with Auto axes; None for one device. inner: axis (or axes) over which keys are gathered. outer: axis
    (or axes) around which they travel. The rows are split over both, outer first; other axes of the mesh stay free.
    tile: (rows, keys) of a tile; by the kind of device if left out.
    precision: "bf16" multiplies in bfloat16, "f32" in float32 (float64 for float64 rows), both adding in float32 or
    wider; by the dtype of the rows if left out.
    kernel: "xla", or "pallas" for the kernels of ops.tiles_tpu, whose rules may not read embeddings; on CPU their steps
    are interpreted, slowly, for tests.
    """

    mesh: Mesh | None = None
    inner: str | tuple[str, ...] | None = None
    outer: str | tuple[str, ...] | None = None
    tile: tuple[int, int] | None = None
    precision: str | None = None
    kernel: str = "xla"

    def __post_init__(self):
        if self.precision not in (None, "bf16", "f32"):
            raise ValueError(f'precision is {self.precision!r}: say "bf16" or "f32", or leave it out')
        if self.kernel not in ("xla", "pallas"):
            raise ValueError(f'kernel is {self.kernel!r}: say "xla" or "pallas"')

    def __call__(self, q, k, *, scale, weigh, veto=None):
        """Sums of the queries over the keys: arguments and value of rows.dense."""
        kind = "half" if q is k and jnp.ndim(scale) == 0 else "rows"
        return self._sums(kind, q, k, scale, Rules(weigh, None, veto))[0]

    def both(self, q, k, *, scale, weigh, back=None, veto=None):
        """(Sums of the queries over the keys, Sums of the keys over the queries) from one visit of each pair.

        back: the rule from the keys' side; `weigh` if left out. A scale for each row makes two matrices: two visits.
        """
        if jnp.ndim(scale):
            back = back or weigh
            return self(q, k, scale=scale, weigh=weigh, veto=veto), self(k, q, scale=scale, weigh=back, veto=veto)
        return self._sums("both", q, k, scale, Rules(weigh, back, veto))

    def pairs(self, q, k, *, scale, bias, weigh, veto=None):
        """Sums pair by pair: arguments and value of pairs.pairs."""
        kind = "half" if q is k and jnp.ndim(scale) == jnp.ndim(bias) == 0 else "rows"
        return self._sums(kind, q, k, scale, Rules(weigh, None, veto, sigmoid=True), bias)[0]

    @property
    def parts(self):
        """Over how many devices the rows are split."""
        return math.prod(self.mesh.shape[name] for name in self.axes)

    @property
    def axes(self):
        names = (self.outer, self.inner)
        return sum(((one,) if isinstance(one, str) else one or () for one in names), ())

    def _sums(self, kind, q, k, scale, rules, bias=None):
        n, m = q.x.shape[0], k.x.shape[0]
        acc = wide(q.x, k.x)
        scale = jnp.asarray(scale, acc)
        # before any cast: d(scale) is exact, and products in bfloat16 round the scaled row once
        z = Asked(q.x.astype(acc) * (scale[:, None] if scale.ndim else scale))
        if bias is not None:
            z = z._replace(shift=jnp.broadcast_to(jnp.asarray(bias, acc), n))
        q, k, z = (pad(rows, -count % self.parts) for rows, count in ((q, n), (k, m), (z, n)))
        found, back = _sums(Plan(self, kind, rules), q, k, z)
        return jax.tree.map(lambda a: a[:n], found), jax.tree.map(lambda a: a[:m], back)


@dataclass(frozen=True)
class Plan:
    """What both passes know of a call beside its arrays."""

    door: Door
    kind: str
    rules: Rules

    def run(self, local, *args):
        """local(*args) with all rows split over the door's devices."""
        if self.door.parts == 1:
            return local(*args)
        split = PartitionSpec(self.door.axes)
        names = frozenset(self.door.axes)
        how = {"mesh": self.door.mesh, "axis_names": names, "check_vma": not self.interpreted}
        return jax.shard_map(local, in_specs=split, out_specs=split, **how)(*args)

    @property
    def interpreted(self):
        """Whether kernels are interpreted: JAX's interpreter fails the replication check that all else passes."""
        return self.door.kernel == "pallas" and self.platform == "cpu"

    def cast(self, q, k, z):
        """The rows as they are multiplied."""
        full = z.x.dtype
        narrow = q.x.dtype if q.x.dtype == k.x.dtype else full
        dtype = {"bf16": jnp.bfloat16, "f32": full, None: narrow}[self.door.precision]
        return k.replace(x=k.x.astype(dtype)), z._replace(x=z.x.astype(dtype))

    @property
    def platform(self):
        mesh = self.door.mesh
        return jax.default_backend() if mesh is None else mesh.devices.flat[0].platform

    def tile(self):
        return self.door.tile or TILES.get(self.platform, LARGE_TILE)

    def primitives(self):
        """block_stats and block_grads of the kernel asked for."""
        if self.door.kernel == "xla":
            return tiles.block_stats, tiles.block_grads
        from supcon_jax.ops import tiles_tpu

        if self.platform not in ("tpu", "cpu"):
            raise ValueError(f'kernel="pallas" is written for TPU, not for {self.platform}: use kernel="xla"')
        how = {"interpret": self.interpreted}
        return functools.partial(tiles_tpu.block_stats, **how), functools.partial(tiles_tpu.block_grads, **how)

    def meet(self, visit, keys, shares):
        split = self.door.parts > 1
        names = {"inner": self.door.inner, "outer": self.door.outer} if split else {}
        return meet(visit, keys, self.kind, shares, **names)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sums(plan, q, k, z):
    return _forward(plan, q, k, z)


@functools.partial(jax.jit, static_argnums=0)
def _forward(plan, q, k, z):
    def local(q, k, z):
        def visit(keys, kind):
            how = {"tile": plan.tile(), "columns": kind == "both", "half": kind == "half"}
            return plan.primitives()[0](z, q, keys, plan.rules, **how)

        k, z = plan.cast(q, k, z)
        rows, keys = plan.meet(visit, k, TALLIES)
        if plan.kind == "half":
            rows, keys = plus(rows, keys), None
        if plan.rules.sigmoid:
            return rows.pairs(), None
        return rows.sums(), None if keys is None else keys.sums()

    return plan.run(local, q, k, z)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _backward(plan, moves, q, k, z, pulls):
    def local(q, k, z, pulls):
        def visit(keys, kind):
            k, theirs = keys
            theirs = None if kind == "rows" else theirs
            how = {"tile": plan.tile(), "half": kind == "half", "moves": moves}
            return plan.primitives()[1](z, q, k, pulls[0], theirs, plan.rules, **how)

        k, z = plan.cast(q, k, z)
        return plan.meet(visit, (k, pulls[0] if plan.kind == "half" else pulls[1]), GRADIENTS)

    return plan.run(local, q, k, z, pulls)


def _sums_fwd(plan, q, k, z):
    moves = any(a.perturbed for a in jax.tree.leaves(z)), k.x.perturbed
    q, k, z = jax.tree.map(lambda a: a.value, (q, k, z))
    found = _forward(plan, q, k, z)
    lse = [None if sums is None else sums[0] for sums in found]
    return found, (q, k, z, lse, tuple(() if moved else None for moved in moves))  # a flag may be no array: a shape it is


def _sums_bwd(plan, kept, given):
    q, k, z, lse, moves = kept
    moves = tuple(moved is not None for moved in moves)
    if not any(moves):
        return None, None, None
    pulls = [None if a is None else Pull(a, _filled(g[0], a), _filled(g.pos, a)) for a, g in zip(lse, given, strict=True)]
    dz, dk = _backward(plan, moves, q, k, z, pulls)
    nothing = jax.tree.map(lambda a: None, k)
    return None, nothing if dk is None else nothing.replace(x=dk.astype(k.x.dtype)), dz


def _filled(gradient, like):
    return jnp.zeros_like(like) if isinstance(gradient, SymbolicZero) else gradient


_sums.defvjp(_sums_fwd, _sums_bwd, symbolic_zeros=True)


def tiled(**options):
    """The door for one device: tiles, no collectives. options: tile, precision of Door."""
    return Door(**options)


def gather(mesh, axis="data", **options):
    """The door for rows split over a mesh axis whose keys fit on each device: every device gathers all keys.

    Memory per device: m x d keys and, in the backward pass, as much again in float32 for their gradients.
    mesh: a mesh with Auto axes. axis: the name of the axis that splits the rows, or a tuple of them. options: tile,
    precision of Door. Returns a Door, for use inside jit over global arrays or eagerly.
    Chen et al. 2020, arXiv 2002.05709, section 2.2 (global batch as negatives).
    """
    return Door(mesh, inner=axis, **options)


def ring(mesh, axis="data", **options):
    """The door for batches whose keys fit on no device: blocks of keys travel around a mesh axis, and their gradients
    with them. Memory per device: a few blocks of n / devices x d. Arguments as for gather.
    """
    return Door(mesh, outer=axis, **options)


def hybrid(mesh, inner, outer, **options):
    """The door that gathers keys over the inner axis (a host, a slice) and lets them travel around the outer one.

    The rows are split over both, outer first: PartitionSpec((outer, inner)). Other arguments as for gather.
    """
    return Door(mesh, inner=inner, outer=outer, **options)


@dataclass(frozen=True)
class Auto:
    """A door that picks one for the rows it is given: see `auto`."""

    mesh: Mesh | None
    axis: str
    inner: str | None
    memory: int
    options: tuple[tuple[str, object], ...]

    def choose(self, n, m, d, width=4):
        """(door, why) for n queries and m keys of d numbers of `width` bytes."""
        axes = (self.axis, self.inner) if self.inner else self.axis
        door = Door(self.mesh, inner=None if self.mesh is None else axes, **dict(self.options))
        if door.parts == 1:
            if n * m <= SMALL:
                return dense, f"dense: {n} x {m} logits are few"
            return door, f"tiled: {n} x {m} logits on one device"
        gathered = m * d * (width + 4)  # the keys, and their gradients in float32
        limit = SHARE * self.memory
        need = f"{m} keys and their gradients take {gathered / 2**20:.1f} MiB gathered, {limit / 2**20:.1f} MiB are allowed"
        if gathered <= limit:
            return door, f"gather over {door.parts} devices: {need}"
        outer = self.mesh.shape[self.axis]
        if self.inner and gathered / outer <= limit:
            door = hybrid(self.mesh, self.inner, self.axis, **dict(self.options))
            return door, f"hybrid, {door.parts // outer} devices gather and {outer} pass on: {need}"
        return ring(self.mesh, axes, **dict(self.options)), f"ring of {door.parts} devices: {need}"

    def __call__(self, q, k, **how):
        return self._pick(q, k)(q, k, **how)

    def both(self, q, k, *, weigh, back=None, **how):
        door = self._pick(q, k)
        if door is dense:
            return dense(q, k, weigh=weigh, **how), dense(k, q, weigh=back or weigh, **how)
        return door.both(q, k, weigh=weigh, back=back, **how)

    def pairs(self, q, k, **how):
        return pairs(self._pick(q, k), q, k, **how)

    def _pick(self, q, k):
        narrow = dict(self.options).get("precision") == "bf16"
        return self.choose(q.x.shape[0], *k.x.shape, width=2 if narrow else k.x.dtype.itemsize)[0]


def auto(mesh=None, axis="data", *, inner=None, memory=None, **options):
    """The door that chooses for each call: dense for few logits on one device, tiles for many; over several devices
    gather while the keys and their gradients take a tenth of the memory, then hybrid, where an inner axis is named,
    while its share does, and ring beyond.

    mesh: a mesh with Auto axes; None for one device. axis, inner: the rows are split over the first, or over both (the
    axis outer, `inner` within a host or slice). memory: bytes of a device; what the device says, 16 GiB if it says
    nothing. options: tile, precision of Door. `auto(...).choose(n, m, d)` gives the door and the reason, in words.
    """
    if memory is None:
        local = jax.local_devices() if mesh is None else mesh.local_devices
        said = (local[0].memory_stats() or {}) if local else {}
        memory = said.get("bytes_limit", 2**34) // 2**30 * 2**30  # whole GiB: every host must come to the same choice
    return Auto(mesh, axis, inner, memory, tuple(sorted(options.items())))
