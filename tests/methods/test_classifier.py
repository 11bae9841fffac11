"""The attribute classifier's task: its terms, what it reads, and that it learns a colour within a hundred steps."""

import functools

import jax
import numpy as np
import optax
import pytest

from gans import tiny
from supcon_jax import core
from supcon_jax.data.synthetic import ATTRIBUTES, shapes
from supcon_jax.methods.classifier import classifier
from supcon_jax.nets.classify import AttributeNet

GROUPS = (("shape", 8), ("colour", 8), ("row", 3), ("col", 3), ("size", 2))


@pytest.fixture(scope="module")
def world():
    """Pictures with the truth about them, and others to be judged by."""
    return [shapes(split, size=32, records=n, seed=3, labels="multi") for split, n in (("train", 3200), ("test", 256))]


def batch_of(source, rows):
    image = np.stack([source.image(int(i)) for i in rows])
    return {"image": image[:, None], "label": source.labels[rows][:, None].astype(np.float32)}


def build(rate=1e-2, **options):
    nets = {"image": AttributeNet(dict(GROUPS), width=8)}
    return classifier(nets, {"model": optax.adam(rate)}, tiny.about(), groups=GROUPS, **options)


@pytest.mark.slow
def test_learns_colour_in_a_hundred_steps(world):
    """From 1 in 8 to right on pictures it has not seen, through the noise that keeps it off single pixels.

    Measured: 0.94 and 0.98 with two seeds.
    """
    train, test = world
    task = build(noise_weight=0.1)
    batches = [batch_of(train, np.arange(k, k + 64)) for k in range(0, 3200, 64)]
    state = tiny.start(task, batches[0])
    step = jax.jit(functools.partial(core.step, task), donate_argnums=0)
    attributes = jax.jit(task.heads["attributes"])
    held = batch_of(test, np.arange(256))

    def right(state):
        logits = attributes(state, {}, {"image": held["image"][:, 0]}, None)
        assert set(logits) == {name for name, _ in GROUPS}
        return (np.asarray(logits["colour"]).argmax(-1) == test.known["colour"]).mean()

    before = right(state)
    for i in range(100):
        state, metrics = step(state, {}, batches[i % 50])
    assert before < 0.4 and right(state) > 0.85
    assert int(state.skipped[0]) == 0
    names = {name for name, _ in GROUPS}
    assert set(metrics) == (
        {f"model/{n}" for n in names | {f"{n}_right" for n in names} | {"loss", "grad_norm"}} | {"skipped", "skipped_in_a_row"}
    )
    assert float(metrics["model/loss"]) == pytest.approx(sum(float(metrics[f"model/{n}"]) for n in names), rel=1e-5)


def test_groups_cut_the_labels_in_order(world):
    """The cross entropies of a network that knows the truth: nearly none; of one that is wrong in one group: only there."""
    train, _ = world
    assert ATTRIBUTES[8:16][0] == "red"
    rows = np.arange(20)
    batch = batch_of(train, rows)

    class Knows:
        wrong = ""

        def apply(self, variables, images, train, mutable=None):
            known = dict(GROUPS)
            logits = {}
            for name, count in known.items():
                value = world[0].known[name][rows] + (name == self.wrong)
                logits[name] = 50.0 * jax.nn.one_hot(value % count, count)
            return (None, logits), {"batch_stats": {}}

    net = Knows()
    task = classifier({"image": net}, {"model": optax.sgd(1.0)}, tiny.about(), groups=GROUPS)
    blank = core.State(*[None] * 3, {"model": {}}, {}, {"model": {}}, {})

    def told(batch):
        found = {}
        for wrong in ("", "colour", "size"):
            net.wrong = wrong
            found[wrong] = task.players[0].loss({"model": {}}, blank, {}, batch, jax.random.key(0))[1].metrics
        return found

    for wrong, metrics in tiny.compiled(told, batch)(batch).items():
        for name, _ in GROUPS:
            assert float(metrics[name]) == pytest.approx(50.0 if name == wrong else 0.0, abs=1e-4)
            assert float(metrics[f"{name}_right"]) == (name != wrong)


def test_plain_class_ids():
    nets = {"image": AttributeNet({"label": 5}, width=2)}
    task = classifier(nets, {"model": optax.sgd(1.0)}, tiny.about(), flip=True)
    batch = {"image": np.zeros((4, 1, 8, 8, 3), np.uint8), "label": np.array([[0], [1], [2], [4]], np.int32)}
    state = tiny.start(task, batch)
    value, aux = jax.jit(lambda p: task.players[0].loss(p, state, {}, batch, jax.random.key(0)))(state.params)
    assert set(aux.metrics) == {"label", "label_right"}
    _, logits = nets["image"].apply({"params": state.params["model"], "batch_stats": state.stats["model"]},
                                    np.full((4, 8, 8, 3), -1, np.float32), train=True, mutable=["batch_stats"])[0]
    logits = np.asarray(logits["label"], np.float64)
    want = np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(4), batch["label"][:, 0]])
    assert float(value) == pytest.approx(want, rel=1e-5)
