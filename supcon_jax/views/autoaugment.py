"""AutoAugment: for each picture one of 25 pairs of operations that a search found, each with its probability and strength."""

from __future__ import annotations

import jax
import jax.numpy as jnp

# Cubuk et al. 2019, arXiv 1805.09501, table 9: (operation, probability, level), twice; no level: the operation has no strength
IMAGENET = (
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)), (("solarize", 0.6, 5), ("stretch", 0.6, None)),
    (("equalize", 0.8, None), ("equalize", 0.6, None)), (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, None), ("solarize", 0.2, 4)), (("equalize", 0.4, None), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, None)), (("posterize", 0.8, 5), ("equalize", 1.0, None)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)), (("equalize", 0.6, None), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("saturation", 0.4, 0)), (("rotate", 0.4, 9), ("equalize", 0.6, None)),
    (("equalize", 0.0, None), ("equalize", 0.8, None)), (("invert", 0.6, None), ("equalize", 1.0, None)),
    (("saturation", 0.6, 4), ("contrast", 1.0, 8)), (("rotate", 0.8, 8), ("saturation", 1.0, 2)),
    (("saturation", 0.8, 8), ("solarize", 0.8, 7)), (("sharpness", 0.4, 7), ("invert", 0.6, None)),
    (("shear", 0.6, 5), ("equalize", 1.0, None)), (("saturation", 0.4, 0), ("equalize", 0.6, None)),
    (("equalize", 0.4, None), ("solarize", 0.2, 4)), (("solarize", 0.6, 5), ("stretch", 0.6, None)),
    (("invert", 0.6, None), ("equalize", 1.0, None)), (("saturation", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, None), ("equalize", 0.6, None)),
)  # fmt: skip
POLICIES = {"imagenet": IMAGENET}
DRAWS = 5  # numbers that one view takes: the pair, whether each of the two acts, the sign of each
GREY = 128.0  # what comes in from outside

# Strength at a level of 0..9, ten values spread evenly as the paper has it; those in SIGNED go either way
STRENGTHS = {
    "posterize": tuple(float(8 - round(4 * i / 9)) for i in range(10)),  # bits that are kept
    "solarize": tuple(256 - 256 * i / 9 for i in range(10)),  # byte from which on is inverted
    "rotate": tuple(30 * i / 9 for i in range(10)),  # degrees, counter-clockwise
    "shear": tuple(0.3 * i / 9 for i in range(10)),  # columns by row
    **{name: tuple(0.9 * i / 9 for i in range(10)) for name in ("saturation", "contrast", "sharpness")},  # factor less one
}
SIGNED = ("rotate", "shear", "saturation", "contrast", "sharpness")


def augment(x, drawn, policy="imagenet"):
    """One of the policy's pairs for each picture, on its bytes as Pillow computes them.

    x: f32[..., 3, h, w] in [0, 1]. drawn: f32[..., DRAWS], uniform in 0..1. Returns what x is, of whole bytes.
    Every operation is computed for all pictures and selected, as the pictures of a batch share one program.
    Differs from: the released code of Khosla et al. 2020, which takes its library's later policy of other pairs and strengths.
    Raises ValueError: an unknown policy.
    """
    pairs = POLICIES.get(policy)
    if pairs is None:
        raise ValueError(f"the policy is {policy!r}: say one of {', '.join(POLICIES)}")
    x, pair = jnp.round(x * 255.0), jnp.minimum(jnp.floor(drawn[..., 0] * len(pairs)), len(pairs) - 1).astype(jnp.int32)
    for turn in range(2):
        names, chances, levels = zip(*(both[turn] for both in pairs))
        sign = jnp.where(drawn[..., 3 + turn] < 0.5, -1.0, 1.0)
        by = jnp.array([_strength(name, level) for name, level in zip(names, levels)], jnp.float32)[pair]
        kinds = sorted(set(names))
        kind = jnp.array([kinds.index(name) for name in names])[pair]
        acts = drawn[..., 1 + turn] < jnp.array(chances, jnp.float32)[pair]
        done = x
        for i, name in enumerate(kinds):
            made = OPERATIONS[name](x, sign * by if name in SIGNED else by)
            done = jnp.where((acts & (kind == i))[..., None, None, None], made, done)
        x = done
    return x / 255.0


def _strength(name, level):
    return STRENGTHS[name][level] if name in STRENGTHS else 0.0


# ---- operations: pictures of bytes as f32[..., 3, h, w], strengths f32[...]


def _wide(by):
    return by[..., None, None, None]


def posterize(x, bits):
    step = jnp.exp2(8.0 - _wide(bits))
    return jnp.floor(x / step) * step


