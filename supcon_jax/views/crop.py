"""Random crops brought to one size, with boxes that are traced: two matrix products, no gather.

Pictures lie in planes here, f32[..., 3, h, w] in [0, 1]: see views.image.planes.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

TRIES = 10
DRAWS = 2 * TRIES + 2  # uniform numbers that one box takes
PRECISION = jax.lax.Precision.HIGH  # one bfloat16 pass would round the weights to 8 bits, as coarse as the bytes themselves


def random_boxes(u, height, width, *, scale, ratio):
    """Boxes of random area, shape and place, in whole pixels, as torchvision's RandomResizedCrop draws them.

        area = h w U(scale), log(aspect) = U(log ratio); the first of ten tries that fits, placed uniformly;
        where none fits, the largest box in the middle whose aspect lies within `ratio`

    Szegedy et al. 2015, arXiv 1409.4842, section 6, with the ranges of Howard 2013, arXiv 1312.5402.

    u: f32[..., DRAWS], uniform in [0, 1). height, width: int, of the pictures. scale: (least, most) share of the area.
    ratio: (least, most) of width / height.
    Returns f32[..., 4]: top, left, height, width.
    Differs from: TensorFlow's sample_distorted_bounding_box, which draws the aspect itself uniformly, not its logarithm, and
    the height within what the area allows.
    """
    area = height * width * (scale[0] + (scale[1] - scale[0]) * u[..., :TRIES])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = jnp.exp(low + (high - low) * u[..., TRIES : 2 * TRIES])
    w, h = jnp.round(jnp.sqrt(area * aspect)), jnp.round(jnp.sqrt(area / aspect))
    fits = (w >= 1) & (w <= width) & (h >= 1) & (h <= height)
    first = jnp.argmax(fits, axis=-1, keepdims=True)
    none = ~fits.any(-1)
    middle = _largest(height, width, ratio)
    h = jnp.where(none, float(middle[0]), jnp.take_along_axis(h, first, -1)[..., 0])
    w = jnp.where(none, float(middle[1]), jnp.take_along_axis(w, first, -1)[..., 0])
    # the last of the places is drawn as often as the others; min, since u (k + 1) may round up to k + 1
    top = jnp.minimum(jnp.floor(u[..., -2] * (height - h + 1)), height - h)
    left = jnp.minimum(jnp.floor(u[..., -1] * (width - w + 1)), width - w)
    top = jnp.where(none, float((height - middle[0]) // 2), top)
    left = jnp.where(none, float((width - middle[1]) // 2), left)
    return jnp.stack([top, left, h, w], -1)


def _largest(height, width, ratio):
    if width / height < ratio[0]:
        return min(height, round(width / ratio[0])), width
    if width / height > ratio[1]:
        return height, min(width, round(height * ratio[1]))
    return height, width


def crop(planes, boxes, size, kernel="cubic"):
    """Cuts boxes out of each picture and brings them to one size, antialiased as an image library does.

        out[y, x] = sum_{i, j} A[y, i] B[x, j] picture[i, j],   A, B: the filter's weights over the box's rows and columns

    The rows and columns of A and B sum to 1 and are 0 outside the box: as if the box were cut out first, then resized.

    planes: f32[n, 3, h, w] in [0, 1]. boxes: f32[n, v, 4], top, left, height, width in pixels, each at least 1 pixel high and
    wide. size: int. kernel: "linear" or "cubic" (Keys 1981 with a = -1/2).
    Returns f32[n, v, 3, size, size]; a cubic overshoots and is clipped to [0, 1] after its columns and after its rows.
    Raises ValueError: an unknown kernel.
    Differs from: Pillow's resize(box=...), which reads pixels beside the box; newer Pillows, which clip after the rows first
    where that costs less; TensorFlow's resize without antialias.
    """
    top, left, height, width = jnp.moveaxis(boxes, -1, 0)
    down = weights(top, height, size, planes.shape[-2], kernel)
    across = weights(left, width, size, planes.shape[-1], kernel)
    x = jnp.clip(jnp.einsum("nchw,nvxw->nvchx", planes, across, precision=PRECISION), 0.0, 1.0)
    return jnp.clip(jnp.einsum("nvyh,nvchx->nvcyx", down, x, precision=PRECISION), 0.0, 1.0)


def weights(start, length, size, pixels, kernel):
    """The weights that resample [start, start + length) of so many pixels to `size`: f32[..., size, pixels], rows sum to 1.

    start, length: f32[...] in pixels. A reduction widens the kernel by its factor (antialias).
    """
    if kernel not in KERNELS:
        raise ValueError(f'kernel is {kernel!r}: say "linear" or "cubic"')
    start, length = start[..., None, None], length[..., None, None]
    step, ones = length / size, (1,) * (start.ndim - 2)
    out = jnp.arange(size, dtype=jnp.float32).reshape(*ones, size, 1) + 0.5
    pixel = jnp.arange(pixels, dtype=jnp.float32).reshape(*ones, 1, pixels) + 0.5
    distance = jnp.abs(pixel - (start + out * step)) / jnp.maximum(step, 1.0)
    inside = (pixel > start) & (pixel < start + length)
    found = jnp.where(inside, KERNELS[kernel](distance), 0.0)
    return found / found.sum(-1, keepdims=True)


def _linear(x):
    return jnp.maximum(1.0 - x, 0.0)


def _cubic(x):
    near, far = (1.5 * x - 2.5) * x * x + 1.0, ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return jnp.where(x < 1.0, near, jnp.where(x < 2.0, far, 0.0))


KERNELS = {"linear": _linear, "cubic": _cubic}


def centre(planes, size, *, share=1.0, kernel="cubic"):
    """The view of evaluation: the middle square, `share` of the short side, brought to `size`.

    planes: f32[n, 3, h, w] in [0, 1]; returned as they are where they have the size and share is 1. share 0.875: resized to
    256 and cut to 224, as is usual on ImageNet.
    Returns f32[n, 3, size, size].
    """
    n, _, height, width = planes.shape
    side = round(min(height, width) * share)
    if (height, width) == (size, size) == (side, side):
        return planes
    box = jnp.array([(height - side) // 2, (width - side) // 2, side, side], jnp.float32)
    return crop(planes, jnp.broadcast_to(box, (n, 1, 4)), size, kernel)[:, 0]
