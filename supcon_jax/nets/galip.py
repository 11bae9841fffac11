"""GALIP: a generator and a discriminator of one size around a frozen CLIP."""

import math
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from supcon_jax.nets import init
from supcon_jax.nets.blocks import DType, UpConv, conv, dense, double, leaky
from supcon_jax.nets.clip import standardise
from supcon_jax.nets.dfgan import Fuse, only
from supcon_jax.ops.resize import nearest

TAPS = (1, 4, 8)  # blocks of CLIP, counted from 0, whose outputs the discriminator reads
PROMPTED = range(1, 9)  # blocks of CLIP that see a prompt in the generator
SHARE = 0.1  # of CLIP's map in what the generator goes on with


def sides(size: int) -> list[int]:
    """Sides of the picture after each block: 8, 16, ... while they are below `size`, which comes last."""
    return [4 * 2 ** (i + 1) for i in range(math.ceil(math.log2(size / 4)) - 1)] + [size]


def preprocess(image, side: int, rule: str = "correct"):
    """Pictures in [-1, 1] of any size -> what CLIP's image tower takes, [n, side, side, 3], nearest neighbours.

    rule: "correct" moves them to [0, 1] before CLIP's mean and deviation; "compat" to [0.5, 1], as the published code
    does, which moves them twice: its released weights and its CLIP scores expect that.
    Raises ValueError: another rule.
    """
    if rule not in ("correct", "compat"):
        raise ValueError(f"clip_preproc must be correct or compat, not {rule}")
    image = 0.5 * nearest(image, (side, side)) + 0.5
    return standardise(0.5 * image + 0.5 if rule == "compat" else image)


class BridgeBlock(nn.Module):
    """x + fuse(conv(fuse(conv(x)))) with fewer channels inside: [n, h, w, f] as it was."""

    inner: int
    dtype: DType = None

    @nn.compact
    def __call__(self, x, c):
        f = x.shape[-1]
        h = conv(self.inner, 3, f, self.dtype, "conv0")(x)
        h = Fuse(self.dtype, name="fuse0")(h, c)
        h = conv(f, 3, self.inner, self.dtype, "conv1")(h)
        return x + Fuse(self.dtype, name="fuse1")(h, c)


class GrowBlock(nn.Module):
    """Nearest-neighbour resize, then [Fuse, conv, Fuse, conv] beside a shortcut: [n, h, w, .] -> [n, side, side, f].

    What works pixel by pixel, the first Fuse and the shortcut, comes before the resize here: the same numbers for less.
    """

    features: int
    side: int
    dtype: DType = None

    @nn.compact
    def __call__(self, x, c):
        f, doubled = x.shape[-1], self.side == 2 * x.shape[1]
        grow = double if doubled else lambda a: nearest(a, (self.side, self.side))
        h = Fuse(self.dtype, name="fuse0")(x, c)
        if doubled:
            h = UpConv(self.features, self.dtype, plain=True, name="conv0")(h)
        else:
            h = conv(self.features, 3, f, self.dtype, "conv0")(grow(h))
        h = Fuse(self.dtype, name="fuse1")(h, c)
        h = conv(self.features, 3, self.features, self.dtype, "conv1")(h)
        if f != self.features:
            x = conv(self.features, 1, f, self.dtype, "shortcut")(x)
        return grow(x) + h


class Generator(nn.Module):
    """GALIP's generator: noise and text to a map that stands for CLIP's patches, through CLIP, and up to the picture.

        F = bridge(z, s),   E = CLIP blocks(F, prompts(z, s)),   x = grow(conv(F + 0.1 E), z, s)

    Tao et al. 2023, arXiv 2301.12959.

    width: channels of the last block, eight times as many in the first. sizes: the side of the picture, in a tuple of
        one. bridge, inner: channels of the bridge and inside its blocks; depth: its blocks. grid, clip: side of CLIP's
        grid of patches and width of its tokens (7 and 768 for ViT-B/32). dtype: compute type, parameters stay float32.
    z: noise [n, zd]; sentence: [n, d], CLIP's text code, not of unit length. through: (patches [n, grid^2, clip],
        {block: prompt [n, clip]}) -> [n, grid^2, clip], the frozen tower (clip.ImageTransformer.through).
    Returns ((image,),): image [n, s, s, 3], float32 or wider, not bounded: clip to [-1, 1] when showing.
    """

    width: int = 64
    sizes: tuple[int, ...] = (224,)
    bridge: int = 64
    inner: int = 32
    depth: int = 4
    grid: int = 7
    clip: int = 768
    dtype: DType = None

    @nn.compact
    def __call__(self, z, sentence, through: Callable, *, train: bool = False):
        c = jnp.concatenate([z.astype(sentence.dtype), sentence], axis=-1)
        h = dense(self.grid**2 * self.bridge, z.shape[-1], self.dtype, "start")(z)
        h = self.join(h.reshape(-1, self.grid, self.grid, self.bridge), c, through)
        steps = sides(only(self.sizes))
        for i, side in enumerate(steps):
            features = self.width * min(2 ** (len(steps) - 1 - i), 8)
            h = GrowBlock(features, side, self.dtype, name=f"block{i}")(h, c)
        h = conv(3, 3, self.width, self.dtype, "image")(leaky(h))
        return ((h.astype(jnp.promote_types(h.dtype, jnp.float32)),),)

    def join(self, h, c, through):
        """The bridge and what CLIP makes of it, [n, grid, grid, 8 * width]."""
        n = len(h)
        prompts = dense(len(PROMPTED) * self.clip, c.shape[-1], self.dtype, "prompts")(c)
        prompts = prompts.reshape(n, len(PROMPTED), self.clip)
        for i in range(self.depth):
            h = BridgeBlock(self.inner, self.dtype, name=f"bridge{i}")(h, c)
        h = conv(self.clip, 5, self.bridge, self.dtype, "patches")(h)
        seen = through(h.reshape(n, -1, self.clip), {block: prompts[:, i] for i, block in enumerate(PROMPTED)})
        h = h + SHARE * seen.astype(h.dtype).reshape(h.shape)
        first = self.width * min(2 ** len(sides(only(self.sizes))), 8)
        return conv(first, 5, self.clip, self.dtype, "join")(h)


