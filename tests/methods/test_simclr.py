"""SimCLR and SupCon: the loss from codes made by hand, other negatives, labels, caps, slices."""

import jax
import numpy as np
import pytest

import oracles
import oracles_unimodal
from methods import unimodal_world as w
from supcon_jax.methods.simclr import NEGATIVES
from supcon_jax.ops.arrays import merge

V = 2
PAIR = np.repeat(np.arange(w.N), V)
SELF = np.eye(V * w.N, dtype=bool)
OWN = oracles.same_label(PAIR, PAIR)


def codes(name, state, batch):
    """(unit codes [2n, d] of both views, row = i * 2 + view, and the averages after)."""
    nets = w.nets_of(name)

    def made(state, batch):
        (x,) = w.drawn(batch, w.key_of(state), name)
        out, stats = w.through(nets, state.params["model"], state.stats["model"], merge(x), "image", "project")
        return out["project"], stats

    z, stats = w.ran(made, state, batch)
    return w.exact(z), stats


@pytest.fixture(scope="module")
def views():
    """(batch, state before the second step, its codes, averages after it)."""
    batches, _, states, _ = w.world("simclr")
    return batches[1], states[1], *codes("simclr", states[1], batches[1])


def test_simclr_is_its_formula(views):
    _, _, states, told = w.world("simclr")
    _, _, z, stats = views
    assert told[1]["model/loss"] == pytest.approx(oracles.ntxent(z[::2], z[1::2], 5.0), rel=2e-5)
    assert w.tiny.far(states[2].stats["model"], stats) < 1e-5
    assert w.idle(states[2]) == set() and states[2].memory == {}
    near = np.mean([z[2 * i] @ z[2 * i + 1] for i in range(w.N)])
    assert told[1]["model/positive_cosine"] == pytest.approx(near, abs=1e-5)


def values(name, state, batch, options):
    """The loss of the same codes under different options, in one program."""
    tasks = {str(one): w.made(name, **one) for one in options}
    losses = {what: task.players[0].loss for what, task in tasks.items()}
    found = w.ran(lambda s, b: [loss(s.params, s, {}, b, w.key_of(s))[0] for loss in losses.values()], state, batch)
    return [float(value) for value in found]


def test_other_negatives_are_their_losses(views):
    batch, state, z, _ = views
    how = {"sigma": 0.4, "prior": 0.15, "beta": 0.8, "most": 3, "threshold": 0.1}
    options = [{"negatives": name, **how} for name in NEGATIVES] + [{"mean": "examples"}]
    got = dict(zip([*NEGATIVES, "examples"], values("simclr", state, batch, options), strict=True))
    found = oracles_unimodal.nearest(z, None, PAIR, 3, 0.1)
    assert found.any() and not found.all()
    want = {
        "all": oracles.ntxent(z[::2], z[1::2], 5.0),
        "decoupled": oracles.decoupled(z, z, OWN, 5.0, SELF),
        "weighted": oracles.decoupled(z, z, OWN, 5.0, SELF, 0.4),
        "debiased": oracles.debiased(z, z, OWN, 5.0, SELF, 0.15, 0.0),
        "hard": oracles.debiased(z, z, OWN, 5.0, SELF, 0.15, 0.8),
        "hardened": oracles_unimodal.hardened(z, z, OWN, 5.0, SELF, 0.8),
        "eliminated": oracles.supcon(z, z, OWN, 5.0, SELF | found),
        "attracted": oracles.supcon(z, z, np.maximum(OWN, found), 5.0, SELF),
    }
    want["examples"] = 2 * want["all"]
    assert got == pytest.approx(want, rel=5e-5)
    assert len({round(value, 4) for value in want.values()}) == len(want)


@pytest.mark.parametrize("bad", [{"negatives": "few"}, {"mean": "sum"}])
def test_unknown_words_are_refused(bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))}="):
        w.made("simclr", **bad)


def test_slices_encode_the_same_pictures():
    """Without a norm over rows the slices change nothing; they are taken across the batch."""
    nets = w.nets_of("supcon", norm="layer")
    task, cut = (w.made("supcon", nets=nets, slices=slices) for slices in (1, 4))
    batch = w.pictures()
    state = w.begin(task, batch)

    def both(s, b):
        losses = [lambda p, t=t: t.players[0].loss(p, s, {}, b, w.key_of(s))[0] for t in (task, cut)]
        return [jax.value_and_grad(loss)(s.params) for loss in losses]

    (whole, grads), (parts, same) = w.ran(both, state, batch)
    assert parts == pytest.approx(whole, rel=1e-5) and w.tiny.far(same, grads) < 1e-4


