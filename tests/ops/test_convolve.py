"""Convolution with gradients in one layout: those of lax, in and out of loops, and of gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from supcon_jax.ops.convolve import LAYOUT, convolve, depthwise

CASES = [
    ((3, 3), (1, 1), "SAME"), ((3, 3), (2, 2), "SAME"), ((3, 3), (2, 2), "VALID"), ((1, 5), (1, 1), "SAME"),
    ((4, 4), (2, 2), ((1, 1), (1, 1))), ((2, 3), (3, 2), ((0, 2), (1, 0))), ((1, 1), (2, 2), "VALID"),
]  # fmt: skip


def plain(x, kernel, strides, padding):
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=LAYOUT)


@pytest.mark.parametrize("side, strides, padding", CASES)
def test_gradients_are_those_of_lax(side, strides, padding):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, kernel = jnp.asarray(rng.normal(size=(2, 8, 7, 3))), jnp.asarray(rng.normal(size=(*side, 3, 4)))

        def loss(f):
            return jax.jit(jax.value_and_grad(lambda x, k: jnp.sum(jnp.sin(f(x, k, strides, padding))), (0, 1)))

        (value, ours), (wanted, theirs) = loss(convolve)(x, kernel), loss(plain)(x, kernel)
        assert value == wanted
        for a, b in zip(ours, theirs):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * jnp.abs(b).max())


def test_gradients_of_gradients():
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        x, kernel = jnp.asarray(rng.normal(size=(2, 6, 6, 2))), jnp.asarray(rng.normal(size=(3, 3, 2, 3)))

        def penalty(f):
            slope = jax.grad(lambda x, k: jnp.sum(jnp.tanh(f(x, k, (2, 2), "SAME"))))
            return jax.jit(jax.grad(lambda k: jnp.sum(slope(x, k) ** 2)))(kernel)

        np.testing.assert_allclose(penalty(convolve), penalty(plain), rtol=1e-10)


@pytest.mark.parametrize("side, strides, padding", CASES)
def test_one_filter_for_each_channel(side, strides, padding):
    rng = np.random.default_rng(2)
    with jax.enable_x64(True):
        x, kernel = jnp.asarray(rng.normal(size=(2, 9, 8, 3))), jnp.asarray(rng.normal(size=(*side, 1, 3)))

        def groups(x, k, strides, padding, feature_group_count):
            return lax.conv_general_dilated(
                x, k, strides, padding, dimension_numbers=LAYOUT, feature_group_count=feature_group_count
            )

        def loss(f):
            args = {"feature_group_count": 3}
            return jax.jit(jax.value_and_grad(lambda x, k: jnp.sum(jnp.sin(f(x, k, strides, padding, **args))), (0, 1)))

        (value, ours), (wanted, theirs) = loss(depthwise)(x, kernel), loss(groups)(x, kernel)
        np.testing.assert_allclose(value, wanted, rtol=1e-13)
        for a, b in zip(ours, theirs):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * jnp.abs(b).max())
        text = jax.jit(depthwise, static_argnums=(2, 3), static_argnames="feature_group_count").lower(
            x, kernel, strides, padding, feature_group_count=3).compile().as_text()  # fmt: skip
        assert "convolution" not in text or jax.default_backend() != "cpu"


def test_in_a_loop_every_convolution_has_the_layout_with_a_fast_product():
    x, kernel = jnp.ones((4, 2, 8, 8, 4)), jnp.ones((3, 3, 4, 4))

    def loss(kernel, f):
        return jnp.sum(lax.map(lambda part: f(f(part, kernel, (1, 1), "SAME"), kernel, (2, 2), "SAME"), x) ** 2)

    def layouts(f):
        text = jax.jit(jax.grad(loss), static_argnums=1).lower(kernel, f).as_text()
        return {line.split("dim_numbers = ")[1].split(", window")[0] for line in text.splitlines() if "dim_numbers" in line}

    assert layouts(convolve) == {"[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"} < layouts(plain)


def test_what_it_does_not_know_is_refused():
    with pytest.raises(ValueError, match="dilation"):
        convolve(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 2)), (1, 1), "SAME", rhs_dilation=(2, 2))
    with pytest.raises(ValueError, match="groups"):
        convolve(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 1, 2)), (1, 1), "SAME", feature_group_count=2)
    with pytest.raises(ValueError, match="one filter"):
        depthwise(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 1, 4)), (1, 1), "SAME", feature_group_count=2)
