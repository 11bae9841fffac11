"""Batch normalisation over every axis but the last."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from supcon_jax.nets import init


class BatchNorm(nn.Module):
    """Batch normalisation with statistics in float32 or wider, whatever the compute type.

        y = (x - mean) / sqrt(var + eps) * scale + bias

    Ioffe and Szegedy 2015, arXiv 1502.03167, algorithm 1.

    momentum: share of the old average that is kept in each update (0.9 is 0.1 in PyTorch's convention).
    eps: added to the variance, 1e-5; Inception and EfficientNet have 1e-3.
    jitter: standard deviation of the initial scale around 1 (0.02 in the GANs, 0 elsewhere).
    x: [..., c]; train: normalise by this batch and move the averages (collection "batch_stats").
    Returns the shape of x in `dtype` (that of x if left out).
    Differs from flax.linen.BatchNorm: the average of the variance takes the unbiased estimate, n / (n - 1), as PyTorch
    does, which matters where n is a batch of ten vectors; the variance is taken in two passes, which stays exact where
    the mean is large.
    """

    momentum: float = 0.9
    eps: float = 1e-5
    jitter: float = 0.0
    dtype: jax.typing.DTypeLike | None = None

    @nn.compact
    def __call__(self, x, *, train: bool):
        c = x.shape[-1]
        scale = self.param("scale", init.normal(self.jitter, 1.0), (c,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (c,), jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (c,), jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, (c,), jnp.float32)
        wide = jnp.promote_types(x.dtype, jnp.float32)
        flat = (1,) * (x.ndim - 1) + (c,)
        h = x.astype(wide)
        if train:
            axes = tuple(range(x.ndim - 1))
            mean = h.mean(axes)
            var = jnp.square(h - mean.reshape(flat)).mean(axes)
            if not self.is_initializing():
                n = x.size // c
                unbiased = var * (n / max(n - 1, 1))
                running_mean.value = self.momentum * running_mean.value + (1 - self.momentum) * mean
                running_var.value = self.momentum * running_var.value + (1 - self.momentum) * unbiased
        else:
            mean, var = running_mean.value.astype(wide), running_var.value.astype(wide)
        factor = jax.lax.rsqrt(var + self.eps) * scale
        y = (h - mean.reshape(flat)) * factor.reshape(flat) + bias.reshape(flat)
        return y.astype(self.dtype or x.dtype)
