"""A queue in a task's memory: cut over the devices, written without a message, the same on any number of them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from supcon_jax import core, shard
from supcon_jax.build import program
from supcon_jax.ops import queue, sharded
from supcon_jax.ops.rows import Rows, same_index
from supcon_jax.train import loop

B, D, K = 16, 8, 48


def task(mesh, used):
    """Rows through one kernel against their own keys and, where it is used, a queue of earlier ones."""
    def init(key, batch):
        memory = {"queue": queue.init(K, keys_of(batch["x"], 0))} if used else {}
        return {"params": {"model": {"w": jnp.eye(D) + 0.1}}, "memory": memory}

    def keys_of(z, step):
        return Rows(z, index=B * step + jnp.arange(B, dtype=jnp.int32))

    def loss(params, state, frozen, batch, key):
        q = keys_of(batch["x"] @ params["model"]["w"], state.step)
        k, memory, sums = q.replace(x=batch["x"]), state.memory, sharded.gather(mesh)
        s = sums(q, k, scale=2.0, weigh=same_index)
        if used:
            old = sums(q, queue.keys(memory["queue"]), scale=2.0, weigh=same_index)
            s = s._replace(lse=jnp.logaddexp(s.lse, old.lse))
            memory = {"queue": queue.enqueue(memory["queue"], k)}
        return jnp.mean(s.lse - s.pos), core.Aux({}, {}, memory)

    return core.Task(init, (core.Player("model", loss, optax.sgd(0.1)),))


def ready(devices, used=True):
    """(step, state, batches) on so many devices."""
    mesh = shard.data_mesh(devices)
    drawn = np.random.default_rng(0).standard_normal((5, B, D)).astype(np.float32)
    batches = [{"x": x / np.linalg.norm(x, axis=1, keepdims=True)} for x in drawn]
    made = task(mesh, used)
    state = shard.lay(core.init_state(made, jax.random.key(0), batches[0]), mesh)
    return loop.stepper(made, mesh, state), state, [shard.place(batch, mesh) for batch in batches]


@pytest.fixture(scope="module")
def ends():
    """The state after five steps, more than the queue holds, by number of devices."""
    found = {}
    for devices in (1, 2, 4, 8):
        step, state, batches = ready(devices)
        for batch in batches:
            state, _ = step(state, {}, batch)
        found[devices] = state
    return found


@pytest.mark.parametrize("devices", [2, 4, 8])
def test_training_does_not_depend_on_the_devices(ends, devices):
    for got, want in zip(jax.tree.leaves(ends[devices].memory), jax.tree.leaves(ends[1].memory), strict=True):
        np.testing.assert_array_equal(got, want)
    got, want = (ends[n].params["model"]["w"] for n in (devices, 1))
    np.testing.assert_allclose(got, want, rtol=1e-6)
    assert np.abs(np.asarray(want) - np.eye(D) - 0.1).max() > 1e-2


def test_each_device_keeps_its_part_of_every_slot(ends):
    held = ends[8].memory["queue"]
    assert held.rows.x.addressable_shards[3].data.shape == (K // B, B // 8, D)
    assert held.rows.valid.addressable_shards[3].data.shape == (K // B, B // 8) and held.next.is_fully_replicated
    assert int(held.next) == 5 % (K // B) and bool(np.asarray(held.rows.valid).all())


def test_writing_sends_nothing():
    """The step with a queue has no more collectives than its sums over the queue ask for, and writing alone none."""
    step, state, (batch, *_) = ready(8)

    def write(state, batch):
        new = Rows(batch["x"], index=state.step + jnp.arange(B, dtype=jnp.int32))
        return state.replace(memory={"queue": queue.enqueue(state.memory["queue"], new)})

    kept = jax.tree.map(lambda leaf: leaf.sharding, state)
    text = jax.jit(write, donate_argnums=0, out_shardings=kept).lower(state, batch).compile().as_text()
    assert "dynamic-update-slice" in text and program.collectives(text) == {}
    counts = []
    for used in (False, True):
        step, state, _ = ready(8, used)
        text = step.lower(state, {}, batch).compile().as_text()
        counts.append({kind: sum(c.values()) for kind, c in program.collectives(text).items()})
    without, with_queue = counts
    more = {kind: count - without.get(kind, 0) for kind, count in with_queue.items()}
    assert set(more) == {"all-gather", "all-reduce"} and more["all-reduce"] == 0
    assert 0 < more["all-gather"] <= 6  # the keys of the queue and what travels with them, in both passes
