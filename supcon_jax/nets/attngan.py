"""AttnGAN: a generator of growing pictures that attends to words, and one discriminator for each size."""

import math

import flax.linen as nn
import jax.numpy as jnp

from supcon_jax.nets import init
from supcon_jax.nets.blocks import JITTER, DType, Residual, Up, attend, conv3, down4, glu, leaky
from supcon_jax.nets.norm import BatchNorm


class Condition(nn.Module):
    """Mean and log variance of the condition, from the sentence: [n, d] -> two of [n, features], float32.

    Zhang et al. 2017, arXiv 1612.03242, section 3.2 (conditioning augmentation)."""

    features: int

    @nn.compact
    def __call__(self, sentence):
        wide = jnp.promote_types(sentence.dtype, jnp.float32)
        h = nn.Dense(4 * self.features, kernel_init=init.orthogonal, name="dense")(sentence.astype(wide))
        return jnp.split(glu(h), 2, axis=-1)


class Start(nn.Module):
    """Vector to a 4 x 4 picture: [n, d] -> [n, 4, 4, features]. The batch norm is per position and channel."""

    features: int
    dtype: DType = None

    @nn.compact
    def __call__(self, x, *, train: bool):
        h = nn.Dense(16 * 2 * self.features, use_bias=False, kernel_init=init.orthogonal, dtype=self.dtype,
                     name="dense")(x)
        h = BatchNorm(jitter=JITTER, name="norm")(h, train=train)
        return glu(h.reshape(-1, 4, 4, 2 * self.features))


class Stage(nn.Module):
    """One later stage: attend to the words, [h, context], residual blocks, double the size."""

    residual: int
    mask: str
    dtype: DType = None

    @nn.compact
    def __call__(self, h, words, valid, *, train: bool):
        c = h.shape[-1]
        words = nn.Dense(c, use_bias=False, kernel_init=init.orthogonal, dtype=self.dtype, name="words")(words)
        context, attention = attend(h, words, valid, self.mask)
        h = jnp.concatenate([h, context], axis=-1)
        for i in range(self.residual):
            h = Residual(self.dtype, name=f"residual{i}")(h, train=train)
        return Up(c, self.dtype, name="up")(h, train=train), attention


class Generator(nn.Module):
    """AttnGAN's generator.

    Xu et al. 2018, arXiv 1711.10485, section 3.1. Width 32 and 2 residual blocks for CUB, 48 and 3 for COCO.

    width: channels of the pictures' features at every size.
    sizes: side of each picture; the first is 4 * 2^k, each next one is twice the one before. (8, 16, 32) is for tests
        and small data, the paper has (64, 128, 256).
    cond: length of the condition; mask: see `blocks.attend`; dtype: compute type, parameters stay float32.
    z: noise [n, zd]; sentence: [n, d]; words: [n, t, d]; valid: bool[n, t], True where a word stands; eps: [n, cond],
        noise of the condition c = mu + eps * exp(logvar / 2).
    Returns (images: tuple of [n, s, s, 3] in [-1, 1], mu, logvar [n, cond], attention: tuple of [n, h, w, t], one for
        each size but the first), all float32 or wider.
    Raises ValueError: sizes that do not double, or an unknown mask rule.
    """

    width: int = 32
    sizes: tuple[int, ...] = (64, 128, 256)
    residual: int = 2
    cond: int = 100
    mask: str = "correct"
    dtype: DType = None

    @nn.compact
    def __call__(self, z, sentence, words, valid, eps, *, train: bool = False):
        ups = int(math.log2(self.sizes[0] / 4))
        if tuple(self.sizes) != tuple(4 * 2 ** (ups + i) for i in range(len(self.sizes))):
            raise ValueError(f"sizes must be 4 * 2^k, each twice the one before, not {self.sizes}")
        if self.mask not in ("correct", "compat"):
            raise ValueError(f"mask must be correct or compat, not {self.mask}")
        mu, logvar = Condition(self.cond, name="condition")(sentence)
        c = mu + eps * jnp.exp(0.5 * logvar)
        h = jnp.concatenate([c, z.astype(c.dtype)], axis=-1)
        h = Start(self.width * 2**ups, self.dtype, name="start")(h, train=train)
        for i in range(ups):
            h = Up(self.width * 2 ** (ups - 1 - i), self.dtype, name=f"up{i}")(h, train=train)
        images, attention = [self.paint(h, 0)], []
        for i in range(1, len(self.sizes)):
            h, a = self.stage(f"stage{i}")(h, words, valid, train=train)
            images.append(self.paint(h, i))
            attention.append(a)
        return tuple(images), mu, logvar, tuple(attention)

    def stage(self, name: str):
        """A later stage: (h, words, valid, train) -> (h of twice the size, attention)."""
        return Stage(self.residual, self.mask, self.dtype, name=name)

    def paint(self, h, i: int):
        y = conv3(3, self.dtype, f"image{i}")(h)
        return jnp.tanh(y.astype(jnp.promote_types(y.dtype, jnp.float32)))


