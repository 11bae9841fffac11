"""Batch normalisation over every axis but the last, layer normalisation of rows, spectral normalisation of kernels."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from supcon_jax.nets import init
from supcon_jax.ops.arrays import unit


class BatchNorm(nn.Module):
    """Batch normalisation with statistics in float32 or wider, whatever the compute type.

        y = (x - mean) / sqrt(var + eps) * scale + bias

    Ioffe and Szegedy 2015, arXiv 1502.03167, algorithm 1.

    momentum: share of the old average that is kept in each update (0.9 is 0.1 in PyTorch's convention).
    eps: added to the variance, 1e-5; Inception and EfficientNet have 1e-3.
    groups: the rows are normalised in so many groups of neighbours, each by its own mean and variance, and the averages
        move once, by the mean of the groups'. It stands for per-device statistics and is the same on any number of
        devices; 1 is the whole global batch.
    jitter: standard deviation of the initial scale around `start` (0.02 in the GANs, 0 elsewhere).
    affine: with a learned scale and bias. bias: of these two the bias too.
    clamp: a batch's own variance is raised to eps where it is below, instead of by eps everywhere: what the replicated
        batch norm of SSA-GAN's code does on several devices.
    x: [..., c]; train: normalise by this batch and move the averages (collection "batch_stats").
    Returns the shape of x in `dtype` (that of x if left out). Raises ValueError: rows that the groups cannot share.
    Differs from flax.linen.BatchNorm: the average of the variance takes the unbiased estimate, n / (n - 1), as PyTorch
    does, which matters where n is a batch of ten vectors; the variance is taken in two passes, which stays exact where
    the mean is large.
    """

    momentum: float = 0.9
    eps: float = 1e-5
    jitter: float = 0.0
    groups: int = 1
    affine: bool = True
    bias: bool = True
    clamp: bool = False
    start: float = 1.0
    dtype: jax.typing.DTypeLike | None = None

    @nn.compact
    def __call__(self, x, *, train: bool):
        c, wide = x.shape[-1], jnp.promote_types(x.dtype, jnp.float32)
        scale, bias = jnp.ones(c, wide), jnp.zeros(c, wide)
        if self.affine:
            scale = self.param("scale", init.normal(self.jitter, self.start), (c,), jnp.float32)
        if self.affine and self.bias:
            bias = self.param("bias", nn.initializers.zeros, (c,), jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (c,), jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, (c,), jnp.float32)
        h = x.astype(wide)
        if train:
            mean, var = self.moments(h)
            if not self.is_initializing():
                n = x.size // (c * self.groups)
                unbiased = var * (n / max(n - 1, 1))
                new = (mean, unbiased) if self.groups == 1 else (mean.mean(0), unbiased.mean(0))
                for average, value in zip((running_mean, running_var), new, strict=True):
                    average.value = self.momentum * average.value + (1 - self.momentum) * value
        else:
            mean, var = (average.value.astype(wide) for average in (running_mean, running_var))
        raised = jnp.maximum(var, self.eps) if train and self.clamp else var + self.eps
        factor = jax.lax.rsqrt(raised) * (scale if var.ndim == 1 else scale[None])
        y = (h - rowwise(mean, h)) * rowwise(factor, h) + rowwise(bias, h)
        return y.astype(self.dtype or x.dtype)

    def moments(self, h):
        """Mean and variance of the rows, [c], or of each of several groups, [groups, c].

        Only what is left of a row after its own mean, [n, c], is cut into groups: the values themselves stay where the
        devices hold them.
        """
        n, c = len(h), h.shape[-1]
        if n % self.groups:
            raise ValueError(f"BatchNorm: {n} rows cannot be shared by groups={self.groups}; use a divisor of {n}")

        def grouped(values):
            if self.groups == 1:
                return values.mean(tuple(range(h.ndim - 1)))
            return values.mean(tuple(range(1, h.ndim - 1))).reshape(self.groups, n // self.groups, c).mean(1)

        mean = grouped(h)
        return mean, grouped(jnp.square(h - rowwise(mean, h)))


def rowwise(values, h):
    """Channels [c], or one row of them for each group [g, c] -> what broadcasts against h [n, ..., c]."""
    each = values[None] if values.ndim == 1 else jnp.repeat(values, len(h) // len(values), axis=0)
    return each.reshape(len(each), *(1,) * (h.ndim - 2), -1)


class LayerNorm(nn.Module):
    """Each row by the mean and variance of all that it holds, in float32 or wider; scale and bias for each channel.

    Ba et al. 2016, arXiv 1607.06450. In the place of BatchNorm where rows must not know of each other, as in CPC.

    start: initial scale. x: [n, ..., c]; train changes nothing. Returns the shape and dtype of x.
    """

    eps: float = 1e-5
    start: float = 1.0

    @nn.compact
    def __call__(self, x, *, train: bool = False):
        c, h = x.shape[-1], x.astype(jnp.promote_types(x.dtype, jnp.float32))
        scale = self.param("scale", init.normal(0.0, self.start), (c,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (c,), jnp.float32)
        axes = tuple(range(1, h.ndim))
        h = h - h.mean(axes, keepdims=True)
        h = h * jax.lax.rsqrt(jnp.square(h).mean(axes, keepdims=True) + self.eps)
        return (h * rowwise(scale, h) + rowwise(bias, h)).astype(x.dtype)


def normaliser(kind: str, name: str, *, groups: int = 1, start: float = 1.0) -> nn.Module:
    """The norm that a network's option asks for: "batch" or "layer". groups: see BatchNorm. Raises ValueError: another."""
    if kind not in ("batch", "layer"):
        raise ValueError(f"norm {kind!r} is not known; use batch or layer")
    return BatchNorm(groups=groups, start=start, name=name) if kind == "batch" else LayerNorm(start=start, name=name)


class SpectralNorm(nn.Module):
    """A kernel divided by its largest singular value, which one step of the power iteration follows.

        v <- W^T u / |W^T u|,   u <- W v / |W v|,   sigma = u^T W v,   W / sigma

    Miyato et al. 2018, arXiv 1802.05957.

    kernel: [..., c], read as W [c, inputs]. The gradient goes through sigma too; u and v count as constants.
    train: take the step and keep u [c] and v [inputs] (collection "batch_stats"); they stand as they are otherwise.
    Returns the kernel's shape, in float32 or wider; the products are exact to that, whatever the hardware's default.
    Differs from: DM-GAN's code, which takes the step when it evaluates too.
    """

    @nn.compact
    def __call__(self, kernel, *, train: bool):
        w = kernel.reshape(-1, kernel.shape[-1])  # [inputs, c]
        left, right = (self.variable("batch_stats", name, self.direction, n) for name, n in zip("uv", w.shape[::-1]))
        u, v = left.value, right.value
        if train:
            fixed = jax.lax.stop_gradient(w)
            v = unit(jnp.matmul(fixed, u, precision="highest"))
            u = unit(jnp.matmul(v, fixed, precision="highest"))
            if not self.is_initializing():
                left.value, right.value = u, v
        sigma = jnp.matmul(jnp.matmul(v, w, precision="highest"), u, precision="highest")
        return kernel / sigma

    def direction(self, n: int):
        """A random unit vector [n]."""
        return init.orthogonal(self.make_rng("params"), (n, 1)).reshape(n)
