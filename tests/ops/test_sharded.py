"""gather is dense: the same sums and the same gradients on any number of devices, for any number of rows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dress import door, mesh, split
from supcon_jax.ops import rows
from supcon_jax.ops.rows import Rows

D = 4


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
    return jnp.sum(jnp.sin(s.lse) + s.pos * s.wgt + s.cnt * s.top), s


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


@pytest.mark.parametrize("n", [6, 20, 24])
@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_equals_dense_in_value_and_gradient(n, devices):
    x, y, a, b, scale = draw(n, n if n == 24 else n + 3)
    args = x, y, a, b, scale
    compare(judged(devices, False)(*(split(v, devices) for v in args)), judged(0, False)(*args))


@pytest.mark.parametrize("n, devices", [(6, 8), (3, 8), (1, 2), (24, 8)])
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
