"""DF-GAN's and SSA-GAN's tasks: the published step, players and what they own, branches, the label term, heads."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gans import plain_onestage, plain_stacked, tiny
from supcon_jax import shard
from supcon_jax.gans import game
from supcon_jax.gans.dfgan import dfgan
from supcon_jax.gans.ssagan import ssagan
from supcon_jax.losses import contrast
from supcon_jax.nets import dfgan as df
from supcon_jax.nets import ssagan as ssa

SIZE = 16
TASKS = {"dfgan": dfgan, "ssagan": ssagan}


def nets_of(kind, dtype=None, size=SIZE):
    gen = {"dfgan": df.Generator(2, (size,), dtype), "ssagan": ssa.Generator(2, (size,), 3, dtype=dtype)}[kind]
    disc = {"dfgan": df.Discriminator, "ssagan": ssa.Discriminator}[kind](size, 2, 4, dtype)
    return tiny.gan_nets(dtype) | {"gen": gen, "disc": (disc,)}


def task_of(kind, nets=None, tx=None, devices=1, **options):
    options = {"z": tiny.Z, "flip": False} | options
    return TASKS[kind](nets or nets_of(kind), tx or tiny.keeping(), tiny.about(devices), **options)


def restless(state):
    """The state with each gamma at 0.5 and more: a residual branch that is multiplied by zero hides its mistakes."""

    def leaf(path, x):
        return x + 0.5 if path[-1].key == "gamma" else x

    return state.replace(params=jax.tree_util.tree_map_with_path(leaf, state.params))


@pytest.fixture(scope="module", params=TASKS)
def world(request):
    """(kind, nets, frozen, batch, task, state) of two branches with the label term."""
    kind = request.param
    nets, batch = nets_of(kind), tiny.pairs(n=4)
    task = task_of(kind, nets, scl=0.2)
    return kind, nets, tiny.encoders(nets), batch, task, restless(tiny.start(task, batch))


@pytest.fixture(scope="module")
def one(world):
    """State and metrics after one step, on the host."""
    _, _, frozen, batch, task, state = world
    return jax.device_get(tiny.stepper(task, state, frozen, batch)(state, frozen, batch))


# ---- the plain step ---------------------------------------------------------------------------------------------------


def wide(tree):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


@pytest.mark.slow
@pytest.mark.parametrize("kind", TASKS)
def test_is_the_published_step(kind):
    """Two steps with Adam: parameters and statistics of a plain loop, in float64; both steps of SSA-GAN's D share moments."""
    n, rate, how = 3, 1e-2, {"damsm_weight": 0.3, "gammas": (5.0, 4.0, 9.0)}
    with jax.enable_x64(True):
        nets, batch = nets_of(kind, size=8), tiny.pairs(n=n, v=1, size=8)
        batch["image"] = np.asarray(batch["image"], np.float64) / 127.5 - 1
        frozen = wide(tiny.encoders(nets))
        tx = tiny.adam(rate, 0.0, 0.9)
        task = task_of(kind, nets, tx, branches=1, scl=0.0, **how)
        state = wide(restless(tiny.start(task, batch)))
        players = {name: state.params[name] for name in ("gen", "disc")}
        plain = players | {
            "stats": state.stats["gen"], "count": dict.fromkeys(players, jnp.float64(0)),
            "moments": {name: plain_stacked.zeros(tree) for name, tree in players.items()},
        }  # fmt: skip
        texts = jax.jit(functools.partial(game.encode_text, nets))(frozen, batch["text"], batch["text_len"])
        fixed = dict(zip(("words", "sentence"), (x[:, 0] for x in texts)))
        fixed |= {"label": batch["label"][:, 0], "text_len": batch["text_len"][:, 0].tolist(), "real": batch["image"][:, 0]}
        fixed["image"] = functools.partial(game.encode_image, nets, frozen)

        def go(plain, z):
            gammas = how["gammas"]
            return plain_onestage.step(kind, nets, plain, fixed, z, rate=rate, weight=how["damsm_weight"], gammas=gammas)

        move = tiny.stepper(task, state, frozen, batch)
        for count in range(2):
            key = jax.random.fold_in(jax.random.fold_in(state.key, count), 1)
            z = game.noise(key, n, 1, tiny.Z, 0, False)[0][:, 0]
            go = go if count else tiny.compiled(go, plain, z)
            plain, losses = go(plain, z)
            state, metrics = move(state, frozen, batch)
            for name, value in losses.items():
                np.testing.assert_allclose(metrics[f"{name}/loss"], value, rtol=1e-6, err_msg=name)
        assert set(losses) == {player.name for player in task.players}
        for name in players:
            assert tiny.far(state.params[name], plain[name]) < 1e-6
        assert tiny.far(state.stats["gen"], plain["stats"]) < 1e-6
        assert tiny.same(state.memory["ema"], state.params["gen"])  # without an average it is the live generator


