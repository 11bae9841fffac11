"""Contrastive predictive coding of pictures: a grid of overlapping patches, and a context that sees only what is above."""

import flax.linen as nn
import jax.numpy as jnp

from supcon_jax.nets import init
from supcon_jax.nets.backbone import ConvTrunk, Features, resnet_trunk
from supcon_jax.nets.blocks import DType
from supcon_jax.nets.resnet import ResNet


class PatchGrid(nn.Module):
    """The features of each of a picture's overlapping patches, every patch encoded by itself.

    van den Oord et al. 2018, arXiv 1807.03748, section 3.2: 7 x 7 patches of 64 pixels, 32 apart, of 256 x 256.

    trunk: patch [n, patch, patch, 3] -> [n, f]; with layer norms, as BatchNorm tells patches of each other (Henaff et al.
    2020, arXiv 1905.09272). patch, stride: pixels.
    image: [n, h, w, 3]. Returns f32[n, rows, columns, f]. Raises ValueError: a picture smaller than a patch.
    """

    trunk: nn.Module
    patch: int = 64
    stride: int = 32

    def __call__(self, image, *, train: bool = False):
        cut = patches(image, self.patch, self.stride)
        n, rows, columns = cut.shape[:3]
        h = self.trunk(cut.reshape(n * rows * columns, *cut.shape[3:]), train=train)
        return h.reshape(n, rows, columns, -1)


def patches(image, patch: int, stride: int):
    """Overlapping patches, [n, h, w, c] -> [n, rows, columns, patch, patch, c]; what is left over at the end is dropped.

    Raises ValueError: a picture smaller than a patch.
    """
    n, h, w, c = image.shape
    if min(h, w) < patch:
        raise ValueError(f"pictures of {h} x {w} pixels hold no patch of {patch}")
    down, across = (jnp.arange((side - patch) // stride + 1)[:, None] * stride + jnp.arange(patch)[None] for side in (h, w))
    cut = image[:, down]  # [n, rows, patch, w, c]
    return cut[:, :, :, across].transpose(0, 1, 3, 2, 4, 5)


class RowContext(nn.Module):
    """What the patches above a place, its own row with them, say of it: residual blocks of masked convolutions.

        x + conv_1x1(relu(shifted conv_2x1(conv_1x3(relu(conv_1x1(x)))))),  depth times, then ReLU

    van den Oord et al. 2016, arXiv 1606.05328, in the form of Henaff et al. 2020, arXiv 1905.09272, appendix. The 2 x 1
    convolution sees a row and the one above, so that the context of row r knows rows r - depth to r.

    width: channels inside. z: [n, rows, columns, f]. Returns f32[n, rows, columns, f], or wider.
    """

    width: int = 256
    depth: int = 5
    dtype: DType = None

    @nn.compact
    def __call__(self, z, *, train: bool = False):
        x = z
        for i in range(self.depth):

            def layer(features, side, pad, name, i=i):
                return nn.Conv(features, side, padding=pad, kernel_init=init.he, dtype=self.dtype, name=f"{name}{i}")

            h = nn.relu(layer(self.width, (1, 1), "VALID", "first")(x))
            h = layer(self.width, (1, 3), ((0, 0), (1, 1)), "along")(h)
            h = nn.relu(layer(self.width, (2, 1), ((1, 0), (0, 0)), "down")(h))
            x = x + layer(z.shape[-1], (1, 1), "VALID", "last")(h)
        return nn.relu(x).astype(jnp.promote_types(x.dtype, jnp.float32))


def patch_grid(kind: str = "resnet", depth: int = 50, width: float = 1.0, patch: int = 64, stride: int = 32,
               norm: str = "layer", groups: int = 1, dtype: DType = None) -> PatchGrid:  # fmt: skip
    """A grid of patches on a network. kind: "resnet", with the stem of small pictures for patches of less than 64 pixels;
    "resnet_v2", the same pre-activated and without its last stage (1,024 features at width 1), as van den Oord et al. 2018 have
    it; or "conv", whose depth is 3 or 4 and width a count of channels. Raises ValueError: another kind."""
    if kind == "conv":
        return PatchGrid(ConvTrunk(int(width), depth, norm, groups, dtype), patch, stride)
    if kind == "resnet":
        trunk = resnet_trunk(depth, width, "imagenet" if patch >= 64 else "small", True, 0.0, norm, groups, dtype)
        return PatchGrid(trunk, patch, stride)
    if kind != "resnet_v2":
        raise ValueError(f"kind {kind!r} is not known; use resnet, resnet_v2 or conv")
    trunk = ResNet(depth, width, patch < 64, norm=norm, groups=groups, dtype=dtype, pre=True, stages=3)
    return PatchGrid(Features(trunk), patch, stride)
