"""The stacked GANs' task against a plain training step, with and without the label term, its branches, names and heads."""

import functools
import inspect
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gans import plain_stacked, tiny
from supcon_jax import core
from supcon_jax.gans import game
from supcon_jax.losses import contrast
from supcon_jax.views.image import signed


def wide(tree):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


# ---- the plain step ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["attngan", "dmgan"])
def test_is_the_published_step(kind):
    """Three steps: parameters, average and statistics of a plain loop, to 1e-6 of each leaf's largest entry.

    In float64, with Adam's usual eps: in float32 a gradient that vanishes but for rounding is divided by its own size,
    and two correct programs part in the third digit.
    """
    n, rate, steps = 4, 1e-2, 3
    with jax.enable_x64(True):
        nets = tiny.gan_nets(kind=kind)
        batch = tiny.pairs(n=n, v=1)
        batch["image"] = np.asarray(batch["image"], np.float64) / 127.5 - 1
        batch["label"][:, 0] = [0, 1, 0, 2]  # one pair of a class: neither is the other's negative
        frozen = wide(tiny.encoders(nets))
        task = tiny.task(nets, tiny.adam(rate), branches=1, scl=0.0, class_mask=True)
        state = wide(tiny.start(task, batch))
        plain = {
            "gen": state.params["gen"], "ema": state.memory["ema"], "disc": state.params["disc"],
            "gen_stats": state.stats["gen"], "disc_stats": state.stats["disc"],
            "moments": {name: plain_stacked.zeros(p) for name, p in state.params["disc"].items()}
            | {"gen": plain_stacked.zeros(state.params["gen"])},
        }  # fmt: skip
        texts = jax.jit(functools.partial(game.encode_text, nets))(frozen, batch["text"], batch["text_len"])
        fixed = dict(zip(("words", "sentence", "valid"), (x[:, 0] for x in texts)))
        real = batch["image"][:, 0]
        scales = {"d16": real, "d8": jax.image.resize(real, (n, 8, 8, 3), "linear")}
        image = functools.partial(game.encode_image, nets, frozen)
        fixed |= {"label": batch["label"][:, 0], "text_len": batch["text_len"][:, 0].tolist(), "image": image}

        def go(plain, count, noise):
            return plain_stacked.step(nets, plain, count, scales, fixed, noise, rate=rate, decay=0.9)

        move = tiny.stepper(task, state, frozen, batch)
        for count in range(steps):
            key = jax.random.fold_in(jax.random.fold_in(state.key, count), 1)
            noise = [x[:, 0] for x in game.noise(key, n, 1, tiny.Z, tiny.COND, False)]
            if not count:
                go = tiny.compiled(go, plain, jnp.float64(1), noise)
            plain, losses = go(plain, jnp.float64(count + 1), noise)
            state, metrics = move(state, frozen, batch)
            for name in ("disc", "gen"):
                np.testing.assert_allclose(metrics[f"{name}/loss"], losses[name], rtol=1e-6)
        assert int(state.skipped[0]) == 0
        pairs = [(state.params["gen"], plain["gen"]), (state.params["disc"], plain["disc"])]
        pairs += [(state.memory["ema"], plain["ema"])]
        pairs += [(state.stats["gen"], plain["gen_stats"]), (state.stats["disc"], plain["disc_stats"])]
        for got, want in pairs:
            assert tiny.far(got, want) < 1e-6


# ---- one step -------------------------------------------------------------------------------------------------------


