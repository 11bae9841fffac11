"""How a loss is compared with the numbers of a case."""

import jax
import jax.numpy as jnp
import numpy as np


def judge(loss, c, names, dtype, *, extra=None, value=1e-9, grads=1e-7, stress=False):
    """Compares loss(*arrays) -> (value, {name: expected-by-name}) and its gradients with a case's numbers.

    value, grads: tolerances with float64 enabled. extra: more outputs of the loss, by the names that the case uses.
    """
    arrays = [jnp.asarray(c[name], dtype) for name in names]
    (got, more), got_grads = jax.jit(jax.value_and_grad(loss, tuple(range(len(names))), has_aux=True))(*arrays)
    double = dtype == jnp.float64
    rtol, atol = (value, 1e-10) if double else (1e-4 if stress else 1e-5, 1e-6)
    np.testing.assert_allclose(got, c["loss"], rtol=rtol, atol=atol)
    for name, one in more.items():
        if name in c:
            np.testing.assert_allclose(one, c[name], rtol=rtol, atol=atol, err_msg=name)
    for name, grad in zip(names, got_grads, strict=True):
        assert np.isfinite(grad).all()
        want = c.get(f"grad_{name}")
        if want is None:
            continue
        bound = (grads if double else 1e-4) * np.abs(want).max() + (1e-10 if double else 1e-6)
        np.testing.assert_allclose(grad, want, rtol=0, atol=bound, err_msg=f"gradient of {name}")


def numbers(c, name):
    return tuple(float(value) for value in np.ravel(c[name]))


def ids(array):
    return None if array is None else jnp.asarray(np.asarray(array), jnp.int32)
