"""AutoAugment's operations are Pillow's, and its pairs come as often as they should."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from supcon_jax.views import autoaugment
from supcon_jax.views.autoaugment import IMAGENET, OPERATIONS, STRENGTHS
from supcon_jax.views.recipes import RECIPES, crops

GREY = (128,) * 3


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


def picture(seed=0, h=37, w=31):
    """Smooth, so that neighbours are alike and bytes are unevenly spread; one channel spans few values."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w] / 10
    noise = rng.normal(0, 6, (h, w, 3))
    waves = np.stack([90 + 80 * np.sin(x + y), 60 + 9 * np.cos(y), 140 + 100 * np.sin(x) * np.cos(y)], -1)
    return np.clip(waves + noise, 0, 255).astype(np.uint8)


PILLOW = {
    "posterize": lambda x, by: ImageOps.posterize(x, int(by)),
    "solarize": lambda x, by: ImageOps.solarize(x, by),
    "invert": lambda x, by: ImageOps.invert(x),
    "stretch": lambda x, by: ImageOps.autocontrast(x),
    "equalize": lambda x, by: ImageOps.equalize(x),
    "rotate": lambda x, by: x.rotate(by, fillcolor=GREY),
    "shear": lambda x, by: x.transform(x.size, Image.Transform.AFFINE, (1, by, 0, 0, 1, 0), fillcolor=GREY),
    "saturation": lambda x, by: ImageEnhance.Color(x).enhance(1 + by),
    "contrast": lambda x, by: ImageEnhance.Contrast(x).enhance(1 + by),
    "sharpness": lambda x, by: ImageEnhance.Sharpness(x).enhance(1 + by),
}
EXACT = ("posterize", "solarize", "invert", "equalize")


def ours(name, image, by):
    x = jnp.moveaxis(jnp.asarray(image, jnp.float32), -1, 0)[None]
    made = jax.jit(OPERATIONS[name])(x, jnp.array([by], jnp.float32))
    return np.moveaxis(np.asarray(made)[0], 0, -1)


@pytest.mark.parametrize("name", PILLOW)
def test_operations_are_pillows(name):
    """Floats that end on a whole number fall to either side of it, so that a few bytes may be one off."""
    strengths = STRENGTHS.get(name, (0.0,))
    signs = (1, -1) if name in autoaugment.SIGNED else (1,)
    changed = 0
    for by in [sign * x for x in (strengths[1::2] or strengths) for sign in signs]:
        image = picture()
        want = np.asarray(PILLOW[name](Image.fromarray(image), by)).astype(np.float32)
        got = ours(name, image, by)
        assert (got == np.round(got)).all() and got.min() >= 0 and got.max() <= 255
        off = np.abs(got - want)
        assert (off == 0).mean() > (0.9999 if name in EXACT else 0.95), by
        assert name in ("rotate", "shear") or off.max() <= 1
        changed += (want != image).mean()
    assert changed > 0.1


def test_flat_channels_stay():
    flat = np.full((9, 9, 3), 77, np.uint8)
    for name in ("equalize", "stretch"):
        np.testing.assert_array_equal(ours(name, flat, 0.0), flat)
    few = flat.copy()
    few[0, 0] = 3  # fewer pixels than bytes: there is no share to give
    np.testing.assert_array_equal(ours("equalize", few, 0.0), np.asarray(ImageOps.equalize(Image.fromarray(few))))


def test_levels_are_the_papers():
    """Ten values spread evenly over the paper's ranges (its table 6), strongest last."""
    assert STRENGTHS["posterize"] == (8, 8, 7, 7, 6, 6, 5, 5, 4, 4)
    for name, (first, last) in {"solarize": (256, 0), "rotate": (0, 30), "shear": (0, 0.3), "contrast": (0, 0.9)}.items():
        np.testing.assert_allclose(STRENGTHS[name], np.linspace(first, last, 10))
    assert len(IMAGENET) == 25 and all(0 <= p <= 1 for pair in IMAGENET for _, p, _ in pair)
    assert {name for pair in IMAGENET for name, _, level in pair if level is not None} == set(STRENGTHS)


@pytest.mark.parametrize("pair", (0, 9, 14, 17, 18))
def test_a_pair_is_its_two_operations(pair):
    image = picture(pair)
    x = jnp.moveaxis(jnp.asarray(image, jnp.float32) / 255, -1, 0)
    (first, _, one), (second, _, two) = IMAGENET[pair]
    for acts in ((True, True), (True, False), (False, True), (False, False)):
        want = Image.fromarray(image)
        for name, level, does, sign in ((first, one, acts[0], -1), (second, two, acts[1], 1)):
            by = STRENGTHS.get(name, (0.0,))[level or 0]
            want = PILLOW[name](want, sign * by if name in autoaugment.SIGNED else by) if does else want
        drawn = jnp.array([(pair + 0.5) / 25, *(0.0 if does else 1.0 for does in acts), 0.2, 0.8], jnp.float32)
        got = np.moveaxis(np.asarray(jax.jit(autoaugment.augment)(x, drawn)), 0, -1) * 255
        assert (np.abs(got - np.asarray(want).astype(np.float32)) < 1.5).mean() > 0.97, acts


def test_each_picture_draws_its_own():
    """Of 4,000 the share that stays whole is that of the policy; a picture of one byte is changed by those that move it."""
    x = jnp.full((4000, 3, 4, 4), 200 / 255, jnp.float32)
    got = jax.jit(autoaugment.augment)(x, autoaugment.draw(jax.random.key(0), (4000,)))
    inverts = np.mean([[p if name == "invert" else 0.0 for name, p, _ in pair] for pair in IMAGENET], 0).sum()
    solar = np.mean([1 - np.prod([1 - p if name == "solarize" and STRENGTHS["solarize"][level] <= 200 else 1.0
                                  for name, p, level in pair]) for pair in IMAGENET])  # fmt: skip
    dark = (np.asarray(got).reshape(4000, -1).max(1) < 0.3).mean()
    assert abs(dark - inverts - solar) < 4.5 * np.sqrt(0.25 / 4000)
    with pytest.raises(ValueError, match="the policy is 'cifar': say one of imagenet"):
        autoaugment.augment(x, jnp.zeros((4000, 5)), "cifar")


def test_in_a_recipe():
    """It acts on the mirrored crop, and the other columns of the draw are what they are without it."""
    images, key = np.stack([picture(i, 24, 24) for i in range(6)]), jax.random.key(1)

    @jax.jit
    def both(images, key):
        (told,) = crops(images, key, recipe="supcon", size=16)
        (without,) = crops(images, key, recipe="supcon", size=16, change={"policy": ""})
        kept = autoaugment.augment(jnp.moveaxis(without[:, 0] / 2 + 0.5, -1, 1), jnp.ones((6, autoaugment.DRAWS)))
        return told, without, jnp.moveaxis(kept, 1, -1) * 2 - 1

    told, without, kept = both(images, key)
    assert RECIPES["supcon"].views[0].policy == "imagenet" and told.shape == without.shape == (6, 2, 16, 16, 3)
    np.testing.assert_allclose(kept, without[:, 0], atol=0.51 / 127.5)  # of the last pair neither acts
    same = np.isclose(told, without, atol=0.6 / 127.5).all((2, 3, 4))
    assert 0 < same.mean() < 0.7  # whatever a policy leaves alone is the same crop, mirrored alike
    with pytest.raises(ValueError, match="policy of a view is 'cifar': say one of imagenet"):
        crops(images, key, recipe="supcon", size=16, change={"policy": "cifar"})
