"""Trunks: published sizes, features of any picture, fixed parts that stay fixed, networks that share nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gans import tiny
from nets.once import ran
from supcon_jax.build.names import net
from supcon_jax.nets import init
from supcon_jax.nets.backbone import ConvTrunk, ViTTrunk, lab_trunk, positions, resnet_trunk


def shaped(module, *sizes, **options):
    """(output, variables) in shape only."""
    xs = [jax.ShapeDtypeStruct(size, np.float32) for size in sizes]
    return jax.eval_shape(lambda *x: module.init_with_output(jax.random.key(0), *x, **options), *xs)


def count(tree):
    return sum(a.size for a in jax.tree.leaves(tree))


def pictures(side, n=2, channels=3):
    return np.random.default_rng(0).normal(size=(n, side, side, channels)).astype(np.float32)


def test_vit_has_its_published_size():
    """ViT-S of MoCo v3 is torchvision's ViT arithmetic without positions, and its projection is no parameter."""
    for width, depth in ((384, 12), (768, 12)):
        out, made = shaped(ViTTrunk(width=width, depth=depth), (2, 224, 224, 3))
        block = 12 * width**2 + 13 * width  # 4 w^2 + 4 w of attention, 8 w^2 + 5 w of the mlp, 4 w of two norms
        assert count(made["params"]) == depth * block + 3 * width  # the last norm and the class token
        assert count(made["batch_stats"]) == 16 * 16 * 3 * width
        assert out.shape == (2, width) and out.dtype == np.float32


TINY = {"patch": 4, "width": 16, "depth": 1, "heads": 2}


def test_projection_of_patches_takes_no_gradient_and_its_own_patch():
    module, x = ViTTrunk(**TINY), pictures(8)
    v = init.on_host(module.init, jax.random.key(0), x)
    kernel = np.asarray(v["batch_stats"]["patch"])
    assert kernel.shape == (48, 16) and kernel.std() == pytest.approx((2 / 64) ** 0.5, rel=0.05)

    def number(stats):
        return module.apply({"params": v["params"], "batch_stats": stats}, x, train=True)[:, 0].sum()  # a sum over all is 0

    assert not np.any(ran(jax.grad(number), v["batch_stats"])["patch"])
    bare = ViTTrunk(**{**TINY, "depth": 0}, pool="mean")
    k, where, places = kernel, positions(2, 2, 16), [(r, c) for r in (0, 1) for c in (0, 1)]
    h = [x[:, 4 * r : 4 * r + 4, 4 * c : 4 * c + 4].reshape(2, 48) @ k + where[r, c] for r, c in places]
    want = np.mean([(a - a.mean(1, keepdims=True)) / a.std(1, keepdims=True) for a in h], 0)
    flat = {"params": {"last_norm": v["params"]["last_norm"]}, "batch_stats": v["batch_stats"]}
    np.testing.assert_allclose(ran(bare.apply, flat, x), want, rtol=1e-4, atol=1e-5)
    learned = shaped(ViTTrunk(**TINY, frozen=False), (2, 8, 8, 3))[1]
    assert "batch_stats" not in learned and learned["params"]["patch"]["kernel"].shape == (48, 16)


def test_weights_of_the_blocks_begin_by_xaviers_rule():
    v = init.on_host(ViTTrunk(patch=4, width=64, depth=1, heads=2).init, jax.random.key(0), pictures(8))["params"]
    block = v["block0"]
    for name, kernel in (
        *((n, block["attention"][n]) for n in ("query", "key", "value", "out")),
        ("expand", block["expand"]),
        ("project", block["project"]),
    ):
        limit = (6 / sum(kernel["kernel"].shape)) ** 0.5
        assert 0.95 * limit < np.abs(kernel["kernel"]).max() <= limit, name
        assert not kernel["bias"].any(), name
    assert np.abs(v["class"]).max() < 1e-5


def test_positions_are_waves_of_row_and_column():
    where = positions(3, 5, 8)
    for r, c in ((0, 0), (2, 1), (1, 4)):
        want = [np.sin(r), np.sin(r / 100), np.cos(r), np.cos(r / 100), np.sin(c), np.sin(c / 100), np.cos(c), np.cos(c / 100)]
        np.testing.assert_allclose(where[r, c], want, rtol=1e-6)
    assert len(np.unique(where.reshape(15, 8), axis=0)) == 15


