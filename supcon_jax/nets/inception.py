"""Inception-v3: the trunk of DAMSM's image encoder and the network behind FID and IS."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from supcon_jax.nets import init
from supcon_jax.nets.blocks import DType, max_pool
from supcon_jax.nets.norm import BatchNorm
from supcon_jax.ops import resize
from supcon_jax.ops.convolve import convolve

SAME = "SAME"
VALID = "VALID"


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm (eps 1e-3), ReLU; `pool` ("avg", "avg_valid" or "max") comes first.

    The average pool, linear and per channel, is taken after the 1 x 1 convolution, where there are fewer channels."""

    features: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = SAME
    pool: str = ""
    dtype: DType = None

    @nn.compact
    def __call__(self, x, *, train: bool):
        if self.pool == "max":
            x = max_pool(x, 1, SAME)
        x = nn.Conv(self.features, self.kernel, self.stride, self.padding, use_bias=False, kernel_init=init.he,
                    dtype=self.dtype, conv_general_dilated=convolve, name="conv")(x)
        if self.pool.startswith("avg"):
            x = nn.avg_pool(x, (3, 3), (1, 1), SAME, count_include_pad=self.pool == "avg")
        return nn.relu(BatchNorm(eps=1e-3, name="norm")(x, train=train))


# Blocks: branches of convolutions (name, channels, kernel, stride), named as in torchvision so that converters are one
# rule. A branch that is a string is a max pool of the input. A list inside a branch ends it with parallel convolutions.


def grid35(pool: int):
    return ([("branch1x1", 64, (1, 1), 1)],
            [("branch5x5_1", 48, (1, 1), 1), ("branch5x5_2", 64, (5, 5), 1)],
            [("branch3x3dbl_1", 64, (1, 1), 1), ("branch3x3dbl_2", 96, (3, 3), 1), ("branch3x3dbl_3", 96, (3, 3), 1)],
            [("branch_pool", pool, "pool", 1)])


def grid17(k: int):
    return ([("branch1x1", 192, (1, 1), 1)],
            [("branch7x7_1", k, (1, 1), 1), ("branch7x7_2", k, (1, 7), 1), ("branch7x7_3", 192, (7, 1), 1)],
            [("branch7x7dbl_1", k, (1, 1), 1), ("branch7x7dbl_2", k, (7, 1), 1), ("branch7x7dbl_3", k, (1, 7), 1),
             ("branch7x7dbl_4", k, (7, 1), 1), ("branch7x7dbl_5", 192, (1, 7), 1)],
            [("branch_pool", 192, "pool", 1)])


GRID8 = ([("branch1x1", 320, (1, 1), 1)],
         [("branch3x3_1", 384, (1, 1), 1), [("branch3x3_2a", 384, (1, 3), 1), ("branch3x3_2b", 384, (3, 1), 1)]],
         [("branch3x3dbl_1", 448, (1, 1), 1), ("branch3x3dbl_2", 384, (3, 3), 1),
          [("branch3x3dbl_3a", 384, (1, 3), 1), ("branch3x3dbl_3b", 384, (3, 1), 1)]],
         [("branch_pool", 192, "pool", 1)])
SHRINK17 = ([("branch3x3", 384, (3, 3), 2)],
            [("branch3x3dbl_1", 64, (1, 1), 1), ("branch3x3dbl_2", 96, (3, 3), 1), ("branch3x3dbl_3", 96, (3, 3), 2)],
            "max")
SHRINK8 = ([("branch3x3_1", 192, (1, 1), 1), ("branch3x3_2", 320, (3, 3), 2)],
           [("branch7x7x3_1", 192, (1, 1), 1), ("branch7x7x3_2", 192, (1, 7), 1), ("branch7x7x3_3", 192, (7, 1), 1),
            ("branch7x7x3_4", 192, (3, 3), 2)],
           "max")


class Block(nn.Module):
    """Parallel branches, concatenated. `padding` is that of the strided layers."""

    branches: tuple
    width: float
    pool: str
    padding: str
    dtype: DType = None

    @nn.compact
    def __call__(self, x, *, train: bool):
        def layer(h, spec):
            name, features, kernel, stride = spec
            pool, kernel = (self.pool, (1, 1)) if kernel == "pool" else ("", kernel)
            padding = self.padding if stride > 1 else SAME
            return ConvNorm(scaled(features, self.width), kernel, stride, padding, pool, self.dtype, name=name)(
                h, train=train)

        out = []
        for branch in self.branches:
            if branch == "max":
                out.append(max_pool(x, 2, self.padding))
                continue
            h = x
            for spec in branch:
                h = jnp.concatenate([layer(h, s) for s in spec], -1) if not isinstance(spec[0], str) else layer(h, spec)
            out.append(h)
        return jnp.concatenate(out, axis=-1)


def scaled(features: int, width: float) -> int:
    return max(1, round(features * width))


