"""Selective kernels: two convolutions of one map, mixed channel by channel as the whole map says."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from supcon_jax.nets import init
from supcon_jax.nets.blocks import DType
from supcon_jax.nets.norm import normaliser
from supcon_jax.ops.convolve import convolve

NARROWEST = 32  # channels between the mean and the weights, at least


class SelectiveConv(nn.Module):
    """In the place of a 3 x 3 convolution with its norm and ReLU: [n, h, w, c] -> [n, h / stride, w / stride, features].

        u_k = relu(norm(conv_k(x))),   s = mean over pixels of u_1 + u_2
        a = softmax_k of W_k relu(norm(V s)),   y = a_1 u_1 + a_2 u_2   (channel by channel)

    Li et al. 2019, arXiv 1903.06586, eqs. 1 to 6, as SimCLR v2 uses it (Chen et al. 2020, arXiv 2006.10029): both
    convolutions are 3 x 3, made in one.

    ratio: channels of V's output as a share of the features, 32 at least; SimCLR v2 has 1/16. norm, groups: see
    nets.resnet.ResNet.
    Differs from: Li et al., whose second convolution is dilated.
    """

    features: int
    stride: int = 1
    ratio: float = 0.0625
    norm: str = "batch"
    groups: int = 1
    dtype: DType = None

    @nn.compact
    def __call__(self, x, *, train: bool):
        h = nn.Conv(
            2 * self.features,
            (3, 3),
            self.stride,
            ((1, 1), (1, 1)),
            use_bias=False,
            kernel_init=init.he,
            dtype=self.dtype,
            conv_general_dilated=convolve,
            name="conv",
        )(x)
        h = nn.relu(normaliser(self.norm, "norm", groups=self.groups)(h, train=train))
        n, side, across, _ = h.shape
        h = h.reshape(n, side, across, 2, self.features)
        s = h.mean((1, 2), dtype=jnp.promote_types(h.dtype, jnp.float32)).sum(1)  # [n, features]
        middle = max(int(self.ratio * self.features), NARROWEST)
        s = nn.Dense(middle, use_bias=False, kernel_init=init.he, name="squeeze")(s)
        s = nn.relu(normaliser(self.norm, "norm_squeeze", groups=self.groups)(s, train=train))
        s = nn.Dense(2 * self.features, use_bias=False, kernel_init=init.lecun, name="select")(s)
        a = jax.nn.softmax(s.reshape(n, 1, 1, 2, self.features), axis=3).astype(h.dtype)
        return (a * h).sum(3)
