"""Initial values of weights, and a cheap way to draw all of them on the host.

Compiling one QR and one random generator for each shape takes seconds even for tiny networks. Inside `on_host` the
initialisers of this page draw with numpy while the function is traced, and nothing of it is compiled.
"""

import contextlib
import contextvars
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

_source: contextvars.ContextVar[np.random.Generator | None] = contextvars.ContextVar("source", default=None)


@contextlib.contextmanager
def _drawing(source: np.random.Generator):
    token = _source.set(source)
    try:
        yield
    finally:
        _source.reset(token)


def on_host(fn, key, *args):
    """fn(key, *args), where the random weights come from numpy instead of compiled code.

    fn: traceable, such as `module.init` or a task's `init`; key: a PRNG key that is not traced: it seeds numpy too.
    Returns what fn returns, on the default device. The same key and shapes give the same values on any hardware.
    Differs from jax.jit(fn)(key, *args): other random numbers of the same distributions, and the compiled program holds
    nothing but copies (0.5 s where compiled initialisers of AttnGAN's smallest players need 7 s).
    """
    source = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
    flat, structure = jax.tree.flatten((key, args))

    def traced(flat):
        key, args = jax.tree.unflatten(structure, flat)
        return fn(key, *args)

    with _drawing(source):
        closed, shape = jax.make_jaxpr(traced, return_shape=True)(flat)
    out = jax.jit(lambda consts, flat: jax.core.eval_jaxpr(closed.jaxpr, consts, *flat))(closed.consts, flat)
    return jax.tree.unflatten(jax.tree.structure(shape), out)


def orthogonal(key, shape, dtype=jnp.float32):
    """Semi-orthogonal over the last axis: columns (or rows, if fewer) of the kernel as a matrix are orthonormal.

    Saxe et al. 2013, arXiv 1312.6120."""
    source = _source.get()
    if source is None:
        return nn.initializers.orthogonal()(key, shape, dtype)
    rows, columns = math.prod(shape[:-1]), shape[-1]
    q, r = np.linalg.qr(source.standard_normal((max(rows, columns), min(rows, columns)), np.float32))
    q = q * np.where(np.diag(r) < 0, -1, 1)[None, :]  # without it the draw is not uniform
    return _given((q if rows >= columns else q.T).reshape(shape), dtype)


def uniform(limit: float):
    """Initialiser: uniform on [-limit, limit]."""

    def draw(key, shape, dtype=jnp.float32):
        source = _source.get()
        if source is None:
            return jax.random.uniform(key, shape, dtype, -limit, limit)
        return _given(source.uniform(-limit, limit, shape), dtype)

    return draw


def normal(deviation: float, mean: float = 0.0):
    """Initialiser: normal; with deviation 0 the mean itself."""

    def draw(key, shape, dtype=jnp.float32):
        source = _source.get()
        if not deviation:
            return jnp.full(shape, mean, dtype)
        if source is None:
            return mean + deviation * jax.random.normal(key, shape, dtype)
        return _given(source.normal(mean, deviation, shape), dtype)

    return draw


def he(key, shape, dtype=jnp.float32):
    """Normal with variance 2 / inputs. He et al. 2015, arXiv 1502.01852, eq. 10."""
    return normal(math.sqrt(2 / math.prod(shape[:-1])))(key, shape, dtype)


def lecun(key, shape, dtype=jnp.float32):
    """Normal with variance 1 / inputs."""
    return normal(math.sqrt(1 / math.prod(shape[:-1])))(key, shape, dtype)


def xavier(key, shape, dtype=jnp.float32):
    """Uniform with variance 2 / (inputs + features); for a kernel of patches the inputs are all values of a patch.

    Glorot and Bengio 2010, eq. 16."""
    return uniform(math.sqrt(6 / (math.prod(shape[:-1]) + shape[-1])))(key, shape, dtype)


def _given(value, dtype):
    return np.ascontiguousarray(value, jnp.dtype(dtype))