class Inception(nn.Module):
    """Inception-v3. Szegedy et al. 2016, arXiv 1512.00567, as torchvision builds it.

    width: factor on every channel count. count_pad: whether the 3 x 3 average pools of stride 1 count the padding
    (torchvision True, the TensorFlow network of FID False). last_pool: pool of the last block, "avg" or "max" (FID).
    small: for pictures of 32 to 64 pixels: no stride and one pool in the stem, padded everywhere; 8 x 8 regions at 32.
    repeats: blocks on each of the three grids; the published network has (3, 4, 2), at most.
    classes: length of the logits, none if 0 (1000 ImageNet, 1008 the network of FID and IS).
    image: [n, h, w, 3], scaled as the weights want it ([-1, 1] here); 299 x 299 unless small.
    Returns taps by the published channel counts: "64" and "192" after the stem's pools, "768" after the second grid
    (17 x 17 at 299), "2048" the mean over the last grid [n, c], and "logits" if there are classes.
    """

    width: float = 1.0
    count_pad: bool = True
    last_pool: str = "avg"
    small: bool = False
    repeats: tuple[int, int, int] = (3, 4, 2)
    classes: int = 0
    dtype: DType = None

    @nn.compact
    def __call__(self, image, *, train: bool = False):
        pad = SAME if self.small else VALID
        avg = "avg" if self.count_pad else "avg_valid"

        def conv(h, name, features, kernel, stride=1, padding=pad):
            return ConvNorm(scaled(features, self.width), (kernel, kernel), stride, padding, "", self.dtype, name=name)(
                h, train=train)

        def block(h, name, branches, pool=avg):
            return Block(branches, self.width, pool, pad, self.dtype, name=name)(h, train=train)

        taps = {}
        h = conv(image, "conv1a", 32, 3, 1 if self.small else 2)
        h = conv(conv(h, "conv2a", 32, 3), "conv2b", 64, 3, 1, SAME)
        h = taps["64"] = max_pool(h, 2, pad)
        h = conv(conv(h, "conv3b", 80, 1), "conv4a", 192, 3)
        h = taps["192"] = h if self.small else max_pool(h, 2, pad)
        for letter, pool in list(zip("bcd", (32, 64, 64), strict=True))[: self.repeats[0]]:
            h = block(h, f"mixed5{letter}", grid35(pool))
        h = block(h, "mixed6a", SHRINK17)
        for letter, k in list(zip("bcde", (128, 160, 160, 192), strict=True))[: self.repeats[1]]:
            h = block(h, f"mixed6{letter}", grid17(k))
        taps["768"] = h
        h = block(h, "mixed7a", SHRINK8)
        for i in range(self.repeats[2]):
            last = i == self.repeats[2] - 1
            h = block(h, f"mixed7{'bc'[i]}", GRID8, "max" if last and self.last_pool == "max" else avg)
        taps["2048"] = h.mean((1, 2))
        if self.classes:
            taps["logits"] = nn.Dense(self.classes, kernel_init=init.lecun, dtype=self.dtype, name="fc")(taps["2048"])
        return taps


class Classifier(nn.Module):
    """Inception-v3 with a new last layer: the judge of a set's own classes.

    classes: length of the logits. size: side to which pictures are resized (bilinear). The other fields are those of
    Inception. image: [n, h, w, 3] in [-1, 1].
    Returns (features [n, 2048 * width], {"label": logits [n, classes]}), float32 or wider.
    """

    classes: int
    width: float = 1.0
    size: int = 299
    small: bool = False
    repeats: tuple[int, int, int] = (3, 4, 2)
    dtype: DType = None

    @nn.compact
    def __call__(self, image, *, train: bool = False):
        x = resize.bilinear(image, (self.size, self.size))
        trunk = Inception(self.width, small=self.small, repeats=self.repeats, dtype=self.dtype, name="trunk")
        pooled = trunk(x, train=train)["2048"]
        pooled = pooled.astype(jnp.promote_types(pooled.dtype, jnp.float32))
        return pooled, {"label": nn.Dense(self.classes, kernel_init=init.lecun, name="label")(pooled)}


class ImageEncoder(nn.Module):
    """DAMSM's image encoder: regions and one code of a picture in the space of words and sentences.

    Xu et al. 2018, arXiv 1711.10485, section 3.2: Inception-v3, a 1 x 1 convolution of its 17 x 17 x 768 layer, a
    linear map of its pooled last layer.

    dim: length of regions and code. width, small, repeats: as in Inception. size: side to which pictures are resized
    (bilinear). align_corners: the resize of the published AttnGAN and DM-GAN encoders (True) or of SSA-GAN's (False).
    frozen: the trunk runs on its averages and its output is a constant: only the two heads learn, and no gradient
    reaches the picture. To pass gradients through fixed weights to a picture (a generator's matching loss), keep
    frozen False and train False, and differentiate with respect to the picture.
    image: [n, h, w, 3] in [-1, 1].
    Returns (regions [n, r, dim], code [n, dim]), float32 or wider; region i * 17 + j is row i, column j.
    """

    dim: int = 256
    width: float = 1.0
    size: int = 299
    align_corners: bool = False
    small: bool = False
    repeats: tuple[int, int, int] = (3, 4, 2)
    frozen: bool = False
    dtype: DType = None

    @nn.compact
    def __call__(self, image, *, train: bool = False):
        x = resize.bilinear(image, (self.size, self.size), place="corners" if self.align_corners else "centres")
        trunk = Inception(self.width, small=self.small, repeats=self.repeats, dtype=self.dtype, name="trunk")
        taps = trunk(x, train=train and not self.frozen)
        local, pooled = taps["768"], taps["2048"]
        if self.frozen:
            local, pooled = jax.lax.stop_gradient((local, pooled))
        wide = jnp.promote_types(pooled.dtype, jnp.float32)
        head = init.uniform(0.1)
        regions = nn.Dense(self.dim, use_bias=False, kernel_init=head, dtype=self.dtype, name="regions")(local)
        code = nn.Dense(self.dim, kernel_init=head, dtype=self.dtype, name="code")(pooled)
        return regions.reshape(len(image), -1, self.dim).astype(wide), code.astype(wide)