def test_every_term_has_a_name(one):
    _, metrics = one
    disc = {f"d{s}/{t}" for s in tiny.SIZES for t in ("real", "fake", "real_cond", "fake_cond", "wrong_cond", "blindness")}
    disc |= tiny.LOOKS | {f"grad_norm/d{s}" for s in tiny.SIZES}
    gen = {f"d{s}/{t}" for s in tiny.SIZES for t in ("fake", "fake_cond")}
    gen |= {f"{t}_{b}" for t in ("w0", "w1", "s0", "s1") for b in range(2)}
    gen |= {"kl", "fake_spread", "fake_pair_distance", "scl", "inter", "inner", "image_text", "text_image", "image_image"}
    gen |= tiny.census("scl") | tiny.census("sentences")
    names = {f"disc/{n}" for n in disc | {"loss", "grad_norm"}} | {f"gen/{n}" for n in gen | {"loss", "grad_norm"}}
    assert set(metrics) == names | {"skipped", "skipped_in_a_row"}
    m = {name: float(value) for name, value in metrics.items()}
    total = sum(
        (m[f"disc/d{s}/real"] + m[f"disc/d{s}/real_cond"]) / 2
        + (m[f"disc/d{s}/fake"] + m[f"disc/d{s}/fake_cond"] + m[f"disc/d{s}/wrong_cond"]) / 3
        for s in tiny.SIZES
    )
    assert m["disc/loss"] == pytest.approx(total, rel=1e-5)
    blind = sum(m[f"disc/d{s}/blindness"] for s in tiny.SIZES)
    assert blind == pytest.approx(total / 2 / (2 * np.log(2)), rel=1e-5)  # two branches, each of them scores 1 at chance
    squares = sum(m[f"disc/grad_norm/d{s}"] ** 2 for s in tiny.SIZES)
    assert squares == pytest.approx(m["disc/grad_norm"] ** 2, rel=1e-5)
    total = sum(m[f"gen/d{s}/{t}"] for s in tiny.SIZES for t in ("fake", "fake_cond")) + m["gen/kl"] + 0.2 * m["gen/scl"]
    total += 5 * sum(m[f"gen/{t}_{b}"] for t in ("w0", "w1", "s0", "s1") for b in range(2))
    assert m["gen/loss"] == pytest.approx(total, rel=1e-5)
    assert m["gen/scl"] == pytest.approx(m["gen/inter"] + m["gen/inner"], rel=1e-5)
    assert m["gen/inter"] == pytest.approx((m["gen/image_text"] + m["gen/text_image"]) / 2, rel=1e-5)
    assert m["gen/inner"] == pytest.approx(m["gen/image_image"] / 2, rel=1e-5)


def test_average_follows_parameters_only(world, one):
    _, _, _, _, state, _ = world
    after, _ = one
    want = jax.tree.map(lambda e, p: 0.9 * e + 0.1 * p, state.memory["ema"], after.params["gen"])
    assert tiny.far(after.memory["ema"], want) < 1e-6
    assert not tiny.same(after.memory["ema"], after.params["gen"])
    assert jax.tree.structure(after.memory) == jax.tree.structure(state.memory)  # no statistics among them


def test_players_move_what_is_theirs(world, one):
    """No gradient of the discriminators' loss comes to the generator; each player's own are what the step descended by."""
    _, frozen, batch, task, state, _ = world
    after, _ = one

    def others(gen, *args):
        return task.players[0].loss({**state.params, "gen": gen}, state, *args)[0]

    args = state.params["gen"], frozen, batch, jax.random.fold_in(state.key, state.step)
    assert not any(x.any() for x in jax.tree.leaves(tiny.compiled(jax.grad(others), *args)(*args)))
    for name in ("disc", "gen"):
        assert max(np.abs(x).max() for x in jax.tree.leaves(after.opt[name])) > 1e-3
        want = jax.tree.map(lambda x, g: x - 0.05 * g, jax.device_get(state.params[name]), after.opt[name])
        assert tiny.far(after.params[name], want) < 1e-5


@pytest.mark.parametrize("kind", [pytest.param("dmgan", marks=pytest.mark.slow)], indirect=True, scope="session")
def test_spectral_vectors_of_two_branches_stay_units(world, one):
    """Both branches move them alike, so that their mean is what one alone would leave."""
    state, (after, _) = world[4], one
    for before, x in zip(*(jax.tree.leaves(s.stats["disc"]) for s in (state, after)), strict=True):
        assert np.linalg.norm(x) == pytest.approx(1, rel=1e-5)
        assert np.abs(np.asarray(before) - x).max() > 1e-4


def test_frozen_encoders_are_lent(world):
    """They are no part of the state, and an update that donates the state leaves them alone."""
    _, frozen, batch, task, state, step = world
    before = jax.device_get(frozen)
    after, _ = step(state, frozen, batch)
    assert set(after.params) == {"gen", "disc"} and set(after.memory) == {"ema"}
    assert tiny.same(jax.device_get(frozen), before)


