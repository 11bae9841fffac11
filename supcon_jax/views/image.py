"""Image views on the device: from the batch's bytes to what a network reads."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def signed(images):
    """u8 [..., h, w, 3] -> f32 in [-1, 1]; floating images are taken to be there already."""
    if jnp.issubdtype(images.dtype, jnp.floating):
        return images
    return images.astype(jnp.float32) / 127.5 - 1.0


def planes(images):
    """u8 [..., h, w, 3] -> f32 [..., 3, h, w] in [0, 1]; floating images are taken to be in [0, 1] already.

    Whole planes of one colour are what the arithmetic of views reads: a compiler runs along them without a stride of three.
    """
    images = jnp.moveaxis(jnp.asarray(images), -1, -3)
    if jnp.issubdtype(images.dtype, jnp.floating):
        return images.astype(jnp.float32)
    return images.astype(jnp.float32) / 255.0


def flip(images, key):
    """Mirrors each image [n, v, h, w, 3] left to right with probability one half, each on its own."""
    return mirror(images, jax.random.bernoulli(key, 0.5, images.shape[:2]))


def mirror(images, which):
    """Mirrors those images [n, v, h, w, 3] left to right that `which`, bool[n, v], names."""
    return jnp.where(which[:, :, None, None, None], images[..., ::-1, :], images)


def pyramid(images, sizes):
    """The real images at every scale of a generator, smallest first: antialiased bilinear, as an image library does.

    images: [n, h, w, 3]. Returns a tuple of [n, s, s, 3].
    """
    shape = images.shape
    return tuple(
        images if s == shape[1] else jax.image.resize(images, (shape[0], s, s, shape[3]), "linear", antialias=True)
        for s in sizes
    )
