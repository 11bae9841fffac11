"""ResNets: the published sizes, the stem of small pictures, blocks that begin as the identity."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gans import tiny
from nets.once import ran
from supcon_jax.nets import init
from supcon_jax.nets.backbone import ConvTrunk, ViTTrunk
from supcon_jax.nets.norm import BatchNorm, LayerNorm
from supcon_jax.nets.resnet import DEPTHS, PreResidual, Residual, ResNet
from supcon_jax.nets.selective import SelectiveConv

PUBLISHED = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160, 152: 60_192_808}  # with 1000 classes


@pytest.mark.parametrize("depth", [18, 50, *(pytest.param(depth, marks=pytest.mark.slow) for depth in (34, 101, 152))])
def test_published_sizes(depth):
    image = jax.ShapeDtypeStruct((2, 224, 224, 3), np.float32)
    taps, made = jax.eval_shape(ResNet(depth, classes=1000).init_with_output, jax.random.key(0), image)
    assert sum(a.size for a in jax.tree.leaves(made["params"])) == PUBLISHED[depth]
    wide = 4 if DEPTHS[depth][1] else 1
    sizes = {"stem": (56, 64), **{f"layer{i + 1}": (56 >> i, 64 * wide << i) for i in range(4)}}
    assert {name: taps[name].shape for name in sizes} == {name: (2, side, side, c) for name, (side, c) in sizes.items()}
    assert taps["pooled"].shape == (2, 512 * wide) and taps["logits"].shape == (2, 1000)


def test_small_pictures_keep_their_size_at_the_stem():
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    taps, made = jax.eval_shape(ResNet(18, 0.25, small=True).init_with_output, jax.random.key(0), image)
    assert [taps[name].shape[1] for name in ("stem", "layer1", "layer2", "layer3", "layer4")] == [32, 32, 16, 8, 4]
    assert made["params"]["conv_stem"]["kernel"].shape == (3, 3, 3, 16) and "logits" not in taps and "fc" not in made["params"]


@pytest.mark.parametrize("bottleneck", [False, True])
def test_a_block_may_begin_as_the_identity(bottleneck):
    x = np.random.default_rng(0).uniform(0, 1, (2, 6, 6, 16)).astype(np.float32)
    features = 4 if bottleneck else 16
    for zero in (True, False):
        block = Residual(features, 1, bottleneck, zero)
        v = init.on_host(functools.partial(block.init, train=False), jax.random.key(0), x)
        assert np.array_equal(ran(functools.partial(block.apply, train=False), v, x), x) == zero


@pytest.mark.parametrize("depth,size", [(50, 25_549_352), pytest.param(101, 44_541_480, marks=pytest.mark.slow)])
def test_published_sizes_pre_activated(depth, size):
    """Of He et al.'s second version in its usual form, without biases in the convolutions."""
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
    taps, made = jax.eval_shape(ResNet(depth, classes=1000, pre=True).init_with_output, jax.random.key(0), image)
    assert sum(a.size for a in jax.tree.leaves(made["params"])) == size
    three, short = jax.eval_shape(ResNet(depth, pre=True, stages=3).init_with_output, jax.random.key(0), image)
    assert three["layer3"].shape == taps["layer3"].shape == (1, 14, 14, 1024) and "layer4" not in three
    assert three["pooled"].shape == (1, 1024) and {n for n in made["params"] if n not in short["params"]} == {
        "fc", *(f"layer4_block{i}" for i in range(3))}  # fmt: skip


@pytest.mark.parametrize("bottleneck", [False, True])
def test_a_pre_activated_block_adds_to_what_it_is_given(bottleneck):
    """Without its last convolution it is the identity, of negative values too; its shortcut reads what norm and ReLU give."""
    x = np.random.default_rng(0).normal(0, 2, (2, 6, 6, 16)).astype(np.float32)

    def without_last(features, stride):
        """What the block gives with and without its last convolution, and its parameters."""
        block = PreResidual(features // (4 if bottleneck else 1), stride, bottleneck, norm="layer")
        apply, start = (functools.partial(f, train=False) for f in (block.apply, block.init))
        v = init.on_host(start, jax.random.key(0), x)
        still = v["params"] | {last: jax.tree.map(jnp.zeros_like, v["params"][last])}
        return ran(apply, v, x), ran(apply, {"params": still}, x), v["params"]

    last = f"conv{3 if bottleneck else 2}"
    whole, still, _ = without_last(16, 1)
    assert not np.array_equal(whole, x) and np.array_equal(still, x)
    _, still, params = without_last(32, 2)
    normed = (x - x.mean((1, 2, 3), keepdims=True)) / x.std((1, 2, 3), keepdims=True)
    short = np.maximum(normed, 0)[:, ::2, ::2] @ np.asarray(params["conv_short"]["kernel"])[0, 0]
    np.testing.assert_allclose(still, short, rtol=1e-3, atol=1e-4)


def test_what_a_pre_activated_network_does_not_take():
    for more in ({"zero": True}, {"deep": True}, {"sk": 0.0625}):
        with pytest.raises(ValueError, match="a pre-activated ResNet takes neither zero nor deep nor sk"):
            jax.eval_shape(ResNet(50, pre=True, **more).init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))


