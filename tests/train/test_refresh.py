"""Rare work between steps: when it runs, what it reads, and that a kill around it changes nothing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from supcon_jax import core
from supcon_jax.train import loop
from supcon_jax.train.checkpoint import digest
from train.test_loop import logged, run, toy


def records():
    """A training set of six records, two batches, the last one filled up."""
    for index in ([0, 1, 2, 3], [4, 5, -1, -1]):
        index = np.array(index)
        yield {"index": index, "x": np.where(index[:, None] >= 0, index[:, None] + 1.0, 0).astype(np.float32)}


def refreshing(every=2, start=2, on=None, change=lambda memory: memory):
    """The toy with a pull to a centre that the refresh sets, from the parameters of that step and all records."""
    task, calls = toy(), []

    def init(key, batch):
        made = task.init(key, batch)
        return {**made, "memory": {**made["memory"], "centre": jnp.zeros(2)}}

    def loss(params, state, frozen, batch, key):
        value, aux = task.players[0].loss(params, state, frozen, batch, key)
        return value + ((params["model"]["w"] - state.memory["centre"]) ** 2).sum(), aux

    def after(state):
        return state.replace(memory={**task.after(state).memory, "centre": state.memory["centre"]})

    def fn(state, frozen, batches):
        calls.append(int(state.step))
        if on:
            on(int(state.step))
        seen = np.concatenate([np.asarray(batch["x"]) for batch in batches])
        centre = state.params["model"]["w"] * jnp.asarray(seen[:, 0] @ np.arange(1, 9))
        return state.replace(memory=change({**state.memory, "centre": centre}))

    player = dataclasses.replace(task.players[0], loss=loss)
    return core.Task(init, (player,), after, refresh=core.Refresh(every, start, fn)), calls


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    task, calls = refreshing()
    state, _ = loop.train(run(tmp_path_factory.mktemp("whole"), steps=7, task=task, records=records))
    return digest(state), calls


def test_it_runs_before_every_multiple_of_its_period_from_its_start_on(whole, tmp_path):
    assert whole[1] == [2, 4, 6]
    task, calls = refreshing(every=3, start=0)
    loop.train(run(tmp_path, steps=6, task=task, records=records))
    assert calls == [0, 3]  # not before step 6, which is never made


def test_it_reads_the_records_in_order_and_its_state_is_trained_on(whole, tmp_path):
    plain, _ = refreshing(start=100)
    state, _ = loop.train(run(tmp_path, steps=7, task=plain, records=records))
    assert digest(state) != whole[0]


@pytest.mark.parametrize("at", (2, 4, 6))
def test_a_kill_between_checkpoint_and_refresh_changes_nothing(whole, tmp_path, at):
    def die(step):
        if step == at:
            raise KeyboardInterrupt

    task, _ = refreshing(on=die)
    save = {"log": 1, "save": 3, "sample": 0}  # 2 and 4 are no steps that are saved anyway
    with pytest.raises(KeyboardInterrupt):
        loop.train(run(tmp_path, steps=7, task=task, records=records, every=save))
    task, calls = refreshing()
    state, _ = loop.train(run(tmp_path, steps=7, task=task, records=records, every=save))
    assert calls[0] == at and digest(state) == whole[0]
    assert [line["step"] for line in logged(tmp_path)] == list(range(1, 8))


def test_another_shape_is_refused(tmp_path):
    task, _ = refreshing(change=lambda memory: {**memory, "centre": jnp.zeros(3)})
    with pytest.raises(ValueError, match="before step 2 gave a state of other shapes"):
        loop.train(run(tmp_path, task=task, records=records))


def test_frozen_towers_reach_it(tmp_path):
    seen = []
    task = dataclasses.replace(toy(), refresh=core.Refresh(4, 0, lambda state, frozen, batches: seen.append(frozen) or state))
    loop.train(run(tmp_path, steps=5, task=task, frozen={"tower": jnp.ones(2)}, records=lambda: iter(())))
    assert len(seen) == 2 and all(jax.tree.leaves(tree)[0].sum() == 2 for tree in seen)
