"""Queues in slots, and the veto of keys that look too much alike: over a batch of all devices and the queue."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from dress import DOORS, THROUGH, mesh
from supcon_jax.ops import queue, rows, rules, similar
from supcon_jax.ops.rows import Rows

B, D, K = 16, 3, 48


def batch(step):
    """Rows that name their step and place; the last one of every third batch is padding."""
    rng = np.random.default_rng(step)
    x = rng.normal(size=(B, D))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    number = np.arange(B) + 100 * step
    valid = np.arange(B) < B - (step % 3 == 0)
    label, index = (jnp.asarray(a, jnp.int32) for a in (number % 7, number))
    return Rows(jnp.asarray(x, jnp.float32), label, index, jnp.asarray(valid))


write = jax.jit(queue.enqueue, donate_argnums=0)
HELD = PartitionSpec(None, "data")


def filled(steps, devices=1):
    """The queue after so many batches, split over devices, batch by batch."""
    q = queue.init(K, batch(0))
    place = lambda tree, spec: jax.tree.map(lambda a: jax.device_put(a, NamedSharding(mesh(devices), spec)), tree)  # noqa: E731
    q = queue.Queue(place(q.rows, HELD), place(q.next, PartitionSpec()))
    for step in range(steps):
        q = write(q, place(batch(step), PartitionSpec("data")))
    return q


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("steps", [0, 2, 5])
def test_first_in_first_out(steps, devices):
    got, want = queue.keys(filled(steps, devices)), {}
    for one in map(batch, range(max(0, steps - 3), steps)):
        want |= rows_by_index(one)
    assert got.x.shape == (K, D) and int(got.valid.sum()) == len(want)
    assert rows_by_index(got) == want


def rows_by_index(one):
    arrays = (np.asarray(a) for a in (one.index, one.x, one.label, one.valid))
    return {int(i): (*x.tolist(), int(label)) for i, x, label, live in zip(*arrays, strict=True) if live}


def test_order_does_not_depend_on_the_devices():
    for one, other in zip(jax.tree.leaves(queue.keys(filled(5, 1))), jax.tree.leaves(queue.keys(filled(5, 8))), strict=True):
        np.testing.assert_array_equal(one, other)


COLLECTIVE = r"all-gather|all-reduce|all-to-all|reduce-scatter|collective"


def test_neither_writing_nor_reading_moves_a_row():
    held = jax.tree.map(lambda a: NamedSharding(mesh(8), HELD if a.ndim > 1 else PartitionSpec()), filled(0, 8))
    split = jax.tree.map(lambda a: NamedSharding(mesh(8), PartitionSpec("data")), batch(0))

    def step(q, rows):
        q = queue.enqueue(q, rows)
        return q, queue.keys(q)

    run = jax.jit(step, in_shardings=(held, split), out_shardings=(held, split))
    text = run.lower(filled(0, 8), batch(0)).compile().as_text()
    assert "dynamic-update-slice" in text and not re.search(COLLECTIVE, text)

    @functools.partial(jax.jit, out_shardings=NamedSharding(mesh(8), PartitionSpec("data")))
    def by_rows(q, x):  # what it would cost as [K, d]
        return jax.lax.dynamic_update_slice(q, x, (B, 0))

    place = jax.ShapeDtypeStruct((K, D), jnp.float32, sharding=NamedSharding(mesh(8), PartitionSpec("data")))
    assert re.search(COLLECTIVE, by_rows.lower(place, jax.ShapeDtypeStruct((B, D), jnp.float32)).compile().as_text())


def test_no_gradient_enters_a_queue():
    def total(x):
        return jnp.sum(queue.keys(queue.enqueue(queue.init(B, batch(0)), batch(0).replace(x=x))).x)

    assert not np.any(jax.grad(total)(batch(0).x))


def test_mistakes_are_named():
    for size in (0, B - 1, B + 8):
        with pytest.raises(ValueError, match=f"{size} rows takes no batches of {B}"):
            queue.init(size, batch(0))
    with pytest.raises(ValueError, match=r"float32\[16, 3\].*float32\[8, 3\]"):
        queue.enqueue(queue.init(K, batch(0)), jax.tree.map(lambda a: a[:8], batch(1)))


# ---- false negatives by similarity, over batch and queue


def loss(sums, x, y, memory, scale):
    """Positives by label in the batch, negatives from batch and queue, none of those that are too similar."""
    q = batch(7).replace(x=x)
    k, old = q.replace(x=y), queue.keys(memory)
    veto = similar.false_negatives(0.6, rows.same_label)
    how = {"scale": scale, "weigh": rows.same_label}
    own = sums(q, q, veto=rules.either(rows.same_index, veto), **how)
    one, other = rows.both(sums, q, k, veto=veto, **how)
    s = rows.merge(one, sums(q, old, veto=veto, **how))
    live = q.valid.astype(s.lse.dtype)
    return jnp.sum(live * (s.lse - s.pos + 2 * own.lse + 3 * other.lse)), (s, own, other)


@functools.cache
def judged(name, devices):
    used = DOORS[name](devices, tile=(8, 8)) if name else rows.dense
    with jax.enable_x64(True):
        x, y = (jnp.asarray(np.asarray(batch(i).x), jnp.float64) for i in (7, 8))
        run = jax.jit(jax.value_and_grad(functools.partial(loss, used), (0, 1), has_aux=True))
        memory = jax.tree.map(lambda a: np.asarray(a, np.float64 if a.dtype == jnp.float32 else a.dtype), filled(2))
        return run(x, y, memory, jnp.asarray(4.0))


@pytest.mark.parametrize("name, devices", THROUGH)
def test_similar_keys_are_left_out_through_every_door(name, devices):
    for one, other in zip(jax.tree.leaves(judged(name, devices)), jax.tree.leaves(judged("", 0)), strict=True):
        np.testing.assert_allclose(np.maximum(one, -1e29), np.maximum(other, -1e29), rtol=1e-12, atol=1e-11)


def test_similar_keys_are_left_out_as_in_the_loop():
    q, k, old = batch(7), batch(8), queue.keys(filled(2))
    keys = [(np.asarray(x, np.float64), int(l)) for rows_, live in ((k, q.valid), (old, old.valid))
            for x, l, v in zip(rows_.x, (q.label if rows_ is k else old.label), live, strict=True) if v]  # fmt: skip
    s, near = judged("", 0)[0][1][0], 0
    for i in range(B):
        x = np.asarray(q.x[i], np.float64)
        left = [(x @ y, l == q.label[i]) for y, l in keys if l == q.label[i] or x @ y < 0.6]
        near += len(keys) - len(left)
        want = np.log(sum(np.exp(4 * c) for c, _ in left)), sum(4 * c for c, joined in left if joined)
        np.testing.assert_allclose((s.lse[i], s.pos[i]), want if q.valid[i] else (-1e30, 0), rtol=1e-5, atol=1e-6)
    assert near > 50
