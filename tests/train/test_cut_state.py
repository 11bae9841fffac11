"""Parameters and optimiser state cut over the devices: the same training, less memory, checkpoints for any device count."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from supcon_jax import core, shard
from supcon_jax.ops.arrays import average
from supcon_jax.train import loop
from supcon_jax.train.checkpoint import Checkpoints, digest

KEEP = {"latest": 9, "best": 0, "metric": "", "mode": "min"}
LIMIT = 512  # bytes; the two kernels and their moments are larger, biases are not


class Data:
    """Batches of 16 rows, numbered from 1."""

    at = 0

    def __next__(self):
        self.at += 1
        return {"x": np.random.default_rng(self.at).standard_normal((16, 12)).astype(np.float32)}

    def state(self):
        return {"position": self.at}

    def restore(self, state):
        self.at = state["position"]


def task():
    """An autoencoder with an averaged copy of its parameters and dropout from the step's key."""

    def init(key, batch):
        a, b = jax.random.split(key)
        params = {
            "into": jax.random.normal(a, (12, 32)) / 4, "bias": jnp.zeros(32), "out": jax.random.normal(b, (32, 12)) / 6,
            "odd": jnp.ones((7, 31)),  # larger than the limit, but no axis divides
        }  # fmt: skip
        return {"params": {"model": params}, "memory": {"ema": jax.tree.map(jnp.copy, params)}}

    def loss(params, state, frozen, batch, key):
        own = params["model"]
        h = jnp.tanh(batch["x"] @ own["into"] + own["bias"][None]) * jax.random.bernoulli(key, 0.8, (16, 32))
        value = jnp.square(h @ own["out"] + frozen["shift"][:, :12] - batch["x"]).mean() + 0.01 * jnp.square(own["odd"]).mean()
        return value, core.Aux({}, {}, state.memory)

    def after(state):
        return state.replace(memory={"ema": average(state.memory["ema"], state.params["model"], 0.9)})

    return core.Task(init, (core.Player("model", loss, optax.adam(0.01)),), after=after)


def run(folder, devices, split, steps=4):
    return loop.Run(
        name="toy", folder=pathlib.Path(folder), task=task(), frozen={"shift": np.full((1, 160), 0.1, np.float32)},
        mesh=shard.data_mesh(devices), seed=3, steps=steps, data=Data, images=16, every={"log": 1, "save": 2, "sample": 0},
        keep=KEEP, skip_limit=3, config={}, split=split,
    )  # fmt: skip


def losses(folder):
    return [json.loads(line)["model/loss"] for line in (pathlib.Path(folder) / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """{how: (folder, last state)} of four steps on eight devices."""
    folders = {how: tmp_path_factory.mktemp(how) for how in ("replicate", "fsdp")}
    limits = {"replicate": None, "fsdp": LIMIT}
    return {how: (folder, loop.train(run(folder, 8, limits[how]))[0]) for how, folder in folders.items()}


def test_training_is_that_of_whole_parameters(trained):
    (one, want), (two, got) = trained["replicate"], trained["fsdp"]
    np.testing.assert_allclose(losses(two), losses(one), rtol=1e-5)
    for a, b in zip(jax.tree.leaves(shard.whole(got.params)), jax.tree.leaves(shard.whole(want.params)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert losses(one)[-1] < losses(one)[0]


def held(tree):
    """Bytes of a tree on the first device."""
    return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))


def test_a_device_holds_an_eighth_of_what_is_large(trained):
    (_, whole), (_, cut) = trained["replicate"], trained["fsdp"]
    for part in ("params", "opt", "memory"):
        copies = {"params": 1, "opt": 2, "memory": 1}[part]
        large, small = 4 * copies * 2 * 12 * 32, 4 * copies * (32 + 7 * 31)
        count = 4 if part == "opt" else 0  # the optimiser's step
        assert held(getattr(whole, part)) == large + small + count
        assert held(getattr(cut, part)) == large // 8 + small + count


def test_the_step_takes_the_place_of_the_state_it_is_given(tmp_path):
    built = run(tmp_path, 8, LIMIT)
    state, data, saved = loop.begin(built)
    saved.close()
    before = [leaf.sharding for leaf in jax.tree.leaves(state.params)]
    kernel = state.params["model"]["into"]
    frozen, batch = shard.lay(built.frozen, built.mesh, LIMIT), shard.place(next(data), built.mesh)
    after, metrics = loop.stepper(built.task, built.mesh, state)(state, frozen, batch)
    assert kernel.is_deleted() and [leaf.sharding for leaf in jax.tree.leaves(after.params)] == before
    assert frozen["shift"].addressable_shards[0].data.shape == (1, 20) and not frozen["shift"].is_deleted()
    assert all(value.is_fully_replicated for value in metrics.values())


def test_a_checkpoint_moves_between_numbers_of_devices(trained, tmp_path):
    """From eight devices to two to one, cut or whole, and back: the same bits."""
    folder, want = trained["fsdp"]
    for devices, split in ((2, LIMIT), (1, None), (8, LIMIT)):
        state, data, saved = loop.begin(run(folder, devices, split))
        saved.close()
        assert digest(state) == digest(want) and int(state.step) == 4 and data.at == 4
        kernel = state.params["model"]["into"]
        assert len(kernel.sharding.device_set) == devices
        assert kernel.addressable_shards[0].data.shape == (12, 32 // (devices if split else 1))
        folder = tmp_path / str(devices)  # the next one reads what this one writes
        moved = Checkpoints(folder / "checkpoints", **KEEP)
        moved.save(state, data.state())
        moved.close()
