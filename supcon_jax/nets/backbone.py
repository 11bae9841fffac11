"""Encoders of pictures for contrast within one modality: picture -> features, by the names that configs use."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from supcon_jax.nets import init
from supcon_jax.nets.blocks import DType
from supcon_jax.nets.norm import BatchNorm, normaliser
from supcon_jax.nets.resnet import ResNet
from supcon_jax.nets.vit import Block, layer_norm
from supcon_jax.ops.convolve import convolve

STEMS = ("imagenet", "small", "deep")


class Features(nn.Module):
    """The mean over a ResNet's last map: image [n, h, w, 3] -> f32[n, f], or wider."""

    trunk: ResNet

    def __call__(self, image, *, train: bool = False):
        return self.trunk(image, train=train)["pooled"]


class ConvTrunk(nn.Module):
    """A small network for pictures of 28 to 64 pixels: `depth` convolutions with stride 2, norm and ReLU, then the mean.

    width: channels of the first convolution, doubled by each. norm, groups: see nets.resnet.ResNet.
    image: [n, h, w, c]. Returns f32[n, width * 2^(depth - 1)], or wider.
    """

    width: int = 32
    depth: int = 3
    norm: str = "batch"
    groups: int = 1
    dtype: DType = None

    @nn.compact
    def __call__(self, image, *, train: bool = False):
        h = image
        for i in range(self.depth):
            h = nn.Conv(
                self.width * 2**i,
                (3, 3),
                2,
                ((1, 1), (1, 1)),
                use_bias=False,
                kernel_init=init.he,
                dtype=self.dtype,
                conv_general_dilated=convolve,
                name=f"conv{i}",
            )(h)
            h = nn.relu(normaliser(self.norm, f"norm{i}", groups=self.groups)(h, train=train))
        return h.mean((1, 2), dtype=jnp.promote_types(h.dtype, jnp.float32))


