"""Convolution of images whose gradients stay fast inside loops on CPU."""

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
    0.12), where they take fifty times as long: there they are written in that layout at once. Elsewhere, and in values,
    nothing differs.

    strides: (rows, columns). padding: "SAME", "VALID" or ((low, high), (low, high)).
    Raises ValueError: dilation or groups, which no network here has inside a loop.
    """
    if any(d not in (None, 1) for dilation in (lhs_dilation, rhs_dilation) for d in dilation or ()) or feature_group_count > 1:
        raise ValueError("convolve knows neither dilation nor groups: use flax.linen.Conv as it is")
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    return _convolve(x, kernel, tuple(strides), tuple(map(tuple, padding)), precision)


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
    """The image convolved with the gradient: channels stand for pictures, pictures for channels."""
    ends = []
    for size, side, step, (low, _), out in zip(x.shape[1:3], kernel.shape, strides, padding, grad.shape[1:3]):
        ends.append((low, side + (out - 1) * step - size - low))
    found = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0), grad.transpose(1, 2, 0, 3), (1, 1), ends,
        rhs_dilation=strides, dimension_numbers=LAYOUT, precision=precision,
    )  # fmt: skip
    return found.transpose(1, 2, 0, 3)


_convolve = jax.custom_vjp(_plain, nondiff_argnums=(2, 3, 4))
_convolve.defvjp(_forward, _backward)
