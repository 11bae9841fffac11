"""Barlow Twins and VICReg: the loss from codes made by hand."""

import numpy as np
import pytest

import oracles_unimodal
from methods import unimodal_world as w

OPTIONS = {"barlow": {"off": 0.02, "factor": 0.1}, "vicreg": {"invariance": 10.0, "variance": 20.0, "covariance": 3.0}}
BEFORE_NORM = {"barlow": set(), "vicreg": {"project/dense0/bias", "project/dense1/bias"}}


@pytest.mark.parametrize("name", OPTIONS)
def test_the_loss_is_its_formula(name):
    batches, _, states, told = w.world(name, **OPTIONS[name])

    def made(state, batch):
        (x,) = w.drawn(batch, w.key_of(state), name)
        z, stats = [], state.stats["model"]
        for view in range(2):
            out, stats = w.through(w.nets_of(name), state.params["model"], stats, x[:, view], "image", "project")
            z.append(out["project"])
        return z, stats

    z, stats = w.ran(made, states[1], batches[1])
    z = [np.asarray(x, np.float64) for x in z]
    if name == "barlow":
        want = 0.1 * oracles_unimodal.barlow(*z, 0.02, 1e-5)
    else:
        want = oracles_unimodal.vicreg(*z, (10.0, 20.0, 3.0), True, 1e-4)
    assert told[1]["model/loss"] == pytest.approx(want, rel=5e-5)
    assert w.tiny.far(states[2].stats["model"], stats) < 1e-5
    assert w.idle(states[2]) == BEFORE_NORM[name] and states[2].memory == {}
