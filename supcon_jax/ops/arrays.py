"""Arithmetic on arrays that is safe at the edges: unit rows, cosines, masked means, moving averages; branches as rows."""

import jax
import jax.numpy as jnp

LOWEST = -1e30  # stands for minus infinity where a finite number must remain; exp(LOWEST - anything real) is 0


def wide(*arrays):
    """The dtype to accumulate in: float32, or float64 where an array already is."""
    return jnp.float64 if any(a.dtype == jnp.float64 for a in arrays) else jnp.float32


def norm(x, axis=-1, keepdims=False):
    """Euclidean norm over `axis`, accumulated in float32 or wider; its gradient at a zero row is zero, not NaN.

    x: [..., d]. Returns [...] (or [..., 1] with keepdims).
    """
    x = x.astype(wide(x))
    square = jnp.sum(x * x, axis=axis, keepdims=keepdims)
    some = square > 0
    return jnp.where(some, jnp.sqrt(jnp.where(some, square, 1)), 0)


def unit(x, eps=1e-12):
    """Rows of length one: x / max(|x|, eps) over the last axis, in the dtype of x. A zero row stays zero.

    x: [..., d]. Returns the same shape.
    """
    return (x.astype(wide(x)) / jnp.maximum(norm(x, keepdims=True), eps)).astype(x.dtype)


def unit_rms(x):
    """Rows [..., d] with unit root mean square; zero rows (padding) stay zero."""
    return unit(x) * x.shape[-1] ** 0.5


def cosine(a, b, eps=1e-8):
    """Cosine over the last axis, <a, b> / max(|a| |b|, eps), in float32 or wider.

    a, b: [..., d]. Returns [...].
    """
    acc = wide(a, b)
    a, b = a.astype(acc), b.astype(acc)
    return jnp.sum(a * b, axis=-1) / jnp.maximum(norm(a) * norm(b), eps)


def checked(values, bad, message):
    """The values, NaN where `bad` (bool[]); raises ValueError(message) where that is known at once, outside of jit."""
    if not isinstance(bad, jax.core.Tracer) and bad:
        raise ValueError(message)
    return values + jnp.where(bad, jnp.nan, 0).astype(values.dtype)


def masked_mean(x, weight, axis=None):
    """Weighted mean of x, sum(weight * x) / sum(weight); 0 where no weight is left, and entries of weight 0 may be NaN.

    x, weight: the same shape; weight bool or float. Returns x reduced over `axis`.
    """
    weight = jnp.asarray(weight, x.dtype)
    total = jnp.sum(weight, axis=axis)
    mean = jnp.sum(jnp.where(weight != 0, x, 0) * weight, axis=axis) / jnp.where(total != 0, total, 1)
    return jnp.where(total != 0, mean, 0)


def average(old, new, decay):
    """Exponential moving average of a tree, decay * old + (1 - decay) * new, leaf by leaf in the leaf's own dtype."""
    return jax.tree.map(lambda a, b: (decay * a + (1 - decay) * b).astype(a.dtype), old, new)


def merge(x):
    """[n, v, ...] -> [n * v, ...], row = i * v + branch, which moves nothing between devices."""
    return jnp.reshape(x, (-1, *x.shape[2:]))