# ---- one step ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_term_has_a_name(world, one):
    kind, (_, metrics) = world[0], one
    m = {name: float(value) for name, value in metrics.items()}
    hinge = m["disc/real_cond"] + (m["disc/fake_cond"] + m["disc/wrong_cond"]) / 2
    assert m["disc/loss"] == pytest.approx(hinge + m.get("disc/penalty", 0), rel=1e-5)
    assert m["disc/penalty" if kind == "dfgan" else "penalty/loss"] > 0
    matched = sum(m[f"gen/{t}_{b}"] for t in ("w0", "w1", "s0", "s1") for b in range(2)) if kind == "ssagan" else 0
    assert m["gen/loss"] == pytest.approx(m["gen/fake_cond"] + 0.05 * matched + 0.2 * m["gen/scl"], rel=1e-5)
    assert m["gen/scl"] > 0 and m["skipped"] == 0
    assert ("gen/w0_0" in m) == (kind == "ssagan") and ("disc/penalty" in m) == (kind == "dfgan")


def test_each_player_moves_only_what_it_owns(world):
    """What G owns has no part in the losses of D's players; that each owner moves is seen in the published step."""
    _, _, frozen, batch, task, state = world
    *judges, gen = task.players
    assert [p.owner for p in judges] == ["disc"] * len(judges) and (gen.name, gen.owner) == ("gen", "gen")

    def total(own, *args):
        return sum(p.loss({**state.params, "gen": own}, state, *args)[0] for p in judges)

    args = state.params["gen"], frozen, batch, jax.random.key(7)
    assert not any(g.any() for g in jax.tree.leaves(jax.device_get(tiny.compiled(jax.grad(total), *args)(*args))))


@pytest.mark.slow
def test_statistics_and_memory(world, one):
    kind, _, _, _, _, state = world
    after, _ = one
    assert set(after.params) == {"gen", "disc"} and set(after.memory) == {"ema"}
    assert after.stats["disc"] == {} and bool(after.stats["gen"]) == (kind == "ssagan")
    if kind == "ssagan":
        assert tiny.far(after.stats["gen"], jax.device_get(state.stats["gen"])) > 1e-3


# ---- terms that are left out ------------------------------------------------------------------------------------------


def forbid(*args, **options):
    raise AssertionError("forbidden")


def traced(task, world):
    """The names of what the players of a task tell."""
    _, _, frozen, batch, _, state = world

    def told(*args):
        return {f"{p.name}/{name}": x for p in task.players for name, x in p.loss(state.params, *args)[1].metrics.items()}

    return set(jax.eval_shape(told, state, frozen, batch, jax.random.key(7)))


def test_without_weights_it_is_the_plain_gan(world, monkeypatch):
    """No label term with scl = 0, no look through the image encoder without matching either, no penalty with weight 0."""
    kind, nets = world[:2]
    monkeypatch.setattr(contrast, "label_supcon", forbid)
    with pytest.raises(AssertionError, match="forbidden"):
        traced(task_of(kind, nets, scl=0.2), world)
    matched = traced(task_of(kind, nets, scl=0.0, damsm_weight=0.1), world)
    assert "gen/w0_0" in matched and not any("scl" in name or "inter" in name for name in matched)
    monkeypatch.setattr(game, "encode_image", forbid)
    plain = task_of(kind, nets, scl=0.0, damsm_weight=0.0, magp_weight=0.0)
    metrics = traced(plain, world)
    parts = {"disc/real_cond", "disc/fake_cond", "disc/wrong_cond", "gen/fake_cond"}
    parts |= {f"disc/{name}" for name in tiny.LOOKS | {"blindness"}}
    assert metrics == parts
    assert [player.name for player in plain.players] == ["disc", "gen"]


# ---- branches ---------------------------------------------------------------------------------------------------------


def losses(task, state, frozen, batch):
    """Value and statistics of every player against the same state."""

    def run(state, frozen, batch):
        out = [player.loss(state.params, state, frozen, batch, jax.random.key(7)) for player in task.players]
        return [(value, aux.stats) for value, aux in out]

    return run, tiny.compiled(run, state, frozen, batch)


@pytest.mark.slow
def test_branches_as_one_batch_are_two_calls(world):
    """With one noise for both, two branches are two single ones: D, which has no batch norm, sees all rows at once."""
    kind, nets, frozen, batch, _, state = world
    how = {"scl": 0.0, "damsm_weight": 0.2, "share_noise": True}
    both = losses(task_of(kind, nets, **how), state, frozen, batch)[1](state, frozen, batch)
    columns = [{name: x[:, b : b + 1] for name, x in batch.items()} for b in range(2)]
    alone = losses(task_of(kind, nets, branches=1, **how), state, frozen, columns[0])[1]
    first, second = (alone(state, frozen, column) for column in columns)
    for got, a, b in zip(both, first, second, strict=True):
        assert float(got[0]) == pytest.approx(float(a[0]) + float(b[0]), rel=1e-5)
        assert tiny.far(got[1], jax.tree.map(lambda x, y: (x + y) / 2, a[1], b[1])) < 1e-5
    assert abs(float(first[0][0]) - float(second[0][0])) > 1e-4


