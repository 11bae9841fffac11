"""What stands in place of the label term in every GAN: that it is there, and whose the label head is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles_matching
from gans import test_galip, test_onestage, tiny
from supcon_jax import core
from supcon_jax.gans import game
from supcon_jax.losses.terms import TERMS

BATCH = tiny.pairs(n=4)


def world(kind, **options):
    """(task, its nets, frozen, state in shape)."""
    if kind == "galip":
        task, nets = test_galip.task_of(**options), test_galip.nets_of()
        read = jnp.zeros((1, 16, 16, 3)), jnp.zeros((1, 5), jnp.int32)
        frozen = {"clip": jax.eval_shape(test_galip.READER.init, jax.random.key(0), *read)}
    else:
        stacked = kind in tiny.KINDS
        nets = tiny.gan_nets(kind=kind) if stacked else test_onestage.nets_of(kind)
        task = tiny.task(nets, **options) if stacked else test_onestage.task_of(kind, nets, **options)
        frozen = tiny.encoders(nets)
    return task, nets, frozen, jax.eval_shape(functools.partial(core.init_state, task), jax.random.key(0), BATCH)


SOME = [("attngan", "label_head"), ("dfgan", "xmc")]  # all that are left are slow
ALL = [(kind, term) for kind in (*tiny.KINDS, *test_onestage.TASKS, "galip") for term in TERMS
       if (kind, term) not in (*SOME, ("galip", "xmc"))]  # fmt: skip


@pytest.mark.parametrize("kind,term", [*SOME, *(pytest.param(*case, marks=pytest.mark.slow) for case in ALL)])
def test_every_gan_takes_every_term(kind, term):
    task, _, frozen, state = world(kind, scl=0.2, term=term)

    def losses(state, frozen, batch):
        found = {p.name: p.loss(state.params, state, frozen, batch, jax.random.key(0))[1] for p in task.players}
        return {f"{name}/{one}": x for name, aux in found.items() for one, x in aux.metrics.items()}

    metrics = jax.eval_shape(losses, state, frozen, BATCH)
    parts = {"supcon": "image_image", "ntxent": "image_image", "unicl": "image_text", "xmc": "real", "label_head": "scl"}
    assert {"gen/scl", f"gen/{parts[term]}"} <= set(metrics)
    assert ("disc/label" in metrics) == ("label_head" in state.params["disc"]) == (term == "label_head")
    assert "label_head" not in state.params["gen"]


@pytest.mark.slow
def test_the_label_head_learns_from_real_pictures_alone_and_the_generator_follows_it():
    """The head's step is the descent of a softmax regression on the real pictures' codes; G's loss has no part in it."""
    task, nets, frozen, shapes = world("dfgan", scl=0.2, term="label_head", magp_weight=0.0)
    state = test_onestage.restless(tiny.start(task, BATCH))
    head = {"kernel": np.random.default_rng(0).normal(size=(tiny.DIM, 3)).astype(np.float32), "bias": np.zeros(3, np.float32)}
    state.params["disc"]["label_head"] = {"dense": head}
    step = tiny.stepper(task, state, frozen, BATCH)
    after, metrics = jax.device_get(step(state, frozen, BATCH))
    real = BATCH["image"].reshape(8, 16, 16, 3).astype(np.float32) / 127.5 - 1
    code = np.asarray(jax.jit(functools.partial(game.encode_image, nets))(frozen, real)[1], np.float64)
    label, logits = BATCH["label"].ravel(), code @ head["kernel"]
    value = oracles_matching.label_entropy(logits, label)
    assert metrics["disc/label"] == pytest.approx(value, rel=2e-5)
    hinge = metrics["disc/real_cond"] + (metrics["disc/fake_cond"] + metrics["disc/wrong_cond"]) / 2
    assert metrics["disc/loss"] == pytest.approx(hinge + 0.2 * value, rel=2e-5)
    wrong = np.stack([oracles_matching.softmax(s) for s in logits]) - np.eye(3)[label]
    want = {"kernel": 0.2 * code.T @ wrong / 8, "bias": 0.2 * wrong.mean(0)}
    assert tiny.far(after.opt["disc"]["label_head"]["dense"], want) < 1e-4  # the gradient
    moved = jax.tree.map(lambda x, g: x - 0.05 * g, head, want)
    assert tiny.far(after.params["disc"]["label_head"]["dense"], moved) < 1e-5

    silent = {"label_head": {"dense": jax.tree.map(np.zeros_like, head)}}
    deaf, _ = jax.device_get(step(state.replace(params=state.params | {"disc": state.params["disc"] | silent}), frozen, BATCH))
    assert tiny.far(after.opt["gen"], deaf.opt["gen"]) > 1e-4  # the generator hears what the head says
    assert tiny.same(after.opt["disc"] | silent, deaf.opt["disc"] | silent)  # and nothing else of D does
