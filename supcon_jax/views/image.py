"""Image views on the device: from the batch's bytes to what a network reads."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def signed(images):
    """u8 [..., h, w, 3] -> f32 in [-1, 1]; floating images are taken to be there already."""
    if jnp.issubdtype(images.dtype, jnp.floating):
        return images
    return images.astype(jnp.float32) / 127.5 - 1.0


def flip(images, key):
    """Mirrors each image [n, v, h, w, 3] left to right with probability one half, each on its own."""
    mirror = jax.random.bernoulli(key, 0.5, images.shape[:2])
    return jnp.where(mirror[:, :, None, None, None], images[..., ::-1, :], images)


def pyramid(images, sizes):
    """The real images at every scale of a generator, smallest first: antialiased bilinear, as an image library does.

    images: [n, h, w, 3]. Returns a tuple of [n, s, s, 3].
    """
    shape = images.shape
    return tuple(
        images if s == shape[1] else jax.image.resize(images, (shape[0], s, s, shape[3]), "linear", antialias=True)
        for s in sizes
    )