# ---- with labels


@pytest.fixture(scope="module")
def labelled():
    """(batch with two unlabelled pictures, state, codes)."""
    batches, _, states, _ = w.world("supcon")
    batch = {**batches[1], "label": np.array([0, 1, 0, -1, 0, 1, -1, 0], np.int32)[:, None]}
    return batch, states[1], codes("supcon", states[1], batch)[0]


def test_supcon_is_its_formula_and_every_parameter_learns():
    batches, _, states, told = w.world("supcon")
    z, stats = codes("supcon", states[1], batches[1])
    label = np.repeat(batches[1]["label"][:, 0], V)
    want = oracles.supcon(z, z, oracles.same_label(label, label), 5.0, SELF)
    assert told[1]["model/loss"] == pytest.approx(want, rel=2e-5)
    assert w.tiny.far(states[2].stats["model"], stats) < 1e-5 and w.idle(states[2]) == set()


def test_unlabelled_pictures_caps_and_the_mean_inside(labelled):
    batch, state, z = labelled
    label = np.repeat(batch["label"][:, 0], V)
    alike = np.where((label < 0)[:, None], OWN, oracles.same_label(label, label))
    assert alike[6:8].sum() == 4  # the other view, and itself, which is left out
    first = np.zeros_like(alike)  # of the class's other pictures the first two, with both views
    for i in range(len(label)):
        others = [j for j in dict.fromkeys(PAIR[label == label[i]].tolist()) if j != PAIR[i]] if label[i] >= 0 else []
        first[i] = [PAIR[j] == PAIR[i] or PAIR[j] in others[:2] for j in range(len(label))]
    over = (alike > 0) & (first == 0)
    assert over.any()
    got = values("supcon", state, batch, [{}, {"base": 0.07}, {"inside": True}, {"positives": 2}, {"positives": 0}])
    want = [
        oracles.supcon(z, z, alike, 5.0, SELF), oracles.supcon(z, z, alike, 5.0, SELF, base=0.07),
        oracles.supcon_in(z, z, alike, 5.0, SELF), oracles.supcon(z, z, first, 5.0, SELF | over),
        oracles.supcon(z, z, OWN, 5.0, SELF | ((alike > 0) & (OWN == 0))),
    ]  # fmt: skip
    assert got == pytest.approx(want, rel=5e-5)


def test_several_labels(labelled):
    batch, state, z = labelled
    many = (np.random.default_rng(1).random((w.N, 1, 4)) < 0.5).astype(np.float32)
    many[2] = 0  # without any: its other view
    flat = np.repeat(many[:, 0], V, axis=0)
    some = flat.any(1)
    rules = {"any": oracles.any_label, "jaccard": oracles.jaccard}
    got = values("supcon", state, {**batch, "label": many}, [{"label_mode": mode} for mode in rules])
    want = [oracles.supcon(z, z, np.where(some[:, None], of(flat, flat), OWN), 5.0, SELF) for of in rules.values()]
    assert got == pytest.approx(want, rel=5e-5)


@pytest.mark.parametrize("bad,said", [({"label_mode": "both"}, "use one of"), ({"label_mode": "any", "positives": 1}, "single"),
                                      ({"label_mode": "any", "inside": True}, "single")])  # fmt: skip
def test_labels_that_do_not_fit_are_refused(bad, said):
    with pytest.raises(ValueError, match=f"label_mode=.*{said}"):
        w.made("supcon", **bad)


def test_features_are_those_of_evaluation():
    """Whole pictures, averages instead of the batch's own statistics."""
    batches, task, states, _ = w.world("simclr")
    nets, state = w.nets_of("simclr"), states[2]
    got = w.features_of(task, state, batches[0])

    def want(state, batch):
        x = w.recipes.plain(batch["image"][:, 0], size=w.SIZE, norm="none")
        p, s = state.params["model"], state.stats["model"]
        h = nets["image"].apply({"params": p["image"], "batch_stats": s["image"]}, x, train=False)
        return {"h": h, "z": nets["project"].apply({"params": p["project"], "batch_stats": s["project"]}, h, train=False)}

    assert w.tiny.far(got, w.ran(want, state, batches[0])) < 1e-5
