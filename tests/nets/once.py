"""A function compiled and run once, with little optimising: op by op every operation would be a program of its own."""

import jax

from gans import tiny


def ran(fn, *args):
    """fn(*args) as one program, on the host."""
    return jax.device_get(tiny.compiled(fn, *args)(*args))
