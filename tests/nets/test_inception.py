import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gans import tiny
from nets.once import ran
from supcon_jax.nets import init
from supcon_jax.nets.inception import Classifier, ImageEncoder, Inception

TINY = ImageEncoder(8, 1 / 16, size=32, small=True, repeats=(0, 1, 1))


def count(tree):
    return sum(a.size for a in jax.tree.leaves(tree["params"]))


def test_published_sizes():
    image = jax.ShapeDtypeStruct((1, 299, 299, 3), np.float32)
    made = jax.eval_shape(Inception(classes=1000).init, jax.random.key(0), image)
    assert count(made) == 23_834_568  # torchvision's inception_v3 without its auxiliary head
    taps = jax.eval_shape(Inception().init_with_output, jax.random.key(0), image)[0]
    assert {k: v.shape[1:] for k, v in taps.items()} == {
        "64": (73, 73, 64), "192": (35, 35, 192), "768": (17, 17, 768), "2048": (2048,)}
    birds = jax.eval_shape(Classifier(200).init, jax.random.key(0), jax.ShapeDtypeStruct((1, 256, 256, 3), np.float32))
    assert count(made) - count(birds) == 2049 * 800 and set(birds["params"]) == {"trunk", "label"}
    encoder = jax.eval_shape(ImageEncoder().init, jax.random.key(0), image)["params"]
    assert count({"params": {k: encoder[k] for k in ("regions", "code")}}) == 768 * 256 + 2048 * 256 + 256


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).uniform(-1, 1, (3, 32, 32, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def variables(picture):
    return init.on_host(TINY.init, jax.random.key(0), picture)


@pytest.fixture(scope="module")
def codes(variables, picture):
    """Of the picture, of it upside down, and of both side by side."""
    other = picture[:, ::-1]
    run = tiny.compiled(TINY.apply, variables, picture)
    both = ran(jax.vmap(TINY.apply, (None, 1), 1), variables, np.stack([picture, other], 1))
    return *(jax.device_get(run(variables, x)) for x in (picture, other)), both


def test_small_gives_eight_by_eight_regions(variables, picture, codes):
    regions, code = codes[0]
    assert regions.shape == (3, 64, 8) and code.shape == (3, 8)
    half = ran(TINY.clone(dtype=jnp.bfloat16).apply, variables, picture)
    assert half[0].dtype == half[1].dtype == np.float32
    np.testing.assert_allclose(half[1], code, atol=0.05 * np.abs(code).max())


@pytest.mark.slow
def test_frozen_lets_only_the_heads_learn(variables, picture):
    def loss(params, picture, net):
        state = {"params": params, "batch_stats": variables["batch_stats"]}
        (regions, code), moved = net.apply(state, picture, train=True, mutable=["batch_stats"])
        return (regions**2).mean() + (code**2).mean(), moved

    grads, moved = ran(jax.grad(lambda p, x: loss(p, x, TINY.clone(frozen=True)), (0, 1), has_aux=True),
                       variables["params"], picture)  # fmt: skip
    assert not any(a.any() for a in jax.tree.leaves((grads[0]["trunk"], grads[1])))
    assert all(a.any() for a in jax.tree.leaves((grads[0]["regions"], grads[0]["code"])))
    jax.tree.map(np.testing.assert_array_equal, moved["batch_stats"], variables["batch_stats"])

    def free(conv1a, picture):  # the first layer's gradient has come through all others
        trunk = variables["params"]["trunk"] | {"conv1a": conv1a}
        return loss(variables["params"] | {"trunk": trunk}, picture, TINY)

    grads, moved = ran(jax.grad(free, (0, 1), has_aux=True), variables["params"]["trunk"]["conv1a"], picture)
    assert grads[1].any() and grads[0]["conv"]["kernel"].any()
    assert moved["batch_stats"]["trunk"]["conv1a"]["norm"]["mean"].any()


def test_branches_agree_with_one(codes):
    *each, both = codes
    for i, alone in enumerate(each):
        for a, b in zip(both, alone, strict=True):
            np.testing.assert_allclose(a[:, i], b, rtol=1e-4, atol=1e-5)


def test_width_and_grid_are_laid_out_as_said(variables):
    trunk = variables["params"]["trunk"]
    assert trunk["conv4a"]["conv"]["kernel"].shape == (3, 3, 5, 12)
    assert set(trunk) == {"conv1a", "conv2a", "conv2b", "conv3b", "conv4a", "mixed6a", "mixed6b", "mixed7a",
                          "mixed7b"}
