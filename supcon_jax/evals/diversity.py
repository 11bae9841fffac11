"""How much pictures of one caption differ: the distance of LPIPS on the layers of a given network."""

import itertools

import numpy as np

from supcon_jax.evals.fid import finite


def rows(maps, images):
    """Layers of pictures as rows whose squared Euclidean distance is that of `spread`: f64[n, sum of h w c].

    maps: u8[n, h, w, 3] -> layers [n, h_l, w_l, c_l].
    Raises ValueError: a layer that is not finite.
    """
    out = []
    for layer in maps(images):
        x = finite("layer", layer)
        x = x / np.maximum(np.sqrt((x * x).sum(-1, keepdims=True)), 1e-10)
        out.append(x.reshape(len(x), -1) / np.sqrt(x.shape[1] * x.shape[2]))
    return np.concatenate(out, axis=1)


def spread(maps, images, same):
    """Diversity: mean distance between pictures of the same caption, then mean over captions.

        d(x, y) = sum_l  mean_{h,w}  sum_c (x^_lhwc - y^_lhwc)^2,   x^_lhw: the c channels at a place, made unit

    Zhang et al. 2018, arXiv 1801.03924 (LPIPS), section 3, with all channel weights one.

    maps: see `rows`; images: u8[n, h, w, 3]; same: i[n], equal numbers for pictures of one caption.
    Returns (mean >= 0, captions with two pictures or more, pairs). 0: the noise changes nothing.
    Raises ValueError: no caption has two pictures.
    Differs from: LPIPS (its weights were fitted to people's answers on AlexNet, VGG or SqueezeNet, so its numbers have
    another scale).
    """
    _, place, count = np.unique(same, return_inverse=True, return_counts=True)
    means, pairs = [], 0
    for group in np.flatnonzero(count > 1):
        found = np.flatnonzero(place == group)
        filled = np.resize(found, count.max())  # one shape for all captions: the network is compiled once
        x = rows(maps, images[filled])[: len(found)]
        distances = [float(((a - b) ** 2).sum()) for a, b in itertools.combinations(x, 2)]
        means.append(np.mean(distances))
        pairs += len(distances)
    if not means:
        raise ValueError("no caption has two pictures: nothing to compare")
    return float(np.mean(means)), len(means), pairs
