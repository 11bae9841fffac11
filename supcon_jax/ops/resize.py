"""Resizing of pictures by the rules of PyTorch, TensorFlow 1 and Pillow, each of which moves published scores.

Every linear rule is a matrix for the rows and one for the columns; they differ in where an output pixel looks and how far.
"""

import functools

import jax.numpy as jnp
import numpy as np

BITS = 22  # of a weight, as Pillow holds it: 255 times the largest sum of weights then fits 32 bits


def cubic(x, a=-0.5):
    """Keys' cubic kernel, support 2; a = -0.5 as Pillow and torch's antialiased path have it."""
    x = np.abs(x)
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, a * (((x - 5) * x + 8) * x - 4)
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


KERNELS = {  # name -> (support in source pixels where nothing shrinks, weight at a distance)
    "box": (0.5, lambda x: ((x > -0.5) & (x <= 0.5)) * 1.0),
    "bilinear": (1.0, lambda x: np.maximum(1 - np.abs(x), 0)),
    "bicubic": (2.0, cubic),
    "lanczos": (3.0, lambda x: np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)),
}


@functools.cache
def weights(old: int, new: int, place: str = "centres") -> np.ndarray:
    """Linear interpolation between the two nearest pixels as a matrix [new, old]: rows sum to one, no antialiasing.

    place: where output pixel i looks: "centres", (i + 1/2) old / new - 1/2 (torch's default, OpenCV); "corners",
    i (old - 1) / (new - 1) (align_corners, old torch); "left", i old / new (TensorFlow 1, the graph of the first FID).
    """
    i = np.arange(new)
    at = {
        "centres": np.maximum((i + 0.5) * (old / new) - 0.5, 0.0),
        "corners": i * ((old - 1) / (new - 1) if new > 1 else 0.0),
        "left": i * float(np.float32(old / new)),  # the graph holds the ratio in float32
    }[place]
    low = np.minimum(at.astype(np.int64), old - 1)
    high = np.minimum(low + 1, old - 1)
    share = at - low
    matrix = np.zeros((new, old))
    np.add.at(matrix, (i, low), 1 - share)
    np.add.at(matrix, (i, high), share)
    return matrix


@functools.cache
def filtered(old: int, new: int, kernel: str) -> np.ndarray:
    """A kernel as a matrix [new, old], widened where the picture shrinks (antialiasing), its rows made to sum to one.

    Pillow's rule, which torch's antialias=True follows: pixels from int(c - s + 1/2) to int(c + s + 1/2) around the
    centre c = (i + 1/2) old / new, s the support times max(1, old / new).
    """
    support, weight = KERNELS[kernel]
    step = max(1.0, old / new)
    matrix = np.zeros((new, old))
    for i in range(new):
        centre = (i + 0.5) * (old / new)
        first, last = max(int(centre - support * step + 0.5), 0), min(int(centre + support * step + 0.5), old)
        row = weight((np.arange(first, last) - centre + 0.5) / step)
        matrix[i, first:last] = row / row.sum()
    return matrix


def bilinear(x, size: tuple[int, int], *, place: str = "centres"):
    """Bilinear resize of [n, h, w, c] to [n, *size, c] without antialiasing, two small matrix products.

    place: "centres", "corners" or "left", see weights.
    Differs from jax.image.resize: that antialiases when shrinking and knows centres only.
    """
    if x.shape[1:3] == tuple(size):
        return x
    return _apply(x, weights(x.shape[1], size[0], place), weights(x.shape[2], size[1], place))


def antialiased(x, size: tuple[int, int], kernel: str, *, levels: bool = False):
    """Resize of [n, h, w, c] by a kernel of KERNELS ("box", "bilinear", "bicubic", "lanczos") that widens when shrinking.

    levels: False, in floats (clean-fid's rule, torch's antialias=True); True, as Pillow does with 8-bit pictures, values 0
    to 255: first along rows, then along columns, each time in integers with weights of 22 bits and rounded to a level.
    """
    rows, columns = filtered(x.shape[1], size[0], kernel), filtered(x.shape[2], size[1], kernel)
    if not levels:
        return _apply(x, rows, columns)
    y = x.astype(jnp.int32)
    for axis, matrix in ((2, columns), (1, rows)):
        if matrix.shape[0] != matrix.shape[1]:  # a side of the right length is left alone
            fixed = np.int32(np.floor(np.abs(matrix) * 2**BITS + 0.5) * np.sign(matrix))
            y = jnp.moveaxis(jnp.tensordot(y, jnp.asarray(fixed), (axis, 1)), -1, axis)
            y = jnp.clip((y + 2 ** (BITS - 1)) >> BITS, 0, 255)
    return y.astype(x.dtype)


def _apply(x, rows, columns):
    return jnp.einsum("ph,nhwc,qw->npqc", jnp.asarray(rows, x.dtype), x, jnp.asarray(columns, x.dtype))


def nearest(x, size: tuple[int, int], *, place: str = "left"):
    """Nearest-neighbour resize of [n, h, w, c].

    place: "left", source index floor(i old / new), torch's mode "nearest"; "centres", floor((i + 1/2) old / new) with the
    ratio added up step by step in float64, as Pillow has it (where that falls on a border, rounding decides).
    Differs from jax.image.resize: that has centres only, other pixels for 7 -> 8, 128 -> 224, 256 -> 224.
    """
    rows, columns = (_nearest(old, new, place) for new, old in zip(size, x.shape[1:3], strict=True))
    return x[:, rows][:, :, columns]


def _nearest(old, new, place):
    if place == "left":
        return np.arange(new) * old // new
    step = old / new
    return np.minimum(np.add.accumulate([step / 2, *[step] * (new - 1)]).astype(int), old - 1)
