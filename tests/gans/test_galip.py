"""GALIP's task: the published losses once more from the formulas, players and what they own, the label term, heads."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gans import tiny
from gans.plain_onestage import below, steepness
from supcon_jax import core
from supcon_jax.config import UserError
from supcon_jax.gans import game
from supcon_jax.gans.galip import galip
from supcon_jax.losses import contrast
from supcon_jax.nets.clip import CLIP, ImageResNet, ImageTransformer, TextTransformer, standardise
from supcon_jax.nets.galip import TAPS, Discriminator, Generator
from supcon_jax.ops.arrays import unit

SIZE, EMBED = 16, 6
READER = CLIP(ImageTransformer(EMBED, 16, 4, 8, 9, 2), TextTransformer(EMBED, tiny.VOCAB, tiny.WORDS, 8, 1, 2))


def nets_of(dtype=None):
    return {"gen": Generator(2, (SIZE,), 4, 3, 1, 4, 8, dtype), "disc": (Discriminator(5, 4, 4, dtype),), "clip": READER}


def task_of(**options):
    return galip(nets_of(), tiny.keeping(), tiny.about(), **{"z": tiny.Z, "flip": False} | options)


def restless(tree):
    """gamma and beta at 0.5: a residual branch that is multiplied by zero hides its mistakes."""
    return jax.tree_util.tree_map_with_path(lambda path, x: x + 0.5 * (path[-1].key in ("gamma", "beta")), tree)


@pytest.fixture(scope="module")
def world():
    """(frozen, batch, task, state) of two branches with the label term."""
    batch, task = tiny.pairs(n=4, size=SIZE), task_of()
    shapes = jax.eval_shape(READER.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)), jnp.zeros((1, 5), jnp.int32))
    state = tiny.start(task, batch)
    return {"clip": tiny.fill(shapes, 3)}, batch, task, state.replace(params=restless(state.params))


def values(task, state, frozen, batch, key, *more):
    """{player: (loss, metrics, gradients)}; with more, pairs of state and batch, that of each. The discriminator's loss
    has gradients by every owner, the generator's by its own."""

    def one(player, state, frozen, batch):
        asked = {name: x for name, x in state.params.items() if name == "gen" or player.name == "disc"}
        own = lambda own: player.loss({**state.params, **own}, state, frozen, batch, key)  # noqa: E731
        (value, aux), grads = jax.value_and_grad(own, has_aux=True)(asked)
        return value, aux.metrics, grads

    def both(*args):
        return {player.name: one(player, *args) for player in task.players}

    run = tiny.compiled(both, state, frozen, batch)
    found = jax.device_get([run(state, frozen, batch) for state, batch in ((state, batch), *more)])
    return found if more else found[0]


@pytest.fixture(scope="module")
def one(world):
    frozen, batch, task, state = world
    return values(task, state, frozen, batch, jax.random.key(7))


def plain(state, frozen, batch, key, b):
    """(L_D, L_G) without the label term on branch b, a branch at a time, and the codes of the fakes and texts."""
    nets, tree = nets_of(), frozen["clip"]["params"]
    gen, disc = ({"params": state.params[name]} for name in ("gen", "disc"))
    image = functools.partial(READER.image.apply, {"params": tree["image"]})
    text = batch["text"][:, b]
    s = READER.text.apply({"params": tree["text"]}, text)[1]
    z = game.noise(jax.random.fold_in(key, 1), len(s), 2, tiny.Z, 0, False)[0][:, b]
    ((fake,),) = nets["gen"].apply(gen, z, s, lambda *a: image(*a, method="through"))
    real = jnp.asarray(batch["image"][:, b], jnp.float32) / 127.5 - 1

    def see(x):
        taps, code = image(standardise(x / 2 + 0.5), TAPS, method="features")
        return jnp.stack([t[:, 1:] for t in taps], 1), code

    judge = lambda x, s: nets["disc"][0].apply(disc, x, s)[1]  # noqa: E731
    (taps, _), (made, code) = see(real), see(fake)
    wrong = judge(taps, jnp.concatenate([s[1:], s[:1]]))
    d = below(1 - judge(taps, s)) + (below(1 + judge(made, s)) + below(1 + wrong)) / 2 + steepness(judge, taps, s)
    alike = (code * s).sum(1) / jnp.linalg.norm(code, axis=1) / jnp.linalg.norm(s, axis=1)
    return d, -judge(made, s).mean() - 4 * alike.mean(), code, s


@pytest.fixture(scope="module")
def truth(world):
    """What `plain` says of both branches: (L_D, L_G, codes, sentences), each a pair."""
    frozen, batch, _, state = world
    go = tiny.compiled(lambda *a: plain(*a[:3], jax.random.key(7), a[3]), state, frozen, batch, 0)
    return tuple(zip(*(go(state, frozen, batch, b) for b in (0, 1)), strict=True))