class ViTTrunk(nn.Module):
    """MoCo v3's vision transformer: fixed positions, and a projection of patches that stays as it was drawn.

    Chen et al. 2021, arXiv 2104.02057, section 5 and appendix; Dosovitskiy et al. 2021, arXiv 2010.11929.

    patch: pixels on a side; width, depth, heads: ViT-S has 384, 12 and 12 (DeiT's has 6 heads), ViT-B 768, 12 and 12.
    hidden: width inside the mlps, 4 * width if 0.
    stem: "patch", one linear layer; or "conv" (Xiao et al. 2021, arXiv 2106.14881): 3 x 3 convolutions with stride 2, norm
        and ReLU down to the patch, a power of 2, and a 1 x 1 convolution; one block less is usual with it.
    frozen: the linear stem is no parameter: it lies in "batch_stats", so that neither gradient nor weight decay moves it.
    pool: "class", the class token after the last layer norm; "mean", the mean of the patches, without a class token.
    groups: of the BatchNorm in the convolutional stem.
    image: [n, h, w, 3] of any size that is a multiple of patch. Returns f32[n, width], or wider.
    Raises ValueError: a size that patches do not share, a width that is no multiple of 4, an unknown stem or pool.
    """

    patch: int = 16
    width: int = 384
    depth: int = 12
    heads: int = 12
    hidden: int = 0
    stem: str = "patch"
    frozen: bool = True
    pool: str = "class"
    groups: int = 1
    dtype: DType = None

    @nn.compact
    def __call__(self, image, *, train: bool = False):
        self.check(image.shape)
        h = (self.convolutions if self.stem == "conv" else self.patches)(image, train)
        n, rows, columns, _ = h.shape
        h = h + jnp.asarray(positions(rows, columns, self.width), h.dtype)[None]
        h = h.reshape(n, rows * columns, self.width)
        if self.pool == "class":
            token = self.param("class", init.normal(1e-6), (self.width,), jnp.float32).astype(h.dtype)
            h = jnp.concatenate([jnp.broadcast_to(token, (n, 1, self.width)), h], axis=1)
        for i in range(self.depth):
            h = Block(
                self.heads, self.hidden or 4 * self.width, self.depth, eps=1e-6, dtype=self.dtype, xavier=True, name=f"block{i}"
            )(h)
        h = layer_norm(1e-6, self.dtype, "last_norm")(h)
        wide = jnp.promote_types(h.dtype, jnp.float32)
        return h[:, 0].astype(wide) if self.pool == "class" else h.mean(1, dtype=wide)

    def check(self, shape):
        if shape[1] % self.patch or shape[2] % self.patch:
            raise ValueError(f"pictures of {shape[1]} x {shape[2]} pixels cannot be cut into patches of {self.patch}")
        if self.width % 4:
            raise ValueError(f"a width of {self.width} has no room for positions: take a multiple of 4")
        if self.stem not in ("patch", "conv") or self.pool not in ("class", "mean"):
            raise ValueError(f"stem {self.stem!r}, pool {self.pool!r}: use stem patch or conv, pool class or mean")
        if self.stem == "conv" and self.patch & (self.patch - 1):
            raise ValueError(f"a stem of convolutions halves the picture down to the patch: {self.patch} is no power of 2")

    def patches(self, image, train):
        """One linear layer on the values of a patch, [n, rows, columns, width]."""
        n, h, w, c = image.shape
        p = self.patch
        x = image.reshape(n, h // p, p, w // p, p, c).transpose(0, 1, 3, 2, 4, 5).reshape(n, h // p, w // p, p * p * c)
        shape = (p * p * c, self.width)
        if not self.frozen:
            return nn.Dense(self.width, kernel_init=init.xavier, dtype=self.dtype, name="patch")(x)
        kernel = self.variable("batch_stats", "patch", lambda: init.xavier(self.make_rng("params"), shape)).value
        dtype = self.dtype or jnp.promote_types(x.dtype, kernel.dtype)
        return jnp.einsum("nrck,kd->nrcd", x.astype(dtype), jax.lax.stop_gradient(kernel).astype(dtype))

    def convolutions(self, h, train):
        """Halved log2(patch) times, [n, rows, columns, width]."""
        count = int(math.log2(self.patch))
        for i in range(count):
            features = max(1, self.width >> (count - 1 - i))
            h = nn.Conv(
                features,
                (3, 3),
                2,
                ((1, 1), (1, 1)),
                use_bias=False,
                kernel_init=init.he,
                dtype=self.dtype,
                conv_general_dilated=convolve,
                name=f"conv{i}",
            )(h)
            h = nn.relu(BatchNorm(groups=self.groups, name=f"norm{i}")(h, train=train))
        return nn.Conv(self.width, (1, 1), kernel_init=init.lecun, dtype=self.dtype, name="patch")(h)


def positions(rows: int, columns: int, width: int) -> np.ndarray:
    """Fixed positions in two dimensions, f32[rows, columns, width].

        [sin r w_k, cos r w_k, sin c w_k, cos c w_k],   w_k = 10000^(-k / (width / 4)),   k = 0 .. width / 4 - 1

    Vaswani et al. 2017, arXiv 1706.03762, section 3.5, for row r and column c as MoCo v3 has them.
    """
    rate = 10000.0 ** (-np.arange(width // 4) / (width // 4))
    r, c = (np.arange(count)[:, None] * rate[None] for count in (rows, columns))
    waves = [np.concatenate([np.sin(x), np.cos(x)], axis=1) for x in (r, c)]
    r = np.broadcast_to(waves[0][:, None], (rows, columns, width // 2))
    c = np.broadcast_to(waves[1][None], (rows, columns, width // 2))
    return np.concatenate([r, c], axis=2).astype(np.float32)


class LabTrunk(nn.Module):
    """A network for each kind of channels of a picture in Lab, which share nothing.

    Tian et al. 2019, arXiv 1906.05849, section 4: lightness and the two channels of colour.

    nets: one for each kind. kinds: the channels of each.
    image: [n, h, w, 3], lightness first. Returns features f32[n, f] of each kind, a tuple.
    """

    nets: tuple[nn.Module, ...]
    kinds: tuple[tuple[int, ...], ...]

    def __call__(self, image, *, train: bool = False):
        return tuple(net(image[..., jnp.array(own)], train=train) for net, own in zip(self.nets, self.kinds, strict=True))


def resnet_trunk(depth: int = 18, width: float = 1.0, stem: str = "small", zero: bool = True, sk: float = 0.0,
                 norm: str = "batch", groups: int = 1, dtype: DType = None) -> Features:  # fmt: skip
    """ResNet. stem: "imagenet"; "small", one 3 x 3 convolution; "deep", ResNet-D, as SimCLR v2 with sk=0.0625. The others: see
    nets.resnet.ResNet. Raises ValueError: an unknown stem."""
    if stem not in STEMS:
        raise ValueError(f"stem {stem!r} is not known; use one of: {', '.join(STEMS)}")
    small, deep = stem == "small", stem == "deep"
    return Features(ResNet(depth, width, small, zero, 0, dtype, deep, sk, norm, groups))


KINDS = {"l_ab": ((0,), (1, 2)), "l_a_b": ((0,), (1,), (2,))}


def lab_trunk(kind: str = "resnet", depth: int = 50, width: float = 0.5, stem: str = "imagenet", zero: bool = False,
              kinds: str = "l_ab", groups: int = 1, dtype: DType = None) -> LabTrunk:  # fmt: skip
    """A network for each kind of channels. kind: "resnet"; or "conv", whose depth is 3 or 4 and width a count of channels.
    kinds: "l_ab", lightness and colour; "l_a_b", each channel by itself. Raises ValueError: another kind or kinds."""
    if kind not in ("resnet", "conv"):
        raise ValueError(f"kind {kind!r} is not known; use resnet or conv")
    if kinds not in KINDS:
        raise ValueError(f"kinds {kinds!r} is not known; use one of: {', '.join(KINDS)}")

    def one():
        if kind == "conv":
            return ConvTrunk(int(width), depth, groups=groups, dtype=dtype)
        return resnet_trunk(depth, width, stem, zero, groups=groups, dtype=dtype)

    return LabTrunk(tuple(one() for _ in KINDS[kinds]), KINDS[kinds])
