"""ResNets of 18 to 200 layers, with the stem of ImageNet or of small pictures."""

import flax.linen as nn
import jax.numpy as jnp

from supcon_jax.nets import init
from supcon_jax.nets.blocks import DType, max_pool
from supcon_jax.nets.norm import BatchNorm
from supcon_jax.ops.convolve import convolve

DEPTHS = {  # layers -> blocks of each stage, whether these are bottlenecks
    18: ((2, 2, 2, 2), False), 34: ((3, 4, 6, 3), False), 50: ((3, 4, 6, 3), True), 101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True), 200: ((3, 24, 36, 3), True),
}  # fmt: skip


class Residual(nn.Module):
    """relu(x + f(x)): two 3 x 3 convolutions, or 1 x 1, 3 x 3 and 1 x 1 with four times the channels at the end.

    features: of the 3 x 3 convolutions, of which the first has the stride. Where sizes differ x passes a 1 x 1 convolution.
    zero: the last scale starts at 0, so that the block starts as the identity.
    """

    features: int
    stride: int
    bottleneck: bool
    zero: bool
    dtype: DType = None

    @nn.compact
    def __call__(self, x, *, train: bool):
        def layer(h, i, features, kernel, stride=1, start=1.0):
            pad = ((kernel // 2, kernel // 2),) * 2
            h = nn.Conv(features, (kernel, kernel), stride, pad, use_bias=False, kernel_init=init.he, dtype=self.dtype,
                        conv_general_dilated=convolve, name=f"conv{i}")(h)
            return BatchNorm(start=start, name=f"norm{i}")(h, train=train)

        last = 0.0 if self.zero else 1.0
        if self.bottleneck:
            out = 4 * self.features
            h = nn.relu(layer(x, 1, self.features, 1))
            h = nn.relu(layer(h, 2, self.features, 3, self.stride))
            h = layer(h, 3, out, 1, 1, last)
        else:
            out = self.features
            h = nn.relu(layer(x, 1, out, 3, self.stride))
            h = layer(h, 2, out, 3, 1, last)
        short = layer(x, "_short", out, 1, self.stride) if x.shape[-1] != out or self.stride > 1 else x
        return nn.relu(short + h)


class ResNet(nn.Module):
    """ResNet with the stride in the 3 x 3 convolution of its bottlenecks, as torchvision builds it.

    He et al. 2016, arXiv 1512.03385.

    depth: layers, a key of DEPTHS. width: factor on every channel count. small: for pictures of 32 to 64 pixels: the stem is
    one 3 x 3 convolution without stride and pool. zero: the last scale of every block starts at 0 (Goyal et al. 2017, arXiv
    1706.02677, section 5.1). classes: length of the logits, none if 0.
    image: [n, h, w, 3], scaled as the weights want it.
    Returns taps: "stem", "layer1" to "layer4" the maps, "pooled" the mean over the last one [n, c], and "logits" if there are
    classes; the last two in float32 or wider.
    """

    depth: int = 50
    width: float = 1.0
    small: bool = False
    zero: bool = False
    classes: int = 0
    dtype: DType = None

    @nn.compact
    def __call__(self, image, *, train: bool = False):
        blocks, bottleneck = DEPTHS[self.depth]
        base = max(1, round(64 * self.width))
        kernel, stride, pad = (3, 1, 1) if self.small else (7, 2, 3)
        h = nn.Conv(base, (kernel, kernel), stride, ((pad, pad),) * 2, use_bias=False, kernel_init=init.he, dtype=self.dtype,
                    conv_general_dilated=convolve, name="conv_stem")(image)
        h = nn.relu(BatchNorm(name="norm_stem")(h, train=train))
        if not self.small:
            h = max_pool(jnp.pad(h, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf), 2, "VALID")
        taps = {"stem": h}
        for stage, count in enumerate(blocks):
            for i in range(count):
                stride = 2 if stage and not i else 1
                block = Residual(base * 2**stage, stride, bottleneck, self.zero, self.dtype, name=f"layer{stage + 1}_block{i}")
                h = block(h, train=train)
            taps[f"layer{stage + 1}"] = h
        taps["pooled"] = h.mean((1, 2), dtype=jnp.promote_types(h.dtype, jnp.float32))
        if self.classes:
            taps["logits"] = nn.Dense(self.classes, kernel_init=init.lecun, name="fc")(taps["pooled"])
        return taps
