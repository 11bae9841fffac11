"""Branches on weights of their own: equal weights give the shared ones' losses, and none teaches another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gans import tiny
from gans.test_onestage import nets_of, restless, task_of
from supcon_jax.gans.branches import Branches


def twice(tree):
    """The same weights for both branches."""
    return jax.tree.map(lambda x: jnp.stack([x, x]), tree)


def parted(state):
    return state.replace(params=twice(state.params), stats=twice(state.stats))


def losses(task):
    """{player: (loss, statistics after it)} against one state."""

    def run(state, frozen, batch, key):
        found = {player.name: player.loss(state.params, state, frozen, batch, key) for player in task.players}
        return {name: (value, aux.stats) for name, (value, aux) in found.items()}

    return run


@pytest.mark.slow
@pytest.mark.parametrize("kind", tiny.DMGAN_BY_HAND, indirect=True, scope="session")
def test_equal_weights_make_the_shared_step_of_the_stacked_gans(world, one):
    """Losses and, up to their mean, statistics of both players; the generator answers discriminators that have moved."""
    nets, frozen, batch, _, state, _ = world
    after, metrics = one
    key = jax.random.fold_in(state.key, state.step)
    moved = {name: {**getattr(state, name), "disc": getattr(after, name)["disc"]} for name in ("params", "stats")}
    run = tiny.compiled(losses(tiny.task(nets, scl=0.2, shared=False)), parted(state), frozen, batch, key)
    for player, start in (("disc", state), ("gen", state.replace(**moved))):
        value, stats = jax.device_get(run(parted(start), frozen, batch, key)[player])
        assert value == pytest.approx(float(metrics[f"{player}/loss"]), rel=1e-5)
        assert tiny.far(jax.tree.map(lambda x: x.mean(0), stats), after.stats[player]) < 1e-4


# ---- one stage, without the label term -----------------------------------------------------------------------------------


def gradients(task):
    """{player: gradients of its own} against one state."""

    def one(player, state, *args):
        own = lambda x: player.loss({**state.params, player.owner: x}, state, *args)[0]  # noqa: E731
        return jax.grad(own)(state.params[player.owner])

    return lambda *args: {player.name: one(player, *args) for player in task.players}


@pytest.fixture(scope="module")
def apart():
    """(task, state of two branches that differ, frozen, batch, key) of DF-GAN."""
    nets, batch = nets_of("dfgan", size=8), tiny.pairs(n=3, size=8)
    task, frozen = task_of("dfgan", nets, scl=0.0, shared=False), tiny.encoders(nets, size=8)
    state, key = restless(tiny.start(task, batch)), jax.random.key(7)
    return task, state, frozen, batch, key


@pytest.mark.slow
def test_no_branch_teaches_another(apart):
    """Other pictures, texts and weights in branch 1: branch 0 learns what it learnt before."""
    task, state, frozen, batch, key = apart
    run = tiny.compiled(gradients(task), state, frozen, batch, key)
    other = {name: np.where(np.arange(2).reshape(1, 2, *[1] * (x.ndim - 2)) == 1, x[::-1], x) for name, x in batch.items()}
    shaken = jax.tree.map(lambda x: x.at[1].multiply(1.1), state.params)
    before = run(state, frozen, batch, key)
    for changed in (run(state, frozen, other, key), run(state.replace(params=shaken), frozen, batch, key)):
        for player in ("disc", "gen"):
            (old, old_1), (new, new_1) = ([jax.tree.map(lambda x, b=b: x[b], tree[player]) for b in (0, 1)]
                                          for tree in (before, changed))  # fmt: skip
            assert tiny.far(new, old) < 1e-5 and tiny.far(new_1, old_1) > 1e-2
            assert max(np.abs(x).max() for x in jax.tree.leaves(old)) > 1e-2


@pytest.mark.slow
def test_equal_weights_make_the_shared_losses_of_a_one_stage_gan(apart):
    task, state, frozen, batch, key = apart
    single = {name: jax.tree.map(lambda x: x[0], getattr(state, name)) for name in ("params", "stats")}
    alone, shared = state.replace(**single), task_of("dfgan", nets_of("dfgan", size=8), scl=0.0)
    both = lambda one, two, *args: (losses(shared)(one, *args), losses(task)(two, *args))  # noqa: E731
    args = alone, parted(alone), frozen, batch, key
    want, got = tiny.compiled(both, *args)(*args)
    for player in ("disc", "gen"):
        assert float(got[player][0]) == pytest.approx(float(want[player][0]), rel=1e-5)


def test_pictures_are_drawn_by_the_first_branch(apart):
    task, state, frozen, batch, key = apart
    flat = {name: batch[name][:, 0] for name in ("text", "text_len")}
    draw = tiny.compiled(task.heads["generate"], state, frozen, flat, key)
    images = draw(state, frozen, flat, key)
    shaken = [state.replace(memory=jax.tree.map(lambda x, b=b: x.at[b].multiply(1.3), state.memory)) for b in (0, 1)]
    assert images.shape == (3, 8, 8, 3)
    np.testing.assert_array_equal(draw(shaken[1], frozen, flat, key), images)
    assert np.abs(draw(shaken[0], frozen, flat, key) - images).max() > 1e-3


def test_each_branch_draws_its_own_weights():
    lanes = Branches(2, False, tiny.about().mesh)
    drawn = lanes.init(lambda key: {"w": jax.random.normal(key, (3,))}, jax.random.key(0))
    assert drawn["w"].shape == (2, 3) and np.abs(drawn["w"][0] - drawn["w"][1]).max() > 0.1
    assert Branches(2, True, None).init(lambda key: {"w": jax.random.normal(key, (3,))}, jax.random.key(0))["w"].shape == (3,)
