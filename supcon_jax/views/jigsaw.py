"""Puzzles and turns of pictures: shuffled patches, quarter turns, small rotations. Pictures are [..., h, w, 3] here."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def jigsaw(images, key, *, size, grid=3):
    """Cuts pictures into grid x grid cells, a random patch out of each, and shuffles the patches of each picture.

    The gap between patches is random, so that their edges give no clue how they fit.
    Noroozi and Favaro 2016, arXiv 1603.09246; as in PIRL, Misra and van der Maaten 2020, arXiv 1912.01991.

    images: [n, h, w, 3], any type; rows and columns that the grid leaves over at the end are not used. size: int, of a patch,
    at most that of a cell (64 out of 85 for pictures of 255).
    Returns (patches [n, grid * grid, size, size, 3], order i32[n, grid * grid]): patch k comes from cell order[:, k], cells
    counted row by row.
    Raises ValueError: patches larger than a cell.
    """
    n, height, width, _ = images.shape
    g, h, w = grid, height // grid, width // grid
    if size > min(h, w):
        raise ValueError(f"patches of {size} px do not fit cells of {h} x {w}: give size <= {min(h, w)} or larger pictures")
    cells = images[:, : g * h, : g * w].reshape(n, g, h, g, w, 3).swapaxes(2, 3).reshape(n, g * g, h, w, 3)
    u = jax.random.uniform(key, (n, g * g, 3))
    order = jnp.argsort(u[..., 0], -1).astype(jnp.int32)
    cells = jnp.take_along_axis(cells, order[:, :, None, None, None], 1)
    room = jnp.array([h - size + 1, w - size + 1], jnp.float32)[None, None]
    corner = jnp.minimum(jnp.floor(u[..., 1:] * room), room - 1).astype(jnp.int32)
    cut = lambda cell, at: jax.lax.dynamic_slice(cell, (at[0], at[1], jnp.int32(0)), (size, size, 3))  # noqa: E731
    return jax.vmap(jax.vmap(cut))(cells, corner), order


def quarter(images, turns):
    """Turns each square picture counter-clockwise by so many quarters.

    Gidaris et al. 2018, arXiv 1803.07728. images: [..., s, s, 3], any type. turns: i32[...] in 0..3.
    Raises ValueError: pictures that are not square.
    """
    if images.shape[-3] != images.shape[-2]:
        raise ValueError(f"pictures of {images.shape[-3]} x {images.shape[-2]} cannot be turned by a quarter: cut them square")
    turns = turns[..., None, None, None]
    swapped = images.swapaxes(-3, -2)
    out = jnp.where(turns == 1, swapped[..., ::-1, :, :], images)
    out = jnp.where(turns == 2, images[..., ::-1, ::-1, :], out)
    return jnp.where(turns == 3, swapped[..., ::-1, :], out)


def rotate(images, degrees, fill=None):
    """Turns each picture counter-clockwise about its middle by any angle, bilinear, at its own size.

    images: f32[..., h, w, 3]. degrees: f32[...]. fill: f32 value of what lies outside; the border's pixels, drawn out, if
    left out (no black corners that give the angle away).
    """
    *lead, h, w, c = images.shape
    flat, angle = images.reshape(-1, h * w, c), jnp.deg2rad(degrees).reshape(-1, 1, 1)
    y = jnp.arange(h, dtype=jnp.float32)[None, :, None] - (h - 1) / 2
    x = jnp.arange(w, dtype=jnp.float32)[None, None, :] - (w - 1) / 2
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    row, column = (cos * y + sin * x + (h - 1) / 2, cos * x - sin * y + (w - 1) / 2)
    top, left = jnp.floor(row), jnp.floor(column)
    down, right = row - top, column - left
    out = 0.0
    for dy, wy in ((0, 1 - down), (1, down)):
        for dx, wx in ((0, 1 - right), (1, right)):
            i, j = top.astype(jnp.int32) + dy, left.astype(jnp.int32) + dx
            at = (jnp.clip(i, 0, h - 1) * w + jnp.clip(j, 0, w - 1)).reshape(-1, h * w, 1)
            pixel = jnp.take_along_axis(flat, at, 1)
            if fill is not None:
                real = ((i >= 0) & (i < h) & (j >= 0) & (j < w)).reshape(at.shape)
                pixel = jnp.where(real, pixel, fill)
            out = out + (wy * wx).reshape(at.shape) * pixel
    return out.reshape(*lead, h, w, c)
