import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gans import tiny
from nets.once import ran
from supcon_jax.nets import init
from supcon_jax.nets.blocks import conv
from supcon_jax.nets.clip import DEVIATION, MEAN, ImageTransformer, published
from supcon_jax.nets.galip import PROMPTED, TAPS, BridgeBlock, Discriminator, Generator, GrowBlock, preprocess, sides
from supcon_jax.ops.resize import nearest

TOWER = ImageTransformer(6, 16, 4, 8, 9, 2)
SMALL = Generator(2, (24,), 4, 3, 1, 4, 8)


def count(tree):
    return sum(math.prod(a.shape) for a in jax.tree.leaves(tree))


def shape(*s):
    return jax.ShapeDtypeStruct(s, np.float32)


def test_published_sizes():
    make = lambda z, s: Generator().init(jax.random.key(0), z, s, lambda patches, prompts: patches)  # noqa: E731
    assert count(jax.eval_shape(make, shape(1, 100), shape(1, 512))["params"]) == 51_830_211
    disc = jax.eval_shape(Discriminator().init, jax.random.key(0), shape(1, 3, 49, 768), shape(1, 512))["params"]
    unused = 2 * (768 * 768 + 768)  # shortcuts of the published file that no picture passes
    assert count({k: v for k, v in disc.items() if k != "head"}) + unused == 28_706_821
    assert count(disc["head"]) == 2_099_200
    tower = published("ViT-B-32").image
    held = jax.eval_shape(tower.init, jax.random.key(0), shape(1, 224, 224, 3))["params"]
    held["trunk"].pop("last_norm")
    assert count(held["trunk"]) == 87_454_464


@pytest.mark.parametrize(("size", "expected"), [(224, [8, 16, 32, 64, 128, 224]), (256, [8, 16, 32, 64, 128, 256]),
                                                (32, [8, 16, 32]), (24, [8, 16, 24]), (8, [8])])
def test_sides(size, expected):
    assert sides(size) == expected


def test_preprocess_correct_and_as_published():
    image = np.zeros((1, 4, 4, 3), np.float32)
    image[0, 1, 2] = (-1, 0, 1)
    mean, deviation = np.array(MEAN), np.array(DEVIATION)
    got = preprocess(image, 8)
    np.testing.assert_allclose(got[0, 3, 5], ([0, 0.5, 1] - mean) / deviation, rtol=1e-5)
    np.testing.assert_allclose(got[0, 0, 0], (0.5 - mean) / deviation, rtol=1e-5)
    got = preprocess(image, 8, "compat")
    np.testing.assert_allclose(got[0, 2, 4], ([0.5, 0.75, 1] - mean) / deviation, rtol=1e-5)
    with pytest.raises(ValueError, match="clip_preproc"):
        preprocess(image, 8, "published")


def test_prompts_go_to_the_blocks_that_the_text_reaches():
    seen = {}

    def through(patches, prompts):
        seen.update(prompts)
        return patches

    made = jax.eval_shape(lambda z, s: SMALL.init(jax.random.key(0), z, s, through), shape(2, 5), shape(2, 6))
    assert list(seen) == list(PROMPTED) == list(range(1, 9)) and {p.shape for p in seen.values()} == {(2, 8)}
    assert made["params"]["prompts"]["kernel"].shape == (11, 64) and TAPS == (1, 4, 8)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_generator_and_discriminator_around_a_tower_in_both_precisions(dtype):
    rng = np.random.default_rng(0)
    z, s = rng.standard_normal((2, 5)).astype(np.float32), rng.standard_normal((2, 6)).astype(np.float32)
    frozen = init.on_host(lambda k: TOWER.init(k, jnp.zeros((1, 16, 16, 3))), jax.random.key(0))
    disc = Discriminator(6, 4, 4)

    def through(*args):
        return TOWER.apply(frozen, *args, method="through")

    def play(gen, judge, dtype):
        ((image,),) = SMALL.clone(dtype=dtype).apply(gen, z, s, through)
        taps, code = TOWER.apply(frozen, preprocess(image, 16), TAPS, method="features")
        taps = jnp.stack([t[:, 1:] for t in taps], axis=1)
        return image, code, *disc.clone(dtype=dtype).apply(judge, taps, s)

    gen = init.on_host(lambda k: SMALL.init(k, z, s, through), jax.random.key(1))
    judge = init.on_host(disc.init, jax.random.key(2), jnp.zeros((2, 3, 16, 8)), s)
    image, code, h, logits = ran(lambda gen, judge: play(gen, judge, dtype), gen, judge)
    assert image.shape == (2, 24, 24, 3) and code.shape == (2, 6) and h.shape == (2, 4, 4, 6)
    assert logits.shape == (2,) and image.dtype == logits.dtype == np.float32
    assert np.isfinite(image).all() and np.isfinite(logits).all()


