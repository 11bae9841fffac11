"""The contract: order of players, one key a step, gates against what is not finite, ownership, donation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from supcon_jax import core
from supcon_jax.core import Aux, Player, Task

RATE = 0.5


def quadratic(owner, seen=None):
    """A loss whose gradient is (own - target); it tells the key it got and what it saw of every owner."""

    def loss(params, state, frozen, batch, key):
        value = 0.5 * ((params[owner]["w"] - batch["target"]) ** 2).sum() * batch.get(f"poison_{owner}", 1.0)
        metrics = {"key": jax.random.key_data(key), **{f"saw_{name}": x["w"] for name, x in params.items()}}
        stats = {"passes": state.stats[owner]["passes"] + 1}
        memory = {**state.memory, f"moved_{owner}": state.memory[f"moved_{owner}"] + 1}
        return value, Aux(metrics, stats, memory)

    return loss


def game(names=("a", "b"), tx=None, after=None, owns=()):
    """Two players with a parameter, a statistic and a memory each."""
    owns = dict(owns)
    tx = tx or optax.sgd(RATE, momentum=0.25)
    owners = list(dict.fromkeys(owns.get(name, name) for name in names))

    def init(key, batch):
        return {
            "params": {name: {"w": jnp.full((2,), float(i))} for i, name in enumerate(owners)},
            "stats": {name: {"passes": jnp.zeros((), jnp.int32)} for name in owners},
            "memory": {"after": jnp.zeros((), jnp.int32), **{f"moved_{name}": jnp.zeros((), jnp.int32) for name in owners}},
        }

    def count(state):
        return state.replace(memory={**state.memory, "after": state.memory["after"] + 1})

    players = tuple(Player(name, quadratic(owns.get(name, name)), tx, owns.get(name)) for name in names)
    return Task(init, players, after=after or count)


def batch(**more):
    return {"target": jnp.full((2,), 4.0), **more}


def started(task, seed=0):
    return core.init_state(task, jax.random.key(seed), batch())


def run(task):
    return jax.jit(functools.partial(core.step, task))


def same(a, b):
    """Bit for bit."""
    return jax.tree.all(jax.tree.map(lambda x, y: np.asarray(x).tobytes() == np.asarray(y).tobytes(), a, b))


def test_players_move_in_order_and_see_the_states_their_forerunners_left():
    task = game()
    state = started(task)
    after, metrics = run(task)(state, {}, batch())
    a = 0 - RATE * (0 - 4)
    np.testing.assert_array_equal(metrics["a/saw_a"], [0, 0])
    np.testing.assert_array_equal(metrics["a/saw_b"], [1, 1])
    np.testing.assert_array_equal(metrics["b/saw_a"], [a, a])  # already moved
    np.testing.assert_array_equal(after.params["a"]["w"], [a, a])
    np.testing.assert_array_equal(after.params["b"]["w"], [1 - RATE * (1 - 4)] * 2)


def test_the_step_is_gradient_descent_with_the_players_optimiser():
    """Two steps of momentum SGD against its recurrence, so that the optimiser's state must have been kept."""
    task = game(("a",))
    state, w, m = started(task), 0.0, 0.0
    for _ in range(3):
        state, _ = run(task)(state, {}, batch())
        m = 0.25 * m + (w - 4)
        w -= RATE * m
    np.testing.assert_allclose(state.params["a"]["w"], [w, w], rtol=1e-6)


def test_one_key_a_step_shared_by_all_players_and_new_in_the_next():
    task = game()
    state = started(task, 7)
    seen = []
    for at in range(3):
        state, metrics = run(task)(state, {}, batch())
        np.testing.assert_array_equal(metrics["a/key"], metrics["b/key"])
        np.testing.assert_array_equal(metrics["a/key"], jax.random.key_data(jax.random.fold_in(jax.random.key(7), at)))
        seen.append(tuple(np.asarray(metrics["a/key"])))
    assert len(set(seen)) == 3
    assert same(jax.random.key_data(state.key), jax.random.key_data(jax.random.key(7)))  # the run's key stays


