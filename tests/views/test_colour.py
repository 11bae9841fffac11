"""Colour and blur against hand-computed cases, exact numpy and colorsys, and Pillow."""

import colorsys
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from supcon_jax.views import colour, image

FLAVOURS = ("tv", "tf", "tf2")


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


def pictures(h=20, w=24, seed=0):
    """Noise, a ramp, and blocks of black, white, gray and pure colours."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w]
    ramp = np.stack([255 * y / h, 255 * x / w, 127 + 120 * np.sin(x * y / 30)], -1)
    colours = [(0,) * 3, (255,) * 3, (128,) * 3, (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (90, 90, 200)]
    return np.stack([rng.integers(0, 256, (h, w, 3)), ramp, np.array(colours)[(x // 3 + y // 5) % 8]]).astype(np.uint8)


def bytes_of(x):
    return np.moveaxis(np.asarray(x), -3, -1) * 255


def one(*pixel):
    """A picture of one pixel, in planes: [1, 3, 1, 1]."""
    return jnp.array(pixel, jnp.float32).reshape(1, 3, 1, 1)


def values(x):
    return np.asarray(x).reshape(-1)


@pytest.mark.parametrize(("op", "enhance"), [("brightness", "Brightness"), ("contrast", "Contrast"), ("saturation", "Color")])
def test_jitter_is_pillows(op, enhance):
    factors = np.array([0.3, 1.0, 1.7], np.float32)
    source = pictures()
    for factor in factors:
        got = bytes_of(getattr(colour, op)(image.planes(source), jnp.full(3, factor)))
        for mine, picture in zip(got, source):
            want = np.asarray(getattr(ImageEnhance, enhance)(Image.fromarray(picture)).enhance(float(factor)))
            # one byte, after cutting off fractions as Pillow does; it rounds the gray partner too
            assert np.abs(np.floor(mine + 1e-3) - want).max() <= 1
    every = bytes_of(getattr(colour, op)(image.planes(source), factors))  # each picture has its own factor
    for i, factor in enumerate(factors):
        alone = bytes_of(getattr(colour, op)(image.planes(source[i : i + 1]), jnp.array([factor])))
        np.testing.assert_allclose(every[i], alone[0], atol=1e-3)


def test_by_hand():
    p = one(0.2, 0.4, 0.8)
    two = jnp.concatenate([p, one(0.6, 0.2, 0.0)], -1)  # [1, 3, 1, 2]
    f = lambda x: jnp.array([x], jnp.float32)  # noqa: E731
    luma = 0.299 * 0.2 + 0.587 * 0.4 + 0.114 * 0.8
    np.testing.assert_allclose(values(colour.brightness(p, f(1.5))), [0.3, 0.6, 1.0], atol=1e-6)
    np.testing.assert_allclose(values(colour.brightness(p, f(1.5), "tf2")), [0.3, 0.6, 1.0], atol=1e-6)
    np.testing.assert_allclose(values(colour.brightness(p, f(-0.3), "tf")), [0, 0.1, 0.5], atol=1e-6)
    mean = (luma + 0.299 * 0.6 + 0.587 * 0.2) / 2
    got = np.asarray(colour.contrast(two, f(0.5)))[0, :, 0]
    np.testing.assert_allclose(got, 0.5 * np.array([[0.2, 0.6], [0.4, 0.2], [0.8, 0.0]]) + 0.5 * mean, atol=1e-6)
    got = np.asarray(colour.contrast(two, f(2.0), "tf"))[0, :, 0]
    np.testing.assert_allclose(got, [[0.0, 0.8], [0.5, 0.1], [1.0, 0.0]], atol=1e-6)  # means .4, .3, .4
    np.testing.assert_allclose(values(colour.saturation(p, f(0.0))), [luma] * 3, atol=1e-6)
    np.testing.assert_allclose(values(colour.gray(p)), [luma] * 3, atol=1e-6)
    np.testing.assert_allclose(values(colour.solarize(p)), [0.2, 0.4, 0.2], atol=1e-6)
    np.testing.assert_allclose(values(colour.solarize(p, 0.3)), [0.2, 0.6, 0.2], atol=1e-6)
    np.testing.assert_allclose(values(colour.hue(one(1, 0, 0), f(1 / 3))), [0, 1, 0], atol=1e-6)
    np.testing.assert_allclose(values(colour.hue(one(1, 0, 0), f(-1 / 6))), [1, 0, 1], atol=1e-6)


def test_hue_and_saturation_are_those_of_hsv():
    source = pictures()
    pixels = source.reshape(-1, 3) / 255
    for shift in (-0.4, -0.1, 0.0, 0.25, 0.5):
        got = bytes_of(colour.hue(image.planes(source), jnp.full(3, shift, jnp.float32))).reshape(-1, 3) / 255
        hsv = [colorsys.rgb_to_hsv(*p) for p in pixels]
        np.testing.assert_allclose(got, [colorsys.hsv_to_rgb((h + shift) % 1, s, v) for h, s, v in hsv], atol=2e-6)
    for factor in (0.0, 0.5, 1.0, 1.8):
        got = bytes_of(colour.saturation(image.planes(source), jnp.full(3, factor, jnp.float32), "tf")).reshape(-1, 3)
        want = [colorsys.hsv_to_rgb(h, min(s * factor, 1), v) for h, s, v in hsv]
        np.testing.assert_allclose(got / 255, want, atol=2e-6)


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_black_gray_and_white_have_no_hue(level):
    p = one(level, level, level)
    for shift in (-0.5, 0.1, 0.4):
        np.testing.assert_array_equal(values(colour.hue(p, jnp.array([shift]))), np.float32([level] * 3))
    for flavour in FLAVOURS:
        np.testing.assert_allclose(values(colour.saturation(p, jnp.array([1.9]), flavour)), [level] * 3, atol=1e-6)


@pytest.mark.parametrize("flavour", [pytest.param("tv", marks=pytest.mark.slow), *FLAVOURS[1:]])
def test_random_order_is_one_after_the_other(flavour):
    """All 24 orders at once, each picture with its own, against the four functions in turn."""
    orders = np.array(list(itertools.permutations(range(4))), np.int32)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.uniform(size=(24, 3, 5, 6)), jnp.float32)
    factors = np.stack([rng.uniform(0.4, 1.6, 24) for _ in range(3)] + [rng.uniform(-0.2, 0.2, 24)], -1).astype(np.float32)
    if flavour == "tf":
        factors[:, 0] -= 1
    ops = [lambda x, f, name=name: getattr(colour, name)(x, f, flavour) for name in colour.OPS[:3]] + [colour.hue]
    got = np.asarray(jax.jit(lambda x, f, o: colour.jitter(x, f, o, flavour))(x, factors, orders))
    turned = {}
    for i, order in enumerate(orders):
        want = x[i : i + 1]
        for op in order:
            want = ops[op](want, jnp.asarray(factors[i : i + 1, op]))
        np.testing.assert_allclose(got[i], want[0], atol=2e-6)
        turned[tuple(order)] = got[i]
    fixed = np.asarray(colour.jitter(x, jnp.asarray(factors), None, flavour))
    np.testing.assert_allclose(fixed[0], turned[0, 1, 2, 3], atol=2e-6)
    assert np.abs(fixed[9] - got[9]).max() > 0.01  # the order matters
    neutral = jnp.broadcast_to(jnp.array([0.0 if flavour == "tf" else 1.0, 1, 1, 0]), (24, 4))
    np.testing.assert_allclose(colour.jitter(x, neutral, jnp.asarray(orders), flavour), x, atol=1e-6)


def test_unknown_flavour():
    with pytest.raises(ValueError, match="say one of tv, tf, tf2"):
        colour.jitter(one(0, 0, 0), jnp.ones((1, 4)), flavour="pil")


def test_solarize_and_gray_are_pillows():
    for picture in pictures():
        got = bytes_of(colour.solarize(image.planes(picture)))
        np.testing.assert_allclose(got, np.asarray(ImageOps.solarize(Image.fromarray(picture))), atol=1e-3)
        got = bytes_of(colour.gray(image.planes(picture)))
        assert np.abs(got - np.asarray(Image.fromarray(picture).convert("L"))[..., None]).max() <= 1


def exact_blur(picture, sigma, width):
    """float64, with borders mirrored about the last pixel (numpy's reflect)."""
    r = width // 2
    kernel = np.exp(-0.5 * (np.arange(-r, r + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    padded = np.pad(picture.astype(np.float64), ((r, r), (r, r), (0, 0)), mode="reflect")
    rows = sum(k * padded[i : i + len(picture)] for i, k in enumerate(kernel))
    return sum(k * rows[:, i : i + picture.shape[1]] for i, k in enumerate(kernel))


@pytest.mark.parametrize("width", [1, 3, 17])
def test_blur_is_a_gaussian(width):
    source, sigmas = pictures(), np.array([0.1, 0.9, 2.0], np.float32)
    got = bytes_of(jax.jit(lambda x, s: colour.blur(x, s, width))(image.planes(source), sigmas))
    for mine, picture, sigma in zip(got, source, sigmas):
        np.testing.assert_allclose(mine, exact_blur(picture, float(sigma), width), atol=0.01)


def test_blur_of_narrow_pictures_and_taps():
    got = colour.blur(jnp.ones((2, 3, 4, 4)), jnp.array([2.0, 0.5]), 23)  # wider than the picture: cut at its far side
    np.testing.assert_allclose(got, 1, atol=1e-6)
    assert [colour.taps(s) for s in (16, 32, 96, 224, 256)] == [1, 3, 9, 23, 25]


def test_lab():
    """The corners of the cube, whose Lab values are published; a, b reach the ends of the ranges of the normalisation."""
    corners = {
        (0, 0, 0): (0, 0, 0), (1, 1, 1): (100, 0, 0), (1, 0, 0): (53.2408, 80.0925, 67.2032),
        (0, 1, 0): (87.7347, -86.1827, 83.1793), (0, 0, 1): (32.2970, 79.1875, -107.8602),
        (1, 1, 0): (97.1393, -21.5537, 94.4780), (1, 0, 1): (60.3242, 98.2343, -60.8249), (0.5, 0.5, 0.5): (53.3890, 0, 0),
    }  # fmt: skip
    for rgb, lab in corners.items():
        np.testing.assert_allclose(values(colour.lab(one(*rgb), normal=False)), lab, atol=0.02)
    np.testing.assert_allclose(values(colour.lab(one(1, 1, 1)))[0], 1, atol=1e-4)
    np.testing.assert_allclose(values(colour.lab(one(1, 0, 1)))[1], 1, atol=1e-3)
    np.testing.assert_allclose(values(colour.lab(one(0, 0, 1)))[2], -1, atol=1e-3)
    np.testing.assert_allclose(values(colour.lab(one(0, 0, 0))), [-1, -6.025 / 92.208, 6.6895 / 101.1675], atol=1e-5)
    dark = values(colour.lab(one(0.02, 0.02, 0.02), normal=False))  # the straight piece of both curves
    np.testing.assert_allclose(dark, [0.02 / 12.92 * 24389 / 27, 0, 0], atol=2e-3)
