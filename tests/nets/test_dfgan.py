"""DF-GAN's and SSA-GAN's networks: published sizes, what they are at the start, their blocks as written down."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gans import tiny
from nets.once import ran
from supcon_jax.nets import dfgan, init, ssagan
from supcon_jax.nets.blocks import UpConv, conv, double, halve

UNUSED = {"dfgan": 3 * (256 * 256 + 256), "ssagan": 2 * (1024 * 1024 + 1024)}  # shortcuts that no forward pass reads
NETS = {"dfgan": dfgan, "ssagan": ssagan}


def count(tree):
    return sum(math.prod(a.shape) for a in jax.tree.leaves(tree))


def shape(*dims):
    return jax.ShapeDtypeStruct(dims, np.float32)


def made(module, *args):
    return jax.eval_shape(module.init, jax.random.key(0), *args)["params"]


@pytest.mark.parametrize(("kind", "expected"), [("dfgan", 9_744_131), ("ssagan", 29_494_273)])
def test_generator_has_the_published_size(kind, expected):
    assert count(made(NETS[kind].Generator(), shape(2, 100), shape(2, 256))) == expected


@pytest.mark.parametrize(("kind", "code", "head"), [("dfgan", 6_619_206, 295_936), ("ssagan", 80_379_526, 0)])
def test_discriminator_has_the_published_size(kind, code, head):
    """Published counts hold shortcuts that are never used; DF-GAN counts its head apart."""
    params = made(NETS[kind].Discriminator(256), shape(2, 256, 256, 3), shape(2, 256))
    own = count(params.pop("head")) if head else 0
    assert own == head and count(params) + UNUSED[kind] == code


def started(kind, size=32, dtype=None, seed=0):
    gen = NETS[kind].Generator(2, (size,), dtype=dtype)
    rng = np.random.default_rng(seed)
    z, s = rng.standard_normal((3, 5)).astype(np.float32), rng.standard_normal((3, 6)).astype(np.float32)
    return gen, z, s, init.on_host(gen.init, jax.random.key(0), z, s)


@pytest.mark.parametrize("kind", NETS)
def test_at_the_start_the_text_is_not_heard(kind):
    """Affine maps begin as the identity; SSA-GAN's blocks as their shortcuts, its masks inside (0, 1)."""
    gen, z, s, variables = started(kind)
    run = tiny.compiled(gen.apply, variables, z, s)
    out, other = jax.device_get((run(variables, z, s), run(variables, z, 1 - s)))
    np.testing.assert_array_equal(out[0][0], other[0][0])
    assert out[0][0].shape == (3, 32, 32, 3) and np.abs(out[0][0]).max() <= 1 and out[0][0].std() > 0
    assert np.abs(out[0][0] - run(variables, -z, s)[0][0]).max() > 1e-3
    if kind == "ssagan":
        assert [m.shape for m in out[1]] == [(3, side, side) for side in (4, 8, 16, 32)]
        assert all(0 < m.min() and m.max() < 1 for m in out[1])


@pytest.mark.parametrize("kind", NETS)
def test_half_precision_and_small_sizes(kind):
    gen, z, s, variables = started(kind, 8, jnp.bfloat16)
    (images, *_), _ = ran(lambda v: gen.apply(v, z, s, train=True, mutable=["batch_stats"]), variables)
    assert images[0].shape == (3, 8, 8, 3) and images[0].dtype == np.float32 and np.isfinite(images[0]).all()
    disc = NETS[kind].Discriminator(8, 2, dtype=jnp.bfloat16)
    own = init.on_host(disc.init, jax.random.key(0), images[0], s)
    assert {a.dtype for a in jax.tree.leaves((variables, own))} == {np.dtype("float32")}

    def judge(own, image, s):
        h, logits = disc.apply(own, image, s)
        return h, logits, disc.apply(own, h, s, method="cond")

    h, logits, again = ran(judge, own, images[0], s)
    assert h.shape == (3, 4, 4, 4) and logits.shape == (3,) and logits.dtype == np.float32
    np.testing.assert_array_equal(again, logits)


def test_sizes_that_cannot_be():
    z, s = shape(1, 5), shape(1, 6)
    for net in NETS.values():
        with pytest.raises(ValueError, match="one size"):
            made(net.Generator(2, (16, 32)), z, s)
        for size in (4, 12):
            with pytest.raises(ValueError, match=r"4 \* 2\^k with k > 0"):
                made(net.Generator(2, (size,)), z, s)
            with pytest.raises(ValueError, match=r"4 \* 2\^k with k > 0"):
                made(net.Discriminator(size), shape(1, size, size, 3), s)
    with pytest.raises(ValueError, match="norm must be correct or compat"):
        made(ssagan.Generator(2, (8,), norm="sync"), z, s)


