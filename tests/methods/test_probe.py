"""The online probe: what it learns from, what it leaves alone."""

import dataclasses

import jax
import numpy as np
import pytest

from methods import unimodal_world as w
from supcon_jax.methods.probe import probed

LABEL = np.array([0, 1, 2, -1, 0, 1, -1, 2], np.int32)[:, None]


def entropy(scores, label):
    """Mean cross entropy of the rows that have a label, and the share that is right."""
    rows = [(row, one) for row, one in zip(np.asarray(scores, np.float64), label, strict=True) if one >= 0]
    values = [np.log(np.exp(row).sum()) - row[one] for row, one in rows]
    return np.mean(values), np.mean([row.argmax() == one for row, one in rows])


def binary(scores, label):
    """Mean over rows and classes of the sigmoid's cross entropy."""
    s = np.asarray(scores, np.float64)
    return np.mean(np.log1p(np.exp(-s)) * label + np.log1p(np.exp(s)) * (1 - label))


@pytest.fixture(scope="module")
def beside():
    """(task, batches, states, metrics) of SimCLR with a probe, and the state that SimCLR alone comes to."""
    batches = [{**w.pictures(seed), "label": LABEL} for seed in range(2)]
    task = probed(w.made("simclr"), w.tiny.keeping(2.0)["model"], w.CLASSES)
    states, told = w.walk(task, batches)
    return task, batches, states, told, w.walk(w.made("simclr"), batches)[0][-1]


def test_it_learns_from_features_in_the_form_of_evaluation(beside):
    task, batches, states, told, _ = beside
    own = states[1].params["probe"]
    assert np.abs(own["kernel"]).max() > 1e-3
    h = np.asarray(w.features_of(task, states[1], batches[1])["h"], np.float64)
    scores = h @ np.asarray(own["kernel"], np.float64) + np.asarray(own["bias"])
    value, right = entropy(scores, LABEL[:, 0])
    assert told[1]["probe/loss"] == pytest.approx(value, rel=2e-5)
    assert told[1]["probe/right_percent"] == pytest.approx(100 * right)
    assert told[0]["probe/loss"] == pytest.approx(np.log(w.CLASSES), rel=1e-5)  # from zeros
    share = np.exp(scores) / np.exp(scores).sum(1, keepdims=True) - np.eye(w.CLASSES)[LABEL[:, 0]]
    share = np.where(LABEL >= 0, share, 0) / (LABEL >= 0).sum()
    np.testing.assert_allclose(states[2].opt["probe"]["kernel"], h.T @ share, atol=1e-5)
    assert task.players[0].name == "probe"
    logits = w.ran(lambda s, b: task.heads["classes"](s, {}, b, None), states[1], {"image": batches[1]["image"][:, 0]})
    np.testing.assert_allclose(logits, scores, atol=1e-4)


def test_it_sends_nothing_back(beside):
    """The encoder is the one that it would be without the probe, and the probe has no gradient to it."""
    task, batches, states, _, alone = beside
    assert w.tiny.far(states[2].params["model"], alone.params["model"]) < 1e-6
    assert w.tiny.far(states[2].stats["model"], alone.stats["model"]) < 1e-6

    def loss(params, state, batch):
        return task.players[0].loss(params, state, {}, batch, w.key_of(state))[0]

    grads = w.ran(jax.grad(loss), states[1].params, states[1], batches[1])
    assert all(np.abs(g).max() == 0 for g in jax.tree.leaves(grads["model"]))
    assert np.abs(grads["probe"]["kernel"]).max() > 1e-3

    def through(own, state, batch):
        state = state.replace(params={**state.params, "model": own})
        return task.players[0].loss(state.params, state, {}, batch, w.key_of(state))[0]

    grads = w.ran(jax.grad(through), states[1].params["model"], states[1], batches[1])
    assert all(np.abs(g).max() == 0 for g in jax.tree.leaves(grads))


def values(task, state, *batches):
    def losses(state, *batches):
        found = [task.players[0].loss(state.params, state, {}, batch, w.key_of(state)) for batch in batches]
        return [(value, aux.metrics) for value, aux in found]

    return w.ran(losses, state, *batches)


def test_pictures_without_a_label_do_not_count(beside):
    task, batches, states, _, _ = beside
    other = {**batches[1], "image": np.where(LABEL[:, :, None, None, None] < 0, 0, batches[1]["image"]).astype(np.uint8)}
    none = {**batches[1], "label": np.full_like(LABEL, -1)}
    (one, _), (same, _), (nothing, told) = values(task, states[1], batches[1], other, none)
    assert one == same and nothing == told["right_percent"] == 0


def test_another_sets_pictures_are_read(beside):
    """Where the batch carries them, of another size and number too."""
    task, batches, states, _, _ = beside
    rng = np.random.default_rng(5)
    images, label = rng.integers(0, 256, (5, 1, 16, 16, 3)).astype(np.uint8), np.array([0, 1, 2, 1, 0], np.int32)
    ((got, _),) = values(task, states[1], {**batches[1], "probe_image": images, "probe_label": label[:, None]})
    own, h = states[1].params["probe"], w.features_of(task, states[1], {"image": images})["h"]
    want, _ = entropy(np.asarray(h, np.float64) @ np.asarray(own["kernel"]) + np.asarray(own["bias"]), label)
    assert got == pytest.approx(want, rel=2e-5)


def test_several_labels(beside):
    """Rows that carry none are no answer; the probe may also read the projection."""
    _, batches, states, _, _ = beside
    task = probed(w.made("simclr"), w.tiny.keeping()["model"], 4, on="z")
    many = (np.random.default_rng(2).random((w.N, 1, 4)) < 0.4).astype(np.float32)
    many[3] = 0
    batch = {**batches[1], "label": many}
    own = {"kernel": np.random.default_rng(3).standard_normal((w.D, 4)).astype(np.float32), "bias": np.ones(4, np.float32)}
    state = states[1].replace(params={**states[1].params, "probe": own})
    ((got, told),) = values(task, state, batch)
    z = np.asarray(w.features_of(task, states[1], batch)["z"], np.float64)
    some = many[:, 0].any(1)
    assert got == pytest.approx(binary((z @ own["kernel"] + own["bias"])[some], many[some, 0]), rel=2e-5) and not told
    shapes = jax.eval_shape(task.init, jax.random.key(0), batch)["params"]["probe"]
    assert shapes["kernel"].shape == (w.D, 4)


def test_a_task_without_features_is_refused():
    with pytest.raises(ValueError, match="reads the head features"):
        probed(dataclasses.replace(w.made("simclr"), heads={}), w.tiny.keeping()["model"], 3)
