import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gans import tiny
from nets.once import ran
from supcon_jax.nets import init
from supcon_jax.nets.attngan import Discriminator, Generator
from supcon_jax.nets.blocks import UpConv, attend, glu

SMALL = Generator(4, (8, 16, 32), cond=6)


def count(tree):
    return sum(math.prod(a.shape) for a in jax.tree.leaves(tree["params"]))


def inputs(n, d=8, t=5, cond=6, seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda *s: rng.standard_normal(s).astype(np.float32)  # noqa: E731
    valid = np.arange(t)[None, :] < rng.integers(1, t + 1, n)[:, None]
    return draw(n, 7), draw(n, d), draw(n, t, d), valid, draw(n, cond)


@pytest.mark.parametrize(("width", "residual", "expected"), [(32, 2, 7_084_592), (48, 3, 13_811_456)])
def test_generator_has_the_published_size(width, residual, expected):
    z, words = jax.ShapeDtypeStruct((2, 100), np.float32), jax.ShapeDtypeStruct((2, 18, 256), np.float32)
    sentence, valid = jax.ShapeDtypeStruct((2, 256), np.float32), jax.ShapeDtypeStruct((2, 18), bool)
    made = jax.eval_shape(Generator(width, residual=residual).init, jax.random.key(0), z, sentence, words, valid, z)
    assert count(made) == expected


@pytest.mark.parametrize(("width", "size", "expected"), [
    (64, 64, 6_313_730), (64, 128, 19_424_002), (64, 256, 71_858_946),
    (96, 64, 13_304_450), (96, 128, 42_800_258), (96, 256, 160_774_274)])
def test_discriminator_has_the_published_size(width, size, expected):
    image, sentence = jax.ShapeDtypeStruct((2, size, size, 3), np.float32), jax.ShapeDtypeStruct((2, 256), np.float32)
    made = jax.eval_shape(Discriminator(size, width).init, jax.random.key(0), image, sentence)
    assert count(made) == expected


@pytest.fixture(scope="module")
def variables():
    return init.on_host(SMALL.init, jax.random.key(0), *inputs(3))


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_generator_below_64_pixels_in_both_precisions(variables, dtype):
    z = inputs(3)
    net = SMALL.clone(dtype=dtype)
    run = functools.partial(net.apply, train=True, mutable=["batch_stats"])
    (images, mu, logvar, attention), state = ran(run, variables, *z)
    assert [i.shape for i in images] == [(3, s, s, 3) for s in (8, 16, 32)]
    assert [a.shape for a in attention] == [(3, 8, 8, 5), (3, 16, 16, 5)]
    assert {a.dtype for a in (*images, mu, logvar, *attention, *jax.tree.leaves(state))} == {np.dtype("float32")}
    assert all(np.isfinite(i).all() and np.abs(i).max() <= 1 for i in images)
    np.testing.assert_allclose(attention[1].sum(-1), 1, rtol=1e-2)
    assert not attention[0][~np.broadcast_to(z[3][:, None, None, :], attention[0].shape)].any()


def test_generator_over_branches_is_the_generator_of_each(variables):
    one, two = inputs(3, seed=1), inputs(3, seed=2)
    small = SMALL.clone(sizes=(8, 16))
    small_variables = jax.eval_shape(small.init, jax.random.key(0), *one)
    variables = {kind: {name: variables[kind][name] for name in tree} for kind, tree in small_variables.items()}
    run = lambda *a: small.apply(variables, *a, train=True, mutable=["batch_stats"])  # noqa: E731
    both = ran(jax.vmap(run, 1, 1), *(np.stack(p, 1) for p in zip(one, two, strict=True)))
    each = tiny.compiled(run, *one)
    for i, z in enumerate((one, two)):
        alone = each(*z)
        for a, b in zip(jax.tree.leaves(both), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[:, i], b, rtol=1e-3, atol=2e-5)


def test_generator_refuses_sizes_that_do_not_double():
    with pytest.raises(ValueError, match="twice"):
        jax.eval_shape(Generator(4, (8, 32), cond=6).init, jax.random.key(0), *inputs(3))
    with pytest.raises(ValueError, match="mask"):
        jax.eval_shape(Generator(4, (8,), cond=6, mask="none").init, jax.random.key(0), *inputs(3))


@pytest.mark.parametrize("mask", ["correct", "compat"])
def test_attend_is_its_definition(mask):
    rng = np.random.default_rng(0)
    n, h, w, t, c = 3, 2, 2, 4, 5
    x, words = rng.standard_normal((n, h, w, c)), rng.standard_normal((n, t, c))
    length = np.array([4, 1, 2])
    valid = np.arange(t)[None, :] < length[:, None]
    with jax.enable_x64(True):
        context, attention = ran(functools.partial(attend, mask=mask), x, words, valid)
    for b in range(n):
        for q in range(h * w):
            pixel = x[b, q // w, q % w]
            keep = length[(b * h * w + q) % n] if mask == "compat" else length[b]
            e = np.array([np.exp(pixel @ words[b, s]) if s < keep else 0.0 for s in range(t)])
            np.testing.assert_allclose(attention[b, q // w, q % w], e / e.sum(), rtol=1e-10)
            np.testing.assert_allclose(context[b, q // w, q % w], e / e.sum() @ words[b], rtol=1e-10)


def test_attend_stays_finite_without_a_valid_word():
    context, attention = attend(jnp.ones((1, 2, 2, 3)), jnp.ones((1, 4, 3)), jnp.zeros((1, 4), bool))
    assert np.isfinite(context).all()
    np.testing.assert_allclose(attention, 0.25)


def test_glu_gates_with_the_second_half():
    np.testing.assert_allclose(glu(jnp.array([2.0, 3.0, 0.0, 100.0])), [1.0, 3.0])


def test_up_conv_is_the_convolution_of_the_doubled_picture():
    """Value and both gradients, in float64; odd sides too."""
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((2, 3, 5, 4)), rng.standard_normal((3, 3, 4, 6))
    weight = rng.standard_normal((2, 6, 10, 6))

    def plain(x, kernel):
        doubled = x.repeat(2, 1).repeat(2, 2)
        return jax.lax.conv_general_dilated(doubled, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def up(x, kernel, dtype=None):
        return UpConv(6, dtype).apply({"params": {"kernel": kernel}}, x)

    def with_gradients(x, kernel, weight):
        pulls = [jax.vjp(f, x, kernel) for f in (up, plain)]
        return [(value, *pull(weight)) for value, pull in pulls]

    with jax.enable_x64(True):
        for a, b in zip(*ran(with_gradients, x, kernel, weight), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
    low = jax.eval_shape(lambda x, kernel: up(x, kernel, jnp.bfloat16), x, kernel.astype(np.float32))
    assert low.dtype == jnp.bfloat16


@pytest.mark.parametrize("size", [8, 16, 32])
def test_discriminator_below_64_pixels(size):
    net = Discriminator(size, 4, jnp.bfloat16)
    image, sentence = np.zeros((3, size, size, 3), np.float32), np.ones((3, 8), np.float32)
    variables = init.on_host(net.init, jax.random.key(0), image, sentence)

    def judge(variables, image, sentence):
        h, *logits = net.apply(variables, image, sentence)
        return h, *logits, [net.apply(variables, h, sentence, method=net.cond), net.apply(variables, h, method=net.uncond)]

    h, cond, uncond, again = ran(judge, variables, image, sentence)
    assert h.shape == (3, 4, 4, 32) and cond.shape == uncond.shape == (3,)
    assert cond.dtype == uncond.dtype == np.float32
    np.testing.assert_allclose(again, (cond, uncond), rtol=2e-2, atol=1e-2)
    with pytest.raises(ValueError, match="size"):
        jax.eval_shape(Discriminator(12).init, jax.random.key(0), np.zeros((1, 12, 12, 3)), sentence[:1])
