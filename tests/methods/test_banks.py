"""CMC and PIRL: contrast with rows of memory banks, and what is written into them."""

import jax
import numpy as np
import pytest

import oracles_unimodal
from methods import unimodal_world as w
from supcon_jax.losses import bank
from supcon_jax.methods.cmc import pairs
from supcon_jax.ops.arrays import merge
from supcon_jax.views.jigsaw import jigsaw

NCE = {"form": "nce", "negatives": "per_anchor"}
THREE = {"image": w.lab_trunk("conv", 1, 4, kinds="l_a_b"), "project": w.nets_of("cmc")["project"]}


def kinds(state, batch):
    """Codes of each kind of channels, averages after, and what is drawn from the banks, for all or for each."""
    (x,) = w.drawn(batch, w.key_of(state), "cmc")
    nets = THREE if len(state.memory["banks"]) == 3 else w.nets_of("cmc")
    out, stats = w.through(nets, state.params["model"], state.stats["model"], x[:, 0], "image", "project")
    key = jax.random.fold_in(w.key_of(state), 1)
    drawn = {word: bank.draw(key, w.RECORDS, w.N, 6, word) for word in bank.NEGATIVES}
    return out["project"], stats, drawn


def moved(old, index, z):
    """A bank after a batch."""
    want = np.asarray(old, np.float64).copy()
    for i, row in zip(index, z, strict=True):
        want[i] = w.exact(want[i] + row)
    return want


def constant(q, rows, index, drawn, scale):
    """z = N mean exp(s), own rows among those drawn."""
    s = [scale * q[i] @ rows[j] for i in range(len(q)) for j in (index[i], *drawn[i])]
    return len(rows) * np.mean(np.exp(s))


def test_cmc_by_noise_contrast_and_its_constants():
    batches, _, states, told = w.world("cmc", **NCE)
    constants = [None, None]
    for step in range(2):
        z, stats, drawn = w.ran(kinds, states[step], batches[step])
        z, index = [w.exact(x) for x in z], batches[step]["index"][:, 0]
        rows = [np.asarray(x, np.float64) for x in states[step].memory["banks"]]
        want = 0.0
        for q, k in ((0, 1), (1, 0)):
            if step == 0:
                constants[k] = constant(z[q], rows[k], index, drawn["per_anchor"], 1 / 0.3)
            want += oracles_unimodal.bank(z[q], rows[k], index, drawn["per_anchor"], 1 / 0.3, "nce", constants[k])
        assert told[step]["model/loss"] == pytest.approx(want, rel=5e-5)
        np.testing.assert_allclose(states[step + 1].memory["z"], constants, rtol=1e-5)
        assert w.tiny.far(states[step + 1].stats["model"], stats) < 1e-5
    np.testing.assert_array_equal(states[1].memory["z"], states[2].memory["z"])
    assert w.idle(states[2]) == set()


def test_banks_move_in_the_rows_of_the_batch_and_these_are_unit():
    batches, _, states, _ = w.world("cmc", **NCE)
    touched = set()
    for step in range(2):
        z, index = w.ran(kinds, states[step], batches[step])[0], batches[step]["index"][:, 0]
        touched |= set(index.tolist())
        for old, new, x in zip(states[step].memory["banks"], states[step + 1].memory["banks"], z, strict=True):
            np.testing.assert_allclose(new, moved(old, index, w.exact(x)), atol=1e-5)
            others = np.setdiff1d(np.arange(w.RECORDS), index)
            np.testing.assert_array_equal(np.asarray(new)[others], np.asarray(old)[others])
            np.testing.assert_allclose(np.linalg.norm(np.asarray(new)[list(touched)], axis=1), 1, atol=1e-6)


def test_pairs_of_three_kinds():
    assert [pairs(3, graph) for graph in ("core", "full")] == [[(0, 1), (0, 2)], [(0, 1), (0, 2), (1, 2)]]


