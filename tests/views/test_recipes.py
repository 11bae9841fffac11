"""Recipes: what they draw is what was published, and the views do not depend on devices, precision or company."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dress
from supcon_jax.views import colour, recipes
from supcon_jax.views.image import planes
from supcon_jax.views.recipes import NORMS, RECIPES, View

# (least scale, jitter, jitter p, gray p, blur p of each view, solarize p of each view), flip 1/2, most scale 1
TABLE = {
    "simclr": (0.08, (0.8, 0.8, 0.8, 0.2), 0.8, 0.2, (0.5, 0.5), (0, 0)),
    "simclr_cifar": (0.08, (0.4, 0.4, 0.4, 0.1), 0.8, 0.2, (0, 0), (0, 0)),
    "moco_v1": (0.2, (0.4, 0.4, 0.4, 0.4), 1.0, 0.2, (0, 0), (0, 0)),
    "moco_v2": (0.2, (0.4, 0.4, 0.4, 0.1), 0.8, 0.2, (0.5, 0.5), (0, 0)),
    "byol": (0.08, (0.4, 0.4, 0.2, 0.1), 0.8, 0.2, (1.0, 0.1), (0, 0.2)),
    "moco_v3": (0.2, (0.4, 0.4, 0.2, 0.1), 0.8, 0.2, (1.0, 0.1), (0, 0.2)),
    "barlow": (0.08, (0.4, 0.4, 0.2, 0.1), 0.8, 0.2, (1.0, 0.1), (0, 0.2)),
    "swav_two": (0.14, (0.8, 0.8, 0.8, 0.2), 0.8, 0.2, (0.5, 0.5), (0, 0)),
    "cifar_symmetric": (0.08, (0.8, 0.8, 0.8, 0.2), 0.8, 0.2, (0.5, 0.5), (0, 0)),
    "cifar_weak": (0.08, (0.4, 0.4, 0.4, 0.1), 0.8, 0.2, (0.5, 0.5), (0, 0)),
    "cifar_asymmetric": (0.08, (0.4, 0.4, 0.2, 0.1), 0.8, 0.2, (0, 0), (0, 0.2)),
    "cifar_vicreg": (0.2, (0.4, 0.4, 0.2, 0.1), 0.8, 0.2, (0, 0), (0.1, 0.1)),
    "supcon_cifar": (0.2, (0.4, 0.4, 0.4, 0.1), 0.8, 0.2, (0, 0), (0, 0)),
}
SAME = {"simsiam": "moco_v2", "pcl_v2": "moco_v2", "vicreg": "barlow"}
NORM = {
    "none": ("simclr", "simclr_cifar"), "swav": ("swav", "swav_two"), "lab": ("cmc",),
    "half": ("digits", "shapes", "emoji", "supcon"),
    "cifar": ("cifar_symmetric", "cifar_weak", "cifar_asymmetric", "cifar_vicreg"), "cifar_supcon": ("supcon_cifar",),
    "imagenet": ("moco_v1", "moco_v2", "simsiam", "pcl_v2", "byol", "moco_v3", "barlow", "vicreg", "cpc",
                 "crop_flip"),
}  # fmt: skip
SIZES = {"swav": (12, 8)}


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


def pictures(n=8, h=20, w=20, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, h, w, 3)).astype(np.uint8)


def views(images, key=0, *, recipe, size=12, small=8, **rest):
    made = jax.jit(lambda x, k: recipes.crops(x, k, recipe=recipe, size=size, small=small, **rest))
    return made(images, jax.random.key(key))


@pytest.mark.parametrize("name", TABLE)
def test_recipe_draws_what_was_published(name):
    """Shares and ranges over 4000 draws, within 4.5 standard deviations, and as fields, exactly."""
    least, jitter, p, gray, blur, solarize = TABLE[name]
    n, height = 4000, 200
    close = lambda got, want: abs(got.mean() - want) <= 4.5 * np.sqrt(want * (1 - want) / n) + 1e-12  # noqa: E731
    made = RECIPES[name]
    assert len(made.views) == 2 and not made.small
    for i, view in enumerate(made.views):
        assert (view.scale, view.jitter, view.order) == ((least, 1.0), jitter, "random")
        assert (view.flip, view.jitter_p, view.gray) == (0.5, p, gray)
        assert (view.blur, view.solarize, view.threshold) == (blur[i], solarize[i], 0.5)
        d = jax.tree.map(np.asarray, recipes.draw(view, jax.random.key(3), (i,), (n, height, height, 3)))
        for field, want in (("flip", 0.5), ("jitter", p), ("gray", gray), ("blur", blur[i]), ("solarize", solarize[i])):
            got = getattr(d, field)
            assert got.shape == (n, 1) and got.dtype == bool and close(got, want), field
        for k, reach in enumerate(jitter):
            middle = 0.0 if k == 3 or (k == 0 and view.flavour == "tf") else 1.0
            f = d.factors[:, 0, k]
            assert f.min() >= middle - reach - 1e-6 and f.max() <= middle + reach + 1e-6
            assert f.min() < middle - 0.99 * reach and f.max() > middle + 0.99 * reach
            assert abs(f.mean() - middle) < 4.5 * reach / np.sqrt(3 * n)
        assert d.sigma.min() >= 0.1 and d.sigma.max() <= 2 and abs(d.sigma.mean() - 1.05) < 4.5 * 1.9 / np.sqrt(12 * n)
        _, counts = np.unique(d.order[:, 0], axis=0, return_counts=True)
        assert len(counts) == 24 and np.abs(counts / n - 1 / 24).max() < 4.5 * np.sqrt(1 / 24 / n)
        area = d.boxes[:, 0, 2] * d.boxes[:, 0, 3] / height**2
        # the largest shares fit at few aspects: tries again make them rarer, so that the mean lies below the middle
        assert least - 0.01 < area.min() < least + 0.02 and area.max() > 0.93
        coins = [d.flip, d.jitter, d.gray, d.blur, d.solarize, d.sigma, *np.moveaxis(d.factors, -1, 0)]
        draws = np.stack(coins, -1)[:, 0].astype(float)
        moving = draws[:, draws.std(0) > 0]
        assert np.abs(np.corrcoef(moving.T) - np.eye(moving.shape[1])).max() < 4.5 / np.sqrt(n)


def test_other_recipes():
    for name, twin in SAME.items():
        assert RECIPES[name] == RECIPES[twin]
    assert {name for names in NORM.values() for name in names} == set(RECIPES)
    for norm, names in NORM.items():
        assert all(recipes.own_norm(name) == norm for name in names)
    swav = RECIPES["swav"]
    assert [v.scale for v in swav.views + swav.small] == [(0.14, 1.0)] * 2 + [(0.05, 0.14)] * 6
    assert all(dataclasses.replace(v, scale=(0.14, 1.0)) == RECIPES["swav_two"].views[0] for v in swav.small)
    assert RECIPES["moco_v1"].views[0].gray_first and not RECIPES["moco_v2"].views[0].gray_first
    for view in RECIPES["digits"].views:  # no mirror, no colour
        assert (view.flip, view.gray, view.solarize, any(view.jitter), view.scale) == (0, 0, 0, False, (0.4, 1.0))
    assert [v.flavour for v in RECIPES["byol"].views + RECIPES["barlow"].views] == ["tf", "tf", "tv", "tv"]


OTHER_NUMBERS = ("simclr_cifar", "moco_v2", "moco_v3", "swav_two", "cifar_symmetric", "cifar_weak", "cifar_asymmetric",
                 "cifar_vicreg", "supcon_cifar", "emoji")  # of fields that another recipe has  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in OTHER_NUMBERS else ()) for n in RECIPES if n not in SAME]
)
def test_every_recipe_gives_finite_views(name):
    images = pictures(4)
    images[0], images[1] = 0, 255  # black and white
    got = views(images, recipe=name)
    count = [len(RECIPES[name].views)] + [len(RECIPES[name].small)] * (name == "swav")
    assert [g.shape for g in got] == [(4, v, s, s, 3) for v, s in zip(count, (12, 8))]
    for g in got:
        g = np.asarray(g)
        assert g.dtype == np.float32 and np.isfinite(g).all()
        assert np.abs(g[2, 0] - g[2, 1]).max() > 1e-3  # views differ
        if name not in ("cmc",):
            mean, deviation = (np.array(x) for x in NORMS[recipes.own_norm(name)])
            back = g * deviation + mean
            assert back.min() > -1e-5 and back.max() < 1 + 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ("byol", "supcon"))
def test_views_of_one_device_and_of_eight(recipe):
    images = pictures(16)
    alone, again = (views(images, recipe=recipe) for _ in range(2))
    np.testing.assert_array_equal(alone[0], again[0])
    made = jax.jit(lambda x, k: recipes.crops(x, k, recipe=recipe, size=12)).lower(dress.split(images, 8), jax.random.key(0))
    made = made.compile()
    split = made(dress.split(images, 8), jax.random.key(0))
    assert split[0].sharding.spec[0] == "data" and len(split[0].sharding.device_set) == 8
    assert not re.search(
        r"all-gather|all-reduce|all-to-all|collective-permute", made.as_text()
    )  # nothing moves between devices
    # a policy cuts to bytes, on either side of which a rounding falls, and counts them
    near = np.isclose(split[0], alone[0], atol=2e-5)
    assert near.all() if recipe == "byol" else near.mean() > 0.98
    other = views(images, 1, recipe=recipe)
    assert np.abs(np.asarray(other[0]) - np.asarray(alone[0])).max(axis=(1, 2, 3, 4)).min() > 1e-3


def test_equal_pictures_have_views_of_their_own():
    images = np.repeat(pictures(1), 6, 0)
    rows = np.asarray(views(images, recipe="cmc", norm="none")[0]).reshape(12, -1)
    apart = np.abs(rows[:, None] - rows[None]).max(-1) + np.eye(12)
    assert apart.min() > 1e-3


def test_further_views_leave_the_recipes_own_as_they_are():
    images = pictures(4)
    base, more = (np.asarray(views(images, recipe="byol", more=count)[0]) for count in (0, 2))
    assert more.shape[1] == 4
    np.testing.assert_allclose(more[:, :2], base, atol=1e-6)
    apart = np.abs(more[:, :, None] - more[:, None]).max((0, 3, 4, 5)) + np.eye(4)
    assert apart.min() > 1e-3  # each is drawn by itself


def test_bytes_and_floats_are_the_same_picture():
    images = pictures(4)
    want = views(images, recipe="moco_v2")[0]
    np.testing.assert_allclose(views(images.astype(np.float32) / 255, recipe="moco_v2")[0], want, atol=1e-5)
    half = views(jnp.asarray(images / 255, jnp.bfloat16), recipe="simclr")[0]
    assert half.dtype == jnp.float32
    assert np.abs(np.asarray(half) - np.asarray(views(images, recipe="simclr")[0])).mean() < 0.01
    assert recipes.plain(jnp.asarray(images / 255, jnp.bfloat16), size=20, norm="none").dtype == jnp.float32


def test_change_replaces_a_field_and_leaves_the_other_draws():
    images = pictures(6)
    base = {"flip": 0.0, "jitter_p": 0.0, "gray": 0.0, "blur": 0.0}
    crop_only = np.asarray(views(images, recipe="byol", norm="none", change={**base, "solarize": 0.0})[0])
    gray = np.asarray(views(images, recipe="byol", norm="none", change={**base, "solarize": 0.0, "gray": 1.0})[0])
    want = np.moveaxis(np.asarray(colour.gray(planes(crop_only))), -3, -1)
    np.testing.assert_allclose(gray, want, atol=1e-5)  # the same crops, in gray
    inverted = np.asarray(views(images, recipe="byol", norm="none", change={**base, "solarize": 1.0})[0])
    np.testing.assert_allclose(inverted, np.where(crop_only < 0.5, crop_only, 1 - crop_only), atol=1e-5)
    flipped = np.asarray(views(images, recipe="byol", norm="none", change={**base, "solarize": 0.0, "flip": 1.0})[0])
    np.testing.assert_allclose(flipped, crop_only[..., ::-1, :], atol=1e-6)
    from_lists = views(images, recipe="byol", change={"scale": [0.5, 1.0], "jitter": [0.1, 0.1, 0.1, 0.0]})
    assert np.isfinite(from_lists[0]).all()


def test_render_does_what_was_drawn():
    """A view with everything, picture by picture, against the operations in their order, from its Draws."""
    images = pictures(6)
    view = View(jitter=(0.4, 0.4, 0.4, 0.1), jitter_p=0.5, gray=0.5, blur=0.5, solarize=0.5, taps=5)
    d = recipes.draw(view, jax.random.key(0), range(2), images.shape)
    step_of = {
        "jitter": jax.jit(lambda x, o: colour.jitter(x, o.factors, o.order)),
        "gray": jax.jit(lambda x, o: colour.gray(x)),
        "blur": jax.jit(lambda x, o: colour.blur(x, o.sigma, 5)),
        "solarize": jax.jit(lambda x, o: colour.solarize(x)),
    }
    cropped = np.asarray(jax.jit(recipes.crop, static_argnums=2)(planes(images), d.boxes, 10))
    for turned in (view, dataclasses.replace(view, gray_first=True)):
        got = np.asarray(jax.jit(lambda x, d, v=turned: recipes.render(x, v, d, 10, "none"))(planes(images), d))
        for i in range(6):
            one = jax.tree.map(lambda a, i=i: np.asarray(a)[i, :1], d)
            x = cropped[i, :1]
            steps = ["gray", "jitter"] if turned.gray_first else ["jitter", "gray"]
            for step in [*steps, "blur", "solarize"]:
                if bool(getattr(one, step)[0]):
                    x = step_of[step](x, one)
            want = np.moveaxis(np.asarray(x[0]), 0, -1)
            want = want[:, ::-1] if bool(one.flip[0]) else want
            near = np.abs(got[i, 0] - want) < 1e-4
            assert near.mean() > 0.99  # a value beside the threshold may fall on its other side


def test_plain_is_the_centre():
    images = pictures(3, 20, 30)
    plain = jax.jit(recipes.plain, static_argnames=("size", "norm", "share"))
    got = np.asarray(plain(images, size=20, norm="half"))
    np.testing.assert_allclose(got, images[:, :, 5:25] / 127.5 - 1, atol=1e-5)
    square = pictures(2)
    mean, deviation = (np.array(x, np.float32) for x in NORMS["imagenet"])
    same = np.asarray(plain(square, size=20, norm="imagenet"))
    np.testing.assert_allclose(same, (square / 255 - mean) / deviation, atol=1e-5)
    assert jax.eval_shape(lambda x: recipes.plain(x, size=8, norm="lab"), square).shape == (2, 8, 8, 3)
    kept = np.asarray(plain(square, size=10, norm="none", share=0.5))
    np.testing.assert_allclose(kept, square[:, 5:15, 5:15] / 255, atol=1e-6)


def test_rotation_turns_digits_only_so_far():
    d = recipes.draw(RECIPES["digits"].views[0], jax.random.key(0), (0,), (2000, 8, 8, 3))
    assert 14.9 < float(jnp.abs(d.degrees).max()) <= 15 and abs(float(d.degrees.mean())) < 4.5 * 15 / np.sqrt(3 * 2000)
    whole = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0)}
    images = pictures(3, 12, 12)
    still = views(images, recipe="digits", change={**whole, "rotate": 0.0})[0]
    np.testing.assert_allclose(still[:, 0], images / 127.5 - 1, atol=1e-5)
    assert np.abs(np.asarray(views(images, recipe="digits", change=whole)[0] - still)).max() > 0.05


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda x: recipes.crops(x, jax.random.key(0), recipe="simclr3", size=8), "say one of simclr, simclr_cifar"),
        (lambda x: recipes.crops(x, jax.random.key(0), recipe="simclr", size=8, norm="x"), "the norm is 'x'"),
        (lambda x: recipes.crops(x, jax.random.key(0), recipe="swav", size=8), "give their size, views.small"),
        (lambda x: recipes.crops(x, jax.random.key(0), recipe="simclr", size=8, change={"hue": 1}), "no field 'hue'"),
        (lambda x: recipes.crops(x, jax.random.key(0), recipe="simclr", size=8, change={"gray": 2.0}), "lies in 0..1"),
        (lambda x: recipes.plain(x, size=8, norm="x"), "the norm is 'x'"),
        (lambda x: recipes.own_norm("none"), "the recipe is 'none'"),
        (lambda x: View(flavour="pil"), "say one of tv, tf, tf2"),
        (lambda x: View(order="any"), "say one of fixed, random"),
        (lambda x: View(kernel="nearest"), "say one of linear, cubic"),
        (lambda x: View(scale=(0.5, 0.2)), "0 < least <= most"),
        (lambda x: View(scale=(0.5, 1.2)), "at most 1"),
        (lambda x: View(taps=4), "give an odd number"),
    ],
)
def test_bad_input_is_answered(made, said):
    with pytest.raises(ValueError, match=said):
        made(pictures(2))