# ---- precision, devices -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("world", ["dfgan", pytest.param("ssagan", marks=pytest.mark.long)], indirect=True, scope="module")
def test_the_penalty_stays_in_float32(world):
    """With a discriminator in half precision the hinge moves by per mille, the penalty not at all."""
    kind, nets, frozen, batch, _, state = world
    found = []
    for dtype in (None, jnp.bfloat16):
        own = nets | {"disc": (nets["disc"][0].clone(dtype=dtype),)}
        task = task_of(kind, own, branches=1, scl=0.0, damsm_weight=0.0)

        def run(state, frozen, batch, players=task.players[:-1]):
            return [p.loss(state.params, state, frozen, batch, jax.random.key(7)) for p in players]

        out = tiny.compiled(run, state, frozen, batch)(state, frozen, batch)
        hinges = np.array([out[0][1].metrics[name] for name in ("real_cond", "fake_cond", "wrong_cond")])
        found.append((hinges, out[-1][1].metrics["penalty"] if kind == "dfgan" else out[-1][0]))
    (hinges, penalty), (coarse, same) = found
    assert float(same) == pytest.approx(float(penalty), rel=1e-5) and same.dtype == jnp.float32
    assert 1e-5 < np.abs(coarse / hinges - 1).max() < 0.05  # one alone may agree by luck


def known(tree):
    """The tree without what is rounding alone: a bias before a batch norm has no gradient, so its moments are zero."""
    return jax.tree.map(lambda x: x if np.abs(x).max(initial=0) > 1e-5 else np.zeros_like(x), tree)


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=pytest.mark.slow if kind == "ssagan" else pytest.mark.long)
                                  for kind in TASKS])  # fmt: skip
def test_eight_devices_take_the_step_of_one(kind):
    nets, batch = nets_of(kind), tiny.pairs(n=8)
    frozen = tiny.encoders(nets)
    start, found = restless(tiny.start(task_of(kind, nets), batch)), []
    for devices in (1, 8):
        mesh = shard.data_mesh(devices)
        state, towers = shard.replicate((start, frozen), mesh)
        split = shard.place(batch, mesh)
        task = task_of(kind, nets, devices=devices, scl=0.2, damsm_weight=0.1)
        found.append(jax.device_get(tiny.stepper(task, state, towers, split)(state, towers, split)))
    for name, value in found[0][1].items():
        np.testing.assert_allclose(found[1][1][name], value, rtol=2e-4, err_msg=name)
    for part in ("params", "opt", "stats"):
        assert tiny.far(*(known(getattr(state, part)) for state, _ in found[::-1])) < 1e-3, part


# ---- heads ------------------------------------------------------------------------------------------------------------


def test_sampling(world):
    """The averaged generator with live statistics, on noise that DF-GAN cuts and SSA-GAN does not."""
    kind, nets, frozen, batch, task, state = world
    flat = {name: batch[name][:, 0] for name in ("image", "text", "text_len")}
    moved = state.replace(memory={"ema": jax.tree.map(lambda x: x * 1.1, state.memory["ema"])})
    key = jax.random.key(3)
    images = tiny.compiled(task.heads["generate"], moved, frozen, flat, key)(moved, frozen, flat, key)
    assert images.shape == (4, SIZE, SIZE, 3) and images.dtype == jnp.float32 and float(jnp.abs(images).max()) <= 1
    z = game.noise(key, 4, 1, tiny.Z, 0, False, 0.88 if kind == "dfgan" else 0.0)[0][:, 0]
    assert (np.abs(z).max() < 1.76) == (kind == "dfgan")
    texts = jax.jit(functools.partial(game.encode_text, nets))(frozen, flat["text"][:, None], flat["text_len"][:, None])
    sentence = texts[1][:, 0]
    variables = {"params": moved.memory["ema"], "batch_stats": state.stats["gen"]}
    np.testing.assert_allclose(images, jax.jit(nets["gen"].apply)(variables, z, sentence)[0][-1], atol=1e-5)
    assert set(task.heads) == {"generate", "image", "text"}


def test_cut_noise():
    z, _ = game.noise(jax.random.key(0), 4000, 1, 5, 0, False, 0.5)
    assert float(jnp.abs(z).max()) <= 1 and float(jnp.abs(z).max()) > 0.99
    assert abs(float(z.std()) - 0.5 * 0.8796) < 0.01  # of a normal draw cut at two deviations
