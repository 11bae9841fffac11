"""Checks one function in every dress: eager and compiled, one device and eight, float32, bfloat16 and float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from supcon_jax.ops import rows, sharded


@functools.cache
def mesh(devices):
    """A mesh of the first so many devices with one Auto axis, "data"."""
    return jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])


@functools.cache
def grid(devices):
    """A mesh of two Auto axes, "host" around "chip"; two hosts where there is more than one device."""
    hosts = min(2, devices)
    shape = (hosts, devices // hosts)
    return jax.make_mesh(shape, ("host", "chip"), axis_types=(AxisType.Auto,) * 2, devices=jax.devices()[:devices])


# the doors in tiles, by name, for so many devices
DOORS = {
    "tiled": lambda devices, **how: sharded.tiled(**how),
    "gather": lambda devices, **how: sharded.gather(mesh(devices), **how),
    "ring": lambda devices, **how: sharded.ring(mesh(devices), **how),
    "hybrid": lambda devices, **how: sharded.hybrid(grid(devices), "chip", "host", **how),
}


# (name, devices): one door alone and one over devices in plain, the others of their kind in slow
THROUGH = (
    ("tiled", 1), pytest.param("gather", 8, marks=pytest.mark.slow),
    ("ring", 8), pytest.param("hybrid", 8, marks=pytest.mark.slow),
)  # fmt: skip


@functools.cache
def door(devices):
    """The door for so many devices: the definition for none, gather for one and more."""
    return sharded.gather(mesh(devices)) if devices else rows.dense


def split(array, devices):
    """The array with its rows split over devices, where they divide; on all of them else."""
    rows_divide = np.ndim(array) > 0 and len(array) % devices == 0
    return jax.device_put(array, NamedSharding(mesh(devices), PartitionSpec("data") if rows_divide else PartitionSpec()))


def cases(names, spread, long=True):
    """Parameters (name, devices) of a table: eight devices in plain for the names in spread, one for the others.

    long: the others on eight devices too, by hand; False where another test sends them through the doors.
    """
    found = []
    for name in names:
        found.append(pytest.param(name, 8 if name in spread else 1, id=str(name)))
        if long and name not in spread:
            found.append(pytest.param(name, 8, id=f"{name}-8", marks=pytest.mark.long))
    return found


def dress(fn, args, *, full=False, devices=8, sums=True, rtol=1e-5, grad_rtol=1e-4):
    """Compares fn, which gives one scalar, with itself in float64, compiled, on one device.

    fn: called as fn(*args), with `sums=` too unless sums is False. args: numpy arrays; gradients are compared for the
    floating ones, relative to the largest entry. Always: float32, compiled, on eight devices, or where devices is 1 on
    that one. full: both, the value of eager float32, and bfloat16 inputs; "wide": float64 and bfloat16 on eight devices too.
    Returns (value, gradients) in float64.
    """
    args = [np.asarray(a) for a in args]
    moving = tuple(i for i, a in enumerate(args) if np.issubdtype(a.dtype, np.floating))

    def both(devices):
        used = functools.partial(fn, sums=door(devices)) if sums else fn
        return jax.jit(jax.value_and_grad(used, moving))

    def given(dtype, devices, inputs):
        cast = [jnp.asarray(a, dtype) if i in moving else jnp.asarray(a) for i, a in enumerate(inputs)]
        return [split(a, devices) for a in cast] if devices else cast

    def run(dtype, devices, inputs):
        value, grads = both(devices)(*given(dtype, devices, inputs))
        for grad, i in zip(grads, moving, strict=True):
            assert grad.shape == inputs[i].shape and grad.dtype == dtype
        return np.float64(value), [np.asarray(g, np.float64) for g in grads]

    def check(name, got, want, rtol, grad_rtol):
        np.testing.assert_allclose(got[0], want[0], rtol=rtol, atol=rtol, err_msg=f"value, {name}")
        for i, g, w in zip(moving, got[1], want[1], strict=True):
            bound = grad_rtol * np.abs(w).max() + grad_rtol * 1e-2
            np.testing.assert_allclose(g, w, rtol=0, atol=bound, err_msg=f"gradient of argument {i}, {name}")

    with jax.numpy_dtype_promotion("strict"):
        with jax.enable_x64(True):
            want = run(jnp.float64, 0, args)
            assert np.isfinite(want[0]) and all(np.isfinite(g).all() for g in want[1])
            if full == "wide":
                check("float64, 8 devices", run(jnp.float64, 8, args), want, 1e-12, 1e-10)
        if full or devices == 1:
            check("float32, compiled", run(jnp.float32, 0, args), want, rtol, grad_rtol)
        if devices == 8:
            check("float32, 8 devices", run(jnp.float32, 8, args), want, rtol, grad_rtol)
        if full:
            eager = fn(*given(jnp.float32, 0, args), **({"sums": door(0)} if sums else {}))
            np.testing.assert_allclose(eager, want[0], rtol=rtol, atol=rtol, err_msg="value, float32, eager")
            low = [np.asarray(a, jnp.bfloat16).astype(np.float64) if i in moving else a for i, a in enumerate(args)]
            with jax.enable_x64(True):
                near = run(jnp.float64, 0, low)
            check("bfloat16", run(jnp.bfloat16, 0, low), near, 1e-2, 2e-2)
            if full == "wide":
                check("bfloat16, 8 devices", run(jnp.bfloat16, 8, low), near, 1e-2, 2e-2)
    return want