def test_parameters_are_drawn_from_another_key_than_any_step():
    drawn = {}

    def init(key, batch):
        drawn["key"] = np.asarray(jax.random.key_data(key))
        return {"params": {"a": {"w": jnp.zeros((2,))}}}

    core.init_state(Task(init, (Player("a", quadratic("a"), optax.sgd(1.0)),)), jax.random.key(0), batch())
    steps = [jax.random.key_data(jax.random.fold_in(jax.random.key(0), at)) for at in range(100)]
    assert not any(np.array_equal(drawn["key"], key) for key in steps)


@pytest.mark.parametrize("bad", (np.nan, np.inf, -np.inf))
@pytest.mark.parametrize("who", ("a", "b"))
def test_a_loss_that_is_not_finite_stops_only_its_own_player(who, bad):
    other = {"a": "b", "b": "a"}[who]
    task = game()
    state, _ = run(task)(started(task), {}, batch())  # with momentum in the optimiser
    after, metrics = run(task)(state, {}, batch(**{f"poison_{who}": jnp.float32(bad)}))
    for part in ("params", "opt", "stats"):
        assert same(getattr(after, part)[who], getattr(state, part)[who]), part
        assert not same(getattr(after, part)[other], getattr(state, part)[other]), part
    assert after.memory[f"moved_{who}"] == state.memory[f"moved_{who}"]
    assert after.memory[f"moved_{other}"] == state.memory[f"moved_{other}"] + 1
    assert after.memory["after"] == state.memory["after"]  # teachers wait for a whole step
    assert after.step == state.step + 1
    assert not np.isfinite(metrics[f"{who}/loss"]) and np.isfinite(metrics[f"{other}/loss"])
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((after.params, after.opt, after.stats)))


def test_a_gradient_that_is_not_finite_stops_a_player_whose_loss_is_finite():
    """sqrt at zero: the value is 0, the slope infinite."""

    def loss(params, state, frozen, batch, key):
        return jnp.sqrt(params["a"]["w"] * batch["x"]).sum(), Aux({}, {"n": state.stats["a"]["n"] + 1}, {"m": jnp.ones(())})

    def init(key, batch):
        start = {"params": {"a": {"w": jnp.zeros((2,))}}, "stats": {"a": {"n": jnp.zeros(())}}}
        return {**start, "memory": {"m": jnp.zeros(())}}

    task = Task(init, (Player("a", loss, optax.adam(0.1)),))
    state = core.init_state(task, jax.random.key(0), {})
    after, metrics = run(task)(state, {}, {"x": jnp.ones((2,))})
    assert metrics["a/loss"] == 0 and not np.isfinite(metrics["a/grad_norm"])
    for part in ("params", "opt", "stats", "memory"):
        assert same(getattr(after, part), getattr(state, part)), part
    assert after.skipped.tolist() == [1, 1] and after.step == 1


def test_refused_updates_are_counted_in_all_and_in_a_row():
    task = game()
    step, state = run(task), started(task)
    nan = jnp.float32(np.nan)
    seen = []
    for poison in ({}, {"poison_a": nan}, {"poison_a": nan, "poison_b": nan}, {}, {"poison_b": nan}):
        full = {"poison_a": jnp.float32(1), "poison_b": jnp.float32(1), **poison}
        state, metrics = step(state, {}, batch(**full))
        assert (int(metrics["skipped"]), int(metrics["skipped_in_a_row"])) == tuple(state.skipped.tolist())
        seen.append(tuple(state.skipped.tolist()))
    assert seen == [(0, 0), (1, 1), (3, 3), (3, 0), (4, 1)]
    assert state.step == 5
    assert state.memory["after"] == 2


