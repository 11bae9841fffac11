"""ResNets: the published sizes, the stem of small pictures, blocks that begin as the identity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gans import tiny
from supcon_jax.nets.resnet import DEPTHS, Residual, ResNet

PUBLISHED = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160, 152: 60_192_808}  # with 1000 classes


@pytest.mark.parametrize("depth", PUBLISHED)
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
    x = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (2, 6, 6, 16)), jnp.float32)
    features = 4 if bottleneck else 16
    for zero in (True, False):
        block = Residual(features, 1, bottleneck, zero)
        out = block.apply(block.init(jax.random.key(0), x, train=False), x, train=False)
        assert np.array_equal(out, x) == zero


def test_compute_type_leaves_means_and_weights_wide():
    module = ResNet(18, 0.0625, small=True, classes=3, dtype=jnp.bfloat16)
    image = np.zeros((2, 16, 16, 3), np.float32)
    taps, made = jax.eval_shape(module.init_with_output, jax.random.key(0), image)
    assert taps["layer4"].dtype == jnp.bfloat16 and taps["pooled"].dtype == taps["logits"].dtype == jnp.float32
    assert {a.dtype for a in jax.tree.leaves(made)} == {jnp.dtype("float32")}
    v = tiny.fill(made, 1)
    wide = ResNet(18, 0.0625, small=True, classes=3).apply(v, image + 0.5)["pooled"]
    np.testing.assert_allclose(module.apply(v, image + 0.5)["pooled"], wide, rtol=0.1, atol=0.05 * np.abs(wide).max())
