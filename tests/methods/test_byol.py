"""BYOL and SimSiam: losses by hand, and where gradients flow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles_unimodal
from methods import unimodal_world as w

CHAIN = ("image", "project", "predict")
BEFORE_NORM = {"byol": {"project/dense0/bias", "predict/dense0/bias"}, "simsiam": set()}


def student(name, params, state, batch):
    """(projections, predictions of both views, averages after)."""
    (x,) = w.drawn(batch, w.key_of(state), name)
    z, p, stats = [], [], state.stats["model"]
    for view in range(2):
        out, stats = w.through(w.nets_of(name), params, stats, x[:, view], *CHAIN)
        z.append(out["project"])
        p.append(out["predict"])
    return jnp.stack(z), jnp.stack(p), stats


def target(state, batch):
    """BYOL's: the teacher's projections of both views, by their own statistics, and its averages after."""
    (x,) = w.drawn(batch, w.key_of(state), "byol")
    teacher = state.memory["teacher"]
    stats, z = teacher["stats"], []
    for view in range(2):
        out, stats = w.through(w.nets_of("byol"), teacher["params"], stats, x[:, view], *CHAIN[:2])
        z.append(out["project"])
    return jnp.stack(z), stats


def gradient(name, state, batch, goal, factor, through=False):
    """Of `factor` times the sum of minus the cosines of predictions with a goal: constants, or their own projections."""

    def far(params):
        z, p, _ = student(name, params, state, batch)
        z = (z if through else goal)[::-1]
        cos = jnp.sum(p * z, -1) / jnp.linalg.norm(p, axis=-1) / jnp.linalg.norm(z, axis=-1)
        return -factor * cos.mean(1).sum()

    return w.ran(jax.grad(far), state.params["model"])


def test_byol_is_its_formula():
    batches, _, states, told = w.world("byol")
    _, p, stats = w.ran(lambda s, b: student("byol", s.params["model"], s, b), states[1], batches[1])
    z, after = w.ran(target, states[1], batches[1])
    z, p = np.asarray(z, np.float64), np.asarray(p, np.float64)
    want = oracles_unimodal.byol(p[0], z[1]) + oracles_unimodal.byol(p[1], z[0])
    assert told[1]["model/loss"] == pytest.approx(want, rel=2e-5)
    assert w.tiny.far(states[2].stats["model"], stats) < 1e-5
    assert w.tiny.far(states[2].memory["teacher"]["stats"], after) < 1e-5
    assert w.tiny.far(states[2].opt["model"], gradient("byol", states[1], batches[1], z, 2.0), 1e-2) < 1e-4
    assert w.idle(states[2]) == BEFORE_NORM["byol"]


def test_byols_teacher_follows_the_students_weights_alone():
    _, _, states, _ = w.world("byol")
    teacher = states[2].memory["teacher"]
    assert set(teacher["params"]) == set(teacher["stats"]) == {"image", "project"}
    own = {name: states[2].stats["model"][name] for name in teacher["stats"]}
    assert w.tiny.far(teacher["stats"], own) > 1e-4


def test_simsiam_is_its_formula_and_its_target_stands_still():
    batches, _, states, told = w.world("simsiam")
    z, p, stats = w.ran(lambda s, b: student("simsiam", s.params["model"], s, b), states[1], batches[1])
    wide = np.asarray(p, np.float64), np.asarray(z, np.float64)
    want = sum(oracles_unimodal.simsiam(wide[0][a], wide[1][1 - a]) for a in (0, 1)) / 2
    assert told[1]["model/loss"] == pytest.approx(want, rel=2e-5)
    assert w.tiny.far(states[2].stats["model"], stats) < 1e-5
    got = states[2].opt["model"]
    assert w.tiny.far(got, gradient("simsiam", states[1], batches[1], z, 0.5)) < 1e-4
    assert np.abs(got["predict"]["dense0"]["kernel"]).max() > 1e-3
    assert w.idle(states[2]) == BEFORE_NORM["simsiam"] and states[2].memory == {}


@pytest.mark.slow
def test_without_the_stop_the_gradient_flows_on_both_sides():
    batches, _, states, _ = w.world("simsiam")
    loss = w.made("simsiam", stop=False).players[0].loss

    def whole(params, s, b):
        return loss({"model": params}, s, {}, b, w.key_of(s))[0]

    got = w.ran(jax.grad(whole), states[1].params["model"], states[1], batches[1])
    assert w.tiny.far(got, gradient("simsiam", states[1], batches[1], None, 0.5, through=True)) < 1e-4
    assert w.tiny.far(got, states[2].opt["model"]) > 1e-2
