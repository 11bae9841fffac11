"""EfficientNet-Lite0: a small ImageNet classifier whose weights are freely packaged."""

import flax.linen as nn
import jax.numpy as jnp

from supcon_jax.nets import init
from supcon_jax.nets.blocks import DType
from supcon_jax.nets.norm import BatchNorm
from supcon_jax.ops.convolve import depthwise

# repeats, kernel, stride of the first, expansion, channels
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
          (1, 3, 1, 6, 320))


def relu6(x):
    return jnp.clip(x, 0, 6)


class Layer(nn.Module):
    """Convolution (depthwise if groups) with TensorFlow's SAME padding, and batch norm (eps 1e-3)."""

    features: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    dtype: DType = None

    @nn.compact
    def __call__(self, x, *, train: bool):
        how = {"conv_general_dilated": depthwise} if self.groups > 1 else {}
        x = nn.Conv(self.features, (self.kernel,) * 2, self.stride, "SAME", feature_group_count=self.groups,
                    use_bias=False, kernel_init=init.he, dtype=self.dtype, name="conv", **how)(x)
        return BatchNorm(momentum=0.99, eps=1e-3, name="norm")(x, train=train)


class Inverted(nn.Module):
    """Inverted bottleneck without squeeze and excitation. Sandler et al. 2018, arXiv 1801.04381."""

    features: int
    kernel: int
    stride: int
    expansion: int
    dtype: DType = None

    @nn.compact
    def __call__(self, x, *, train: bool):
        h, c = x, x.shape[-1] * self.expansion
        if self.expansion > 1:
            h = relu6(Layer(c, dtype=self.dtype, name="expand")(h, train=train))
        h = relu6(Layer(c, self.kernel, self.stride, c, self.dtype, name="depthwise")(h, train=train))
        h = Layer(self.features, dtype=self.dtype, name="project")(h, train=train)
        return x + h if self.stride == 1 and h.shape == x.shape else h


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0: no squeeze and excitation, ReLU6, fixed stem and head.

    Tan and Le 2019, arXiv 1905.11946, table 1; the Lite variant is TensorFlow's, models/official/efficientnet/lite.

    classes: length of the logits, none if 0.
    image: [n, h, w, 3] in [0, 255]; it is scaled to (x - 127) / 128 here. 224 x 224 in training; 96 and more work.
    Returns taps by the channel counts: "112" the last map of a sixteenth of the size, "1280" the mean over the last one
    [n, c], and "logits" if there are classes; means and logits in float32 or wider.
    """

    classes: int = 1000
    dtype: DType = None

    @nn.compact
    def __call__(self, image, *, train: bool = False):
        wide = jnp.promote_types(image.dtype, jnp.float32)
        h = (image.astype(wide) - 127) / 128
        h = relu6(Layer(32, 3, 2, dtype=self.dtype, name="stem")(h, train=train))
        taps, i = {}, 0
        for repeats, kernel, stride, expansion, features in STAGES:
            for r in range(repeats):
                block = Inverted(features, kernel, stride if r == 0 else 1, expansion, self.dtype, name=f"block{i}")
                h = block(h, train=train)
                i += 1
            if features == 112:
                taps["112"] = h
        h = relu6(Layer(1280, dtype=self.dtype, name="head")(h, train=train))
        taps["1280"] = h.astype(wide).mean((1, 2))
        if self.classes:
            taps["logits"] = nn.Dense(self.classes, kernel_init=init.lecun, name="fc")(taps["1280"])
        return taps
