"""DAMSM's task: its terms by name against the double loops, branches, devices, precision, heads."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
import oracles_matching
from gans import tiny
from methods.damsm_world import assert_same_step, codes, made, nets_of, on_devices
from supcon_jax import core, shard
from supcon_jax.losses import contrast
from supcon_jax.methods.damsm import merge


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).reshape(-1, x.shape[-1])


def test_every_term_has_a_name_and_its_value(world):
    batch, _, state, (after, metrics) = world
    regions, code, words, sentence, stats = codes(state, batch, nets_of())
    want = {}
    for b in range(2):
        label, length = batch["label"][:, b], batch["text_len"][:, b]
        want[f"w0_{b}"], want[f"w1_{b}"] = oracles_matching.words(regions[:, b], words[:, b], length, label, (4.0, 5.0, 10.0))
        want[f"s0_{b}"], want[f"s1_{b}"] = oracles_matching.sentences(code[:, b], sentence[:, b], label, 10.0)
    v, t, label = unit(code), unit(sentence), batch["label"].ravel()
    weight, nothing, own = oracles.same_label(label, label), np.zeros((16, 16), bool), np.eye(16, dtype=bool)
    for name, a, c in (("image", v, v), ("text", t, t)):
        want[f"{name}_{name}"] = oracles.supcon(a, c, weight, 2.0, own)
    want |= {"image_text": oracles.supcon(v, t, weight, 2.0, nothing)}
    want |= {"text_image": oracles.supcon(t, v, weight, 2.0, nothing)}
    want["inter"] = (want["image_text"] + want["text_image"]) / 2
    want["inner"] = (want["image_image"] + want["text_text"]) / 2
    want["scl"] = want["inter"] + want["inner"]
    want["loss"] = want["scl"] + sum(x for name, x in want.items() if name[-2:] in ("_0", "_1"))
    names = {f"model/{name}" for name in want} | {"model/grad_norm", "skipped", "skipped_in_a_row"}
    names |= {f"model/{name}" for name in tiny.SPREADS | {"grad_norm/image", "grad_norm/text"}}
    assert set(metrics) == names | {f"model/{name}" for name in tiny.census("scl") | tiny.census("sentences")}
    blocks = ("image_text", "text_image", "image_image", "text_text")
    want |= {f"{name}_spread": np.sqrt(x.shape[1]) * np.sqrt(x.var(0).mean()) for name, x in (("image", v), ("text", t))}
    want["scl/contrast_nats"] = np.mean([want[name] for name in blocks])
    want["scl/chance_nats"] = (np.log(16) + np.log(15)) / 2
    want["scl/positives_per_anchor"] = weight.sum() / 16 - 0.5  # within a modality a row is not its own
    want["scl/false_negative_percent"] = want["sentences/false_negative_percent"] = 0
    want["sentences/contrast_nats"] = np.mean([want[f"s{i}_{b}"] for i in (0, 1) for b in (0, 1)])
    want["sentences/positives_per_anchor"] = 1
    for name, value in want.items():
        assert metrics[f"model/{name}"] == pytest.approx(value, rel=5e-5, abs=1e-5), name
    assert tiny.far(after.stats["model"]["image"], stats) < 1e-5
    assert tiny.far(after.opt["model"], jax.tree.map(jnp.zeros_like, after.opt["model"])) > 0
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(after.opt["model"]))  # every parameter gets a gradient


def test_zero_weight_leaves_the_term_out(world, monkeypatch):
    batch, _, state, _ = world
    calls = []
    known = contrast.label_supcon
    monkeypatch.setattr(contrast, "label_supcon", lambda *a, **o: calls.append(1) or known(*a, **o))
    shapes = jax.eval_shape(functools.partial(core.step, made(scl=0.0)), state, {}, batch)[1]
    assert not calls and not any("scl" in name or "inter" in name for name in shapes)
    jax.eval_shape(functools.partial(core.step, made(scl=0.5)), state, {}, batch)
    assert calls


def metrics_of(task, state, batch):
    """The loss and metrics before the step, without gradients."""
    run = tiny.compiled(lambda s, b: task.players[0].loss(s.params, s, {}, b, jax.random.key(0)), state, batch)
    value, aux = jax.device_get(run(state, batch))
    return float(value), aux.metrics


def test_branches_and_weights(world):
    """One branch reads the first pair only; the two weights of the label term and its own scale what they say."""
    batch, _, state, (_, whole) = world
    first = {name: x[:, :1] for name, x in batch.items()}
    used, metrics = metrics_of(made(branches=1, scl=0.0), state, batch)
    alone, _ = metrics_of(made(branches=1, scl=0.0), state, first)
    terms = {"w0_0", "w1_0", "s0_0", "s1_0"}
    assert used == alone == pytest.approx(sum(metrics[name] for name in terms), rel=1e-6)
    assert set(metrics) == terms | {"image_spread", "text_spread"} | tiny.census("sentences")
    value, metrics = metrics_of(made(scl=0.3, inter=0.5, inner=2.0), state, batch)
    assert metrics["scl"] == pytest.approx(0.5 * whole["model/inter"] + 2 * whole["model/inner"], rel=1e-5)
    matched = whole["model/loss"] - whole["model/scl"]
    assert value == pytest.approx(matched + 0.3 * metrics["scl"], rel=1e-5)


@pytest.mark.parametrize("term,names", [("ntxent", {"text_text"}), ("unicl", {"image_text", "text_image", "inter"}),
                                        ("xmc", {"sentence", "word"}), ("label_head", set())])  # fmt: skip
def test_other_terms_take_the_place_of_the_label_term(term, names, world):
    batch, _, state, (_, whole) = world
    task = made(term=term)
    if term == "label_head":
        fresh = tiny.start(task, batch).params["model"]
        assert set(fresh) == {"image", "text", "label_head"}
        state = state.replace(params={"model": state.params["model"] | {"label_head": fresh["label_head"]}})
    matched = {name.partition("/")[2] for name in whole if name.startswith(("model/w", "model/s0", "model/s1"))}
    census = tiny.SPREADS | tiny.census("sentences") | (tiny.census("scl") if names else set())
    if term not in ("xmc", "label_head"):
        metrics = jax.eval_shape(lambda s, b: task.players[0].loss(s.params, s, {}, b, jax.random.key(0)), state, batch)[1][0]
        assert set(metrics) == {"scl"} | names | matched | census
        return
    value, metrics = metrics_of(task, state, batch)
    assert set(metrics) == {"scl"} | names | matched | census
    assert value == pytest.approx(metrics["scl"] + whole["model/loss"] - whole["model/scl"], rel=1e-5)
    regions, code, words, sentence, _ = codes(state, batch, nets_of())
    if term == "label_head":
        head = jax.device_get(fresh["label_head"]["dense"])
        want = oracles_matching.label_entropy(code.reshape(16, -1) @ head["kernel"] + head["bias"], batch["label"].ravel())
    else:
        v, t, flat = unit(code), unit(sentence), [x.reshape(16, *x.shape[2:]) for x in (regions, words, batch["text_len"])]
        want = oracles.info_nce(v, t, 2.0) + oracles.info_nce(t, v, 2.0) + oracles_matching.xmc_words(*flat, 2.0)
    assert metrics["scl"] == pytest.approx(want, rel=5e-5)


def test_zero_weight_is_one_program_whatever_the_term(world):
    batch, _, state, _ = world

    def text(term):
        loss = made(scl=0.0, term=term).players[0].loss
        return jax.jit(lambda s, b: loss(s.params, s, {}, b, jax.random.key(0))).lower(state, batch).as_text()

    assert text("supcon") == text("label_head")
    shapes = jax.eval_shape(made(scl=0.0, term="label_head").init, jax.random.key(0), batch)
    assert jax.tree.structure(shapes["params"]) == jax.tree.structure(state.params)


@pytest.mark.slow
def test_multi_hot_and_unlabelled(world):
    _, _, state, _ = world
    batch = tiny.pairs(multi=True)
    flat = batch["label"].reshape(16, -1)
    _, code, _, sentence, _ = codes(state, batch, nets_of())
    _, metrics = metrics_of(made(label_mode="jaccard"), state, batch)
    weight = oracles.jaccard(flat, flat)
    want = oracles.supcon(unit(code), unit(sentence), weight, 2.0, np.zeros((16, 16), bool))
    if flat.any(1).all():
        assert metrics["image_text"] == pytest.approx(want, rel=5e-5)
    none = tiny.pairs(unlabelled=True)
    none["index"][:, 1] = none["index"][:, 0]  # two captions of each picture
    _, metrics = metrics_of(made(), state, none)
    own = oracles.same_label(*2 * (none["index"].ravel(),))
    _, code, _, _, _ = codes(state, none, nets_of())
    want = oracles.supcon(unit(code), unit(code), own, 2.0, np.eye(16, dtype=bool))
    assert metrics["image_image"] == pytest.approx(want, rel=5e-5) and want > 0


@pytest.mark.slow
def test_eight_devices_have_the_terms_of_one(world):
    """Without gradients: these are compared where whole steps are."""
    batch, _, state, (_, one) = world
    mesh = shard.data_mesh(8)
    _, metrics = metrics_of(made(devices=8), shard.replicate(state, mesh), shard.place(batch, mesh))
    for name, value in metrics.items():
        np.testing.assert_allclose(value, one[f"model/{name}"], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("devices", [pytest.param(2, marks=pytest.mark.long), pytest.param(4, marks=pytest.mark.long),
                                     pytest.param(8, marks=pytest.mark.slow)])  # fmt: skip
def test_any_number_of_devices(devices, world):
    batch, _, state, one = world
    assert_same_step(on_devices(devices, state, batch), one)


@pytest.mark.slow
def test_a_batch_of_six_on_two_devices(world):
    _, _, state, _ = world
    batch = tiny.pairs(n=6)
    assert_same_step(on_devices(2, state, batch), on_devices(1, state, batch))


def test_half_precision(world):
    batch, _, state, (_, whole) = world
    task = made(nets_of(jnp.bfloat16))
    value, _ = metrics_of(task, state, batch)
    assert value == pytest.approx(float(whole["model/loss"]), rel=0.02) and value != float(whole["model/loss"])


@pytest.mark.slow
def test_a_step_in_half_precision(world):
    batch, _, state, (_, whole) = world
    task = made(nets_of(jnp.bfloat16))
    after, metrics = tiny.stepper(task, state, {}, batch)(state, {}, batch)
    assert int(after.skipped[0]) == 0
    assert {x.dtype for x in jax.tree.leaves((after.params, after.stats))} == {jnp.dtype(jnp.float32)}
    assert float(metrics["model/loss"]) == pytest.approx(float(whole["model/loss"]), rel=0.02)


def test_merge_keeps_rows_together():
    x = np.arange(12).reshape(3, 2, 2)
    np.testing.assert_array_equal(merge(jnp.asarray(x)), [x[i, b] for i in range(3) for b in range(2)])


def test_heads(world):
    batch, task, state, _ = world
    assert set(task.heads) == {"image", "text"}
    flat = {name: batch[name][:, 1] for name in ("image", "text", "text_len")}
    image = jax.jit(task.heads["image"], compiler_options=tiny.QUICK)
    regions, code = image(state, {}, flat, None)
    words, sentence = jax.jit(task.heads["text"], compiler_options=tiny.QUICK)(state, {}, flat, None)
    assert regions.shape == (8, 16, tiny.DIM) and code.shape == sentence.shape == (8, tiny.DIM)
    assert words.shape == (8, tiny.WORDS, tiny.DIM)
    shifted = state.replace(stats=jax.tree.map(lambda x: x + 0.5, state.stats))
    moved = image(shifted, {}, flat, None)[1]
    assert float(jnp.abs(moved - code).max()) > 1e-3  # BatchNorm averages, not this batch
