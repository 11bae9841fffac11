"""How queries meet keys: which blocks are visited, what is sent, and where gradients may be taken."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from dress import DOORS, grid, mesh
from supcon_jax.ops import rows, rules, sharded
from supcon_jax.ops.rows import Rows

D = 4


@pytest.mark.parametrize("name, visits", [("gather", 40), ("ring", 40), ("hybrid", 56)])
def test_own_keys_are_visited_once(name, visits):
    """Of 8 x 8 blocks, each device takes its own, three that serve both sides, and the one that it faces. Two hosts
    face each other: there only the blocks of the own host are halved."""
    hosts = sharded.hybrid(grid(8), "chip", "host")
    doors = {"gather": sharded.gather(mesh(8)), "ring": sharded.ring(mesh(8)), "hybrid": hosts}
    seen = []

    @rules.mutual
    def counted(q, k):
        jax.debug.callback(lambda: seen.append(q.x.shape[0] * k.x.shape[0]))
        return rows.same_index(q, k)

    q = Rows(jnp.ones((16, D)), index=jnp.arange(16))
    used = doors[name]
    jax.block_until_ready(jax.jit(lambda q: used(q, q, scale=1.0, weigh=counted))(q))
    jax.effects_barrier()
    assert sum(seen) // 4 == visits


TILE = (4, 4)


def total(used, case, x, y):
    """A scalar of all sums; in a quarter of the rows' pairs labels decide, which travel as a matrix."""
    n = len(x)
    label = jnp.asarray(np.random.default_rng(2).random((n, 3)) < 0.4, jnp.int32)
    q = Rows(x, label, jnp.arange(n, dtype=jnp.int32), jnp.arange(n) % 7 != 3)
    how = {"scale": 3.0, "weigh": rows.jaccard(), "veto": rows.same_index}
    k = q if case == "own" else q.replace(x=jax.lax.stop_gradient(y) if case == "fixed" else y)
    found = rows.both(used, q, k, **how) if case == "both" else (used(q, k, **how),)
    return sum(jnp.sum(jnp.sin(jnp.arange(n) + i) * (s.lse + s.pos * s.wgt)) for i, s in enumerate(found))


@functools.cache
def judged(used, case):
    with jax.enable_x64(True):
        x, y = (jnp.asarray(a) for a in np.random.default_rng(1).normal(size=(2, 64, D)))
        return jax.device_get(jax.jit(jax.value_and_grad(functools.partial(total, used, case), (0, 1)))(x, y))


IN_PLAIN = [("ring", 4, "both"), ("ring", 8, "own"), ("ring", 2, "fixed"), ("hybrid", 8, "both")]
PIECES = [
    pytest.param(name, devices, case, marks=() if (name, devices, case) in IN_PLAIN else pytest.mark.slow)
    for devices, name in ((2, "ring"), (4, "ring"), (8, "ring"), (8, "hybrid"))
    for case in ("both", "own", "fixed")
]


@pytest.mark.parametrize("name, devices, case", PIECES)
def test_blocks_in_pieces_are_the_same_blocks(name, devices, case):
    got, want = (judged(used, case) for used in (DOORS[name](devices, tile=TILE), rows.dense))
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12 * np.abs(other).max())


def test_whole_blocks_are_sent_only_at_the_start():
    """Of 24 rows a device, three times eight: what a second block would take is never needed."""
    grads = jax.grad(functools.partial(total, sharded.ring(mesh(4), tile=(8, 8)), "both"), (0, 1))
    row = jax.ShapeDtypeStruct((96, D), jnp.float32)
    sent = re.findall(r"\w+\[(\d+),(\d+)\]\S* = ppermute", str(jax.make_jaxpr(grads)(row, row)))
    sent = [(int(n), int(width)) for n, width in sent if width != "8"]  # vectors cut into three pieces are [3, 8]
    # keys and labels of either pass leave home whole; then three pieces of them, and of the gradients, which come home so
    assert sorted(sent) == sorted([(24, D), (24, 3)] * 2 + ([(8, D), (8, 3)] * 2 + [(8, D)] * 2) * 3)


def test_one_device_has_no_collectives():
    def compiled(used):
        one = Rows(jnp.ones((16, D)), index=jnp.arange(16))
        return jax.jit(lambda x: used(one.replace(x=x), one, scale=1.0, weigh=rows.same_index)).lower(one.x).compile().as_text()

    for make in (sharded.gather, sharded.ring):
        text = compiled(make(mesh(1)))
        assert "collective-permute" not in text and "all-gather" not in text
    text = compiled(sharded.ring(mesh(4)))
    assert "collective-permute" in text and "all-gather" not in text


# ---- where a gradient may be taken: why the custom gradient lies outside the shard_map and the check stays on


def table(place, check):
    """d/dw of sum_i (w x_i)^2, x split over 8 devices, with the gradient taken outside or inside the shard_map."""
    x, w = jnp.arange(1.0, 9), jnp.float32(3)
    split, everywhere = PartitionSpec("data"), PartitionSpec()

    def local(w, x):
        return jax.lax.psum(jnp.sum((w * x) ** 2), "data")

    def shard(fn, out):
        return jax.shard_map(fn, mesh=mesh(8), in_specs=(everywhere, split), out_specs=out, check_vma=check)

    if place == "outside":
        return jax.jit(jax.grad(shard(local, everywhere), (0, 1)))(w, x)
    return jax.jit(shard(jax.grad(local, (0, 1)), (everywhere, split)))(w, x)


@pytest.mark.parametrize("place, check, right", [("outside", True, True), ("outside", False, True), ("inside", True, True)])
def test_places_where_gradients_are_right(place, check, right):
    dw, dx = table(place, check)
    np.testing.assert_allclose(dw, 6 * sum(i * i for i in range(1, 9)))
    np.testing.assert_allclose(dx, 18 * np.arange(1, 9))


def test_the_check_is_what_keeps_gradients_inside_right():
    """Without it, sums over devices are transposed to sums: split inputs get 8 times their gradient, and a parameter
    that is everywhere gets a part."""
    dw, dx = table("inside", False)
    np.testing.assert_allclose(dx, 8 * 18 * np.arange(1, 9))
    assert not np.isclose(dw, 6 * 204)


def test_a_local_gradient_for_a_shared_argument_is_refused():
    @jax.custom_vjp
    def times(w, x):
        return w * x

    times.defvjp(lambda w, x: (w * x, (w, x)), lambda kept, g: (jnp.sum(g * kept[1]), g * kept[0]))

    def run(check):
        specs = (PartitionSpec(), PartitionSpec("data"))
        fn = jax.shard_map(times, mesh=mesh(8), in_specs=specs, out_specs=specs[1], check_vma=check)
        return jax.grad(lambda w: jnp.sum(fn(w, jnp.arange(8.0))))(jnp.float32(2))

    assert run(False) == 28
    with pytest.raises(ValueError, match="manual axis types|vma"):
        run(True)
