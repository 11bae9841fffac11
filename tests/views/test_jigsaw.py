"""Puzzles and turns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from supcon_jax.views import jigsaw


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


def coordinates(n, h, w):
    """Pictures whose pixels say where they are: row, column, picture."""
    y, x = np.mgrid[:h, :w]
    return np.stack([np.stack([y, x, np.full_like(x, i % 251)], -1) for i in range(n)]).astype(np.uint8)


def test_patches_are_windows_of_their_cells():
    n, cell, size = 400, 11, 8
    images = coordinates(n, 35, 34)
    patches, order = jax.jit(lambda x, k: jigsaw.jigsaw(x, k, size=size))(images, jax.random.key(0))
    patches, order = np.asarray(patches).astype(int), np.asarray(order)
    assert patches.shape == (n, 9, size, size, 3)
    assert (np.sort(order, -1) == np.arange(9)).all() and len(np.unique(order, axis=0)) > 390
    top, left = patches[..., 0, 0, 0], patches[..., 0, 0, 1]
    y, x = top - cell * (order // 3), left - cell * (order % 3)
    assert set(np.unique(y)) == set(np.unique(x)) == {0, 1, 2, 3}  # every place in the cell, none outside
    assert abs((y == 3).mean() - 0.25) < 0.03
    rows = top[..., None, None] + np.arange(size)[:, None] + np.zeros((1, size), int)
    assert (patches[..., 0] == rows).all()
    assert (patches[..., 1] == left[..., None, None] + np.arange(size)[None] + np.zeros((size, 1), int)).all()
    assert (patches[..., 2] == (np.arange(n) % 251)[:, None, None, None]).all()


def test_patches_must_fit():
    with pytest.raises(ValueError, match="give size <= 10"):
        jigsaw.jigsaw(jnp.zeros((1, 32, 32, 3)), jax.random.key(0), size=11)


def test_quarters():
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 6, 3)).astype(np.uint8)
    turns = np.tile(np.arange(4, dtype=np.int32), (2, 1))
    got = np.asarray(jigsaw.quarter(jnp.array(images), turns))
    for i in range(2):
        for k in range(4):
            np.testing.assert_array_equal(got[i, k], np.rot90(images[i, k], k))
    with pytest.raises(ValueError, match="cut them square"):
        jigsaw.quarter(jnp.zeros((1, 4, 6, 3)), jnp.zeros(1, jnp.int32))


def test_rotation():
    images = np.random.default_rng(0).uniform(size=(3, 9, 9, 3)).astype(np.float32)
    turn = jax.jit(jigsaw.rotate, static_argnames="fill")
    np.testing.assert_array_equal(turn(images, np.zeros(3, np.float32)), images)
    for k in (1, 2, 3):
        got = turn(images, np.full(3, 90.0 * k, np.float32))
        np.testing.assert_allclose(got, np.rot90(images, k, axes=(1, 2)), atol=1e-5)
    angles = np.array([10.0, -25.0, 40.0], np.float32)
    got = np.asarray(turn(images, angles, fill=0.5))
    edge = np.asarray(turn(images, angles))
    for i, angle in enumerate(angles):
        plane = Image.fromarray(images[i, ..., 0], mode="F")
        want = np.asarray(plane.rotate(float(angle), Image.Resampling.BILINEAR, fillcolor=0.5))
        np.testing.assert_allclose(got[i, 2:-2, 2:-2, 0], want[2:-2, 2:-2], atol=1e-4)
        np.testing.assert_allclose(edge[i, 2:-2, 2:-2, 0], want[2:-2, 2:-2], atol=1e-4)
    corner = np.asarray(turn(np.ones((1, 9, 9, 3), np.float32), np.array([45.0], np.float32), fill=0.0))
    assert corner[0, 0, 0, 0] == 0 and abs(corner[0, 4, 4, 0] - 1) < 1e-6
    np.testing.assert_allclose(turn(np.ones((1, 9, 9, 3), np.float32), np.array([45.0], np.float32)), 1, atol=1e-6)
