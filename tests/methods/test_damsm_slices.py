"""DAMSM's step in slices, and on a frozen trunk, which leaves rows alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles_matching
from gans import tiny
from methods.damsm_world import assert_same_step, codes, made, nets_of
from supcon_jax.methods.damsm import damsm, join_trunk, split_trunk
from supcon_jax.nets.text import TextEncoder
from supcon_jax.ops import rows, scores
from supcon_jax.views.image import signed


@pytest.fixture(scope="module")
def begun():
    """(batch, state before the first step)."""
    batch = tiny.pairs()
    return batch, tiny.start(made(), batch)


@pytest.mark.slow
def test_frozen_trunk(begun):
    """The trunk is an argument: not in the state, never moved, on its averages; the heads learn."""
    batch, state = begun
    nets = nets_of(frozen=True)
    task = made(nets)
    trunk = {"params": state.params["model"]["image"]["trunk"], "batch_stats": state.stats["model"]["image"]["trunk"]}
    trunk = jax.tree.map(lambda x: x + 0.1, trunk)
    frozen = {"trunk": trunk}
    before = jax.device_get(trunk)
    state = tiny.start(task, batch)
    assert set(state.params["model"]["image"]) == {"regions", "code"} and state.stats["model"]["image"] == {}
    step = tiny.stepper(task, state, frozen, batch)
    after, metrics = step(state, frozen, batch)
    assert int(after.skipped[0]) == 0 and jax.tree.structure(after) == jax.tree.structure(state)
    assert tiny.same(jax.device_get(trunk), before)
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(after.opt["model"]["image"]))
    other = {"trunk": jax.tree.map(lambda x: x * 1.3, trunk)}
    assert float(step(state, other, batch)[1]["model/s0_0"]) != float(metrics["model/s0_0"])  # it is read
    flat = {name: batch[name][:, 0] for name in ("image", "text", "text_len")}

    def both(state, frozen, flat):
        params = state.params["model"]["image"] | {"trunk": frozen["trunk"]["params"]}
        whole = {"params": params, "batch_stats": {"trunk": frozen["trunk"]["batch_stats"]}}
        return task.heads["image"](state, frozen, flat, None)[1], nets["image"].apply(whole, signed(flat["image"]))[1]

    got, want = tiny.compiled(both, state, frozen, flat)(state, frozen, flat)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_slices_give_the_step_of_the_whole_batch_where_rows_are_alone():
    """On a frozen trunk and without dropout no row sees another one in the encoders: all that is left is the losses."""
    batch, nets = tiny.pairs(), nets_of(frozen=True)
    trunk = tiny.fill(jax.eval_shape(nets["image"].init, jax.random.key(0), jnp.zeros((1, 16, 16, 3))), 4)
    frozen = {"trunk": {kind: tree["trunk"] for kind, tree in trunk.items()}}
    state = tiny.start(made(nets), batch)
    one, four = (
        jax.device_get(tiny.stepper(task, state, frozen, batch)(state, frozen, batch))
        for task in (made(nets), made(nets, slices=4))
    )
    assert_same_step(four, one)


def test_slices_are_normalised_one_after_the_other(begun):
    batch, state = begun
    task = made(slices=2)

    def loss(state, batch):
        return task.players[0].loss(state.params, state, {}, batch, jax.random.key(0))[1]

    aux = jax.device_get(tiny.compiled(loss, state, batch)(state, batch))
    moved, parts = state, []
    for s in range(2):
        *rows, stats = codes(moved, {name: x[s::2] for name, x in batch.items()}, nets_of())
        moved, parts = moved.replace(stats={"model": {"image": stats}}), [*parts, rows]
    assert tiny.far(aux.stats["image"], moved.stats["model"]["image"]) < 1e-5
    code, sentence = (np.stack([part[i] for part in parts], 1).reshape(8, 2, -1) for i in (1, 3))
    for b in range(2):
        want = oracles_matching.sentences(code[:, b], sentence[:, b], batch["label"][:, b], 10.0)
        assert [aux.metrics[f"s{i}_{b}"] for i in range(2)] == pytest.approx(list(want), rel=5e-5)


def test_every_slice_draws_its_own_flips_and_dropout():
    """Both slices hold the same pairs: BatchNorm sees the same rows, so only what is drawn can tell their codes apart."""
    nets = nets_of() | {"text": TextEncoder(tiny.VOCAB, embed=6, width=tiny.DIM, dropout=0.5)}
    batch = {name: np.repeat(x, 2, axis=0) for name, x in tiny.pairs(n=4, v=1).items()}
    seen = []

    class Door:
        """The definition; keeps the rows whose inner products it is asked for."""

        def __call__(self, q, k, **how):
            seen.append(q.x)
            return rows.dense(q, k, **how)

        def by(self, score):
            return scores.by(rows.dense, score)

    about = dataclasses.replace(tiny.about(), sums=Door())

    def found(state, flip):
        seen.clear()
        task = damsm(nets, tiny.keeping(), about, slices=2, flip=flip, branches=1)
        task.players[0].loss(state.params, state, {}, batch, jax.random.key(0))
        return [x - x.reshape(4, 2, -1)[:, ::-1].reshape(8, -1) for x in seen]

    state = tiny.start(made(nets), batch)
    both = tiny.compiled(lambda state: [found(state, flip) for flip in (False, True)], state)
    still, moving = both(state)
    assert max(jnp.abs(x).max() for x in still) > 1e-2  # dropout of the texts
    assert jnp.abs(still[0]).max() < 1e-5 < 1e-2 < jnp.abs(moving[0]).max()  # flips of the pictures


def test_trunk_is_cut_and_put_back():
    whole = {"params": {"trunk": {"a": 1}, "code": 2}, "batch_stats": {"trunk": {"m": 3}}}
    own, trunk = split_trunk(whole, True)
    assert own == {"params": {"code": 2}, "batch_stats": {}} and trunk == {"params": {"a": 1}, "batch_stats": {"m": 3}}
    assert join_trunk(own, trunk) == whole
    assert split_trunk(whole, False)[0] is whole and join_trunk(whole, None) == whole