def test_compute_type_leaves_means_and_weights_wide():
    module = ResNet(18, 0.0625, small=True, classes=3, dtype=jnp.bfloat16)
    image = np.zeros((2, 16, 16, 3), np.float32)
    taps, made = jax.eval_shape(module.init_with_output, jax.random.key(0), image)
    assert taps["layer4"].dtype == jnp.bfloat16 and taps["pooled"].dtype == taps["logits"].dtype == jnp.float32
    assert {a.dtype for a in jax.tree.leaves(made)} == {jnp.dtype("float32")}
    v = tiny.fill(made, 1)
    full = ResNet(18, 0.0625, small=True, classes=3)
    half, wide = ran(lambda v, x: [net.apply(v, x)["pooled"] for net in (module, full)], v, image + 0.5)
    np.testing.assert_allclose(half, wide, rtol=0.1, atol=0.05 * np.abs(wide).max())


SELECTIVE = {(50, 1): 35, (101, 1): 65, (50, 2): 140, (152, 3): 795}  # millions: SimCLR v2, table 1


@pytest.mark.parametrize("depth,width", [pytest.param(*one, marks=[pytest.mark.slow] * (one != (50, 2))) for one in SELECTIVE])
def test_published_sizes_with_selective_kernels(depth, width):
    image = jax.ShapeDtypeStruct((2, 224, 224, 3), np.float32)
    module = ResNet(depth, width, deep=True, sk=0.0625)
    taps, made = jax.eval_shape(module.init_with_output, jax.random.key(0), image)
    assert round(sum(a.size for a in jax.tree.leaves(made["params"])) / 1e6) == SELECTIVE[depth, width]
    assert [taps[name].shape[1] for name in ("stem", "layer1", "layer2", "layer3", "layer4")] == [56, 56, 28, 14, 7]


def test_selective_kernels_mix_two_convolutions_by_the_mean():
    x = np.random.default_rng(0).normal(size=(3, 4, 4, 2)).astype(np.float32)
    module = SelectiveConv(5, 2, norm="layer")
    v = tiny.fill(jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), x), 0)
    p = jax.tree.map(np.float64, v["params"])
    assert p["squeeze"]["kernel"].shape == (5, 32)

    def layer(h, norm):
        axes = tuple(range(1, h.ndim))
        h = (h - h.mean(axes, keepdims=True)) / np.sqrt(h.var(axes, keepdims=True) + 1e-5)
        return np.maximum(h * p[norm]["scale"] + p[norm]["bias"], 0)

    padded = np.pad(np.float64(x), ((0, 0), (1, 1), (1, 1), (0, 0)))
    u = np.stack([np.einsum("nhwi,hwio->no", padded[:, r : r + 3, c : c + 3], p["conv"]["kernel"])
                  for r in (0, 2) for c in (0, 2)], 1).reshape(3, 2, 2, 10)
    u = layer(u, "norm").reshape(3, 2, 2, 2, 5)
    s = layer(u.mean((1, 2)).sum(1) @ p["squeeze"]["kernel"], "norm_squeeze") @ p["select"]["kernel"]
    a = np.exp(s.reshape(3, 2, 5))
    a = a / a.sum(1, keepdims=True)
    want = (u * a[:, None, None]).sum(3)
    np.testing.assert_allclose(ran(functools.partial(module.apply, train=False), v, x), want, rtol=1e-4, atol=1e-5)


def test_a_deep_shortcut_averages_before_it_projects():
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 4)).astype(np.float32)
    block = Residual(8, 2, False, True, deep=True)  # its last scale is 0: what is left is the shortcut
    v = init.on_host(functools.partial(block.init, train=False), jax.random.key(0), x)
    kernel = np.asarray(v["params"]["conv_short"]["kernel"])[0, 0]
    mean = np.asarray(x).reshape(2, 3, 2, 3, 2, 4).mean((2, 4))
    want = np.maximum(mean @ kernel / np.sqrt(1 + 1e-5), 0)
    np.testing.assert_allclose(ran(functools.partial(block.apply, train=False), v, x), want, rtol=1e-4, atol=1e-5)


def norms(module, *shapes):
    """(class, groups) of every norm that a network calls."""
    seen = []

    def note(run, args, kwargs, context):
        if isinstance(context.module, BatchNorm | LayerNorm) and context.method_name == "__call__":
            seen.append((type(context.module), getattr(context.module, "groups", None)))
        return run(*args, **kwargs)

    with nn.intercept_methods(note):
        jax.eval_shape(module.init, jax.random.key(0), *(jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes))
    return seen


@pytest.mark.parametrize("module", [ResNet(18, 1 / 16, small=True, groups=4), ConvTrunk(4, 2, groups=4),
                                    ResNet(50, 1 / 16, deep=True, sk=0.0625, groups=4),
                                    ViTTrunk(4, 16, 1, 2, stem="conv", groups=4)], ids=lambda m: type(m).__name__)
def test_groups_reach_every_norm(module):
    seen = norms(module, (4, 16, 16, 3))
    assert seen and set(seen) == {(BatchNorm, 4)}


def test_layer_norm_takes_the_place_of_every_norm():
    for module in (ResNet(50, 1 / 16, deep=True, sk=0.0625, norm="layer"), ConvTrunk(4, 2, "layer")):
        assert {kind for kind, _ in norms(module, (4, 16, 16, 3))} == {LayerNorm}


def test_groups_are_networks_side_by_side():
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
    whole, grouped = ConvTrunk(4, 2), ConvTrunk(4, 2, groups=2)
    v = tiny.fill(jax.eval_shape(whole.init, jax.random.key(0), x), 0)
    run = jax.jit(lambda m, x: m.apply(v, x, train=True, mutable=["batch_stats"])[0], static_argnums=0)
    halves = np.concatenate([run(whole, x[:2]), run(whole, x[2:])])
    np.testing.assert_allclose(run(grouped, x), halves, rtol=1e-4, atol=1e-4)
    assert np.abs(run(whole, x) - halves).max() > 0.01
