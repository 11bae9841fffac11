import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nets.once import ran
from supcon_jax.nets import init
from supcon_jax.nets.clip import DEVIATION, MEAN, ImageTransformer, published
from supcon_jax.nets.galip import PROMPTED, TAPS, Discriminator, Generator, preprocess, sides

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


@pytest.mark.parametrize("dtype", [pytest.param(None, marks=pytest.mark.slow), jnp.bfloat16])
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
