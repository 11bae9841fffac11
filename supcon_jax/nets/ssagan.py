"""SSA-GAN: a generator whose batch norms are scaled and shifted by the text where a predicted mask says so."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from supcon_jax.nets import dfgan
from supcon_jax.nets.blocks import DType, conv, dense, double, leaky, picture
from supcon_jax.nets.dfgan import Condition, only, widths
from supcon_jax.nets.norm import BatchNorm
from supcon_jax.ops.resize import bilinear


class Mask(nn.Module):
    """Logits of the mask of a feature map: [n, h, w, .] -> [n, h, w, 1], float32 or wider."""

    width: int
    clamp: bool = False
    dtype: DType = None

    @nn.compact
    def __call__(self, x, *, train: bool):
        h = conv(self.width, 3, x.shape[-1], self.dtype, "conv")(x)
        h = jax.nn.relu(BatchNorm(clamp=self.clamp, name="norm")(h, train=train))
        h = conv(1, 1, self.width, self.dtype, "logit")(h)
        return h.astype(jnp.promote_types(h.dtype, jnp.float32))


class Affine(nn.Module):
    """Semantic-spatial batch norm: y = x' + m * (gamma(s) * x' + beta(s)), x' the normalised x, m the mask.

    Liao et al. 2022, arXiv 2104.00567; gamma and beta begin at 0.
    """

    clamp: bool = False
    dtype: DType = None

    @nn.compact
    def __call__(self, x, sentence, mask, *, train: bool):
        f, hidden = x.shape[-1], sentence.shape[-1]
        x = BatchNorm(affine=False, clamp=self.clamp, name="norm")(x, train=train)
        scale = Condition(f, hidden, 0.0, self.dtype, name="scale")(sentence)
        shift = Condition(f, hidden, 0.0, self.dtype, name="shift")(sentence)
        return x + mask.astype(x.dtype) * (scale * x + shift)


class Block(nn.Module):
    """shortcut + gamma * [affine, ReLU, conv, affine, ReLU, conv], gamma from 0; the size stays."""

    features: int
    clamp: bool = False
    dtype: DType = None

    @nn.compact
    def __call__(self, x, sentence, mask, *, train: bool):
        h, f = x, self.features
        for i in (0, 1):
            h = jax.nn.relu(Affine(self.clamp, self.dtype, name=f"affine{i}")(h, sentence, mask, train=train))
            h = conv(f, 3, h.shape[-1], self.dtype, f"conv{i}")(h)
        if x.shape[-1] != f:
            x = conv(f, 1, x.shape[-1], self.dtype, "shortcut")(x)
        return x + self.param("gamma", nn.initializers.zeros, (), jnp.float32).astype(h.dtype) * h


class Generator(nn.Module):
    """SSA-GAN's generator: each block predicts where the next one listens to the text.

    Liao et al. 2022, arXiv 2104.00567. Width 64 as published.

    width: channels at the picture's own size; eight times as many at 4 x 4. sizes: the side of the picture, 4 * 2^k, in
        a tuple of one. mask_width: channels of the mask predictors.
    norm: "correct", or "compat": as the original trains on several devices (BatchNorm's `clamp`); at evaluation and on
        one device there is no difference.
    z: noise [n, zd]; sentence: [n, d]. words, valid, eps are read by other generators and ignored here.
    Returns ((image,), masks): image [n, s, s, 3] in [-1, 1]; masks, a tuple of [n, h, w] in [0, 1] for each block from
        4 x 4 on; all float32 or wider. A mask grows by bilinear interpolation (corners aligned) before its sigmoid.
    Raises ValueError: several sizes, one that is not 4 * 2^k, or an unknown norm.
    """

    width: int = 64
    sizes: tuple[int, ...] = (256,)
    mask_width: int = 100
    norm: str = "correct"
    dtype: DType = None

    @nn.compact
    def __call__(self, z, sentence, words=None, valid=None, eps=None, *, train: bool = False):
        if self.norm not in ("correct", "compat"):
            raise ValueError(f"norm must be correct or compat, not {self.norm}")
        channels, clamp = widths(only(self.sizes), self.width, 8)[::-1], self.norm == "compat"
        h = dense(16 * channels[0], z.shape[-1], self.dtype, "start")(z).reshape(-1, 4, 4, channels[0])
        masks = []
        for i, features in enumerate(channels):
            logits = Mask(self.mask_width, clamp, self.dtype, name=f"mask{i}")(h, train=train)
            if i:
                h = double(h)
                logits = bilinear(logits, h.shape[1:3], place="corners")
            masks.append(jax.nn.sigmoid(logits))
            h = Block(features, clamp, self.dtype, name=f"block{i}")(h, sentence, masks[-1], train=train)
        h = leaky(BatchNorm(clamp=clamp, name="norm")(h, train=train))
        image = picture(conv(3, 3, self.width, self.dtype, "image")(h))
        return (image,), tuple(mask[..., 0] for mask in masks)


class Discriminator(dfgan.Discriminator):
    """DF-GAN's discriminator with channels up to sixteen times the first; width 64 as published."""

    width: int = 64
    most: int = 16
