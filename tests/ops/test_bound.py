"""One shift for all rows: equal to the running maximum where a bound is safe, refused where it is not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dress import DOORS
from supcon_jax.ops import rows, scores
from supcon_jax.ops.rows import Rows

D, N, M = 5, 22, 19


def draw(dtype):
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(n, D)) for n in (N, M))
    y[:2] = x[0], -x[0]  # logits at either end of the range
    return [jnp.asarray(a / np.linalg.norm(a, axis=1, keepdims=True), dtype) for a in (x, y)]


def loss(sums, x, y, scale):
    """Reads all sums of both directions, and those of rows that are their own keys; a row has no pair at all."""
    index, number = jnp.arange(N, dtype=jnp.int32), jnp.arange(M, dtype=jnp.int32)
    q, k = Rows(x, index % 3, index, index != 3), Rows(y, number % 3, number, number % 4 != 1)

    def far(q, k):
        return (q.index[:, None] == 5) | (k.index[None, :] == 5)

    found = [sums(q, k, scale=scale, weigh=rows.same_label, veto=far)]
    if scale.ndim == 0:
        how = {"scale": scale, "weigh": rows.same_label}
        found = *rows.both(sums, q, k, veto=far, **how), sums(q, q, **how)
    total = 0.0
    for s in found:
        order = jnp.sin(jnp.arange(len(s.lse), dtype=s.lse.dtype))
        total += jnp.sum(order * (jnp.where(s.lse > -1e29, s.lse, 0) + s.pos * s.wgt))
    return total, found


@functools.cache
def defined(by_row):
    with jax.enable_x64(True):
        scale = jnp.asarray(np.linspace(1.0, 40, N)) if by_row else jnp.asarray(40.0)
        args = *draw(jnp.float64), scale
        return args, jax.jit(jax.value_and_grad(functools.partial(loss, rows.dense), (0, 1, 2), has_aux=True))(*args)


PLACES = [
    ("tiled", 1, False), pytest.param("gather", 8, False, marks=pytest.mark.slow),
    ("ring", 8, False), pytest.param("hybrid", 8, True, marks=pytest.mark.slow), ("gather", 2, True),
]  # fmt: skip


@pytest.mark.parametrize("name, devices, by_row", PLACES)
def test_a_bound_changes_nothing(name, devices, by_row):
    args, want = defined(by_row)
    used = DOORS[name](devices, tile=(4, 6), bound=40.0)
    with jax.enable_x64(True):
        got = jax.jit(jax.value_and_grad(functools.partial(loss, used), (0, 1, 2), has_aux=True))(*args)
        close(got, want, 1e-12)
    if name == "tiled":  # at the ends of what float32 holds
        low = [jnp.asarray(np.asarray(a), jnp.float32) for a in args]
        close(jax.jit(jax.value_and_grad(functools.partial(loss, used), (0, 1, 2), has_aux=True))(*low), want, 2e-5)


def close(got, want, share):
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        one, other = np.asarray(one, np.float64), np.asarray(other)
        assert np.isfinite(one).all()
        most = max(1, np.abs(np.where(other > -1e29, other, 0)).max())
        np.testing.assert_allclose(np.maximum(one, -1e29), np.maximum(other, -1e29), rtol=0, atol=share * most)


@pytest.mark.parametrize("bound, dtype", [(41.0, "float32"), (0.0, "float32"), (351.0, "float64")])
def test_bounds_that_leave_the_numbers_are_refused(bound, dtype):
    with jax.enable_x64(True), pytest.raises(ValueError, match=f"bound.*{dtype}.*leave bound out"):
        run(1.0, bound, jnp.dtype(dtype))


def run(scale, bound, dtype=jnp.float32, length=1.0, invalid=False):
    x, y = draw(dtype)
    q = Rows(x.at[4].mul(length), valid=jnp.arange(N) != 4 if invalid else None, index=jnp.arange(N))
    return DOORS["gather"](8, bound=bound)(q, Rows(y, index=jnp.arange(M)), scale=scale, weigh=rows.same_index).lse


BEYOND = {"scale": (11.0, 1.0), "long": (5.0, 3.0), "row": (np.r_[np.ones(N - 1), 11.0], 1.0)}


@pytest.mark.parametrize("scale, length", BEYOND.values(), ids=BEYOND)
def test_logits_beyond_the_bound_are_refused(scale, length):
    scale = jnp.asarray(scale, jnp.float32)
    with pytest.raises(ValueError, match="bound = 10"):
        run(scale, 10.0, length=length)
    assert np.isnan(jax.jit(lambda scale: run(scale, 10.0, length=length))(scale)).all()
    assert np.isfinite(jax.jit(lambda scale: run(scale, 40.0, length=length))(scale)).all()


def test_rows_that_are_not_valid_may_be_long():
    assert np.isfinite(run(5.0, 10.0, length=100.0, invalid=True)[:4]).all()


def test_bfloat16_unit_rows_are_within_their_scale():
    assert np.isfinite(run(10.0, 10.0, jnp.bfloat16)).all()


def test_scores_have_no_bound():
    x = Rows(jnp.ones((4, 2, 3)), index=jnp.arange(4))
    with pytest.raises(ValueError, match="inner products"):
        scores.by(DOORS["tiled"](1, bound=10.0), scores.MaxSim())(x, x, scale=1.0, weigh=rows.same_index)