@pytest.mark.slow
def test_core_and_full_of_three_kinds():
    task = w.made("cmc", nets=THREE)
    batch = w.pictures()
    state = w.begin(task, batch)
    losses = [w.made("cmc", nets=THREE, form="softmax", graph=graph).players[0].loss for graph in ("core", "full")]
    found = w.ran(lambda s, b: [loss(s.params, s, {}, b, w.key_of(s)) for loss in losses], state, batch)
    z, _, drawn = w.ran(kinds, state, batch)
    z, rows = ([np.asarray(x, np.float64) for x in part] for part in (map(w.exact, z), state.memory["banks"]))
    index, drawn = batch["index"][:, 0], drawn["shared"]
    for (value, aux), graph in zip(found, ("core", "full"), strict=True):
        want = sum(
            oracles_unimodal.bank(z[q], rows[k], index, drawn, 1 / 0.3, "softmax")
            for pair in pairs(3, graph) for q, k in (pair, pair[::-1])
        )  # fmt: skip
        assert value == pytest.approx(want, rel=5e-5)
        np.testing.assert_array_equal(aux.memory["z"], np.zeros(3))
        for old, new, x in zip(rows, aux.memory["banks"], z, strict=True):
            np.testing.assert_allclose(new, moved(old, index, x), atol=1e-5)


@pytest.mark.slow
def test_constants_of_three_kinds_are_set_once():
    """A bank that two kinds look at has the constant of the first pair."""
    batch = w.pictures()
    state = w.begin(w.made("cmc", nets=THREE), batch)
    losses = [w.made("cmc", nets=THREE, graph=graph, **NCE).players[0].loss for graph in ("core", "full")]
    core, full = w.ran(lambda s, b: [loss(s.params, s, {}, b, w.key_of(s))[1].memory["z"] for loss in losses], state, batch)
    np.testing.assert_allclose(core, full, rtol=1e-6)
    assert (core > 0).all()


def test_an_unknown_graph_is_refused():
    with pytest.raises(ValueError, match="graph='star': use core or full"):
        w.made("cmc", graph="star")


def puzzled(state, batch):
    """(codes of pictures, of their shuffled patches, averages after, what is drawn)."""
    key, nets, own = w.key_of(state), w.nets_of("pirl"), state.params["model"]
    (x,) = w.drawn(batch, key, "pirl")
    out, stats = w.through(nets, own, state.stats["model"], x[:, 0], "image", "project")
    pieces, _ = jigsaw(x[:, 1], jax.random.fold_in(key, 3), size=3)
    seen, stats = w.through(nets, own, stats, merge(pieces), "image")
    changed, stats = w.through(nets, own, stats, seen["image"].reshape(w.N, 9, -1), "patches")
    return out["project"], changed["patches"], stats, bank.draw(jax.random.fold_in(key, 1), w.RECORDS, w.N, 6)


def test_pirl_is_its_formula_and_its_bank_follows_the_pictures():
    batches, _, states, told = w.world("pirl", lam=0.3)
    for step in range(2):
        image, changed, stats, drawn = w.ran(puzzled, states[step], batches[step])
        image, changed, index = w.exact(image), w.exact(changed), batches[step]["index"][:, 0]
        rows = np.asarray(states[step].memory["bank"], np.float64)
        parts = [oracles_unimodal.bank(q, rows, index, drawn, 1 / 0.3, "softmax") for q in (changed, image)]
        assert told[step]["model/loss"] == pytest.approx(0.3 * parts[0] + 0.7 * parts[1], rel=5e-5)
        new = np.asarray(states[step + 1].memory["bank"])
        np.testing.assert_allclose(new, moved(rows, index, image), atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(new[index], axis=1), 1, atol=1e-6)
        others = np.setdiff1d(np.arange(w.RECORDS), index)
        np.testing.assert_array_equal(new[others], states[step].memory["bank"][others])
        assert w.tiny.far(states[step + 1].stats["model"], stats) < 1e-5
    assert w.idle(states[2]) == set()