@pytest.mark.slow
def test_gradients_reach_the_generator_through_the_frozen_tower():
    """The prompts matter only through CLIP: a tower that ignores them leaves them without a gradient."""
    z, s = np.ones((1, 5), np.float32), np.ones((1, 6), np.float32)
    frozen = init.on_host(lambda k: TOWER.init(k, jnp.zeros((1, 16, 16, 3))), jax.random.key(0))
    tower = lambda patches, prompts: TOWER.apply(frozen, patches, prompts, method="through")  # noqa: E731
    net = SMALL.clone(sizes=(8,))
    gen = init.on_host(lambda k: net.init(k, z, s, tower), jax.random.key(1))

    def loss(prompts, through):
        params = gen["params"] | {"prompts": prompts}
        return jnp.square(net.apply({**gen, "params": params}, z, s, through)[0][0]).mean()

    for through, reached in ((tower, True), (lambda patches, prompts: patches, False)):
        slope = ran(jax.grad(lambda prompts, t=through: loss(prompts, t)), gen["params"]["prompts"])
        assert bool(np.abs(slope["kernel"]).max() > 0) is reached


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_at_the_start_the_discriminator_sees_only_the_first_tap():
    """Gamma and beta begin at 0: its features are the last 1 x 1 shortcut of CLIP's map after block 1."""
    disc, taps, s = Discriminator(6, 4, 4), drawn(2, 3, 16, 8), drawn(2, 6)
    own = init.on_host(disc.init, jax.random.key(2), taps, s)
    others = taps.copy()
    others[:, 1:] = drawn(2, 2, 16, 8, seed=1)
    shares = [(block, name) for block in ("block0", "block1") for name in ("gamma", "beta")] + [("last", "gamma")]
    raised = [{**own["params"], block: own["params"][block] | {name: jnp.ones(())}} for block, name in shares]

    def codes(params):
        return [disc.apply({"params": params}, x, method="code") for x in (taps, others, taps[:, ::-1])]

    (first, again, turned), *more = ran(lambda params, raised: [codes(params), *map(codes, raised)], own["params"], raised)
    plain = conv(6, 1, 8, None, None)
    want = ran(plain.apply, {"params": own["params"]["last"]["shortcut"]}, taps[:, 0].reshape(2, 4, 4, 8))
    np.testing.assert_allclose(first, want, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - turned).max() > 0.1  # the first tap is heard
    for (_, name), (one, other, _) in zip(shares, more, strict=True):  # and each share, once it is not 0
        assert np.abs(one - first).max() > 1e-3 and bool(np.abs(one - other).max() > 1e-3) is (name == "beta")


def twice(h):
    """A Fuse that is the identity but for its two leaky ReLUs of slope 0.2."""
    return jnp.where(h > 0, h, 0.04 * h)


@pytest.mark.parametrize("kind", ["bridge", "doubled", "resized"])
def test_at_the_start_a_block_does_not_hear_the_text(kind):
    """Scale 1 and shift 0 whatever the condition: what is left of a block are its convolutions and leaky ReLUs."""
    side = {"bridge": 4, "doubled": 8, "resized": 7}[kind]
    net, last = (BridgeBlock(3), 5) if kind == "bridge" else (GrowBlock(6, side), 6)
    x, c = drawn(2, 4, 4, 5), 3 * drawn(2, 9, seed=1)
    own = init.on_host(net.init, jax.random.key(0), x, c)

    def convolve(name, h, params):
        kernel = params[name]["kernel"]
        return conv(kernel.shape[-1], kernel.shape[0], h.shape[-1], None, None).apply({"params": params[name]}, h)

    def plain(params):
        if kind == "bridge":
            return x + twice(convolve("conv1", twice(convolve("conv0", x, params)), params))
        h = nearest(x, (side, side))
        inside = convolve("conv1", twice(convolve("conv0", twice(h), params)), params)
        return inside + convolve("shortcut", h, params)

    def every(own, params):
        heard = {**own["params"], "fuse1": {**own["params"]["fuse1"], "shift1": params["fuse1"]["shift1"]}}
        begun, later = ([net.apply(params, x, a) for a in (c, -c)] for params in (own, {"params": heard}))
        return begun, plain(own["params"]), later

    (one, again), want, heard = ran(every, own, jax.tree.map(lambda a: a + 0.3, own["params"]))
    assert one.shape == (2, side, side, last)
    np.testing.assert_array_equal(one, again)
    np.testing.assert_allclose(one, want, rtol=1e-4, atol=1e-5)
    assert np.abs(heard[0] - heard[1]).max() > 1e-2  # one shift that has learnt something is enough


def test_at_the_start_the_generator_hears_the_text_through_clip_alone():
    """Bridge and blocks up do not hear it: with a tower that ignores its prompts the picture is the noise's."""
    z, s, net = drawn(2, 5), drawn(2, 6, seed=1), SMALL.clone(sizes=(8,))
    gen = init.on_host(lambda k: net.init(k, z, s, lambda patches, prompts: patches), jax.random.key(1))

    def play(gen, z, s):
        bridge = []

        def deaf(patches, prompts):
            bridge.append(patches)
            return patches

        def told(patches, prompts):
            return patches + sum(prompts.values())[:, None]

        return net.apply(gen, z, s, deaf)[0][0], bridge[0], net.apply(gen, z, s, told)[0][0]

    run = tiny.compiled(play, gen, z, s)
    first, text, noise = (jax.device_get(run(gen, *inputs)) for inputs in ((z, s), (z, 1 - s), (-z, s)))
    for i in (0, 1):  # the picture, and what goes into CLIP
        np.testing.assert_array_equal(first[i], text[i])
        assert np.abs(first[i] - noise[i]).max() > 1e-2
    assert np.abs(first[2] - text[2]).max() > 1e-3
