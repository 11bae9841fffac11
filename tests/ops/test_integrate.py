"""Solvers of fixed steps: known flows to 1e-6, their orders, straight ways in one step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from supcon_jax.ops.integrate import SOLVERS, integrate


def gaussian(mean, deviation):
    """The velocity of the straight ways from N(0, 1) to N(mean, deviation^2), drawn apart, and where it leads."""

    def field(x, t):
        spread = (1 - t) ** 2 + (t * deviation) ** 2
        return mean + (t * deviation**2 - (1 - t)) / spread * (x - t * mean)

    return field, lambda x: mean + deviation * x


def error(field, exact, steps, solver):
    x = np.random.default_rng(0).normal(size=(4, 3))
    with jax.enable_x64(True):
        found = jax.jit(lambda x: integrate(field, x, steps=steps, solver=solver))(jnp.asarray(x))
    return np.abs(np.asarray(found) - exact(x)).max()


def test_a_known_flow_to_a_millionth():
    assert error(*gaussian(3.0, 0.4), 2000, "heun") < 1e-6
    assert error(lambda x, t: t - x, lambda x: x * np.exp(-1) + np.exp(-1), 1000, "heun") < 1e-6


@pytest.mark.parametrize("solver,order", SOLVERS.items())
def test_the_error_falls_with_the_order(solver, order):
    coarse, fine = (error(*gaussian(3.0, 0.4), steps, solver) for steps in (64, 128))
    assert coarse / fine == pytest.approx(2**order, rel=0.1)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_straight_way_takes_one_step(solver):
    assert error(lambda x, t: jnp.full_like(x, 2.5), lambda x: x + 2.5, 1, solver) < 1e-12
    if solver == "euler":  # towards one point, whatever the number of steps
        assert error(lambda x, t: (7 - x) / (1 - t), lambda x: 0 * x + 7, 5, solver) < 1e-12


def test_an_unknown_solver_is_named():
    with pytest.raises(ValueError, match="'rk4': choose one of euler, heun"):
        integrate(lambda x, t: x, jnp.zeros(2), steps=1, solver="rk4")
