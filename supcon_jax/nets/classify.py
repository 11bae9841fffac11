"""A small convolutional classifier with several heads, to judge generated pictures whose attributes are known; and a linear
head for codes."""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp

from supcon_jax.nets import init
from supcon_jax.nets.blocks import DType
from supcon_jax.nets.norm import BatchNorm


class AttributeNet(nn.Module):
    """Convolutions that halve the picture down to 4 x 4, features, one linear head for each attribute.

    heads: attribute's name -> number of its classes. width: channels of the first layer, doubled at each halving up to
    8 * width. The features keep the place of things: the last map is flattened, not averaged.
    image: [n, s, s, 3] in [-1, 1], s = 4 * 2^k.
    Returns (features [n, 8 * width], {name: logits [n, classes]}), float32 or wider.
    """

    heads: Mapping[str, int]
    width: int = 16
    dtype: DType = None

    @nn.compact
    def __call__(self, image, *, train: bool = False):
        h, features, i = image, self.width, 0
        while h.shape[1] > 4:
            h = nn.Conv(features, (3, 3), 2, use_bias=False, kernel_init=init.he, dtype=self.dtype, name=f"conv{i}")(h)
            h = nn.relu(BatchNorm(name=f"norm{i}")(h, train=train))
            features, i = min(2 * features, 8 * self.width), i + 1
        h = nn.Dense(8 * self.width, use_bias=False, kernel_init=init.he, dtype=self.dtype, name="features")(
            h.reshape(len(h), -1))
        h = nn.relu(BatchNorm(name="norm")(h, train=train))
        h = h.astype(jnp.promote_types(h.dtype, jnp.float32))
        return h, {name: nn.Dense(c, kernel_init=init.lecun, name=f"head_{name}")(h) for name, c in self.heads.items()}


class LabelHead(nn.Module):
    """One linear layer, codes [..., d] to logits [..., classes], float32 or wider."""

    classes: int

    @nn.compact
    def __call__(self, code):
        code = code.astype(jnp.promote_types(code.dtype, jnp.float32))
        return nn.Dense(self.classes, kernel_init=init.lecun, name="dense")(code)
