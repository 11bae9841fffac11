import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nets.once import ran
from supcon_jax.nets.blocks import max_pool

WAYS = list(itertools.product([1, 2], ["SAME", "VALID"]))


@functools.cache
def pooled(shape):
    """{way: ((value, gradient) of flax, of ours)} of a picture of this shape, from one program."""
    rng = np.random.default_rng(0)
    x = rng.integers(-2, 3, shape).astype(np.float32)
    sizes = {way: jax.eval_shape(lambda x: max_pool(x, *way), x).shape for way in WAYS}  # noqa: B023
    weights = [rng.integers(1, 9, sizes[way]).astype(np.float32) for way in WAYS]

    def each(x, weights):
        out = []
        for (stride, padding), weight in zip(WAYS, weights, strict=True):
            plain, pull_plain = jax.vjp(lambda x: nn.max_pool(x, (3, 3), (stride, stride), padding), x)  # noqa: B023
            found, pull = jax.vjp(lambda x: max_pool(x, stride, padding), x)  # noqa: B023
            out.append(((plain, pull_plain(weight)[0]), (found, pull(weight)[0])))
        return out

    return dict(zip(WAYS, ran(each, x, weights), strict=True))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (2, 9, 6, 3), (1, 3, 4, 1)])
def test_max_pool_is_flax_in_value_and_gradient(shape, stride, padding):
    """Also where values are equal: a third of them are zero, as after a ReLU, and negative at the edges."""
    for want, found in zip(*pooled(shape)[stride, padding], strict=True):
        np.testing.assert_array_equal(found, want)
    half = jax.ShapeDtypeStruct(shape, jnp.bfloat16)
    assert jax.eval_shape(lambda x: max_pool(x, stride, padding), half).dtype == jnp.bfloat16