@pytest.mark.parametrize("stem", ["patch", "conv"])
@pytest.mark.parametrize("pool", ["class", "mean"])
def test_vit_of_any_size_and_pool(stem, pool):
    module = ViTTrunk(**TINY, stem=stem, pool=pool)
    v = tiny.fill(shaped(module, (2, 8, 8, 3))[1], 0)
    xs = [pictures(side) for side in (8, 12)]
    both = ran(lambda v, xs: [[module.apply(v, x), module.apply(v, x[:, ::-1])] for x in xs], v, xs)
    for out, turned in both:
        assert out.shape == (2, 16) and np.isfinite(out).all()
        assert np.abs(out - turned).max() > 1e-3  # positions make it see where things are
    assert ("class" in v["params"]) == (pool == "class")


REFUSED = (
    (ViTTrunk(**TINY), 10, "10 x 10 pixels cannot be cut into patches of 4"),
    (ViTTrunk(**{**TINY, "width": 18}), 8, "width of 18 has no room"),
    (ViTTrunk(**TINY, pool="max"), 8, "pool 'max'"),
    (ViTTrunk(**{**TINY, "patch": 6}, stem="conv"), 12, "6 is no power of 2"),
    (resnet_trunk(19), 8, "19 layers is not known; use one of: 18, 34"),
    (resnet_trunk(18, sk=0.1), 8, "a ResNet of 18 layers lacks"),
    (ConvTrunk(norm="group"), 8, "'group' is not known; use batch or layer"),
)


@pytest.mark.parametrize("module,side,said", REFUSED, ids=[row[2] for row in REFUSED])
def test_mistakes_are_named(module, side, said):
    with pytest.raises(ValueError, match=said):
        shaped(module, (1, side, side, 3))


@pytest.mark.parametrize("make,said", [(resnet_trunk, "stem"), (lab_trunk, "kind")])
def test_unknown_names_are_refused(make, said):
    with pytest.raises(ValueError, match=f"{said} 'none' is not known"):
        make(**{said: "none"})


def test_lightness_and_colour_share_nothing():
    module, x = lab_trunk("conv", 2, 4), pictures(8)
    v = tiny.fill(shaped(module, (2, 8, 8, 3))[1], 0)
    run = tiny.compiled(module.apply, v, x)
    light, colour = jax.device_get(run(v, x))
    assert light.shape == colour.shape == (2, 8)
    other = x.copy()
    other[..., 0] += 1
    changed = run(v, other)
    assert np.abs(changed[0] - light).max() > 1e-3 and np.array_equal(changed[1], colour)
    sizes = {name: count(shaped(lab_trunk(), (1, 64, 64, 3))[1]["params"][name]) for name in ("nets_0", "nets_1")}
    assert sizes["nets_1"] - sizes["nets_0"] == 7 * 7 * 32  # half-width ResNets that differ by a channel of the input


@pytest.mark.parametrize(
    "options",
    [
        {"net": "conv_trunk", "width": 8, "depth": 2},
        {"net": "resnet_trunk", "depth": 18, "width": 0.125},
        {"net": "resnet_trunk", "depth": 18, "width": 0.0625, "stem": "deep", "norm": "layer"},
        {"net": "vit_trunk", **TINY, "stem": "conv"},
    ],
    ids=str,
)
def test_a_name_gives_features_in_either_precision(options):
    """Computed in bfloat16 where asked for; features and weights stay float32."""
    for precision in ("f32", "bf16"):
        out, made = shaped(net(options, "stage.nets.image", precision), (2, 16, 16, 3), train=True)
        assert out.ndim == 2 and out.dtype == np.float32
        assert {a.dtype for a in jax.tree.leaves(made)} == {jnp.dtype("float32")}


def test_a_conv_trunk_is_small_and_its_features_wide():
    out, made = shaped(ConvTrunk(), (2, 28, 28, 3))
    assert out.shape == (2, 128) and count(made["params"]) < 100_000
