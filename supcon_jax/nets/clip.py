"""CLIP: an image tower (vision transformer or modified ResNet) and a causal text tower into one space."""

import math

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from supcon_jax.nets import init
from supcon_jax.nets.blocks import DType
from supcon_jax.nets.norm import BatchNorm
from supcon_jax.nets.vit import Attention, Block, ViT, layer_norm

MEAN = (0.48145466, 0.4578275, 0.40821073)  # of CLIP's training pictures in [0, 1], by channel
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
START_SCALE = math.log(1 / 0.07)
EPS = 1e-5


def standardise(image):
    """Pictures in [0, 1] -> what CLIP's image towers take: each channel minus its mean, over its deviation."""
    # float32 constants, as in the code that all weights were trained with, also where the pictures are float64
    mean, deviation = (np.float32(values).reshape(1, 1, 1, 3).astype(image.dtype) for values in (MEAN, DEVIATION))
    return (image - mean) / deviation


class ImageTransformer(nn.Module):
    """CLIP's vision transformer tower. Radford et al. 2021, arXiv 2103.00020.

    embed: length of the code; the other fields are those of vit.ViT. act: "quick_gelu" for OpenAI's weights, "gelu"
    for those of open_clip that do not say quickgelu: the wrong one still runs, with a silent loss of accuracy.
    image: [n, side, side, 3], standardised.
    Returns (tokens [n, 1 + p, width] before the last norm, class token first; code [n, embed], not of unit length).
    """

    embed: int
    side: int
    patch: int
    width: int
    depth: int
    heads: int
    hidden: int = 0
    act: str = "quick_gelu"
    dtype: DType = None

    def setup(self):
        self.trunk = ViT(self.side, self.patch, self.width, self.depth, self.heads, self.hidden, self.act, EPS,
                         patch_bias=False, first_norm=True, dtype=self.dtype, name="trunk")
        self.project = nn.Dense(self.embed, use_bias=False, kernel_init=init.normal(self.width**-0.5),
                                dtype=self.dtype, name="project")

    def __call__(self, image, train: bool = False):
        tokens, after = self.trunk(image)
        return tokens, self.project(after[:, 0])

    def features(self, image, keep):
        """Outputs of some blocks, counted from 0: (tuple of tokens [n, 1 + p, width], code [n, embed])."""
        tokens, kept = self.trunk.run(self.trunk.start(self.trunk.patches(image)), keep=keep)
        return kept, self.project(self.trunk.finish(tokens))

    def through(self, patches, prompts=None):
        """Vectors [n, p, width] in the place of patches, and prompts (see ViT.run) -> the last block's [n, p, width]."""
        return self.trunk.run(self.trunk.start(patches), prompts)[0][:, 1:]


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3, 1 x 1 with the stride as an average over windows before the last one (no strided convolution)."""

    features: int
    stride: int
    dtype: DType = None

    @nn.compact
    def __call__(self, x, train: bool = False):
        h = nn.relu(convolved(self, self.features, 1, 1, x, 0, train))
        h = nn.relu(convolved(self, self.features, 3, 1, h, 1, train))
        h = convolved(self, 4 * self.features, 1, 1, shrink(h, self.stride), 2, train)
        if self.stride > 1 or x.shape[-1] != 4 * self.features:
            x = convolved(self, 4 * self.features, 1, 1, shrink(x, self.stride), "_short", train)
        return nn.relu(h + x)


def convolved(module, features, size, stride, x, i, train):
    """Convolution and batch norm, named conv{i} and norm{i} in the module that asks for them."""
    h = nn.Conv(features, (size, size), stride, padding=size // 2, use_bias=False, kernel_init=init.he,
                dtype=module.dtype, name=f"conv{i}")(x)
    return BatchNorm(name=f"norm{i}")(h, train=train)


def shrink(x, stride):
    return nn.avg_pool(x, (stride, stride), (stride, stride)) if stride > 1 else x


class ImageResNet(nn.Module):
    """CLIP's modified ResNet tower: a stem of three convolutions, averages where others stride, attention pooling.

    Radford et al. 2021, arXiv 2103.00020.

    embed: length of the code; side: of the pictures, a multiple of 32; width: of the stem (64 for RN50, the last map
    has 32 times as many channels); depths: bottlenecks in each of the four stages; heads: of the pooling, width // 2
    if 0. image: [n, side, side, 3], standardised.
    Returns (regions [n, (side / 32)^2, 32 * width] in row order, code [n, embed], not of unit length).
    Differs from the published code: the last scale of each bottleneck starts at 1, not at 0.
    """

    embed: int
    side: int
    width: int
    depths: tuple[int, ...]
    heads: int = 0
    dtype: DType = None

    @nn.compact
    def __call__(self, image, train: bool = False):
        if image.shape[1:3] != (self.side, self.side):
            raise ValueError(f"pictures of {image.shape[1:3]} pixels where the network has {self.side} x {self.side}")
        h = nn.relu(convolved(self, self.width // 2, 3, 2, image, 0, train))
        h = nn.relu(convolved(self, self.width // 2, 3, 1, h, 1, train))
        h = shrink(nn.relu(convolved(self, self.width, 3, 1, h, 2, train)), 2)
        for i, depth in enumerate(self.depths):
            for j in range(depth):
                stride = 2 if i and not j else 1
                h = Bottleneck(self.width * 2**i, stride, self.dtype, name=f"stage{i}_block{j}")(h, train)
        regions = h.reshape(len(h), -1, h.shape[-1])
        return regions, self.pool(regions)

    def pool(self, regions):
        """The mean of all regions asks, itself and the regions answer."""
        d = regions.shape[-1]
        tokens = jnp.concatenate([regions.mean(axis=1, keepdims=True), regions], axis=1)
        positions = self.param("positions", init.normal(d**-0.5), tokens.shape[1:], jnp.float32)
        tokens = tokens + positions[None].astype(tokens.dtype)
        pool = Attention(self.heads or self.width // 2, self.embed, 0.0, self.dtype, name="pool")
        return pool(tokens, query=tokens[:, :1])[:, 0]


class TextTransformer(nn.Module):
    """CLIP's text tower: a causal transformer whose code is read at the end token.

    Radford et al. 2021, arXiv 2103.00020.

    vocab: number of tokens; length: longest text in tokens; end: id of the end token, of which the first in a text
    counts; None reads at the largest id, as OpenAI's code, whose end token is the last of the vocabulary.
    text: i32[n, t], t <= length, padded with 0 behind the end token; a text without an end token is read at its first.
    Returns (words [n, t, width] after the last norm, code [n, embed], not of unit length). What stands behind the end
    token cannot reach the code, so there is no mask for padding. Raises ValueError: a text longer than `length`.
    """

    embed: int
    vocab: int
    length: int
    width: int
    depth: int
    heads: int
    hidden: int = 0
    act: str = "quick_gelu"
    end: int | None = None
    dtype: DType = None

    @nn.compact
    def __call__(self, text, train: bool = False):
        t = text.shape[1]
        if t > self.length:
            raise ValueError(f"texts of {t} tokens where the network has {self.length} positions")
        h = nn.Embed(self.vocab, self.width, embedding_init=init.normal(0.02), dtype=self.dtype, name="embed")(text)
        positions = self.param("positions", init.normal(0.01), (self.length, self.width), jnp.float32)
        h = h + positions[None, :t].astype(h.dtype)
        causal = np.tril(np.ones((t, t), bool))
        for i in range(self.depth):
            h = Block(self.heads, self.hidden or 4 * self.width, self.depth, self.act, EPS, self.dtype,
                      name=f"block{i}")(h, causal)
        words = layer_norm(EPS, self.dtype, "last_norm")(h)
        place = jnp.argmax(text if self.end is None else text == self.end, axis=1)
        code = jnp.take_along_axis(words, place[:, None, None], axis=1)[:, 0]
        return words, nn.Dense(self.embed, use_bias=False, kernel_init=init.normal(self.width**-0.5),
                               dtype=self.dtype, name="project")(code)


class CLIP(nn.Module):
    """Both towers and the learned scale of their products.

    Radford et al. 2021, arXiv 2103.00020.

    image: [n, side, side, 3], standardised; text: i32[n, t].
    Returns (image tower's pair, text tower's pair, scale f32[] = exp(log_scale)); codes are not of unit length.
    """

    image: ImageTransformer | ImageResNet
    text: TextTransformer

    @nn.compact
    def __call__(self, image, text, train: bool = False):
        log_scale = self.param("log_scale", init.normal(0.0, START_SCALE), (), jnp.float32)
        return self.image(image, train), self.text(text, train), jnp.exp(log_scale)


def made(image, text, dtype: DType = None) -> CLIP:
    """CLIP from the fields of its towers as plain mappings."""
    return CLIP(image_tower(image, dtype), TextTransformer(**text, dtype=dtype))


def image_tower(fields, dtype: DType = None) -> ImageTransformer | ImageResNet:
    """An image tower from its fields; one without `patch` is a ResNet."""
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    return (ImageTransformer if "patch" in fields else ImageResNet)(**fields, dtype=dtype)


# embed, side, then width, depth, heads, patch of the image tower (width and depths of a ResNet), then of the text tower
MODELS = {
    "RN50": (1024, 224, (64, (3, 4, 6, 3)), (512, 12, 8)),
    "RN101": (512, 224, (64, (3, 4, 23, 3)), (512, 12, 8)),
    "RN50x4": (640, 288, (80, (4, 6, 10, 6)), (640, 12, 10)),
    "RN50x16": (768, 384, (96, (6, 8, 18, 8)), (768, 12, 12)),
    "RN50x64": (1024, 448, (128, (3, 15, 36, 10)), (1024, 12, 16)),
    "ViT-B-32": (512, 224, (768, 12, 12, 32), (512, 12, 8)),
    "ViT-B-16": (512, 224, (768, 12, 12, 16), (512, 12, 8)),
    "ViT-L-14": (768, 224, (1024, 24, 16, 14), (768, 12, 12)),
    "ViT-L-14-336": (768, 336, (1024, 24, 16, 14), (768, 12, 12)),
}


def published(name: str, act: str = "quick_gelu", dtype: DType = None) -> CLIP:
    """One of OpenAI's networks by open_clip's name, such as "ViT-B-32".

    Radford et al. 2021, arXiv 2103.00020. act: see ImageTransformer.
    Raises KeyError: no such name.
    """
    embed, side, image, (width, depth, heads) = MODELS[name]
    if name.startswith("RN"):
        tower = ImageResNet(embed, side, *image, dtype=dtype)
    else:
        w, d, h, patch = image
        tower = ImageTransformer(embed, side, patch, w, d, h, act=act, dtype=dtype)
    return CLIP(tower, TextTransformer(embed, 49408, 77, width, depth, heads, act=act, dtype=dtype))
