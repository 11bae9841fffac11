"""Resizing of pictures as PyTorch does it, where jax.image.resize differs."""

import jax.numpy as jnp
import numpy as np


def weights(old: int, new: int, align_corners: bool = False) -> np.ndarray:
    """Linear interpolation as a matrix [new, old]: rows sum to one, no antialiasing."""
    if align_corners:
        place = np.arange(new) * ((old - 1) / (new - 1) if new > 1 else 0.0)
    else:
        place = np.maximum((np.arange(new) + 0.5) * (old / new) - 0.5, 0.0)
    low = np.minimum(place.astype(np.int64), old - 1)
    high = np.minimum(low + 1, old - 1)
    share = place - low
    matrix = np.zeros((new, old))
    np.add.at(matrix, (np.arange(new), low), 1 - share)
    np.add.at(matrix, (np.arange(new), high), share)
    return matrix


def bilinear(x, size: tuple[int, int], *, align_corners: bool = False):
    """Bilinear resize of [n, h, w, c] to [n, *size, c], two small matrix products.

    align_corners: False, half-pixel centres (torch's default, OpenCV's rule); True, the corner pixels' centres meet.
    Differs from jax.image.resize: no antialiasing when shrinking, and align_corners.
    """
    h, w = x.shape[1:3]
    if (h, w) == tuple(size):
        return x
    rows = jnp.asarray(weights(h, size[0], align_corners), x.dtype)
    columns = jnp.asarray(weights(w, size[1], align_corners), x.dtype)
    return jnp.einsum("ph,nhwc,qw->npqc", rows, x, columns)


def nearest(x, size: tuple[int, int]):
    """Nearest-neighbour resize of [n, h, w, c]: source index floor(i * old / new), as torch's mode "nearest".

    Differs from jax.image.resize: that takes half-pixel centres, other pixels for 7 -> 8, 128 -> 224, 256 -> 224.
    """
    rows, columns = (np.arange(new) * old // new for new, old in zip(size, x.shape[1:3], strict=True))
    return x[:, rows][:, :, columns]
