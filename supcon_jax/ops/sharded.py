"""Doors that compute row sums in tiles, on one device or with the rows split over many. They equal rows.dense in value
and gradient, and never hold the matrix."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from supcon_jax.ops.arrays import wide
from supcon_jax.ops.bound import check_bound, within
from supcon_jax.ops.classes import by_class, positives
from supcon_jax.ops.passes import Plan, sums, tokens
from supcon_jax.ops.readings import read
from supcon_jax.ops.rows import dense
from supcon_jax.ops.scores import Turned, Whole
from supcon_jax.ops.sweep import pad
from supcon_jax.ops.tiles import Asked, Form, Rules

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
    wider; by the dtype of the rows if left out. bf16 rounds the scaled queries and the keys once, and is the loss of the
    rounded rows to 4e-7 or better (measured, 512 rows, scale 14.3 and 100). That loss is off the exact one by 7e-6 of it
    for unrelated rows and 3e-5 for rows with much in common at scale 14.3, by 1e-4 to 1e-3 at scale 100; only "f32"
    (4e-7) takes that away.
    score: what stands in place of the inner product, see scores.by; None: the inner product.
    bound: no |s_ij| is larger: for unit rows the largest scale. The logsumexp is then shifted by it instead of by the
    running maximum of each row. A bound is refused where exp(-2 bound) leaves the accumulation type (above 40 in
    float32, 350 in float64), and logits that may pass it are refused too: at once, or inside jit by sums that are NaN.
    classes: class ids lie below it. Where the positives are rows.same_label and nothing but the row itself is left out,
    pos, wgt and cnt then come from [classes, d] sums over classes, and the tiles sum no weights (see ops.classes).
    kernel: "xla", or "pallas" for the kernels of ops.tiles_tpu, which know inner products only and whose rules may not
    read embeddings; on CPU their steps are interpreted, slowly, for tests.
    """

    mesh: Mesh | None = None
    inner: str | tuple[str, ...] | None = None
    outer: str | tuple[str, ...] | None = None
    tile: tuple[int, int] | None = None
    precision: str | None = None
    score: Callable | None = None
    bound: float | None = None
    classes: int | None = None
    kernel: str = "xla"

    def __post_init__(self):
        if self.precision not in (None, "bf16", "f32"):
            raise ValueError(f'precision is {self.precision!r}: say "bf16" or "f32", or leave it out')
        if self.kernel not in ("xla", "pallas"):
            raise ValueError(f'kernel is {self.kernel!r}: say "xla" or "pallas"')

    def __call__(self, q, k, *, scale, weigh, veto=None):
        """Sums of the queries over the keys: arguments and value of rows.dense."""
        return self._sums(self._kind(q, k, scale), q, k, scale, (Rules(weigh, None, veto),))[0][0]

    def by(self, score):
        """This door for another score."""
        return replace(self, score=score)

    def both(self, q, k, *, scale, weigh, back=None, veto=None):
        """(Sums of the queries over the keys, Sums of the keys over the queries) from one visit of each pair.

        back: the rule from the keys' side; `weigh` if left out. A scale for each row makes two matrices: two visits.
        """
        if jnp.ndim(scale):
            turned = self.by(self.score and Turned(self.score))
            one = self(q, k, scale=scale, weigh=weigh, veto=veto)
            return one, turned(k, q, scale=scale, weigh=back or weigh, veto=veto)
        (one,), (other,) = self._sums("both", q, k, scale, (Rules(weigh, back, veto),))
        return one, other

    def pairs(self, q, k, *, scale, bias, weigh, veto=None):
        """Sums pair by pair: arguments and value of pairs.pairs."""
        return self._sums(self._kind(q, k, scale, bias), q, k, scale, (Rules(weigh, None, veto),), bias)[0][0]

    def read(self, q, k, *, scale, readings):
        """Sums by several readings from one visit of each pair: see readings.read."""
        rules = tuple(Rules(one.weigh, None, one.veto, one.factor) for one in readings)
        return self._sums(self._kind(q, k, scale), q, k, scale, rules)[0]

    @property
    def parts(self):
        """Over how many devices the rows are split."""
        return math.prod(self.mesh.shape[name] for name in self.axes)

    @property
    def axes(self):
        names = (self.outer, self.inner)
        return sum(((one,) if isinstance(one, str) else one or () for one in names), ())

    def _kind(self, q, k, *by_row):
        """Half of the pairs serve for all where the logits are symmetric, as inner products of rows with themselves.
        by_row: numbers that may differ from row to row."""
        return "half" if q is k and self.score is None and not any(map(jnp.ndim, by_row)) else "rows"

    def _sums(self, kind, q, k, scale, rules, bias=None):
        n, m = q.x.shape[0], k.x.shape[0]
        acc = wide(q.x, k.x)
        scale = jnp.asarray(scale, acc)
        z = Asked(q.x.astype(acc))
        if self.score is None:  # before any cast: d(scale) is exact, and products in bfloat16 round the scaled row once
            z = Asked(z.x * (scale[:, None] if scale.ndim else scale))
        else:
            z = z._replace(factor=jnp.broadcast_to(scale, n))
        form = Form(self.score, bias is not None, None if bias is not None else self.bound)
        if form.bound is not None:
            check_bound(form.bound, rules, form, acc)
        if bias is not None:
            z = z._replace(shift=jnp.broadcast_to(jnp.asarray(bias, acc), n))
        short = [self._by_class(form, rule, q, k) for rule in rules]
        left = [rule._replace(weighed=False) if one else rule for one, rule in zip(short, rules, strict=True)]
        own = q is k
        q, k, z = (pad(rows, -count % self.parts) for rows, count in ((q, n), (k, m), (z, n)))
        plan = Plan(self, kind, tuple(left), form)
        found = sums(plan, q, k, z)
        if form.bound is not None:
            found = within(found, q, k, z, form.bound)
        if any(short):
            found = positives(plan, found, q, k, z, rules, own)
        return jax.tree.map(lambda a: a[:n], found[0]), jax.tree.map(lambda a: a[:m], found[1])

    def _by_class(self, form, rule, q, k):
        """Whether a reading's sums over positives come from sums over classes."""
        return self.classes is not None and not form.sigmoid and form.score is None and by_class(rule, q, k)


