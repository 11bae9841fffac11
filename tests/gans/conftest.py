"""One step of the tiny stacked GANs that many tests look at."""

import jax
import pytest

from gans import tiny


@pytest.fixture(scope="session", params=["attngan", pytest.param("dmgan", marks=pytest.mark.slow)])
def kind(request):
    return request.param


@pytest.fixture(scope="session")
def world(kind):
    """(nets, frozen, batch, task, state, compiled step) of two branches with the label term, on one device."""
    nets = tiny.gan_nets(kind=kind)
    frozen, batch = tiny.encoders(nets), tiny.pairs()
    task = tiny.task(nets, scl=0.2)
    state = tiny.start(task, batch)
    return nets, frozen, batch, task, state, tiny.stepper(task, state, frozen, batch)


@pytest.fixture(scope="session")
def one(world):
    """The state and metrics after one step, on the host."""
    _, frozen, batch, _, state, step = world
    return jax.device_get(step(state, frozen, batch))
