"""A small U-Net for the velocity of a flow between noise and pictures, under a sentence."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from supcon_jax.nets.blocks import DType, conv, dense, double, halve
from supcon_jax.nets.dfgan import only, widths


def waves(t, count: int):
    """Sines and cosines of t [n] in [0, 1] at `count` frequencies, from 1000 down to a tenth: [n, 2 count]."""
    speed = 1000.0 * jnp.exp(-math.log(10_000.0) * jnp.arange(count, dtype=t.dtype) / max(count - 1, 1))
    angle = t[:, None] * speed[None]
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=1)


def norm(x, dtype: DType, name: str):
    """Group normalisation in eight groups, or in as many as divide the channels."""
    return nn.GroupNorm(math.gcd(8, x.shape[-1]), dtype=dtype, name=name)(x)


class Block(nn.Module):
    """x + [norm, conv, norm, scale and shift by the condition, conv], the last one from zero: [n, h, w, .] -> features.

    Dhariwal and Nichol 2021, arXiv 2105.05233 (adaptive group normalisation).
    """

    features: int
    dtype: DType = None

    @nn.compact
    def __call__(self, x, c):
        inputs = x.shape[-1]
        h = conv(self.features, 3, inputs, self.dtype, "conv0")(jax.nn.silu(norm(x, self.dtype, "norm0")))
        scale, shift = jnp.split(dense(2 * self.features, c.shape[-1], self.dtype, "condition")(c)[:, None, None], 2, axis=-1)
        h = jax.nn.silu(norm(h, self.dtype, "norm1") * (1 + scale) + shift)
        h = nn.Conv(self.features, (3, 3), kernel_init=nn.initializers.zeros, dtype=self.dtype, name="conv1")(h)
        if inputs != self.features:
            x = conv(self.features, 1, inputs, self.dtype, "shortcut")(x)
        return x + h


class Velocity(nn.Module):
    """The velocity of each picture on its way: down to 4 x 4 and up again, with what was seen on the way down.

    Ronneberger et al. 2015, arXiv 1505.04597, with residual blocks that read time and sentence. Zero to begin with. The
    condition scales whole channels, which cannot say where: it is also drawn onto the 4 x 4 map, as a GAN begins.

    width: channels at the picture's size, doubled at each halving up to most * width. sizes: side of the picture,
        4 * 2^k, as a tuple of one. dtype: compute type, parameters stay float32.
    x: [n, size, size, 3]; t: [n] in [0, 1]; sentence: [n, d], zeros where it is not told.
    Returns [n, size, size, 3], float32 or wider.
    Raises ValueError: several sizes, or one that is not 4 * 2^k.
    """

    width: int = 32
    sizes: tuple[int, ...] = (32,)
    most: int = 4
    dtype: DType = None

    @nn.compact
    def __call__(self, x, t, sentence):
        channels, hidden = widths(only(self.sizes), self.width, self.most), 4 * self.width
        c = dense(hidden, 2 * self.width, self.dtype, "time")(waves(t, self.width))
        c = jax.nn.silu(c + dense(hidden, sentence.shape[-1], self.dtype, "sentence")(sentence))
        c = jax.nn.silu(dense(hidden, hidden, self.dtype, "condition")(c))
        h, seen = conv(self.width, 3, 3, self.dtype, "first")(x), []
        for i, features in enumerate(channels):
            h = Block(features, self.dtype, name=f"down{i}")(halve(h) if i else h, c)
            seen.append(h)
        h = h + dense(16 * channels[-1], hidden, self.dtype, "place")(c).reshape(h.shape)
        for i, features in reversed(list(enumerate(channels[:-1]))):
            h = jnp.concatenate([double(h), seen[i]], axis=-1)
            h = Block(features, self.dtype, name=f"up{i}")(h, c)
        h = jax.nn.silu(norm(h, self.dtype, "norm"))
        h = nn.Conv(3, (3, 3), kernel_init=nn.initializers.zeros, dtype=self.dtype, name="velocity")(h)
        return h.astype(jnp.promote_types(h.dtype, jnp.float32))
