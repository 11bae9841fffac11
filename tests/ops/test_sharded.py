"""Every door is dense: the same sums and the same gradients on any number of devices, for any rows, rules and tiles."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from dress import DOORS, door, grid, mesh, split
from supcon_jax.ops import rows, sharded
from supcon_jax.ops.rows import Rows

D = 4


# ---- in float32, as training runs


def draw(n, m=None):
    rng = np.random.default_rng(n)
    m = m or n
    return [
        jnp.asarray(a)
        for a in (
            rng.normal(size=(n, D)).astype(np.float32),
            rng.normal(size=(m, D)).astype(np.float32),
            rng.integers(0, 3, n).astype(np.int32),
            rng.integers(0, 3, m).astype(np.int32),
            (5 * rng.random(n) + 1).astype(np.float32),
        )
    ]


def numbers(sums, x, y, a, b, scale):
    """A scalar that every sum reaches, and the sums."""
    q = Rows(x, a, jnp.arange(len(x)))
    k = q if y is None else Rows(y, b, jnp.arange(len(y)))
    s = sums(q, k, scale=scale, weigh=rows.same_label, veto=rows.same_index)
    return jnp.sum(jnp.sin(s.lse) + s.pos * s.wgt + s.cnt * s.top + jnp.exp(-jnp.abs(s.rival))), s


@functools.cache
def judged(devices, own):
    moving = (0, 3) if own else (0, 1, 4)
    one = (
        (lambda x, a, b, scale: numbers(door(devices), x, None, a, b, scale))
        if own
        else functools.partial(numbers, door(devices))
    )
    return jax.jit(jax.value_and_grad(one, moving, has_aux=True))


def compare(got, want):
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=2e-5 * max(1, float(np.abs(other).max())))


IN_PLAIN = [(1, 20), (2, 24), (4, 6), (8, 6), (8, 20)]
SIZES = [
    pytest.param(n, devices, marks=() if (devices, n) in IN_PLAIN else pytest.mark.slow)
    for devices in (1, 2, 4, 8) for n in (6, 20, 24)
]  # fmt: skip


@pytest.mark.parametrize("n, devices", SIZES)
def test_equals_dense_in_value_and_gradient(n, devices):
    x, y, a, b, scale = draw(n, n if n == 24 else n + 3)
    args = x, y, a, b, scale
    compare(judged(devices, False)(*(split(v, devices) for v in args)), judged(0, False)(*args))


@pytest.mark.parametrize("n, devices", [pytest.param(6, 8, marks=pytest.mark.slow), (3, 8), (1, 2), (24, 8)])
def test_keys_that_are_the_queries_and_one_scale(n, devices):
    x, _, a, b, _ = draw(n)
    args = x, a, b, jnp.float32(4)
    compare(judged(devices, True)(*args), judged(0, True)(*args))


def test_eager_and_multihot_and_valid():
    rng = np.random.default_rng(1)
    label = (rng.random((6, 5)) < 0.5).astype(np.uint8)
    q = Rows(jnp.asarray(rng.normal(size=(6, D))), jnp.asarray(label), jnp.arange(6), jnp.array([1, 1, 0, 1, 1, 1.0]))
    how = {"scale": 2.0, "weigh": rows.jaccard(), "veto": rows.same_index}
    compare(door(8)(q, q, **how), rows.dense(q, q, **how))


def test_padding_rows_do_not_count():
    x, y, a, b, scale = draw(8)
    valid = jnp.array([1, 1, 1, 1, 1, 0, 0, 0.0])
    q, k = Rows(x, a, jnp.arange(8), valid), Rows(y, b, jnp.arange(8), valid)
    cut = [jax.tree.map(lambda v: v[:5], r.replace(valid=None)) for r in (q, k)]
    got = jax.jit(functools.partial(door(4), weigh=rows.same_label))(q, k, scale=scale)
    want = jax.jit(functools.partial(rows.dense, weigh=rows.same_label))(*cut, scale=scale[:5])
    compare([v[:5] for v in got], list(want))
    assert not np.any(got.wgt[5:])


def test_sums_stay_split_and_only_rows_are_gathered():
    x, y, a, b, scale = (split(v, 8) for v in draw(64))
    compiled = jax.jit(lambda *args: numbers(door(8), *args)[1].lse).lower(x, y, a, b, scale).compile()
    text = compiled.as_text()
    assert "all-gather" in text and "f32[64,64]" not in text  # the whole matrix is on no device
    assert compiled(x, y, a, b, scale).sharding.is_equivalent_to(jax.NamedSharding(mesh(8), jax.P("data")), 1)


# ---- what the choice of a door rests on


def compiled(sums, n, d=16):
    """Value and gradient of InfoNCE, compiled for n rows."""

    def loss(x, y):
        q = Rows(x, index=jnp.arange(n))
        s = sums(q, q.replace(x=y), scale=5.0, weigh=rows.same_index)
        return jnp.mean(s.lse - s.pos)

    row = jax.ShapeDtypeStruct((n, d), jnp.float32)
    return jax.jit(jax.value_and_grad(loss, (0, 1))).lower(row, row).compile()


@pytest.mark.parametrize("name", ["tiled", "gather", "ring"])
def test_memory_grows_with_the_rows_not_with_their_square(name):
    used = DOORS[name](4, tile=(64, 64))
    small, large = (compiled(used, n).memory_analysis().temp_size_in_bytes for n in (1024, 4096))
    assert large < 5 * small and large < 4096**2  # the matrix alone takes 4 * 4096**2
    if name == "tiled":
        assert compiled(rows.dense, 4096).memory_analysis().temp_size_in_bytes > 4 * 4096**2


def test_keys_without_gradient_cost_no_product():
    def products(moves):
        def loss(x, y):
            q = Rows(x, index=jnp.arange(8))
            s = sharded.tiled()(q, q.replace(x=y), scale=5.0, weigh=rows.same_index)
            return jnp.mean(s.lse - s.pos)

        return str(jax.make_jaxpr(jax.grad(loss, moves))(jnp.ones((8, D)), jnp.ones((8, D)))).count("dot_general")

    assert [products(moves) for moves in (0, 1, (0, 1))] == [3, 3, 4]


def test_rows_split_over_all_axes_of_a_mesh():
    x, y, a, b, scale = draw(13, 18)
    want = jax.jit(functools.partial(numbers, rows.dense))(x, y, a, b, scale)
    for used in (sharded.ring(grid(4), ("host", "chip"), tile=(2, 2)), sharded.gather(grid(4), ("host", "chip"))):
        compare(jax.jit(functools.partial(numbers, used))(x, y, a, b, scale), want)


@pytest.mark.parametrize("make", [sharded.gather, sharded.ring])
def test_a_second_axis_splits_the_parameters(make):
    """Manual over "data" only: embeddings from a weight that is split over "model"."""
    both = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    x, _, a, _, _ = draw(24)
    weight = jnp.asarray(np.random.default_rng(2).normal(size=(D, 6)), jnp.float32)

    def loss(sums, weight, x):
        q = Rows(x @ weight, a, jnp.arange(24))
        s = sums(q, q.replace(x=q.x + 1), scale=2.0, weigh=rows.same_label, veto=rows.same_index)
        return jnp.sum(jnp.sin(s.lse) + s.pos * s.wgt)

    put = jax.NamedSharding(both, PartitionSpec(None, "model"))
    args = jax.device_put(weight, put), jax.device_put(x, jax.NamedSharding(both, PartitionSpec("data")))
    value, grad = jax.jit(jax.value_and_grad(functools.partial(loss, make(both))))(*args)
    compare((value, grad), jax.jit(jax.value_and_grad(functools.partial(loss, rows.dense)))(weight, x))
    assert grad.sharding.is_equivalent_to(put, 2)


def test_bfloat16_products_are_near_float64():
    """What is left is the rounding of the inputs, which for unrelated rows averages out of the loss."""
    n, d, scale = 512, 256, 14.3
    rng = np.random.default_rng(0)
    x, y = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in rng.normal(size=(2, n, d)))

    def loss(sums, x, y, scale):
        q, k = Rows(x, index=jnp.arange(n)), Rows(y, index=jnp.arange(n))
        one, other = rows.both(sums, q, k, scale=scale, weigh=rows.same_index)
        return jnp.mean(one.lse - one.pos + other.lse - other.pos) / 2

    with jax.enable_x64(True):
        want = jax.jit(jax.value_and_grad(functools.partial(loss, rows.dense), (0, 1, 2)))(x, y, scale)
        want = jax.tree.map(np.asarray, want)
    used = sharded.gather(mesh(2), precision="bf16", tile=(256, 256))
    args = jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32), jnp.float32(scale)
    got = jax.jit(jax.value_and_grad(functools.partial(loss, used), (0, 1, 2)))(*args)
    np.testing.assert_allclose(got[0], want[0], rtol=1e-5)
    for one, other in zip(got[1], want[1], strict=True):
        assert np.linalg.norm(one - other) <= 4e-3 * np.linalg.norm(other)
    with pytest.raises(ValueError, match="precision"):
        sharded.tiled(precision="f16")


def test_bfloat16_adds_nothing_to_the_rounding_of_the_rows():
    """Rows with much in common: the float64 loss of the rounded rows is 1e-5 away, ours is at the former."""
    n, d, scale = 256, 128, 14.3
    rng = np.random.default_rng(0)
    x, y = (0.5 * rng.normal(size=d) + 0.5 * a for a in rng.normal(size=(2, n, d)))
    x, y = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, 0.5 * x + 0.5 * y))

    def loss(z, k):
        s = np.asarray(z, np.float64) @ np.asarray(k, np.float64).T
        return np.mean(np.log(np.sum(np.exp(s), axis=1)) - np.diag(s))

    def low(a):
        return jnp.asarray(a, jnp.float32).astype(jnp.bfloat16)

    q, k = (Rows(jnp.asarray(a, jnp.float32), index=jnp.arange(n)) for a in (x, y))
    s = sharded.tiled(precision="bf16", tile=(64, 128))(q, k, scale=scale, weigh=rows.same_index)
    got = np.mean(np.asarray(s.lse, np.float64) - np.asarray(s.pos, np.float64))
    same, exact = loss(low(q.x * jnp.float32(scale)), low(k.x)), loss(scale * x, y)
    np.testing.assert_allclose(got, same, rtol=1e-6)
    assert 2e-6 * exact < abs(same - exact) < 1e-4 * exact


def test_auto_chooses_by_memory_and_says_why():
    one, several, hosts = sharded.auto(), sharded.auto(mesh(8), memory=10**9), None
    hosts = sharded.auto(grid(8), "host", inner="chip", memory=10**9, tile=(8, 8))
    asked = [
        (one, 1000, "dense"),
        (one, 10000, "tiled"),
        (several, 10**4, "gather over 8"),
        (several, 10**6, "ring of 8"),
        (hosts, 10**4, "gather over 8"),
        (hosts, 2 * 10**5, "hybrid, 4 devices gather and 2 pass on"),
        (hosts, 10**6, "ring of 8"),
    ]
    for used, n, says in asked:
        assert used.choose(n, n, 64)[1].startswith(says)
    assert several.choose(10**6, 10**6, 64)[0] == sharded.ring(mesh(8))
    assert hosts.choose(2 * 10**5, 2 * 10**5, 64)[0] == sharded.hybrid(grid(8), "chip", "host", tile=(8, 8))
    x, y, a, b, scale = draw(12)
    compare(numbers(sharded.auto(mesh(8), memory=1000), x, y, a, b, scale), numbers(rows.dense, x, y, a, b, scale))
    q, k = Rows(x, a), Rows(y, b)
    got, want = (rows.both(sums, q, k, scale=2.0, weigh=rows.same_label) for sums in (one, rows.dense))
    compare(got, want)
