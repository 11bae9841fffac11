"""Colour and focus of pictures, each with its own factors: jitter, gray, solarize, blur, Lab.

Pictures lie in planes, f32[..., 3, h, w] in [0, 1] (views.image.planes); factors have the leading shape [...]. Every function
of them returns pictures of the same shape in [0, 1], clipped.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from supcon_jax.views.crop import PRECISION

FLAVOURS = ("tv", "tf", "tf2")
OPS = ("brightness", "contrast", "saturation", "hue")
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow and TensorFlow have it


def _wide(factor):
    return factor[..., None, None, None]


def _channels(x):
    return x[..., 0:1, :, :], x[..., 1:2, :, :], x[..., 2:3, :, :]


def luma(x):
    """Brightness of each pixel: f32[..., 1, h, w]."""
    r, g, b = _channels(x)
    return LUMA[0] * r + LUMA[1] * g + LUMA[2] * b


def _blend(x, other, factor):
    return jnp.clip(factor * x + (1.0 - factor) * other, 0.0, 1.0)


def brightness(x, factor, flavour="tv"):
    """ "tv", "tf2" (SimCLR v2): x factor. "tf" (SimCLR v1, BYOL): x + factor, which is an amount then."""
    return jnp.clip(x + _wide(factor) if flavour == "tf" else x * _wide(factor), 0.0, 1.0)


def contrast(x, factor, flavour="tv"):
    """factor x + (1 - factor) m. m: "tv": the mean of the whole picture's luma, "tf", "tf2": of each channel."""
    return _blend(x, _mean(x, flavour), _wide(factor))


def _mean(x, flavour):
    if flavour != "tv":
        return x.mean((-2, -1), keepdims=True)
    r, g, b = _channels(x.mean((-2, -1), keepdims=True))  # luma is linear: the mean's luma is the luma's mean
    return LUMA[0] * r + LUMA[1] * g + LUMA[2] * b


def saturation(x, factor, flavour="tv"):
    """ "tv": factor x + (1 - factor) luma. "tf", "tf2": the S of HSV times factor, at most 1.

    Scaling S leaves hue and V = max(r, g, b) alone, so that x - V scales with it: no way through HSV and back is needed.
    """
    if flavour == "tv":
        return _blend(x, luma(x), _wide(factor))
    high = x.max(-3, keepdims=True)
    return _blend(x, high, _most(x, high, _wide(factor)))


def _most(x, high, factor):
    """The factor, or what brings S = (high - low) / high to 1 where that is less."""
    spread = high - x.min(-3, keepdims=True)
    return jnp.where(spread > 0, jnp.minimum(factor, high / jnp.where(spread > 0, spread, 1.0)), factor)


def hue(x, shift):
    """Turns the hue of HSV by `shift` of the whole circle; S and V stay. Gray pixels have no hue and stay as they are.

    x_k = V - C clip(min(t, 4 - t), 0, 1),  t = (k + 6 H) mod 6,  k = 5, 3, 1 for r, g, b,  C = max - min
    """
    r, g, b = _channels(x)
    high = jnp.maximum(jnp.maximum(r, g), b)
    spread = high - jnp.minimum(jnp.minimum(r, g), b)
    by = 1.0 / jnp.where(spread > 0, spread, 1.0)
    sextant = jnp.where(high == r, (g - b) * by, jnp.where(high == g, 2.0 + (b - r) * by, 4.0 + (r - g) * by))
    t = sextant + 6.0 * _wide(shift) + jnp.array([5.0, 3.0, 1.0], x.dtype).reshape((1,) * (x.ndim - 3) + (3, 1, 1))
    t = t - 6.0 * jnp.floor(t / 6.0)
    return jnp.clip(high - spread * jnp.clip(jnp.minimum(t, 4.0 - t), 0.0, 1.0), 0.0, 1.0)


def jitter(x, factors, order=None, flavour="tv"):
    """Brightness, contrast, saturation and hue, one after the other, clipped after each.

    Wu et al. 2018, arXiv 1805.01978; as in Chen et al. 2020, arXiv 2002.05709, appendix A.

    factors: f32[..., 4], by operation, in the order of OPS; 1, 1, 1, 0 change nothing ("tf": 0, 1, 1, 0).
    order: i32[..., 4], the operations of each picture, first to last; that of OPS for all if left out.
    flavour: "tv" (torchvision, Pillow), "tf" (TensorFlow, additive brightness: SimCLR v1, BYOL), "tf2" (factor: SimCLR v2).
    Raises ValueError: an unknown flavour.
    Differs from: Pillow, which rounds to bytes after each and the mean luma to a whole byte.
    """
    if flavour not in FLAVOURS:
        raise ValueError(f"flavour is {flavour!r}: say one of {', '.join(FLAVOURS)}")
    if order is None:
        x = brightness(x, factors[..., 0], flavour)
        x = contrast(x, factors[..., 1], flavour)
        return hue(saturation(x, factors[..., 2], flavour), factors[..., 3])
    turns = jnp.moveaxis(order, -1, 0), jnp.moveaxis(jnp.take_along_axis(factors, order, -1), -1, 0)
    # a loop, not four copies: compilers fuse copies into one another and compute each pixel's past many times over
    return jax.lax.scan(lambda x, now: (_drawn(x, *now, flavour), None), x, turns)[0]