def test_the_originals_batch_norm_on_several_devices():
    """Compat: the same at evaluation; in training a variance is raised to eps, not by it."""
    gen, z, s, variables = started("ssagan", 8)

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def run(train, norm):
        return gen.clone(norm=norm).apply(variables, z, s, train=train, mutable=["batch_stats"])[0][0][0]

    np.testing.assert_array_equal(run(False, "compat"), run(False, "correct"))
    apart = np.abs(run(True, "compat") - run(True, "correct")).max()
    assert 0 < apart < 0.05


def test_channels():
    assert dfgan.widths(256, 32, 8) == [32, 64, 128, 256, 256, 256, 256]
    assert dfgan.widths(256, 64, 16) == [64, 128, 256, 512, 1024, 1024, 1024]


def test_the_block_is_the_published_order_of_its_parts():
    """Doubling first, then [Fuse, conv, Fuse, conv] and the shortcut, as written in the paper."""
    rng = np.random.default_rng(0)
    x, c = rng.standard_normal((2, 3, 3, 4)).astype(np.float32), rng.standard_normal((2, 5)).astype(np.float32)
    block = dfgan.UpBlock(6)
    params = jax.tree.map(lambda a: a + rng.normal(0, 0.3, a.shape).astype(np.float32),
                          jax.device_get(init.on_host(block.init, jax.random.key(0), x, c))["params"])

    def convolve(name, h):
        side = params[name]["kernel"].shape[0]
        return conv(6, side, h.shape[-1], None, None).apply({"params": params[name]}, h)

    def fuse(name, h):
        return dfgan.Fuse().apply({"params": params[name]}, h, c)

    big = double(x)
    np.testing.assert_array_equal(big, x.repeat(2, 1).repeat(2, 2))

    def parts(big):
        return convolve("conv1", fuse("fuse1", convolve("conv0", fuse("fuse0", big)))) + convolve("shortcut", big)

    found, want = ran(lambda x, big: (block.apply({"params": params}, x, c), parts(big)), x, np.asarray(big))
    np.testing.assert_allclose(found, want, rtol=2e-4, atol=2e-5)
    assert init.on_host(UpConv(6, plain=True).init, jax.random.key(0), x)["params"]["bias"].any()


def test_halve_takes_the_means_of_four():
    x = np.arange(2 * 4 * 2 * 1.0).reshape(2, 4, 2, 1)
    np.testing.assert_array_equal(halve(x)[0, :, :, 0], [[x[0, :2].mean()], [x[0, 2:].mean()]])


def test_the_mask_says_where_the_text_counts():
    """y = x' + m (gamma x' + beta); outside the mask the text changes nothing, inside all of it."""
    rng = np.random.default_rng(0)
    x, s = rng.normal(2, 3, (4, 2, 2, 3)).astype(np.float32), rng.standard_normal((4, 5)).astype(np.float32)
    mask = np.array([0, 0.25, 0.5, 1], np.float32)[:, None, None, None] * np.ones((1, 2, 2, 1), np.float32)
    net = ssagan.Affine()
    variables = jax.device_get(init.on_host(functools.partial(net.init, train=True), jax.random.key(0), x, s, mask))
    params = jax.tree.map(lambda a: a + rng.normal(0, 0.3, a.shape).astype(np.float32), variables["params"])
    own = {**variables, "params": params}
    y, _ = ran(functools.partial(net.apply, train=True, mutable=["batch_stats"]), own, x, s, mask)
    rows = x.reshape(-1, 3).astype(np.float64)
    normal = (x - rows.mean(0).reshape(1, 1, 1, 3)) / np.sqrt(rows.var(0) + 1e-5).reshape(1, 1, 1, 3)

    def text(name):
        p = params[name]
        h = np.maximum(s @ p["hidden"]["kernel"] + p["hidden"]["bias"][None], 0)
        return (h @ p["out"]["kernel"] + p["out"]["bias"][None])[:, None, None]

    np.testing.assert_allclose(y, (1 + mask * text("scale")) * normal + mask * text("shift"), rtol=1e-4, atol=1e-5)
