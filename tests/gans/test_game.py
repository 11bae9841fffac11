"""What the GANs share: frozen codes, noise, matching and label terms against the double loops, the average."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
import oracles_matching
from gans import tiny
from supcon_jax import core
from supcon_jax.gans import game

OPTIONS = {
    "damsm_weight": 5.0, "gammas": (4.0, 5.0, 10.0), "class_mask": True, "group": 48, "scl": 0.2, "temperature": 0.5,
    "term": "supcon", "label_mode": "single", "inter": 0.7, "inner": 1.3,
}  # fmt: skip


@pytest.fixture(scope="module")
def scene():
    """(nets, frozen, batch, fakes, words, sentence, valid)."""
    nets = tiny.gan_nets()
    frozen, batch = tiny.encoders(nets), tiny.pairs(n=5)
    fakes = np.random.default_rng(1).uniform(-1, 1, (5, 2, 16, 16, 3)).astype(np.float32)
    texts = jax.jit(functools.partial(game.encode_text, nets))(frozen, batch["text"], batch["text_len"])
    return nets, frozen, batch, fakes, *texts


@functools.cache
def program(trunk, changes):
    """matching_terms of encoders with a frozen trunk or without one, its value and its gradient to the fakes. The real
    pictures are the negatives of the fakes, as photographers say."""
    nets, about, options = tiny.gan_nets(frozen=trunk), dataclasses.replace(tiny.about(), classes=3), OPTIONS | dict(changes)

    def total(fakes, *args):
        frozen, words, sentence, batch, disc = args
        return game.matching_terms(nets, frozen, fakes, words, sentence, batch, about, options, disc=disc, real=lambda: -fakes)

    return jax.jit(jax.value_and_grad(total, has_aux=True))


def terms(scene, batch=None, trunk=False, disc=None, **changes):
    """What `program` says of the scene: total, metrics, gradient. Changes that change nothing find its program again."""
    _, frozen, usual, fakes, words, sentence, _ = scene
    changes = tuple(sorted((name, x) for name, x in changes.items() if OPTIONS[name] != x))
    (value, metrics), grad = program(trunk, changes)(fakes, frozen, words, sentence, batch or usual, disc)
    return float(value), {name: float(x) for name, x in metrics.items()}, np.asarray(grad)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def encoded(scene, sign=1):
    """Regions and codes of the fakes, or of the real pictures (-1), in float64."""
    nets, frozen, _, fakes, *_ = scene
    rows = jax.jit(functools.partial(game.encode_image, nets))(frozen, sign * fakes.reshape(-1, 16, 16, 3))
    return [np.asarray(x, np.float64).reshape(5, 2, *x.shape[1:]) for x in rows]


def expected(scene, batch, w_inter, w_inner):
    """The same numbers from the double loops: DAMSM of each branch, the label blocks over both branches."""
    _, _, _, _, words, sentence, _ = scene
    regions, code = encoded(scene)
    words, sentence, out = np.asarray(words, np.float64), np.asarray(sentence, np.float64), {}
    for b in range(2):
        label = batch["label"][:, b]
        label = oracles.any_label(label, label) if label.ndim == 2 else label
        length = batch["text_len"][:, b]
        out[f"w0_{b}"], out[f"w1_{b}"] = oracles_matching.words(regions[:, b], words[:, b], length, label, OPTIONS["gammas"])
        out[f"s0_{b}"], out[f"s1_{b}"] = oracles_matching.sentences(code[:, b], sentence[:, b], label, 10.0)
    v, t = unit(code).reshape(10, -1), unit(sentence).reshape(10, -1)
    nothing, own = np.zeros((10, 10), bool), np.eye(10, dtype=bool)
    out["image_text"] = oracles.supcon(v, t, w_inter, 2.0, nothing)
    out["text_image"] = oracles.supcon(t, v, w_inter, 2.0, nothing)
    out["image_image"] = oracles.supcon(v, v, w_inner, 2.0, own)
    out["inter"], out["inner"] = (out["image_text"] + out["text_image"]) / 2, out["image_image"] / 2
    out["scl"] = 0.7 * out["inter"] + 1.3 * out["inner"]
    return out


@pytest.mark.parametrize("labels", ["single", "jaccard", "unlabelled"])
def test_terms_are_those_of_the_double_loops(labels, scene):
    batch = tiny.pairs(n=5, multi=labels == "jaccard", unlabelled=labels == "unlabelled")
    if labels == "unlabelled":
        batch["index"][:, 1] = batch["index"][:, 0]  # two captions of one picture: still positives of each other
        weight = oracles.same_label(*2 * (batch["index"].ravel(),))
    else:
        flat = batch["label"].reshape(10, *batch["label"].shape[2:])
        weight = getattr(oracles, "jaccard" if labels == "jaccard" else "same_label")(flat, flat)
    want = expected(scene, batch, weight, weight)
    mode = "jaccard" if labels == "jaccard" else "single"
    total, metrics, _ = terms(scene, batch, label_mode=mode)
    assert set(metrics) == set(want) | {"fake_spread", "fake_pair_distance"} | tiny.census("scl") | tiny.census("sentences")
    assert metrics["scl/contrast_nats"] == pytest.approx((2 * want["inter"] + want["image_image"]) / 3, rel=2e-5)
    mean = np.mean([want[f"s{i}_{b}"] for i in (0, 1) for b in (0, 1)])
    assert metrics["sentences/contrast_nats"] == pytest.approx(mean, rel=2e-5)
    for name, value in want.items():
        assert metrics[name] == pytest.approx(value, rel=2e-5, abs=1e-5), name
    damsm = sum(value for name, value in want.items() if name[-2:] in ("_0", "_1"))
    assert total == pytest.approx(5 * damsm + 0.2 * want["scl"], rel=2e-5)


@pytest.mark.slow
def test_the_other_terms_take_the_place_of_the_label_term(scene):
    """Each from the codes of fakes, texts and real pictures of all rows; texts and real pictures are constants."""
    batch, words, sentence = scene[2], *(np.asarray(x, np.float64) for x in scene[4:6])
    (regions, code), (_, real), label = encoded(scene), encoded(scene, -1), batch["label"].ravel()
    v, t, r = (unit(x).reshape(10, -1) for x in (code, sentence, real))
    weight, nothing = oracles.same_label(label, label), np.zeros((10, 10), bool)
    rng = np.random.default_rng(3)
    head = {"kernel": rng.normal(size=(tiny.DIM, 3)).astype(np.float32), "bias": np.array([0.5, 0, -1], np.float32)}
    flat = (x.reshape(10, *x.shape[2:]) for x in (regions, words, batch["text_len"]))
    both = [oracles.info_nce(a, b, 2.0) for a, b in ((v, t), (t, v), (v, r), (r, v))]
    want = {
        "ntxent": oracles.ntxent(v[::2], v[1::2], 2.0),
        "unicl": (oracles.supcon(v, t, weight, 2.0, nothing) + oracles.supcon(t, v, weight, 2.0, nothing)) / 2,
        "xmc": sum(both) + oracles_matching.xmc_words(*flat, 2.0),
        "label_head": oracles_matching.label_entropy(code.reshape(10, -1) @ head["kernel"] + head["bias"], label),
    }
    for term, value in want.items():
        total, metrics, grad = terms(scene, term=term, damsm_weight=0.0, disc={"label_head": {"dense": head}})
        assert metrics["scl"] == pytest.approx(value, rel=2e-5) and total == pytest.approx(0.2 * value, rel=2e-5), term
        assert np.abs(grad).max() > 0, term


def test_weights_of_zero_leave_terms_out(scene):
    total, metrics, grad = terms(scene, damsm_weight=0.0)
    blocks = {"inter", "inner", "image_text", "text_image", "image_image"}
    assert set(metrics) == {"scl", "fake_spread", "fake_pair_distance"} | blocks | tiny.census("scl")
    assert total == pytest.approx(0.2 * metrics["scl"], rel=1e-6) and np.abs(grad).max() > 1e-4
    total, metrics, grad = terms(scene, damsm_weight=0.0, scl=0.0)
    assert total == 0 and metrics == {} and not grad.any()


def test_class_mask(scene):
    batch = scene[2] | {"label": np.zeros((5, 2), np.int32)}  # one class: without other classes nothing is left to tell
    assert terms(scene, batch)[1]["s0_0"] == pytest.approx(0, abs=1e-6)
    assert terms(scene, batch, class_mask=False)[1]["s0_0"] > 0.1


def test_several_labels_are_masked_by_the_label_mode(scene):
    batch = scene[2] | {"label": np.ones((5, 2, 3), np.float32)}
    for mode, left in (("jaccard", False), ("single", True)):  # "single" reads no multi-hot labels
        metrics = terms(scene, batch, label_mode=mode, scl=0.0)[1]
        assert (metrics["s0_0"] > 0.1) == (metrics["w1_1"] > 0.1) == left, mode


def test_pictures_get_a_gradient_through_a_frozen_trunk(scene):
    """Encoders pretrained on a frozen trunk stop gradients there; the matching terms need them at the pictures."""
    free = terms(scene)[2]
    assert np.abs(free).max() > 1e-3
    np.testing.assert_allclose(terms(scene, trunk=True)[2], free, rtol=1e-5, atol=1e-7)


def test_texts_are_constants(scene):
    nets, frozen, batch, *_ = scene

    def through(text_params):
        tree = {"damsm": frozen["damsm"] | {"params": frozen["damsm"]["params"] | {"text": text_params}}}
        words, sentence, _ = game.encode_text(nets, tree, batch["text"], batch["text_len"])
        return (words**2).sum() + (sentence**2).sum()

    grads = jax.jit(jax.grad(through))(frozen["damsm"]["params"]["text"])
    assert not any(np.asarray(g).any() for g in jax.tree.leaves(grads))


def test_texts_of_branches_stay_with_their_rows(scene):
    nets, frozen, batch, _, words, sentence, valid = scene
    assert words.shape == (5, 2, tiny.WORDS, tiny.DIM) and sentence.shape == (5, 2, tiny.DIM)
    np.testing.assert_array_equal(valid.sum(-1), batch["text_len"])
    run = jax.jit(nets["text"].apply)
    for b in range(2):
        want = run({"params": frozen["damsm"]["params"]["text"]}, batch["text"][:, b], batch["text_len"][:, b])
        np.testing.assert_allclose(words[:, b], want[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(sentence[:, b], want[1], rtol=1e-5, atol=1e-6)


def test_noise():
    for share in (False, True):
        z, eps = game.noise(jax.random.key(0), 6, 2, 5, 3, share)
        assert z.shape == (6, 2, 5) and eps.shape == (6, 2, 3)
        assert np.array_equal(z[:, 0], z[:, 1]) == share == np.array_equal(eps[:, 0], eps[:, 1])
        assert len(np.unique(z)) == (30 if share else 60)
        assert not np.isin(eps, z).any()
    z, _ = game.noise(jax.random.key(0), 4000, 1, 5, 3, False)
    assert abs(float(z.mean())) < 0.03 and abs(float(z.std()) - 1) < 0.03


def test_average():
    params, old = {"w": jnp.arange(3.0)}, {"w": jnp.full(3, 10.0)}
    blank = {"step": jnp.zeros((), jnp.int32), "skipped": jnp.zeros(2, jnp.int32), "key": jax.random.key(0), "opt": {}}
    state = core.State(params={"gen": params}, stats={"gen": {"mean": jnp.ones(2)}}, memory={"ema": old, "x": 1}, **blank)
    after = game.averaged(state, 0.75)
    np.testing.assert_allclose(after.memory["ema"]["w"], [7.5, 7.75, 8.0])
    assert after.memory["x"] == 1 and after.params is state.params
    variables = game.generator_variables(after)
    assert variables["params"] is after.memory["ema"] and variables["batch_stats"] is after.stats["gen"]
    assert dataclasses.is_dataclass(after)
