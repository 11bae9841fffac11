"""Crops: boxes drawn as torchvision draws them, resampled as Pillow does with the box cut out first."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from supcon_jax.views import crop, image

KERNELS = {"linear": Image.Resampling.BILINEAR, "cubic": Image.Resampling.BICUBIC}
cut = jax.jit(crop.crop, static_argnums=(2, 3))


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


def pictures(n=3, h=40, w=48, seed=0):
    """Three kinds of pictures: noise, a ramp, hard edges."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w]
    ramp = np.stack([255 * y / h, 255 * x / w, 127 + 120 * np.sin(x * y / 90)], -1)
    edges = np.repeat((((x // 7) + (y // 5)) % 2 * 255)[..., None], 3, -1)
    noise = rng.integers(0, 256, (h, w, 3))
    return np.stack([noise, ramp, edges][:n]).astype(np.uint8)


BOXES = np.array([[0, 0, 40, 48], [3, 5, 22, 30], [11, 7, 9, 13], [20, 30, 4, 3], [39, 47, 1, 1]], np.float32)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("size", [8, 24])
def test_crop_is_pillows(kernel, size):
    """Within two bytes of Pillow's resize of the box cut out: it rounds to bytes after the columns and after the rows."""
    source = pictures()
    got = np.asarray(cut(image.planes(source), np.broadcast_to(BOXES, (3, 5, 4)), size, kernel))
    assert got.shape == (3, 5, 3, size, size)
    for i, picture in enumerate(source):
        for j, (t, l, h, w) in enumerate(BOXES.astype(int)):
            box = Image.fromarray(picture).crop((l, t, l + w, t + h))
            want = np.asarray(box.resize((size, size), KERNELS[kernel]), np.float64)
            assert np.abs(np.moveaxis(got[i, j], 0, -1) * 255 - want).max() < (1.6 if kernel == "linear" else 2.1)


@pytest.mark.parametrize("kernel", KERNELS)
def test_crop_is_scale_and_translate_of_the_box(kernel):
    source = 90 + pictures() // 4  # nothing overshoots [0, 1]
    got = np.asarray(cut(image.planes(source), np.broadcast_to(BOXES, (3, 5, 4)), 12, kernel))
    for j in (1, 3):  # fewer and more pixels than the box has; Pillow above has all boxes
        t, l, h, w = BOXES.astype(int)[j]
        box = source[:, t : t + h, l : l + w].astype(np.float32) / 255
        how = {"spatial_dims": (1, 2), "method": kernel, "antialias": True}
        resize = jax.jit(lambda box, scale, how=how: jax.image.scale_and_translate(
            box, (3, 12, 12, 3), scale=scale, translation=jnp.zeros(2), **how))  # fmt: skip
        want = resize(box, np.array([12 / h, 12 / w], np.float32))
        np.testing.assert_allclose(np.moveaxis(got[:, j], 1, -1), want, atol=2e-5)


def test_whole_picture_at_its_size_is_itself():
    x = image.planes(pictures(w=40))
    whole = jnp.broadcast_to(jnp.array([0.0, 0, 40, 40]), (3, 1, 4))
    np.testing.assert_allclose(cut(x, whole, 40, "cubic")[:, 0], x, atol=1e-6)
    assert crop.centre(x, 40) is x
    centre = jax.jit(crop.centre, static_argnames=("size", "share"))
    smaller = np.asarray(centre(x, size=20, share=0.5))
    np.testing.assert_allclose(smaller, x[:, :, 10:30, 10:30], atol=1e-6)
    wide = np.asarray(centre(image.planes(pictures(h=20, w=48)), size=20))
    np.testing.assert_allclose(wide, image.planes(pictures(h=20, w=48))[..., 14:34], atol=1e-6)


def test_weights_sum_to_one_and_stay_in_the_box():
    for kernel in KERNELS:
        w = np.asarray(crop.weights(jnp.array([0.0, 3.4, 9.0]), jnp.array([16.0, 7.25, 1.0]), 5, 16, kernel))
        np.testing.assert_allclose(w.sum(-1), 1, atol=1e-6)
        assert (w[1, :, :3] == 0).all() and (w[1, :, 11:] == 0).all() and (w[1, :, 3:11] != 0).any(0).all()
        np.testing.assert_allclose(w[2, :, 9], 1, atol=1e-6)


def test_unknown_kernel():
    with pytest.raises(ValueError, match='say "linear" or "cubic"'):
        crop.weights(jnp.zeros(1), jnp.ones(1), 2, 4, "lanczos")


def one_box(u, height, width, scale, ratio):
    """The box as torchvision's loop finds it, from the same uniform numbers."""
    for k in range(10):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * u[k])
        low, high = np.log(ratio)
        aspect = np.exp(low + (high - low) * u[10 + k])
        w, h = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(u[20] * (height - h + 1)), int(u[21] * (width - w + 1)), h, w
    if width / height < min(ratio):
        w, h = width, round(width / min(ratio))
    elif width / height > max(ratio):
        w, h = round(height * max(ratio)), height
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize(
    ("height", "width", "scale"), [(32, 32, (0.08, 1.0)), (30, 90, (0.9, 1.0)), (90, 30, (0.9, 1.0)), (4, 4, (0.99, 1.0))]
)
def test_boxes_are_torchvisions(height, width, scale):
    """Number for number, the fallback of tall and wide pictures included; a rounding tie may fall otherwise in float32."""
    ratio = (3 / 4, 4 / 3)
    u = np.random.default_rng(0).uniform(size=(2000, crop.DRAWS)).astype(np.float32)
    got = np.asarray(jax.jit(lambda u: crop.random_boxes(u, height, width, scale=scale, ratio=ratio))(u))
    want = np.array([one_box(row.astype(np.float64), height, width, scale, ratio) for row in u])
    assert (got == want).all(1).mean() > 0.999
    assert (got[:, :2] >= 0).all() and (got[:, 2:] >= 1).all()
    assert (got[:, 0] + got[:, 2] <= height).all() and (got[:, 1] + got[:, 3] <= width).all()
    if scale == (0.9, 1.0):  # nothing fits: all are the largest box in the middle
        assert len(np.unique(got, axis=0)) == 1


def test_area_is_uniform_and_aspect_log_uniform():
    u = np.random.default_rng(1).uniform(size=(4000, crop.DRAWS)).astype(np.float32)
    b = np.asarray(crop.random_boxes(u, 400, 400, scale=(0.2, 0.6), ratio=(1 / 2, 2)))
    area, aspect = b[:, 2] * b[:, 3] / 400**2, np.log2(b[:, 3] / b[:, 2])
    for x, low, high in ((area, 0.2, 0.6), (aspect, -1, 1)):
        quantiles = np.quantile((x - low) / (high - low), [0.1, 0.25, 0.5, 0.75, 0.9])
        np.testing.assert_allclose(quantiles, [0.1, 0.25, 0.5, 0.75, 0.9], atol=0.03)
    place = (b[:, 0] + 0.5) / (401 - b[:, 2])
    np.testing.assert_allclose(np.quantile(place, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.03)
