"""ResNets of 18 to 200 layers: the stem of ImageNet or of small pictures, ResNet-D, selective kernels, pre-activation."""

import flax.linen as nn
import jax.numpy as jnp

from supcon_jax.nets import init
from supcon_jax.nets.blocks import DType, max_pool
from supcon_jax.nets.norm import normaliser
from supcon_jax.nets.selective import SelectiveConv
from supcon_jax.ops.convolve import convolve

DEPTHS = {  # layers -> blocks of each stage, whether these are bottlenecks
    18: ((2, 2, 2, 2), False), 34: ((3, 4, 6, 3), False), 50: ((3, 4, 6, 3), True), 101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True), 200: ((3, 24, 36, 3), True),
}  # fmt: skip


class Residual(nn.Module):
    """relu(x + f(x)): two 3 x 3 convolutions, or 1 x 1, 3 x 3 and 1 x 1 with four times the channels at the end.

    features: of the 3 x 3 convolutions, of which the first has the stride. Where sizes differ x passes a 1 x 1 convolution.
    zero: the last scale starts at 0, so that the block starts as the identity. deep, sk, norm, groups: see ResNet.
    """

    features: int
    stride: int
    bottleneck: bool
    zero: bool
    dtype: DType = None
    deep: bool = False
    sk: float = 0.0
    norm: str = "batch"
    groups: int = 1

    @nn.compact
    def __call__(self, x, *, train: bool):
        def layer(h, i, features, kernel, stride=1, start=1.0):
            pad = ((kernel // 2, kernel // 2),) * 2
            h = nn.Conv(features, (kernel, kernel), stride, pad, use_bias=False, kernel_init=init.he, dtype=self.dtype,
                        conv_general_dilated=convolve, name=f"conv{i}")(h)
            return normaliser(self.norm, f"norm{i}", groups=self.groups, start=start)(h, train=train)

        last = 0.0 if self.zero else 1.0
        if self.bottleneck:
            out = 4 * self.features
            h = nn.relu(layer(x, 1, self.features, 1))
            if self.sk:
                h = SelectiveConv(self.features, self.stride, self.sk, self.norm, self.groups, self.dtype, name="select")(
                    h, train=train)
            else:
                h = nn.relu(layer(h, 2, self.features, 3, self.stride))
            h = layer(h, 3, out, 1, 1, last)
        else:
            out = self.features
            h = nn.relu(layer(x, 1, out, 3, self.stride))
            h = layer(h, 2, out, 3, 1, last)
        short, stride = x, self.stride
        if x.shape[-1] != out or stride > 1:
            if self.deep and stride > 1:
                short, stride = nn.avg_pool(x, (2, 2), (stride, stride), "SAME", count_include_pad=False), 1
            short = layer(short, "_short", out, 1, stride)
        return nn.relu(short + h)


class PreResidual(nn.Module):
    """x + f(x) with norm and ReLU before every convolution and nothing after the sum; the fields are Residual's.

    He et al. 2016, arXiv 1603.05027, figure 4 e. Where sizes differ the shortcut is a 1 x 1 convolution of what the first
    norm and ReLU give.
    """

    features: int
    stride: int
    bottleneck: bool
    dtype: DType = None
    norm: str = "batch"
    groups: int = 1

    @nn.compact
    def __call__(self, x, *, train: bool):
        def active(h, i):
            return nn.relu(normaliser(self.norm, f"norm{i}", groups=self.groups)(h, train=train))

        def conv(h, i, features, kernel, stride):
            pad = ((kernel // 2, kernel // 2),) * 2
            return nn.Conv(features, (kernel, kernel), stride, pad, use_bias=False, kernel_init=init.he, dtype=self.dtype,
                           conv_general_dilated=convolve, name=f"conv{i}")(h)

        own, out = self.features, self.features * (4 if self.bottleneck else 1)
        plan = ((own, 1, 1), (own, 3, self.stride), (out, 1, 1)) if self.bottleneck else ((own, 3, self.stride), (out, 3, 1))
        h = first = active(x, 1)
        for i, layer in enumerate(plan, 1):
            h = conv(h if i == 1 else active(h, i), i, *layer)
        same = x.shape[-1] == out and self.stride == 1
        return h + (x if same else conv(first, "_short", out, 1, self.stride))


class ResNet(nn.Module):
    """ResNet with the stride in the 3 x 3 convolution of its bottlenecks, as torchvision builds it.

    He et al. 2016, arXiv 1512.03385.

    depth: layers, a key of DEPTHS. width: factor on every channel count. small: for pictures of 32 to 64 pixels: the stem is
    one 3 x 3 convolution without stride and pool. zero: the last scale of every block starts at 0 (Goyal et al. 2017, arXiv
    1706.02677, section 5.1). classes: length of the logits, none if 0.
    deep: ResNet-D, He et al. 2019, arXiv 1812.01187, section 4.2: three 3 x 3 convolutions in the stem, unless `small`, and
    means of 2 x 2 pixels before the 1 x 1 convolution of a shortcut with stride.
    sk: ratio of the selective kernels in the place of the 3 x 3 convolutions, none if 0 (see SelectiveConv).
    norm: "batch", or "layer" for rows that must not know of each other. groups: of every BatchNorm, see there.
    pre: norm and ReLU come before the convolutions (ResNet v2, see PreResidual), none in the stem, one pair after the last
    block. stages: how many of the four there are.
    image: [n, h, w, 3], scaled as the weights want it.
    Returns taps: "stem", "layer1" to "layer4" (or as many as there are) the maps, "pooled" the mean over the last one [n, c],
    and "logits" if there are classes; the last two in float32 or wider.
    Raises ValueError: another depth, selective kernels without bottlenecks; `zero`, `deep` or `sk` with `pre`.
    """

    depth: int = 50
    width: float = 1.0
    small: bool = False
    zero: bool = False
    classes: int = 0
    dtype: DType = None
    deep: bool = False
    sk: float = 0.0
    norm: str = "batch"
    groups: int = 1
    pre: bool = False
    stages: int = 4

    @nn.compact
    def __call__(self, image, *, train: bool = False):
        if self.depth not in DEPTHS:
            raise ValueError(f"a ResNet of {self.depth} layers is not known; use one of: {', '.join(map(str, DEPTHS))}")
        blocks, bottleneck = DEPTHS[self.depth]
        if self.sk and not bottleneck:
            raise ValueError(f"selective kernels stand in bottlenecks, which a ResNet of {self.depth} layers lacks; use 50")
        if self.pre and (self.zero or self.deep or self.sk):
            raise ValueError("a pre-activated ResNet takes neither zero nor deep nor sk")
        base = max(1, round(64 * self.width))
        h = self.stem(image, base, train)
        taps = {"stem": h}
        for stage, count in enumerate(blocks[: self.stages]):
            for i in range(count):
                shape, name = (base * 2**stage, 2 if stage and not i else 1, bottleneck), f"layer{stage + 1}_block{i}"
                if self.pre:
                    block = PreResidual(*shape, self.dtype, self.norm, self.groups, name=name)
                else:
                    block = Residual(*shape, self.zero, self.dtype, self.deep, self.sk, self.norm, self.groups, name=name)
                h = block(h, train=train)
            taps[f"layer{stage + 1}"] = h
        if self.pre:
            h = nn.relu(normaliser(self.norm, "norm_last", groups=self.groups)(h, train=train))
        taps["pooled"] = h.mean((1, 2), dtype=jnp.promote_types(h.dtype, jnp.float32))
        if self.classes:
            taps["logits"] = nn.Dense(self.classes, kernel_init=init.lecun, name="fc")(taps["pooled"])
        return taps

    def stem(self, h, base, train):
        """Picture -> the map that the first stage sees, [n, h / 4, w / 4, base], or of full size if `small`."""
        plan = [("_stem", base, 3, 1)] if self.small else [("_stem", base, 7, 2)]
        if self.deep and not self.small:
            half = max(1, base // 2)
            plan = [("_stem0", half, 3, 2), ("_stem1", half, 3, 1), ("_stem2", base, 3, 1)]
        for name, features, kernel, stride in plan:
            h = nn.Conv(features, (kernel, kernel), stride, ((kernel // 2, kernel // 2),) * 2, use_bias=False,
                        kernel_init=init.he, dtype=self.dtype, conv_general_dilated=convolve, name=f"conv{name}")(h)
            if not self.pre:
                h = nn.relu(normaliser(self.norm, f"norm{name}", groups=self.groups)(h, train=train))
        if self.small:
            return h
        return max_pool(jnp.pad(h, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf), 2, "VALID")