def test_two_players_of_one_owner_share_parameters_optimiser_and_statistics():
    task = game(("a", "penalty"), owns={"penalty": "a"}.items())
    state = started(task)
    assert set(state.params) == set(state.opt) == set(state.stats) == {"a"}
    after, metrics = run(task)(state, {}, batch())
    w, m = 0.0, 0.0
    for _ in range(2):  # two moves of momentum SGD in one step
        m = 0.25 * m + (w - 4)
        w -= RATE * m
    np.testing.assert_allclose(after.params["a"]["w"], [w, w], rtol=1e-6)
    np.testing.assert_array_equal(metrics["penalty/saw_a"], [RATE * 4] * 2)
    assert after.stats["a"]["passes"] == 2


def test_metrics_carry_the_players_name():
    _, metrics = run(game())(started(game()), {}, batch())
    expected = {f"{name}/{what}" for name in "ab" for what in ("loss", "grad_norm", "key", "saw_a", "saw_b")}
    assert set(metrics) == expected | {"skipped", "skipped_in_a_row"}
    np.testing.assert_allclose(metrics["a/loss"], 0.5 * 2 * 16)
    np.testing.assert_allclose(metrics["a/grad_norm"], np.sqrt(32), rtol=1e-6)


def test_frozen_towers_reach_the_loss_and_get_no_gradient():
    def loss(params, state, frozen, batch, key):
        return (params["a"]["w"] * frozen["tower"]).sum(), Aux({}, {}, state.memory)

    task = Task(lambda key, batch: {"params": {"a": {"w": jnp.ones((2,))}}}, (Player("a", loss, optax.sgd(1.0)),))
    state = core.init_state(task, jax.random.key(0), {})
    after, _ = run(task)(state, {"tower": jnp.asarray([2.0, 3.0])}, {})
    np.testing.assert_array_equal(after.params["a"]["w"], [-1, -2])
    assert "tower" not in jax.tree_util.keystr(jax.tree_util.tree_leaves_with_path(after)[0][0])


def test_after_sees_the_new_parameters():
    def teach(state):
        return state.replace(memory={**state.memory, "after": state.params["a"]["w"][0].astype(jnp.int32)})

    task = game(after=teach)
    after, _ = run(task)(started(task), {}, batch())
    assert after.memory["after"] == 2  # 0 - 0.5 * (0 - 4)


def test_init_state_refuses_players_of_one_name_and_players_without_parameters():
    with pytest.raises(ValueError, match="unique"):
        started(game(("a", "a")))
    orphan = Task(lambda key, batch: {"params": {"x": {}}}, (Player("a", quadratic("a"), optax.sgd(1.0)),))
    with pytest.raises(ValueError, match=r"no parameters for \['a'\]"):
        core.init_state(orphan, jax.random.key(0), batch())


def test_init_state_can_be_traced():
    shapes = jax.eval_shape(functools.partial(core.init_state, game()), jax.random.key(0), batch())
    assert shapes.step.dtype == jnp.int32 and shapes.skipped.shape == (2,) and shapes.params["b"]["w"].shape == (2,)


def test_the_state_can_be_donated_and_is_gone_afterwards():
    task = game()
    step = jax.jit(functools.partial(core.step, task), donate_argnums=0)
    state = jax.tree.map(jnp.copy, started(task))
    old = state.params["a"]["w"]
    state, _ = step(state, {}, batch())
    state, _ = step(state, {}, batch())
    assert old.is_deleted() and state.step == 2


def test_donation_refuses_a_teacher_that_is_an_alias():
    """Why teachers are copied at init: this is what happens otherwise."""

    def init(key, batch):
        w = {"w": jnp.zeros((2,))}
        return {"params": {"a": w}, "stats": {"a": {"passes": jnp.zeros((), jnp.int32)}}, "memory": {"ema": w}}

    def loss(params, state, frozen, batch, key):
        return (params["a"]["w"] ** 2).sum(), Aux({}, state.stats["a"], state.memory)

    task = Task(init, (Player("a", loss, optax.sgd(1.0)),))
    step = jax.jit(functools.partial(core.step, task), donate_argnums=0)
    with pytest.raises(Exception, match="donate"):
        jax.block_until_ready(step(core.init_state(task, jax.random.key(0), {}), {}, {}))
