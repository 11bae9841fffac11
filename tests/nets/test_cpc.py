"""Predictive coding: patches where they should be, contexts that see nothing of what is to be predicted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gans import tiny
from nets.once import ran
from supcon_jax.nets.audio import WaveEncoder
from supcon_jax.nets.cpc import PatchGrid, RowContext, patch_grid, patches


def filled(module, *xs):
    return tiny.fill(jax.eval_shape(module.init, jax.random.key(0), *xs), 0)


def test_patches_overlap_by_half():
    x = np.random.default_rng(0).normal(size=(2, 20, 17, 3)).astype(np.float32)
    cut = patches(x, 8, 4)
    assert cut.shape == (2, 4, 3, 8, 8, 3)
    for r in range(4):
        for c in range(3):
            np.testing.assert_array_equal(cut[:, r, c], x[:, 4 * r : 4 * r + 8, 4 * c : 4 * c + 8])
    with pytest.raises(ValueError, match="20 x 17 pixels hold no patch of 18"):
        patches(x, 18, 4)


def test_published_sizes():
    image = jax.ShapeDtypeStruct((2, 256, 256, 3), np.float32)
    out, made = jax.eval_shape(patch_grid().init_with_output, jax.random.key(0), image)
    assert out.shape == (2, 7, 7, 2048) and "batch_stats" not in made
    wave = jax.ShapeDtypeStruct((2, 20480), np.float32)
    (z, c), made = jax.eval_shape(WaveEncoder().init_with_output, jax.random.key(0), wave)
    assert z.shape == (2, 128, 512) and c.shape == (2, 128, 256) and z.dtype == c.dtype == np.float32
    assert [made["params"][f"conv{i}"]["kernel"].shape[0] for i in range(5)] == [10, 8, 4, 4, 4]


@pytest.mark.parametrize("kind,norm", [("conv", "layer"), ("conv", "batch"), ("resnet", "layer"), ("resnet_v2", "layer")])
def test_with_layer_norm_a_patch_is_encoded_by_itself(kind, norm):
    depth, width = (2, 4) if kind == "conv" else (18, 0.0625)
    net = patch_grid(kind, depth, width, 8, 4, norm)
    x = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    v = filled(net, x)
    run = tiny.compiled(lambda x: net.apply(v, x, train=True, mutable=["batch_stats"])[0], x)
    other = x.copy()
    other[0, :4, :4] += 1  # seen by one patch of one picture alone
    a, b = run(x), run(other)
    moved = np.abs(a - b).max(-1) > 1e-5
    assert moved[0, 0, 0] and (moved.sum() == 1) == (norm == "layer")
    with pytest.raises(ValueError, match="kind 'vit' is not known"):
        patch_grid("vit")


def test_grid_is_the_trunk_on_each_patch():
    net = patch_grid("conv", 2, 4, 8, 4)
    x = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    v = filled(net, x)
    one = x[:, 4:12, 8:16]
    out, alone = ran(lambda v, x, one: (net.apply(v, x), net.trunk.apply({"params": v["params"]["trunk"]}, one)), v, x, one)
    assert isinstance(net, PatchGrid) and out.shape == (2, 3, 3, 8)
    np.testing.assert_allclose(out[:, 1, 2], alone, rtol=1e-4, atol=1e-5)


def test_context_sees_its_row_and_those_above():
    net = RowContext(6, 3)
    z = np.random.default_rng(0).normal(size=(1, 7, 5, 4)).astype(np.float32)
    v = filled(net, z)

    def rows(z):
        out = net.apply(v, z)
        return out[0].sum((1, 2)), out

    slopes, out = ran(jax.jacrev(rows, has_aux=True), z)
    assert out.shape == z.shape
    for row in range(7):
        seen = np.abs(slopes[row, 0]).max((1, 2)) > 0
        assert seen.tolist() == [row - 3 <= r <= row for r in range(7)]


def test_sound_context_sees_the_past_alone():
    net = WaveEncoder(6, 5, (2, 2), (4, 4))
    wave = np.random.default_rng(0).normal(size=(2, 24)).astype(np.float32)
    v = filled(net, wave)

    def third(wave):
        z, c = net.apply(v, wave)
        return c[0, 2].sum(), (z, c, net.apply(v, wave, train=True)[0])

    slope, (z, c, trained) = ran(jax.grad(third, has_aux=True), wave)
    assert z.shape == (2, 6, 6) and c.shape == (2, 6, 5)
    slope = slope[0]
    far = 3 * 4 + 4  # a code's own 4 samples, and the rest of its filters' windows
    assert not np.any(slope[far:]) and np.any(slope[:4])
    np.testing.assert_array_equal(trained, z)


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_sound_with_a_norm(norm):
    net = WaveEncoder(6, 5, (2, 2), (4, 4), norm)
    wave = np.random.default_rng(0).normal(size=(2, 24)).astype(np.float32)
    v = filled(net, wave)
    (z, _), new = ran(lambda v, wave: net.apply(v, wave, train=True, mutable=["batch_stats"]), v, wave)
    assert bool(new) == (norm == "batch") and np.isfinite(z).all() and "norm1" in v["params"]


def test_mistakes_in_sound_are_named():
    with pytest.raises(ValueError, match="2 strides and 1 filters"):
        WaveEncoder(4, 4, (2, 2), (4,)).init(jax.random.key(0), jnp.zeros((1, 8)))
    with pytest.raises(ValueError, match="10 samples: give a multiple of the strides"):
        WaveEncoder(4, 4, (2, 2), (4, 4)).init(jax.random.key(0), jnp.zeros((1, 10)))
