"""The modelled time against figures worked out by hand, and the door that listens."""

import functools

import jax
import jax.numpy as jnp
import pytest

from dress import mesh
from supcon_jax.build import cost
from supcon_jax.build.target import CHIPS
from supcon_jax.ops import rows, rules, scores, sharded
from supcon_jax.ops.readings import Reading, read
from supcon_jax.ops.rows import Rows

MILLION = 2**20


def call(door="ring", half=False, n=MILLION, m=MILLION, width=2):
    return cost.Call(n, m, 768, width, half, door, "")


@pytest.mark.parametrize(
    "chip, asked, overlap, compute, links, whole",
    [  # 8 N^2 d / (256 F); 8 N d / B
        ("v5e", call(), False, 134.0, 143.2, 277.1),
        ("v5e", call(), True, 134.0, 143.2, 143.2),
        ("v5e", call("gather"), False, 134.0, 35.8, 169.8),
        ("v5p", call(), True, 57.5, 71.6, 71.6),
        ("v6e", call("gather"), False, 28.7, 17.9, 46.6),
        ("v5e", call(half=True), False, 67.0, 71.6, 138.6),
        ("v5e", call(width=4), False, 803.7, 214.7, 1018.5),
        ("v5e", call(n=2**18), False, 33.5, 143.2, 176.7),
    ],
)
def test_modelled_times(chip, asked, overlap, compute, links, whole):
    found = cost.seconds(asked, 256, CHIPS[chip], overlap)
    for key, value in {"compute": compute, "links": links, "all": whole}.items():
        assert 1e3 * found[key] == pytest.approx(value, rel=3e-3), key


def test_one_device_moves_nothing():
    found = cost.seconds(call(n=2**16, m=2**16), 1, CHIPS["h200"], False)
    assert found["links"] == 0 and 1e3 * found["all"] == pytest.approx(33.4, rel=3e-3)


@pytest.mark.parametrize("permutes, overlaps", [((12, 0), True), ((0, 12), False), ((6, 6), False), (None, False)])
def test_a_ring_overlaps_only_where_all_its_permutes_do(permutes, overlaps):
    found = {} if permutes is None else {"collective-permute": dict(zip(("asynchronous", "synchronous"), permutes))}
    total = cost.modelled([call(), call("gather")], 256, CHIPS["v5e"], found)
    parts = [cost.seconds(call(), 256, CHIPS["v5e"], overlaps), cost.seconds(call("gather"), 256, CHIPS["v5e"], False)]
    assert total == {key: parts[0][key] + parts[1][key] for key in parts[0]}
    assert cost.modelled([], 256, CHIPS["v5e"], {})["all"] == 0


@pytest.mark.parametrize("name", ["gather", "ring", "dense"])
def test_a_door_that_listens_changes_nothing_and_writes_every_call_down(name):
    door = {"gather": sharded.auto(mesh(8)), "ring": sharded.ring(mesh(8)), "dense": sharded.auto()}[name]
    calls, how = [], {"scale": 2.0, "weigh": rows.same_index}

    def asked(door, x):
        q, k = Rows(x, index=jnp.arange(16)), Rows(x + 1, index=jnp.arange(16))
        tokens, two = q.replace(x=x.reshape(16, 2, 2)), (Reading(rows.same_index), Reading(rules.everyone, None, 0.5))
        alone = door.pairs(q, k, bias=0.0, **how), door.pairs(q, q, bias=jnp.sum(x, axis=1), **how)
        late = scores.by(door, scores.MaxSim())(tokens, tokens, **how)
        return door(q, q, **how), rows.both(door, q, k, **how), alone, read(door, q, q, scale=2.0, readings=two), late

    x = jax.random.normal(jax.random.key(0), (16, 4))
    heard = functools.partial(asked, cost.Heard(door, calls))
    assert str(jax.make_jaxpr(heard)(x)) == str(jax.make_jaxpr(functools.partial(asked, door))(x))
    found = [(c.n, c.m, c.d, c.width, c.half, c.door) for c in calls]
    plain = [(16, 16, 4, 4, half, name) for half in (False, False, True, False, True)]
    assert found == [*plain[:2], (32, 32, 2, 4, False, name), *plain[2:]]  # each row counts as its two tokens


def test_what_a_step_takes_at_least():
    found = cost.floor(197e12, 344_000_000, 256, CHIPS["v5e"])
    assert found["products"] == 1 and 1e3 * found["links"] == pytest.approx(3.81, rel=3e-3)  # 2 x 344 MB over 4 x 45 GB/s
    assert cost.floor(1.0, 344_000_000, 1, CHIPS["h200"])["links"] == 0


def flop(f, *shapes):
    return cost.products(jax.make_jaxpr(f)(*(jax.ShapeDtypeStruct(shape, "float32") for shape in shapes)))


def convolved(x, w, stride=1):
    return jax.lax.conv_general_dilated(x, w, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.mark.parametrize(
    "f, shapes, expected",
    [
        (jnp.matmul, ((3, 5), (5, 7)), 2 * 3 * 5 * 7),
        (jnp.matmul, ((4, 3, 5), (4, 5, 7)), 4 * 2 * 3 * 5 * 7),
        (jax.value_and_grad(lambda x, w: (x @ w).sum(), (0, 1)), ((3, 5), (5, 7)), 3 * 2 * 3 * 5 * 7),
        (convolved, ((2, 8, 8, 3), (5, 5, 3, 4)), 2 * (2 * 8 * 8 * 4) * (5 * 5 * 3)),
        (functools.partial(convolved, stride=2), ((2, 8, 8, 3), (5, 5, 3, 4)), 2 * (2 * 4 * 4 * 4) * (5 * 5 * 3)),
        (lambda x: jax.lax.scan(lambda c, _: (c @ c, None), x, None, length=6)[0], ((3, 3),), 6 * 2 * 27),
        (lambda x: jax.jit(lambda y: y @ y)(x), ((3, 3),), 2 * 27),
        (lambda x: jax.lax.cond(x[0, 0] > 0, lambda: x @ x @ x, lambda: x), ((3, 3),), 4 * 27),
        (lambda x: jnp.sin(x).sum(), ((3, 3),), 0),
    ],
)  # fmt: skip
def test_products_are_counted(f, shapes, expected):
    assert flop(f, *shapes) == expected


def test_a_strided_convolution_costs_three_times_its_forward_pass_with_its_gradients():
    """Kernel and input gradient each take as many products as the value; zeros that the stride puts in are none."""
    shapes = (2, 8, 8, 3), (3, 3, 3, 4)
    forward = flop(functools.partial(convolved, stride=2), *shapes)
    both = flop(jax.value_and_grad(lambda x, w: convolved(x, w, 2).sum(), (0, 1)), *shapes)
    assert both == pytest.approx(3 * forward, rel=0.15)  # with the value; the border differs


def test_products_of_all_devices_are_counted():
    def local(x):
        return x @ x.T

    split = jax.sharding.PartitionSpec("data")
    f = jax.shard_map(local, mesh=mesh(8), in_specs=split, out_specs=split)
    assert flop(f, (32, 5)) == 8 * 2 * 4 * 5 * 4
    sums = functools.partial(sharded.gather(mesh(8), tile=(2, 16)), scale=2.0, weigh=rows.same_index)

    def asked(x, y):
        index = jnp.arange(16)
        return sums(Rows(x, index=index), Rows(y, index=index)).lse.sum()

    assert flop(jax.grad(asked, (0, 1)), (16, 4), (16, 4)) == pytest.approx(8 * 16 * 16 * 4, rel=0.1)  # as `seconds` says
