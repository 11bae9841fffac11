"""Pretrained networks as the encoders that matching trains: two new linear layers on what a fixed trunk says."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from supcon_jax.nets import clip, init
from supcon_jax.nets.bert import Bert
from supcon_jax.nets.blocks import DType
from supcon_jax.nets.efficientnet import EfficientNetLite0
from supcon_jax.nets.resnet import ResNet
from supcon_jax.ops import resize

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's channels in [0, 1], as torchvision has it


class ImageEncoder(nn.Module):
    """Regions and one code of a picture from a pretrained network, in the space of words and sentences.

    The two linear layers of DAMSM's image encoder, Xu et al. 2018, arXiv 1711.10485, section 3.2, on another trunk.

    trunk: EfficientNet-Lite0 or a ResNet (regions: its last map of a sixteenth of the size; code: the mean of its last one),
    or an image tower of CLIP (its tokens without the class, or its last map; its code). dim: length of regions and code.
    size: side to which pictures are resized (bilinear). frozen: as in nets.inception.ImageEncoder.
    image: [n, h, w, 3] in [-1, 1].
    Returns (regions [n, r, dim] in row order, code [n, dim]), float32 or wider.
    """

    trunk: nn.Module
    dim: int
    size: int
    frozen: bool = True
    dtype: DType = None

    @nn.compact
    def __call__(self, image, *, train: bool = False):
        x, train = (resize.bilinear(image, (self.size, self.size)) + 1) / 2, train and not self.frozen
        if isinstance(self.trunk, EfficientNetLite0):
            taps = self.trunk(255 * x, train=train)
            local, pooled = taps["112"], taps["1280"]
        elif isinstance(self.trunk, ResNet):
            taps = self.trunk(imagenet(x), train=train)
            local, pooled = taps["layer3"], taps["pooled"]
        else:
            local, pooled = self.trunk(clip.standardise(x), train)
            local = local[:, 1:] if isinstance(self.trunk, clip.ImageTransformer) else local
        if self.frozen:
            local, pooled = jax.lax.stop_gradient((local, pooled))
        local = local.reshape(len(image), -1, local.shape[-1])
        return adapted(local, pooled, self.dim, ("regions", "code"), self.dtype)


class TextEncoder(nn.Module):
    """Words and one sentence code of a caption from a pretrained network, in the space of regions and picture codes.

    The counterpart of nets.text.TextEncoder. trunk: BERT, or the text tower of CLIP. width: length of words and sentence.
    frozen: the trunk's output is a constant: only the two linear layers learn.
    text: i32[n, t], t of the trunk's `length` at most; text_len: i32[n].
    Returns (words [n, t, width], zero past text_len, sentence [n, width]), float32 or wider.
    """

    trunk: nn.Module
    width: int
    frozen: bool = True
    dtype: DType = None

    @nn.compact
    def __call__(self, text, text_len, *, train: bool = False):
        words, sentence = self.trunk(text, text_len) if isinstance(self.trunk, Bert) else self.trunk(text)
        if self.frozen:
            words, sentence = jax.lax.stop_gradient((words, sentence))
        words, sentence = adapted(words, sentence, self.width, ("words", "sentence"), self.dtype)
        inside = jnp.arange(text.shape[1])[None] < text_len[:, None]
        return jnp.where(inside[:, :, None], words, 0), sentence


def imagenet(x):
    """Pictures in [0, 1] less the mean of ImageNet's channels, over their deviation."""
    mean, deviation = (jnp.asarray(value, x.dtype).reshape(1, 1, 1, 3) for value in (MEAN, DEVIATION))
    return (x - mean) / deviation


def adapted(local, pooled, width: int, names, dtype: DType):
    """Both through a linear layer of their own, in float32 or wider; that of `local` has no bias."""
    wide, head = jnp.promote_types(pooled.dtype, jnp.float32), init.lecun
    local = nn.Dense(width, use_bias=False, kernel_init=head, dtype=dtype, name=names[0])(local)
    pooled = nn.Dense(width, kernel_init=head, dtype=dtype, name=names[1])(pooled)
    return local.astype(wide), pooled.astype(wide)


def effnet_lite0(dim: int, size: int = 96, frozen: bool = True, dtype: DType = None) -> ImageEncoder:
    """Image encoder on EfficientNet-Lite0; a size of 32 and more works."""
    return ImageEncoder(EfficientNetLite0(0, dtype), dim, size, frozen, dtype)


def resnet(dim: int, size: int = 224, depth: int = 50, width: float = 1.0, small: bool = False, frozen: bool = True,
           dtype: DType = None) -> ImageEncoder:  # fmt: skip
    """Image encoder on a ResNet; `small`: with the stem of small pictures."""
    return ImageEncoder(ResNet(depth, width, small, dtype=dtype), dim, size, frozen, dtype)


def clip_image(dim: int, trunk: Mapping, frozen: bool = True, dtype: DType = None) -> ImageEncoder:
    """Image encoder on CLIP's tower with these fields; pictures are resized to its side."""
    return ImageEncoder(clip.image_tower(trunk, dtype), dim, trunk["side"], frozen, dtype)


def bert(width: int, trunk: Mapping, frozen: bool = True, dtype: DType = None) -> TextEncoder:
    """Text encoder on BERT with these fields."""
    return TextEncoder(Bert(**trunk, dtype=dtype), width, frozen, dtype)


def clip_text(width: int, trunk: Mapping, frozen: bool = True, dtype: DType = None) -> TextEncoder:
    """Text encoder on CLIP's tower with these fields."""
    return TextEncoder(clip.TextTransformer(**trunk, dtype=dtype), width, frozen, dtype)