class Discriminator(nn.Module):
    """AttnGAN's discriminator of one size: picture -> 4 x 4 features -> two logits, with and without the sentence.

    Xu et al. 2018, arXiv 1711.10485, section 3.1; sizes 64, 128 and 256 are the published networks (width 64 for CUB,
    96 for COCO). Halved log2(size / 4) times; channels double at each, from `width` on where there are four halvings
    or more, and end at 8 * width; below 64 the first convolution is that much wider.

    image: [n, size, size, 3] in [-1, 1]; sentence: [n, d].
    Returns (features [n, 4, 4, 8 * width], conditional logits [n], unconditional logits [n]); logits are float32.
    Differs from the published code: logits, where that returns probabilities.
    """

    size: int
    width: int = 64
    dtype: DType = None

    def setup(self):
        downs = int(math.log2(self.size / 4))
        if self.size != 4 * 2**downs or downs < 1:
            raise ValueError(f"size must be 4 * 2^k with k > 0, not {self.size}")
        first = self.width * 2 ** max(0, 4 - downs)
        widths = [first * 2**i for i in range(downs)]
        norms = ["", *(f"down_norm{i}" for i in range(1, downs))]
        self.down = [self.layer(w, f"down{i}", norms[i], halve=True) for i, w in enumerate(widths)]
        squash = [widths[-1] // 2 ** (i + 1) for i in range(max(0, downs - 4))]
        self.squash = [self.layer(w, f"squash{i}", f"squash_norm{i}") for i, w in enumerate(squash)]
        self.joint = self.layer(8 * self.width, "joint", "joint_norm")
        self.cond_logit = self.logit("cond_logit")
        self.uncond_logit = self.logit("uncond_logit")

    def layer(self, features: int, name: str, norm: str, halve: bool = False):
        """(h, train) -> h: convolution, batch norm if it has a name, leaky ReLU."""
        conv = (down4 if halve else conv3)(features, self.dtype, name)
        if not norm:
            return lambda h, train: leaky(conv(h))
        norm = BatchNorm(jitter=JITTER, name=norm)
        return lambda h, train: leaky(norm(conv(h), train=train))

    def logit(self, name: str):
        """A 4 x 4 convolution that covers the whole map, as one inner product."""
        return nn.DenseGeneral(1, axis=(-3, -2, -1), kernel_init=over_map, dtype=self.dtype, name=name)

    def code(self, image, train: bool = False):
        """Features [n, 4, 4, 8 * width] of the picture."""
        h = image
        for layer in (*self.down, *self.squash):
            h = layer(h, train)
        return h

    def cond(self, h, sentence, train: bool = False):
        """Logits [n] of features and sentence together."""
        tiled = jnp.broadcast_to(sentence[:, None, None, :].astype(h.dtype), (*h.shape[:3], sentence.shape[-1]))
        return widen(self.cond_logit(self.joint(jnp.concatenate([h, tiled], axis=-1), train)))

    def uncond(self, h):
        """Logits [n] of the features alone."""
        return widen(self.uncond_logit(h))

    def __call__(self, image, sentence, train: bool = False):
        h = self.code(image, train)
        return h, self.cond(h, sentence, train), self.uncond(h)


def widen(logit):
    """[n, 1] in the compute type -> [n] in float32 or wider."""
    return logit[..., 0].astype(jnp.promote_types(logit.dtype, jnp.float32))


def over_map(key, shape, dtype=jnp.float32):
    """Orthogonal start of a kernel that covers the whole map: one unit vector."""
    return init.orthogonal(key, (math.prod(shape[:-1]), shape[-1]), dtype).reshape(shape)