@pytest.mark.slow
def test_losses_are_the_formulas_summed_over_branches(world, one, truth):
    _, batch, _, _ = world
    d, g, code, s = truth
    np.testing.assert_allclose(one["disc"][0], sum(d), rtol=1e-4)
    rows = [unit(jnp.stack(x, 1).reshape(8, EMBED)) for x in (code, s)]
    term, _ = contrast.label_supcon(*rows, batch["label"].reshape(8), index=batch["index"].reshape(8), scale=2.0,
                                    text_inner=False)  # fmt: skip
    assert float(term) > 0.1
    np.testing.assert_allclose(one["gen"][0], sum(g) + 0.2 * term, rtol=1e-4)
    assert one["gen"][1]["scl"] == pytest.approx(float(term), rel=1e-4)


@pytest.mark.slow
def test_each_player_moves_only_what_it_owns(one):
    grads = {name: found[2] for name, found in one.items()}
    assert not any(g.any() for g in jax.tree.leaves(grads["disc"]["gen"]))
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    for name in ("disc", "gen"):
        still = [path for path, g in jax.tree_util.tree_leaves_with_path(grads[name][name]) if not g.any()]
        assert not still, still


@pytest.mark.slow
def test_without_weights_it_is_the_plain_gan(world, one):
    """Losses are the sums of what is told; terms of weight zero are not in the program; the average follows."""
    frozen, batch, _, state = world
    disc, gen = ({name: float(x) for name, x in one[player][1].items()} for player in ("disc", "gen"))
    hinge = disc["real_cond"] + (disc["fake_cond"] + disc["wrong_cond"]) / 2
    assert one["disc"][0] == pytest.approx(hinge + disc["penalty"], rel=1e-5) and disc["penalty"] > 0
    assert one["gen"][0] == pytest.approx(gen["fake_cond"] - 8 * gen["similarity"] + 0.2 * gen["scl"], rel=1e-4)
    task, told = task_of(scl=0.0, magp_weight=0.0, ema=0.9), {}
    for player in task.players:
        told[player.name] = jax.eval_shape(player.loss, state.params, state, frozen, batch, jax.random.key(7))[1].metrics
    assert set(told["disc"]) == set(disc) - {"penalty"}
    assert set(told["gen"]) == {"fake_cond", "similarity", "fake_spread", "fake_pair_distance"}
    moved = jax.device_get(state.replace(params=jax.tree.map(lambda x: 1.1 * np.asarray(x), state.params)))
    want = jax.tree.map(lambda e, p: 0.9 * e + 0.1 * p, moved.memory["ema"], moved.params["gen"])
    assert tiny.far(task.after(moved).memory["ema"], want) < 1e-5


@pytest.mark.long
def test_a_step_leaves_clip_alone_and_without_a_label_term_none_is_told(world):
    frozen, batch, _, state = world
    task = task_of(scl=0.0, magp_weight=0.0, ema=0.9)
    new, metrics = tiny.stepper(task, state, frozen, batch)(state, frozen, batch)
    assert "gen/scl" not in metrics and "disc/penalty" not in metrics and metrics["skipped"] == 0
    m = {name: float(value) for name, value in metrics.items()}
    hinge = m["disc/real_cond"] + (m["disc/fake_cond"] + m["disc/wrong_cond"]) / 2
    assert m["disc/loss"] == pytest.approx(hinge, rel=1e-5)
    assert m["gen/loss"] == pytest.approx(m["gen/fake_cond"] - 8 * m["gen/similarity"], rel=1e-4)
    want = jax.tree.map(lambda e, p: 0.9 * e + 0.1 * p, state.memory["ema"], new.params["gen"])
    assert tiny.far(new.memory["ema"], jax.device_get(want)) < 1e-5
    assert isinstance(new, core.State) and not jax.tree.leaves(new.stats)


def test_a_term_that_clip_has_no_words_for_is_refused():
    with pytest.raises(UserError, match=r"^config\.galip\.args\.term='xmc' .* use supcon, unicl, ntxent or label_head$"):
        task_of(term="xmc")
    task_of(term="xmc", scl=0.0)


def stage_one():
    """Heads as stage 1 leaves them, from CLIP's codes to three numbers."""
    rng = np.random.default_rng(4)
    return {kind: jnp.asarray(rng.standard_normal((EMBED, 3)), jnp.float32) for kind in ("image", "text")}


@pytest.mark.slow
def test_without_the_label_term_stage_one_s_heads_are_not_in_the_program(world):
    """Both losses, traced around CLIP with heads and without: one program, so the same numbers to the last bit. With the
    label term the generator's are two."""
    frozen, batch, _, state = world

    def program(player, **more):
        def loss(params, clip):
            return player.loss(params, state, {"clip": clip | more}, batch, jax.random.key(7))

        return str(jax.make_jaxpr(loss)(state.params, frozen["clip"]))

    def same(player):
        return program(player) == program(player, heads=stage_one())

    disc, gen = task_of(scl=0.0).players
    assert same(disc) and same(gen)
    assert not same(task_of(scl=0.2).players[1])


