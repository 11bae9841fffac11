"""Views on the device: range, mirroring of each picture on its own, and scales as an image library makes them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from supcon_jax.views import image as views


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


def pictures(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def test_signed_range():
    got = views.signed(jnp.arange(256, dtype=jnp.uint8))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, np.arange(256) / 127.5 - 1, atol=1e-6)
    assert float(got[0]) == -1 and float(got[-1]) == 1
    back = jnp.round((got + 1) * 127.5).astype(jnp.uint8)
    np.testing.assert_array_equal(back, np.arange(256))
    already = jnp.array([-0.5, 0.25], jnp.bfloat16)
    assert views.signed(already) is already


def test_flip_is_per_picture_and_fair():
    images = pictures(500, 2, 4, 6, 3)
    got = np.asarray(jax.jit(views.flip)(images, jax.random.key(0)))
    mirrored = (got == images[:, :, :, ::-1]).all((2, 3, 4))
    kept = (got == images).all((2, 3, 4))
    assert (mirrored ^ kept).all()  # each picture wholly one or the other
    assert abs(mirrored.mean() - 0.5) < 4 * 0.5 / np.sqrt(1000)
    # the views of a row toss their own coins, and so do the rows
    assert abs((mirrored[:, 0] == mirrored[:, 1]).mean() - 0.5) < 4 * 0.5 / np.sqrt(500)
    again = np.asarray(views.flip(images, jax.random.key(0)))
    np.testing.assert_array_equal(got, again)
    assert (np.asarray(views.flip(images, jax.random.key(1))) != got).any()


@pytest.mark.parametrize("size,sizes", [(32, (8, 16, 32)), (64, (16, 32, 64)), (24, (8, 24))])
def test_pyramid_is_the_image_librarys(size, sizes):
    """Pillow's bilinear reduction (which antialiases) to a hundredth of a byte, channel by channel in floats."""
    images = pictures(3, size, size, 3)
    scales = jax.jit(lambda x: views.pyramid(views.signed(x), sizes))(images)
    assert [s.shape for s in scales] == [(3, s, s, 3) for s in sizes]
    for side, got in zip(sizes, scales, strict=True):
        got = (np.asarray(got) + 1) * 127.5
        for picture, mine in zip(images, got, strict=True):
            for c in range(3):
                plane = Image.fromarray(picture[..., c].astype(np.float32), mode="F")
                want = np.asarray(plane.resize((side, side), Image.Resampling.BILINEAR))
                assert np.abs(want - mine[..., c]).max() < 0.01
    np.testing.assert_allclose(scales[-1], views.signed(images), atol=1e-6)