def test_unlabelled_rows(world):
    """Every row without a label: finite, and the two views of an example are still each other's positives."""
    _, frozen, _, _, state, step = world
    batch = tiny.pairs(unlabelled=True)
    batch["index"][:, 1] = batch["index"][:, 0]
    after, metrics = step(state, frozen, batch)
    assert int(after.skipped[0]) == 0 and all(np.isfinite(v) for v in metrics.values())
    assert float(metrics["gen/image_image"]) > 0
    batch["index"] = np.arange(16, dtype=np.int32).reshape(8, 2)  # nobody is anybody's view now
    assert float(step(state, frozen, batch)[1]["gen/image_image"]) == 0


# ---- without the label term -------------------------------------------------------------------------------------------


def without_term():
    """game.matching_terms with the lines of the label term cut out of its source."""
    source = textwrap.dedent(inspect.getsource(game.matching_terms))
    start, end = source.index('    if options["scl"]:'), source.index("    return total, metrics")
    cut = source[:start] + source[end:]
    assert "label_term" in source and "label_term" not in cut
    scope = dict(vars(game))
    exec(cut, scope)
    return scope["matching_terms"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", tiny.DMGAN_BY_HAND, indirect=True, scope="session")
def test_zero_weight_is_the_program_without_the_term(world, monkeypatch):
    nets, frozen, batch, _, state, _ = world

    def forbidden(*args, **options):
        raise AssertionError("the label term was built although its weight is zero")

    monkeypatch.setattr(contrast, "label_supcon", forbidden)
    zero = tiny.task(nets, scl=0.0)
    lowered = jax.jit(functools.partial(core.step, zero)).lower(state, frozen, batch)
    monkeypatch.setattr(game, "matching_terms", without_term())
    bare = jax.jit(functools.partial(core.step, tiny.task(nets, scl=0.0))).lower(state, frozen, batch)
    assert bare.as_text() == lowered.as_text()
    assert not any("scl" in name or "inter" in name for name in lowered.out_info[1])
    monkeypatch.setattr(game, "matching_terms", MATCHING_TERMS)
    with pytest.raises(AssertionError, match="label term"):
        jax.eval_shape(tiny.task(nets, scl=0.2).players[1].loss, state.params, state, frozen, batch, state.key)
    monkeypatch.setattr(contrast, "label_supcon", LABEL_SUPCON)
    # the discriminators' loss does not know of it, the generator's does
    texts = [[jax.jit(player.loss).lower(state.params, state, frozen, batch, state.key).as_text() for player in task.players]
             for task in (zero, tiny.task(nets, scl=0.2))]  # fmt: skip
    assert [without == term for without, term in zip(*texts)] == [True, False]


MATCHING_TERMS, LABEL_SUPCON = game.matching_terms, contrast.label_supcon


# ---- branches ---------------------------------------------------------------------------------------------------------


def losses_of(task, state, frozen, batch):
    """((value, statistics, metrics) of disc, the same of gen), both against the same state."""
    key = jax.random.key(7)

    def both(state, frozen, batch):
        out = (player.loss(state.params, state, frozen, batch, key) for player in task.players)
        return [(value, aux.stats, aux.metrics) for value, aux in out]

    return jax.device_get(tiny.compiled(both, state, frozen, batch)(state, frozen, batch))


@pytest.mark.slow
@pytest.mark.parametrize("kind", tiny.DMGAN_BY_HAND, indirect=True, scope="session")
def test_branches_add_and_share_noise(world):
    """With one noise for both, two branches are two single ones: losses add, BatchNorm averages are their mean."""
    nets, frozen, batch, _, state, _ = world
    batch = batch | {"label": np.full((8, 2), -1, np.int32)}
    both = losses_of(tiny.task(nets, scl=0.0, share_noise=True), state, frozen, batch)
    single = tiny.task(nets, scl=0.0, branches=1)
    run = tiny.compiled(
        lambda s, f, b: [(v, a.stats) for v, a in (p.loss(s.params, s, f, b, jax.random.key(7)) for p in single.players)],
        state, frozen, {name: x[:, :1] for name, x in batch.items()},
    )  # fmt: skip
    alone = [jax.device_get(run(state, frozen, {name: x[:, b : b + 1] for name, x in batch.items()})) for b in range(2)]
    for player in range(2):
        want = [branch[player] for branch in alone]
        assert both[player][0] == pytest.approx(want[0][0] + want[1][0], rel=1e-5)
        mean = jax.tree.map(lambda a, b: (a + b) / 2, want[0][1], want[1][1])
        assert tiny.far(both[player][1], mean) < 1e-5
    assert abs(alone[0][1][0] - alone[1][1][0]) > 1e-3  # the branches do differ
    # mirroring: what is mirrored twice by the same coins is as it was; the fakes are left alone
    coin = np.asarray(jax.random.bernoulli(jax.random.fold_in(jax.random.key(7), 2), 0.5, (8, 2)))[..., None, None, None]
    mirrored = batch | {"image": np.where(coin, batch["image"][:, :, :, ::-1], batch["image"])}
    twice = losses_of(tiny.task(nets, scl=0.0, share_noise=True, flip=True), state, frozen, mirrored)
    assert coin.any() and not coin.all()
    for player in range(2):
        assert twice[player][0] == pytest.approx(float(both[player][0]), rel=1e-5)


def test_multi_hot_labels(world):
    nets, frozen, _, _, state, _ = world
    batch = tiny.pairs(multi=True)
    args = state.params, state, frozen, batch, jax.random.key(7)
    loss = tiny.task(nets, scl=0.2, label_mode="jaccard").players[1].loss
    value, aux = tiny.compiled(loss, *args)(*args)
    assert np.isfinite(value) and aux.metrics["scl"] > 0
    with pytest.raises(ValueError, match="single"):
        jax.eval_shape(tiny.task(nets, scl=0.2).players[1].loss, *args)


# ---- heads ------------------------------------------------------------------------------------------------------------


def test_heads(world):
    """Sampling reads the averaged parameters and the live BatchNorm averages, the code heads the frozen encoders."""
    nets, frozen, batch, task, state, _ = world
    assert set(task.heads) == {"generate", "image", "text"}
    flat = {name: batch[name][:, 0] for name in ("image", "text", "text_len")}
    moved = state.replace(memory={"ema": jax.tree.map(lambda x: x * 1.1, state.memory["ema"])})
    key = jax.random.key(3)
    generate = tiny.compiled(task.heads["generate"], moved, frozen, flat, key)
    images = generate(moved, frozen, flat, key)
    assert images.shape == (8, 16, 16, 3) and images.dtype == jnp.float32 and float(jnp.abs(images).max()) <= 1

    texts = jax.jit(functools.partial(game.encode_text, nets))(frozen, batch["text"][:, :1], batch["text_len"][:, :1])
    words, sentence, valid = (x[:, 0] for x in texts)
    z, eps = (x[:, 0] for x in game.noise(key, 8, 1, tiny.Z, tiny.COND, False))
    variables = {"params": moved.memory["ema"], "batch_stats": state.stats["gen"]}
    want = jax.jit(nets["gen"].apply)(variables, z, sentence, words, valid, eps)[0][-1]
    np.testing.assert_allclose(images, want, atol=1e-5)
    assert float(jnp.abs(images - generate(state, frozen, flat, key)).max()) > 1e-3
    other = moved.replace(stats=moved.stats | {"gen": jax.tree.map(lambda x: x + 0.3, moved.stats["gen"])})
    assert float(jnp.abs(images - generate(other, frozen, flat, key)).max()) > 1e-3
    unread = moved.replace(params=jax.tree.map(jnp.zeros_like, moved.params))
    np.testing.assert_array_equal(images, generate(unread, frozen, flat, key))

    regions, code = jax.jit(task.heads["image"])(state, frozen, flat, key)
    assert regions.shape == (8, 16, tiny.DIM) and code.shape == (8, tiny.DIM)
    encoder = frozen["damsm"]["params"]["image"], frozen["damsm"]["stats"]["image"]
    variables = dict(zip(("params", "batch_stats"), encoder))
    want = jax.jit(nets["image"].apply)(variables, signed(flat["image"]))
    np.testing.assert_allclose(code, want[1], rtol=1e-5, atol=1e-6)
    got = jax.jit(task.heads["text"])(state, frozen, flat, key)
    assert got[0].shape == (8, tiny.WORDS, tiny.DIM) and got[1].shape == (8, tiny.DIM)
    np.testing.assert_allclose(got[1], sentence, rtol=1e-5, atol=1e-6)