@pytest.mark.slow
def test_stage_one_s_heads_are_the_space_of_the_labels_alone(world, one, truth):
    """G and D and the published likeness read CLIP as without heads; only the label term goes through them."""
    frozen, batch, task, state = world
    heads = stage_one()
    headed = {"clip": frozen["clip"] | {"heads": heads}}

    def gen(state, frozen, batch):
        return task.players[1].loss(state.params, state, frozen, batch, jax.random.key(7))

    loss, aux = tiny.compiled(gen, state, headed, batch)(state, headed, batch)
    for name in ("fake_cond", "similarity", "fake_spread", "fake_pair_distance"):
        assert aux.metrics[name] == pytest.approx(float(one["gen"][1][name]), rel=1e-5), name
    rows = [unit(jnp.stack(x, 1).reshape(8, EMBED) @ heads[kind]) for x, kind in zip(truth[2:], heads, strict=True)]
    term, _ = contrast.label_supcon(*rows, batch["label"].reshape(8), index=batch["index"].reshape(8), scale=2.0,
                                    text_inner=False)  # fmt: skip
    assert aux.metrics["scl"] == pytest.approx(float(term), rel=1e-4) and abs(aux.metrics["scl"] - one["gen"][1]["scl"]) > 0.01
    assert loss == pytest.approx(float(aux.metrics["fake_cond"] - 8 * aux.metrics["similarity"] + 0.2 * term), rel=1e-4)


@pytest.fixture(scope="module")
def heads(world):
    """All heads of the task, and the pictures of a task whose branches have weights of their own: compiled once."""
    frozen, batch, shared, state = world
    single = {name: batch[name][:, 0] for name in ("text", "text_len", "image")}
    apart, key = task_of(shared=False), jax.random.key(1)

    def run(one, two, frozen, single):
        said = {name: head(one, frozen, single, key) for name, head in shared.heads.items()}
        return said, apart.heads["generate"](two, frozen, single, key)

    go = tiny.compiled(run, state, parted(state), frozen, single)
    return lambda one, two: go(one, two, frozen, single)


@pytest.mark.slow
def test_heads(world, heads):
    state = world[3]
    loud = state.replace(memory={"ema": jax.tree.map(lambda x: 9 * x, state.memory["ema"])})
    said, _ = heads(loud, parted(state))
    assert said["generate"].shape == (4, SIZE, SIZE, 3) and np.abs(said["generate"]).max() == 1
    assert [x.shape for x in said["image"]] == [(4, 16, 8), (4, EMBED)]
    assert [x.shape for x in said["text"]] == [(4, tiny.WORDS, 8), (4, EMBED)]


@pytest.mark.parametrize("image", [ImageResNet(EMBED, 32, 4, (1, 1, 1, 1)), READER.image.clone(depth=8)])
def test_a_clip_that_it_cannot_read_is_refused(world, image):
    frozen, batch, _, state = world
    with pytest.raises(ValueError, match="vision transformer of more than 8 blocks"):
        task = galip(nets_of() | {"clip": CLIP(image, READER.text)}, tiny.keeping(), tiny.about(), z=tiny.Z)
        task.heads["image"](state, frozen, {"image": batch["image"][:, 0]}, jax.random.key(0))


def parted(state, scale=1.0):
    """Both branches with these weights, those of the second scaled."""
    two = lambda tree: jax.tree.map(lambda x: jnp.stack([x, scale * x]), tree)  # noqa: E731
    return state.replace(params=two(state.params), memory=two(state.memory))


@pytest.mark.slow
def test_branches_of_equal_weights_have_the_shared_losses(world, one):
    frozen, batch, _, state = world
    args = parted(state), frozen, batch, jax.random.key(7)
    losses = lambda state, *args: [p.loss(state.params, state, *args)[0] for p in task_of(shared=False).players]  # noqa: E731
    for player, got in zip(("disc", "gen"), tiny.compiled(losses, *args)(*args)):
        np.testing.assert_allclose(got, one[player][0], rtol=1e-4)


@pytest.mark.long
def test_branches_of_their_own_teach_each_other_nothing_but_labels(world):
    frozen, batch, _, state = world
    key, task = jax.random.key(7), task_of(shared=False, scl=0.0)
    other = {name: np.where(np.arange(2).reshape(1, 2, *[1] * (x.ndim - 2)) == 1, x[::-1], x) for name, x in batch.items()}
    same = parted(state)
    found = values(task, same, frozen, batch, key, (parted(state, 1.1), batch), (same, other))
    for player in ("disc", "gen"):
        first, *changed = ([jax.tree.map(lambda x, b=b: x[b], one[player][2][player]) for b in (0, 1)] for one in found)
        for again in changed:
            assert tiny.far(again[0], first[0]) < 1e-5 and tiny.far(again[1], first[1]) > 1e-3


def test_pictures_are_drawn_by_the_first_branch(world, heads):
    state = world[3]
    said, first = heads(state, parted(state, 1.3))
    np.testing.assert_allclose(first, said["generate"], atol=1e-5)