def _drawn(x, op, factor, flavour):
    """One operation, another for each picture: the first three are one blend with different partners, so that only hue is
    computed beside it."""
    op, by = _wide(op), _wide(factor)
    if flavour == "tv":
        partner = luma(x)
    else:
        partner = x.max(-3, keepdims=True)
        by = jnp.where(op == 2, _most(x, partner, by), by)
    partner = jnp.where(op == 1, _mean(x, flavour), jnp.where(op == 2, partner, 0.0))
    blended = by * x + (1.0 - by) * partner
    if flavour == "tf":
        blended = jnp.where(op == 0, x + by, blended)  # a sum, no blend
    return jnp.where(op == 3, hue(x, factor), jnp.clip(blended, 0.0, 1.0))


def gray(x):
    """Luma in all three channels."""
    return jnp.broadcast_to(luma(x), x.shape)


def solarize(x, threshold=0.5):
    """Inverts what is not below the threshold: Pillow's solarize at 128 for bytes."""
    return jnp.where(x < threshold, x, 1.0 - x)


def taps(size):
    """Width of the blur at this size: a tenth of it, made odd (23 at 224), as SimCLR and BYOL have it."""
    return 2 * (size // 20) + 1


def blur(x, sigma, width):
    """Gaussian blur of `width` taps with mirrored borders, as two products with banded matrices.

    sigma: f32[...] in pixels. width: odd int; taps(size) for a tenth of the picture, 17 for what Pillow does at sigma <= 2.
    Differs from: SimCLR's and BYOL's codes, which pad with zeros (a dark rim), and Pillow's three box filters.
    """
    down, across = _band(sigma, width, x.shape[-2]), _band(sigma, width, x.shape[-1])
    x = jnp.einsum("...yh,...chw->...cyw", down, x, precision=PRECISION)
    return jnp.einsum("...cyw,...xw->...cyx", x, across, precision=PRECISION)


def _band(sigma, width, size):
    """f32[..., size, size]: row i holds the Gaussian's weights around i, those beyond a border mirrored about its pixel."""
    reach = min(width // 2, size - 1)
    sigma = sigma[..., None, None]
    ones = (1,) * (sigma.ndim - 2)
    i, j = jnp.arange(size).reshape(*ones, size, 1), jnp.arange(size).reshape(*ones, 1, size)
    # the pixel itself, and its images behind the first and behind the last pixel (which mirror themselves no second time)
    places = ((i - j, True), (i + j, j > 0), (2 * (size - 1) - i - j, j < size - 1))
    total = 0.0
    for distance, real in places:
        weight = jnp.exp(-0.5 * (distance.astype(jnp.float32) / sigma) ** 2)
        total = total + jnp.where((jnp.abs(distance) <= reach) & real, weight, 0.0)
    return total / total.sum(-1, keepdims=True)


# sRGB (IEC 61966-2-1) to CIE XYZ under D65, divided by the white point of the 2 degree observer
TO_XYZ = (
    (0.412453 / 0.95047, 0.357580 / 0.95047, 0.180423 / 0.95047),
    (0.212671, 0.715160, 0.072169),
    (0.019334 / 1.08883, 0.119193 / 1.08883, 0.950227 / 1.08883),
)
LAB_MEAN, LAB_DEVIATION = (50.0, 6.025, -6.6895), (50.0, 92.208, 101.1675)


def lab(x, normal=True):
    """CIE Lab of sRGB pictures: L in [0, 100], a in [-86.183, 98.233], b in [-107.857, 94.478].

    normal: brought to [-1, 1] by the middle and half the width of each range, as contrastive multiview coding has it
    (Tian et al. 2019, arXiv 1906.05849); plain Lab if False.
    """
    low, high = x / 12.92, (jnp.maximum(x, 0.0031308) + 0.055) / 1.055
    linear = jnp.where(x > 0.04045, high**2.4, low)
    r, g, b = _channels(linear)
    xyz = jnp.concatenate([row[0] * r + row[1] * g + row[2] * b for row in TO_XYZ], -3)
    edge = 6.0 / 29.0
    bent = jnp.where(xyz > edge**3, jnp.cbrt(jnp.maximum(xyz, edge**3)), xyz / (3 * edge**2) + 4.0 / 29.0)
    fx, fy, fz = _channels(bent)
    out = jnp.concatenate([116.0 * fy - 16.0, 500.0 * (fx - fy), 200.0 * (fy - fz)], -3)
    return normalise(out, LAB_MEAN, LAB_DEVIATION) if normal else out


def normalise(x, mean, deviation):
    """(x - mean) / deviation, channel by channel."""
    shape = (1,) * (x.ndim - 3) + (3, 1, 1)
    return (x - jnp.array(mean, x.dtype).reshape(shape)) / jnp.array(deviation, x.dtype).reshape(shape)
