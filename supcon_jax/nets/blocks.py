"""Pieces that the text-to-image networks share."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from supcon_jax.nets import init
from supcon_jax.nets.norm import BatchNorm, SpectralNorm

DType = jax.typing.DTypeLike | None
JITTER = 0.02  # standard deviation of the initial batch-norm scales in AttnGAN's family


def glu(x):
    """Gated linear unit over the last axis: first half * sigmoid(second half)."""
    value, gate = jnp.split(x, 2, axis=-1)
    return value * jax.nn.sigmoid(gate)


def leaky(x):
    """Leaky ReLU with slope 0.2."""
    return jax.nn.leaky_relu(x, 0.2)


def max_pool(x, stride: int, padding: str):
    """3 x 3 maximum, "SAME" or "VALID": values and gradients of flax.linen.max_pool, [n, h, w, c] -> [n, h', w', c].

    From slices: the gradient of XLA's windowed maximum costs five times as much on CPU. Of equal values the first in
    row order takes the gradient.
    """
    for axis in (2, 1):
        size = x.shape[axis]
        out = -(-size // stride) if padding == "SAME" else (size - 3) // stride + 1
        edge = max((out - 1) * stride + 3 - size, 0) if padding == "SAME" else 0
        pad = [(0, 0)] * 4
        pad[axis] = (edge // 2, edge - edge // 2)
        x = jnp.pad(x, pad, constant_values=-jnp.inf)
        taps = [jax.lax.slice_in_dim(x, i, i + (out - 1) * stride + 1, stride, axis) for i in range(3)]
        x = first_maximum(first_maximum(taps[0], taps[1]), taps[2])
    return x


def first_maximum(a, b):
    return jnp.where(a >= b, a, b)


def conv(features: int, side: int, inputs: int, dtype: DType, name: str, *, stride: int = 1, bias: bool = True) -> nn.Conv:
    """Convolution of an odd side that keeps the size, or of side 4 and stride 2 that halves it.

    Kernel and bias begin uniform within 1 / sqrt(side^2 * inputs), as PyTorch's do where nothing else is asked for.
    """
    draw = init.uniform((side * side * inputs) ** -0.5)
    return nn.Conv(features, (side, side), strides=stride, padding=(side - 1) // 2, use_bias=bias, kernel_init=draw,
                   bias_init=draw, dtype=dtype, name=name)


def dense(features: int, inputs: int, dtype: DType, name: str) -> nn.Dense:
    """Linear layer that begins as `conv` does."""
    draw = init.uniform(inputs**-0.5)
    return nn.Dense(features, kernel_init=draw, bias_init=draw, dtype=dtype, name=name)


def double(x):
    """Twice the size by nearest neighbours: [n, h, w, c] -> [n, 2h, 2w, c]."""
    n, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (n, h, 2, w, 2, c)).reshape(n, 2 * h, 2 * w, c)


def halve(x):
    """Means of 2 x 2 pixels: [n, 2h, 2w, c] -> [n, h, w, c]."""
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4))


def picture(x):
    """tanh in float32 or wider, whatever the compute type."""
    return jnp.tanh(x.astype(jnp.promote_types(x.dtype, jnp.float32)))


def conv3(features: int, dtype: DType, name: str) -> nn.Conv:
    """3 x 3 convolution, padding 1, no bias."""
    return nn.Conv(features, (3, 3), padding=1, use_bias=False, kernel_init=init.orthogonal, dtype=dtype, name=name)


def down4(features: int, dtype: DType, name: str) -> nn.Conv:
    """4 x 4 convolution, stride 2, padding (1, 1) on both axes (not "SAME" by name: PyTorch's layout), no bias."""
    return nn.Conv(features, (4, 4), strides=2, padding=1, use_bias=False, kernel_init=init.orthogonal, dtype=dtype,
                   name=name)


class SpectralConv(nn.Module):
    """Convolution whose kernel is divided by its largest singular value: [n, h, w, c] -> [n, h', w', features].

    side, stride: of the kernel; padding 1 on both axes, with bias. See `norm.SpectralNorm` for the values kept.
    """

    features: int
    side: int
    stride: int
    dtype: DType = None

    @nn.compact
    def __call__(self, x, *, train: bool):
        shape = (self.side, self.side, x.shape[-1], self.features)
        kernel = self.param("kernel", init.orthogonal, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        kernel = SpectralNorm(name="norm")(kernel, train=train)
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        layout, strides = ("NHWC", "HWIO", "NHWC"), (self.stride, self.stride)
        y = jax.lax.conv_general_dilated(x, kernel, strides, ((1, 1), (1, 1)), dimension_numbers=layout)
        return y + bias.reshape(1, 1, 1, -1)


class UpConv(nn.Module):
    """3 x 3 convolution of the picture doubled by nearest neighbours: [n, h, w, c] -> [n, 2h, 2w, features].

    plain: begins as `conv` does, with a bias; orthogonal and without one if not.
    The doubled picture is never made. Two of the three taps along an axis fall on the same pixel, so an output pixel of
    parity (a, b) sees 2 x 2 pixels through a kernel of sums: four small convolutions with 16 products where the plain
    way has 36.
    """

    features: int
    dtype: DType = None
    plain: bool = False

    @nn.compact
    def __call__(self, x):
        n, h, w, c = x.shape
        draw = init.uniform((9 * c) ** -0.5) if self.plain else init.orthogonal
        kernel = self.param("kernel", draw, (3, 3, c, self.features), jnp.float32)
        taps = jnp.array([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], kernel.dtype)  # [parity, pixel, tap]
        kernels = jnp.einsum("apk,bql,klio->abpqio", taps, taps, kernel)
        x, kernels = promote_dtype(x, kernels, dtype=self.dtype)

        def parity(a, b):
            pad = ((1 - a, a), (1 - b, b))
            return jax.lax.conv_general_dilated(x, kernels[a, b], (1, 1), pad, dimension_numbers=("NHWC", "HWIO", "NHWC"))

        rows = [jnp.stack([parity(a, b) for b in (0, 1)], axis=3) for a in (0, 1)]
        y = jnp.stack(rows, axis=2).reshape(n, 2 * h, 2 * w, self.features)
        if not self.plain:
            return y
        return y + self.param("bias", draw, (self.features,), jnp.float32).astype(y.dtype)[None, None, None]


class Up(nn.Module):
    """Nearest x2, 3 x 3 convolution to 2 * features, batch norm, GLU: [n, h, w, .] -> [n, 2h, 2w, features]."""

    features: int
    dtype: DType = None

    @nn.compact
    def __call__(self, x, *, train: bool):
        h = UpConv(2 * self.features, self.dtype, name="conv")(x)
        return glu(BatchNorm(jitter=JITTER, name="norm")(h, train=train))


class Residual(nn.Module):
    """x + norm(conv(glu(norm(conv(x))))), channel count kept."""

    dtype: DType = None

    @nn.compact
    def __call__(self, x, *, train: bool):
        c = x.shape[-1]
        h = conv3(2 * c, self.dtype, "conv0")(x)
        h = glu(BatchNorm(jitter=JITTER, name="norm0")(h, train=train))
        h = conv3(c, self.dtype, "conv1")(h)
        return x + BatchNorm(jitter=JITTER, name="norm1")(h, train=train)


def attend(x, words, valid=None, mask: str = "correct", values=None):
    """Each pixel's mixture of words.

        a_qt = softmax_t <x_q, w_t>,   context_q = sum_t a_qt v_t

    Xu et al. 2018, arXiv 1711.10485, section 3.1 (attention of pixels to words).

    x: [n, h, w, c]; words: [n, t, c], already in the pixels' space; valid: bool[n, t], all True if left out.
    values: what is mixed, [n, t, c]; the words themselves if left out.
    mask: "correct", or "compat": the published AttnGAN code masks row b * h * w + q of the scores with the words of
        sample (b * h * w + q) mod n; released weights were trained so.
    Returns (context [n, h, w, c], attention [n, h, w, t]). A sample without a valid word spreads evenly.
    """
    n, h, w, c = x.shape
    wide = jnp.promote_types(x.dtype, jnp.float32)
    logits = jnp.einsum("nqc,ntc->nqt", x.reshape(n, h * w, c), words, preferred_element_type=wide)
    if valid is not None:
        if mask == "compat":
            keep = valid[jnp.arange(n * h * w) % n].reshape(n, h * w, -1)
        else:
            keep = jnp.broadcast_to(valid[:, None, :], logits.shape)
        logits = jnp.where(keep, logits, jnp.finfo(wide).min)
    weight = jax.nn.softmax(logits, axis=-1)
    context = jnp.einsum("nqt,ntc->nqc", weight.astype(x.dtype), words if values is None else values)
    return context.reshape(n, h, w, c), weight.reshape(n, h, w, -1)
