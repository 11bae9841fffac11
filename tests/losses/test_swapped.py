"""Swapped prediction over crops: against the loops, in every dress; the queue, and rows that are all alike."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles_unimodal as slow
from dress import dress
from supcon_jax.losses.swapped import swapped
from supcon_jax.ops import queue
from supcon_jax.ops.rows import Rows

RNG = np.random.default_rng(0)


def units(*shape):
    x = RNG.normal(size=shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


compiled = jax.jit(swapped, static_argnames="full")
Z, C, HELD = units(8, 4, 5), units(6, 5), units(16, 2, 5)


@pytest.mark.parametrize("crops", [2, 4])
def test_equals_the_loops(crops):
    fn = functools.partial(swapped, scale=10.0, eps=0.1, rounds=2)
    value, grads = dress(fn, [Z[:, :crops], C], sums=False, full=crops == 4, devices=8 if crops == 4 else 1, grad_rtol=1e-3)
    np.testing.assert_allclose(value, slow.swapped(Z[:, :crops], C, 10.0, 0.1, 2), rtol=1e-11)
    assert all(np.abs(g).max() > 1e-3 for g in grads)


def test_a_queue_adds_rows_to_the_sums():
    def loss(z, c, held):
        return swapped(z, c, scale=10.0, queue=Rows(held))

    value, (_, _, moved) = dress(loss, [Z, C, HELD], sums=False, grad_rtol=1e-3)
    np.testing.assert_allclose(value, slow.swapped(Z, C, 10.0, 0.05, 3, HELD), rtol=1e-11)
    assert not moved.any() and abs(value - slow.swapped(Z, C, 10.0, 0.05, 3)) > 1e-4


def test_a_queue_counts_once_it_is_full():
    """Slots of one batch each: until the last one is written the rows are as good as gone, or those that are there count."""
    z, c = jnp.asarray(Z, jnp.float32), jnp.asarray(C, jnp.float32)
    run = functools.partial(compiled, scale=10.0)
    like = Rows(jnp.asarray(HELD[:8], jnp.float32))
    kept, alone = queue.init(16, like), float(run(z, c))
    assert run(z, c, queue=queue.keys(kept)) == pytest.approx(alone, rel=1e-6)
    kept = queue.enqueue(kept, like)
    assert run(z, c, queue=queue.keys(kept)) == pytest.approx(alone, rel=1e-6)
    part = run(z, c, queue=queue.keys(kept), full=False)
    assert part == pytest.approx(slow.swapped(Z, C, 10.0, 0.05, 3, HELD[:8]), rel=1e-4)
    kept = queue.enqueue(kept, Rows(jnp.asarray(HELD[8:], jnp.float32)))
    for full in (True, False):
        whole = run(z, c, queue=queue.keys(kept), full=full)
        assert whole == pytest.approx(slow.swapped(Z, C, 10.0, 0.05, 3, HELD), rel=1e-4)


@pytest.mark.parametrize("rows", ["alike", "zero"])
def test_rows_that_say_nothing_give_ln_k(rows):
    """Equal rows have equal codes, one share for each prototype; zero rows stay finite."""
    z = np.repeat(Z[:1, :1], 8, axis=0).repeat(2, axis=1) * (rows == "alike")
    c = C if rows == "zero" else np.repeat(C[:1], 6, axis=0)
    value, grads = jax.jit(jax.value_and_grad(lambda z, c: swapped(z, c, scale=10.0), (0, 1)))(*map(np.float32, (z, c)))
    assert value == pytest.approx(np.log(6), rel=1e-5)
    assert all(np.isfinite(g).all() for g in grads)
    many = compiled(jnp.asarray(z, jnp.float32), jnp.asarray(C, jnp.float32), scale=1e-6)
    assert many == pytest.approx(np.log(6), rel=1e-4)


def test_equal_rows_among_different_prototypes_have_equal_codes():
    z = np.repeat(Z[:1, :1], 8, axis=0).repeat(2, axis=1)
    p = np.exp(10 * z[0, 0] @ C.T)
    value = compiled(jnp.asarray(z, jnp.float32), jnp.asarray(C, jnp.float32), scale=10.0)
    assert value == pytest.approx(-np.mean(np.log(p / p.sum())), rel=1e-4)


def test_order_of_examples_and_crops():
    z, c, order = jnp.asarray(Z, jnp.float32), jnp.asarray(C, jnp.float32), RNG.permutation(8)
    want = compiled(z, c, scale=10.0)
    for again in (z[order], z[:, [1, 0, 3, 2]]):
        np.testing.assert_allclose(compiled(again, c, scale=10.0), want, rtol=1e-4)
    assert abs(compiled(z[:, [2, 1, 0, 3]], c, scale=10.0) - want) > 1e-3


def test_mistakes_are_named():
    z, c = jnp.zeros((4, 1, 5)), jnp.zeros((6, 5))
    with pytest.raises(ValueError, match="codes of 2 crops"):
        swapped(z, c, scale=1.0)
    with pytest.raises(ValueError, match=r"\[3, 5\], codes need \[2, 5\]"):
        swapped(jnp.zeros((4, 2, 5)), c, scale=1.0, queue=Rows(jnp.zeros((8, 3, 5))))