def solarize(x, threshold):
    return jnp.where(x < _wide(threshold), x, 255.0 - x)


def invert(x, _):
    return 255.0 - x


def stretch(x, _):
    """Each channel's least value to 0, its most to 255 (Pillow's autocontrast)."""
    low, high = x.min((-2, -1), keepdims=True), x.max((-2, -1), keepdims=True)
    return jnp.where(high > low, jnp.floor((x - low) * 255.0 / jnp.maximum(high - low, 1.0)), x)


def equalize(x, _):
    """Each channel's values to equal shares of the bytes, by the counts of those below; sums are of whole numbers, exactly."""
    flat = x.reshape(*x.shape[:-2], -1)
    below = jnp.vectorize(lambda row: jnp.searchsorted(row, jnp.arange(257.0)), signature="(p)->(b)")(jnp.sort(flat, -1))
    counts = jnp.diff(below, axis=-1)
    most = flat.max(-1, keepdims=True).astype(jnp.int32)
    step = (flat.shape[-1] - jnp.take_along_axis(counts, most, -1)) // 255
    table = jnp.clip((step // 2 + below[..., :-1]) // jnp.maximum(step, 1), 0, 255)
    spread = jnp.take_along_axis(table, flat.astype(jnp.int32), -1).astype(jnp.float32)
    return jnp.where(step > 0, spread, flat).reshape(x.shape)


def _luma(x):
    """Pillow's brightness in whole numbers: f32[..., 1, h, w]; all sums stay below 2^24, where f32 is exact."""
    r, g, b = x[..., 0:1, :, :], x[..., 1:2, :, :], x[..., 2:3, :, :]
    return jnp.floor((19595.0 * r + 38470.0 * g + 7471.0 * b + 32768.0) / 65536.0)


def _blend(x, other, amount):
    """other + (1 + amount) (x - other), cut to bytes."""
    return jnp.floor(jnp.clip(other + _wide(1.0 + amount) * (x - other), 0.0, 255.0))


def saturation(x, amount):
    return _blend(x, _luma(x), amount)


def contrast(x, amount):
    return _blend(x, jnp.floor(_luma(x).mean((-3, -2, -1), keepdims=True) + 0.5), amount)


def sharpness(x, amount):
    """Against a blur of 3 x 3 pixels, the middle five times; the rim stays."""
    h, w = x.shape[-2:]
    rows = x[..., :-2, :] + x[..., 1:-1, :] + x[..., 2:, :]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4.0 * x[..., 1:-1, 1:-1]
    return _blend(x, x.at[..., 1 : h - 1, 1 : w - 1].set(jnp.floor(total / 13.0 + 0.5)), amount)


def rotate(x, degrees):
    """Counter-clockwise about the middle, by the nearest pixel."""
    h, w = x.shape[-2:]
    angle = jnp.deg2rad(degrees)[..., None, None]
    row, column = _grid(x)
    row, column = row - h / 2, column - w / 2
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return _nearest(x, sin * column + cos * row + h / 2, cos * column - sin * row + w / 2)


def shear(x, slope):
    """Rows pushed to the left, the lower the further; from the top, not about the middle."""
    row, column = _grid(x)
    column = column + slope[..., None, None] * row
    return _nearest(x, jnp.broadcast_to(row, column.shape), column)


def _grid(x):
    """Middles of the pixels: f32[1.., h, 1], f32[1.., 1, w]."""
    ones = (1,) * (x.ndim - 3)
    row, column = (jnp.arange(side, dtype=jnp.float32) + 0.5 for side in x.shape[-2:])
    return row.reshape(*ones, -1, 1), column.reshape(*ones, 1, -1)


def _nearest(x, row, column):
    """The pixels that hold these places, f32[..., h, w]; grey from outside."""
    h, w = x.shape[-2:]
    i, j = jnp.floor(row).astype(jnp.int32), jnp.floor(column).astype(jnp.int32)
    real = ((i >= 0) & (i < h) & (j >= 0) & (j < w))[..., None, :, :]
    at = (jnp.clip(i, 0, h - 1) * w + jnp.clip(j, 0, w - 1)).reshape(*i.shape[:-2], 1, h * w)
    found = jnp.take_along_axis(x.reshape(*x.shape[:-2], h * w), at, -1).reshape(x.shape)
    return jnp.where(real, found, GREY)


OPERATIONS = {f.__name__: f for f in (posterize, solarize, invert, stretch, equalize, saturation, contrast, sharpness, rotate,
                                      shear)}  # fmt: skip


def draw(key, shape):
    """What `augment` takes: f32[*shape, DRAWS]."""
    return jax.random.uniform(key, (*shape, DRAWS))
