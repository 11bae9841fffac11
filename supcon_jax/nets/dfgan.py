"""DF-GAN: one generator of one size whose features are scaled and shifted by the text, and one discriminator."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from supcon_jax.nets import init
from supcon_jax.nets.blocks import DType, UpConv, conv, dense, double, halve, leaky, picture


def widths(size: int, width: int, most: int) -> list[int]:
    """Channels at the picture's size and after each halving down to 4 x 4: width, 2 width, ..., most * width.

    Raises ValueError: a size that is not 4 * 2^k.
    """
    steps = int(math.log2(size / 4))
    if size != 4 * 2**steps or steps < 1:
        raise ValueError(f"size must be 4 * 2^k with k > 0, not {size}")
    return [width * min(2**i, most) for i in range(steps + 1)]


def only(sizes) -> int:
    """The one size of a one-stage generator. Raises ValueError: several."""
    if len(sizes) != 1:
        raise ValueError(f"this generator makes pictures of one size, not of {tuple(sizes)}")
    return sizes[0]


class Condition(nn.Module):
    """Text to one number for each channel, [n, k] -> [n, 1, 1, features]; begins as the constant `start`."""

    features: int
    hidden: int
    start: float
    dtype: DType = None

    @nn.compact
    def __call__(self, c):
        h = jax.nn.relu(dense(self.hidden, c.shape[-1], self.dtype, "hidden")(c))
        last = nn.Dense(self.features, kernel_init=nn.initializers.zeros, bias_init=init.normal(0.0, self.start),
                        dtype=self.dtype, name="out")
        return last(h)[:, None, None]


class Fuse(nn.Module):
    """Two affine maps with coefficients from the text, each with a leaky ReLU behind it: [n, h, w, f] as it was.

    Tao et al. 2022, arXiv 2008.05865: the deep text-image fusion block.
    """

    dtype: DType = None

    @nn.compact
    def __call__(self, x, c):
        f = x.shape[-1]
        for i in (0, 1):
            scale = Condition(f, f, 1.0, self.dtype, name=f"scale{i}")(c)
            x = leaky(scale * x + Condition(f, f, 0.0, self.dtype, name=f"shift{i}")(c))
        return x


class UpBlock(nn.Module):
    """Doubling, then [Fuse, conv, Fuse, conv] beside a shortcut: [n, h, w, .] -> [n, 2h, 2w, features].

    What works pixel by pixel, the first Fuse and the shortcut, comes before the doubling here: the same numbers for a
    quarter of the work.
    """

    features: int
    dtype: DType = None

    @nn.compact
    def __call__(self, x, c):
        h = Fuse(self.dtype, name="fuse0")(x, c)
        h = UpConv(self.features, self.dtype, plain=True, name="conv0")(h)
        h = Fuse(self.dtype, name="fuse1")(h, c)
        h = conv(self.features, 3, self.features, self.dtype, "conv1")(h)
        if x.shape[-1] != self.features:
            x = conv(self.features, 1, x.shape[-1], self.dtype, "shortcut")(x)
        return double(x) + h


class Generator(nn.Module):
    """DF-GAN's generator: no normalisation, the text enters every block beside the noise.

    Tao et al. 2022, arXiv 2008.05865. Width 32 as published.

    width: channels at the picture's own size; eight times as many at 4 x 4. sizes: the side of the picture, 4 * 2^k, in
        a tuple of one, as generators of several sizes have more. dtype: compute type, parameters stay float32.
    z: noise [n, zd]; sentence: [n, d]. words, valid, eps, train are read by other generators and ignored here.
    Returns ((image,),): image [n, s, s, 3] in [-1, 1], float32 or wider.
    Raises ValueError: several sizes, or one that is not 4 * 2^k.
    """

    width: int = 32
    sizes: tuple[int, ...] = (256,)
    dtype: DType = None

    @nn.compact
    def __call__(self, z, sentence, words=None, valid=None, eps=None, *, train: bool = False):
        first, *later = reversed(widths(only(self.sizes), self.width, 8))
        c = jnp.concatenate([z.astype(sentence.dtype), sentence], axis=-1)
        h = dense(16 * first, z.shape[-1], self.dtype, "start")(z).reshape(-1, 4, 4, first)
        for i, features in enumerate(later):
            h = UpBlock(features, self.dtype, name=f"block{i}")(h, c)
        return ((picture(conv(3, 3, self.width, self.dtype, "image")(leaky(h))),),)


class Down(nn.Module):
    """Residual block that halves the picture: mean of 2 x 2 + gamma * [conv 4/2, conv 3], gamma from 0."""

    features: int
    dtype: DType = None

    @nn.compact
    def __call__(self, x):
        c = x.shape[-1]
        h = leaky(conv(self.features, 4, c, self.dtype, "conv0", stride=2, bias=False)(x))
        h = leaky(conv(self.features, 3, self.features, self.dtype, "conv1", bias=False)(h))
        x = halve(x)  # before the shortcut: both are linear
        if c != self.features:
            x = conv(self.features, 1, c, self.dtype, "shortcut")(x)
        return x + self.param("gamma", nn.initializers.zeros, (), jnp.float32).astype(h.dtype) * h


class Head(nn.Module):
    """Features [n, 4, 4, f] and sentence [n, d] to one logit each, [n], float32 or wider."""

    features: int
    dtype: DType = None

    @nn.compact
    def __call__(self, h, sentence):
        tiled = jnp.broadcast_to(sentence[:, None, None].astype(h.dtype), (*h.shape[:3], sentence.shape[-1]))
        h = jnp.concatenate([h, tiled], axis=-1)
        h = leaky(conv(self.features, 3, h.shape[-1], self.dtype, "joint", bias=False)(h))
        draw = init.uniform((16 * self.features) ** -0.5)
        out = nn.DenseGeneral(1, axis=(1, 2, 3), use_bias=False, kernel_init=draw, dtype=self.dtype, name="logit")(h)[..., 0]
        return out.astype(jnp.promote_types(out.dtype, jnp.float32))


class Discriminator(nn.Module):
    """DF-GAN's discriminator: picture -> 4 x 4 features -> one logit with the sentence. No normalisation.

    Tao et al. 2022, arXiv 2008.05865 (one-way output). Width 32 as published.

    size: side of the picture, 4 * 2^k. width: channels at that size, doubled at each halving up to most * width.
    image: [n, size, size, 3] in [-1, 1]; sentence: [n, d].
    Returns (features [n, 4, 4, f], logits [n]); logits are float32 or wider.
    Raises ValueError: a size that is not 4 * 2^k.
    Differs from: the published code, which also holds the weights of shortcuts that it never uses, where a block keeps
    its channels.
    """

    size: int
    width: int = 32
    most: int = 8
    dtype: DType = None

    def setup(self):
        channels = widths(self.size, self.width, self.most)
        self.first = conv(self.width, 3, 3, self.dtype, "first")
        self.blocks = [Down(c, self.dtype, name=f"block{i}") for i, c in enumerate(channels[1:])]
        self.head = Head(2 * self.width, self.dtype, name="head")

    def code(self, image):
        """Features [n, 4, 4, f] of the picture."""
        h = self.first(image)
        for block in self.blocks:
            h = block(h)
        return h

    def cond(self, h, sentence):
        """Logits [n] of features and sentence together."""
        return self.head(h, sentence)

    def __call__(self, image, sentence):
        h = self.code(image)
        return h, self.cond(h, sentence)