def tiled(**options):
    """The door for one device: tiles, no collectives. options: those of Door."""
    return Door(**options)


def gather(mesh, axis="data", **options):
    """The door for rows split over a mesh axis whose keys fit on each device: every device gathers all keys.

    Memory per device: m x d keys and, in the backward pass, as much again in float32 for their gradients.
    mesh: a mesh with Auto axes. axis: the name of the axis that splits the rows, or a tuple of them. options: those
    of Door. Returns a Door, for use inside jit over global arrays or eagerly.
    Chen et al. 2020, arXiv 2002.05709 (global batch as negatives).
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

    def choose(self, n, m, d, width=4, each=1):
        """(door, why) for n queries and m keys of d numbers of `width` bytes; `each` numbers are behind a logit."""
        axes = (self.axis, self.inner) if self.inner else self.axis
        door = Door(self.mesh, inner=None if self.mesh is None else axes, **dict(self.options))
        if door.parts == 1:
            if n * m * each <= SMALL:
                return dense if door.score is None else Whole(door.score), f"dense: {n} x {m} logits are few"
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

    def both(self, q, k, **how):
        return self._pick(q, k).both(q, k, **how)

    def read(self, q, k, **how):
        return read(self._pick(q, k), q, k, **how)

    def pairs(self, q, k, **how):
        return self._pick(q, k).pairs(q, k, **how)

    def by(self, score):
        return replace(self, options=(*self.options, ("score", score)))

    def choose_for(self, q, k):
        """What `choose` says of these rows."""
        narrow = dict(self.options).get("precision") == "bf16"
        width = 2 if narrow else k.x.dtype.itemsize
        return self.choose(len(q.x), len(k.x), math.prod(k.x.shape[1:]), width, tokens(q, k))

    def _pick(self, q, k):
        door = self.choose_for(q, k)[0]
        return Whole(None) if door is dense else door


def auto(mesh=None, axis="data", *, inner=None, memory=None, **options):
    """The door that chooses for each call: dense for few logits on one device, tiles for many; over several devices
    gather while the keys and their gradients take a tenth of the memory, then hybrid, where an inner axis is named,
    while its share does, and ring beyond.

    mesh: a mesh with Auto axes; None for one device. axis, inner: the rows are split over the first, or over both (the
    axis outer, `inner` within a host or slice). memory: bytes of a device; what the device says, 16 GiB if it says
    nothing. options: those of Door. `auto(...).choose(n, m, d)` gives the door and the reason, in words.
    """
    if memory is None:
        local = jax.local_devices() if mesh is None else mesh.local_devices
        said = (local[0].memory_stats() or {}) if local else {}
        memory = said.get("bytes_limit", 2**34) // 2**30 * 2**30  # whole GiB: every host must come to the same choice
    return Auto(mesh, axis, inner, memory, tuple(sorted(options.items())))
