"""Convolutions of images that are fast on CPU too: with gradients inside loops, and with a filter for each channel."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

LAYOUT = ("NHWC", "HWIO", "NHWC")


def convolve(x, kernel, strides, padding, *, lhs_dilation=None, rhs_dilation=None, dimension_numbers=None,
             feature_group_count=1, precision=None):  # fmt: skip
    """lax.conv_general_dilated of images: x [n, h, w, c], kernel [kh, kw, c, d] -> [n, h', w', d].

    For `flax.linen.Conv(conv_general_dilated=convolve)`. Its gradients are convolutions again, of other layouts. XLA's
    CPU compiler brings those into the one layout that it has a fast product for, but not inside loops (jaxlib 0.10.2,
    0.12), where they take fifty times as long: on CPU that of the image is written in that layout at once. That of the kernel
    is slow in any layout, as the gradient stands for a kernel as large as the picture: on CPU it is a product of patches, which
    made a step of ResNet-18 at 32 px three times as fast. Elsewhere, and in values, nothing differs.

    strides: (rows, columns). padding: "SAME", "VALID" or ((low, high), (low, high)).
    Raises ValueError: dilation or groups, which no network here has inside a loop.
    """
    _refuse(lhs_dilation, rhs_dilation)
    if feature_group_count > 1:
        raise ValueError("convolve knows no groups: use depthwise, or flax.linen.Conv as it is")
    padding = _pairs(x, kernel, strides, padding)
    return _convolve(x, kernel, tuple(strides), padding, precision)


def depthwise(x, kernel, strides, padding, *, lhs_dilation=None, rhs_dilation=None, dimension_numbers=None,
              feature_group_count=1, precision=None):  # fmt: skip
    """lax.conv_general_dilated with one filter for each channel: x [n, h, w, c], kernel [kh, kw, 1, c] -> [n, h', w', c].

        out[i, j] = sum_ab kernel[a, b] * x[si + a, tj + b]

    For `flax.linen.Conv(feature_group_count=c, conv_general_dilated=depthwise)`. On CPU the sum is written out: XLA makes
    one pass over the picture of it, four to six times as fast as its convolution with groups, gradients three times (jaxlib
    0.10.2, EfficientNet-Lite0 as a whole). Elsewhere it is that convolution.

    strides, padding: as for `convolve`. Raises ValueError: dilation, or another number of groups than channels.
    """
    _refuse(lhs_dilation, rhs_dilation)
    if not feature_group_count == x.shape[-1] == kernel.shape[-1] or kernel.shape[2] != 1:
        raise ValueError("depthwise has one filter for each channel: use flax.linen.Conv as it is")
    padding = _pairs(x, kernel, strides, padding)

    def convolution(x, kernel):
        return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=LAYOUT, precision=precision,
                                        feature_group_count=feature_group_count)  # fmt: skip

    def written_out(x, kernel):
        wide = jnp.promote_types(x.dtype, jnp.float32)  # what it is summed in
        x, kernel, dtype = jnp.pad(x, ((0, 0), *padding, (0, 0))).astype(wide), kernel.astype(wide), x.dtype
        out = [(size - side) // step + 1 for size, side, step in zip(x.shape[1:3], kernel.shape, strides)]
        rows, columns = ([slice(a, a + (count - 1) * step + 1, step) for a in range(side)]
                         for count, side, step in zip(out, kernel.shape, strides))  # fmt: skip
        parts = (x[:, row, column] * kernel[None, a, b][None] for a, row in enumerate(rows) for b, column in enumerate(columns))
        return sum(parts).astype(dtype)

    return lax.platform_dependent(x, kernel, cpu=written_out, default=convolution)


def _refuse(*dilations):
    if any(d not in (None, 1) for dilation in dilations for d in dilation or ()):
        raise ValueError("dilation is not known here: use flax.linen.Conv as it is")


def _pairs(x, kernel, strides, padding):
    """Padding as ((low, high), (low, high))."""
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    return tuple(map(tuple, padding))


def _plain(x, kernel, strides, padding, precision):
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=LAYOUT, precision=precision)


def _forward(x, kernel, strides, padding, precision):
    return _plain(x, kernel, strides, padding, precision), (x, kernel)


def _backward(strides, padding, precision, kept, grad):
    def usual(x, kernel, grad):
        plain = functools.partial(_plain, strides=strides, padding=padding, precision=precision)
        return jax.vjp(plain, x, kernel)[1](grad)

    def one_layout(x, kernel, grad):
        return _of_image(x, kernel, grad, strides, padding, precision), _of_kernel(x, kernel, grad, strides, padding, precision)

    return lax.platform_dependent(*kept, grad, cpu=one_layout, default=usual)


def _of_image(x, kernel, grad, strides, padding, precision):
    """The gradient with its zeros between strides, convolved with the kernel turned round and transposed."""
    ends = []
    for size, side, step, (low, _), out in zip(x.shape[1:3], kernel.shape, strides, padding, grad.shape[1:3]):
        low = side - 1 - low
        ends.append((low, size + side - 1 - ((out - 1) * step + 1) - low))
    turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    return lax.conv_general_dilated(
        grad, turned, (1, 1), ends, lhs_dilation=strides, dimension_numbers=LAYOUT, precision=precision
    )


def _of_kernel(x, kernel, grad, strides, padding, precision):
    """The patches of the image times the gradient at their place, a row of it at a time: patches of a row stay in the cache."""
    (high, wide, channels, _), (down, right), (rows, columns) = kernel.shape, strides, grad.shape[1:3]
    acc = jnp.promote_types(x.dtype, jnp.float32)
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))

    def add(i, total):
        band = lax.dynamic_slice_in_dim(x, i * down, high, axis=1)
        ends = [slice(b, b + (columns - 1) * right + 1, right) for b in range(wide)]
        patches = jnp.concatenate([band[:, a, end] for a in range(high) for end in ends], axis=-1)
        here = lax.dynamic_index_in_dim(grad, i, axis=1, keepdims=False)
        return total + jnp.einsum("nwk,nwd->kd", patches, here, precision=precision, preferred_element_type=acc)

    total = lax.fori_loop(0, rows, add, jnp.zeros((high * wide * channels, kernel.shape[3]), acc))
    return total.reshape(kernel.shape).astype(kernel.dtype)


_convolve = jax.custom_vjp(_plain, nondiff_argnums=(2, 3, 4))
_convolve.defvjp(_forward, _backward)
