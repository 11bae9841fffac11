"""Ordinary differential equations with a fixed number of equal steps."""

import jax
import jax.numpy as jnp

SOLVERS = {"euler": 1, "heun": 2}  # how often the field is asked in a step


def integrate(field, x, *, steps, solver="heun"):
    """Follows dx/dt = field(x, t) from t = 0 to t = 1.

        euler: x <- x + h f(x, t);   heun: x <- x + h/2 (f(x, t) + f(x + h f(x, t), t + h)),   h = 1 / steps

    field: (x, t f32[] or f64[]) -> the shape of x. x: any array. steps: an integer. solver: a key of SOLVERS.
    Returns x at t = 1; the error falls as h (euler) or h^2 (heun).
    Raises ValueError: an unknown solver.
    """
    if solver not in SOLVERS:
        raise ValueError(f"solver is {solver!r}: choose one of {', '.join(SOLVERS)}")

    def move(i, x):
        t = jnp.asarray(i, x.dtype) / steps
        slope = field(x, t)
        if solver == "heun":
            slope = (slope + field(x + slope / steps, jnp.asarray(i + 1, x.dtype) / steps)) / 2
        return x + slope / steps

    return jax.lax.fori_loop(0, steps, move, x)