class Judge(nn.Module):
    """x + gamma * [conv 3, conv 3] + beta * more, gamma and beta from 0; the shortcut is 1 x 1 where channels change."""

    features: int
    dtype: DType = None

    @nn.compact
    def __call__(self, x, more=None):
        f = x.shape[-1]
        h = leaky(conv(self.features, 3, f, self.dtype, "conv0", bias=False)(x))
        h = leaky(conv(self.features, 3, self.features, self.dtype, "conv1", bias=False)(h))
        if f != self.features:
            x = conv(self.features, 1, f, self.dtype, "shortcut")(x)
        x = x + self.share("gamma", h)
        return x if more is None else x + self.share("beta", more.astype(h.dtype))

    def share(self, name, h):
        return self.param(name, nn.initializers.zeros, (), jnp.float32).astype(h.dtype) * h


class Head(nn.Module):
    """Features [n, g, g, f] and sentence [n, d] to one logit each, [n], float32 or wider: two kernels cover the map."""

    features: int
    dtype: DType = None

    @nn.compact
    def __call__(self, h, sentence):
        g = h.shape[1]
        side = (g + 1) // 2
        tiled = jnp.broadcast_to(sentence[:, None, None].astype(h.dtype), (*h.shape[:3], sentence.shape[-1]))
        h = jnp.concatenate([h, tiled], axis=-1)
        draw = init.uniform((side**2 * h.shape[-1]) ** -0.5)
        h = leaky(nn.Conv(self.features, (side, side), padding="VALID", use_bias=False, kernel_init=draw,
                          dtype=self.dtype, name="joint")(h))
        draw = init.uniform(((g - side + 1) ** 2 * self.features) ** -0.5)
        out = nn.DenseGeneral(1, axis=(1, 2, 3), use_bias=False, kernel_init=draw, dtype=self.dtype, name="logit")(h)[..., 0]
        return out.astype(jnp.promote_types(out.dtype, jnp.float32))


class Discriminator(nn.Module):
    """GALIP's discriminator: outputs of three blocks of a frozen CLIP -> one map -> one logit with the sentence.

    Tao et al. 2023, arXiv 2301.12959.

    features: channels of the map; joint: channels of the head; grid: side of CLIP's grid of patches.
    taps: [n, k, p, w], CLIP's patch tokens after the k blocks TAPS, in row order; sentence: [n, d].
    Returns (features [n, grid, grid, features], logits [n]); logits are float32 or wider.
    Differs from the published code, which also holds the weights of two shortcuts that it never uses.
    """

    features: int = 512
    joint: int = 128
    grid: int = 7
    dtype: DType = None

    def setup(self):
        self.head = Head(self.joint, self.dtype, name="head")
        self.last = Judge(self.features, self.dtype, name="last")

    @nn.compact
    def code(self, taps):
        """Features [n, grid, grid, features] of CLIP's tokens [n, k, p, w]."""
        maps = taps.reshape(*taps.shape[:2], self.grid, self.grid, taps.shape[-1])
        h = maps[:, 0]
        for i in range(1, maps.shape[1]):
            h = Judge(h.shape[-1], self.dtype, name=f"block{i - 1}")(h, maps[:, i])
        return self.last(h)

    def cond(self, h, sentence):
        """Logits [n] of features and sentence together."""
        return self.head(h, sentence)

    def __call__(self, taps, sentence):
        h = self.code(taps)
        return h, self.cond(h, sentence)
