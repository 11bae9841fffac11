"""One step of the tiny DAMSM, made once for each file that asks for it."""

import jax
import pytest

from gans import tiny
from methods.damsm_world import made


@pytest.fixture(scope="module")
def world():
    """(batch, task, state, state and metrics after one step)."""
    batch, task = tiny.pairs(), made()
    state = tiny.start(task, batch)
    return batch, task, state, jax.device_get(tiny.stepper(task, state, {}, batch)(state, {}, batch))
