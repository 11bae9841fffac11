import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from supcon_jax.nets.blocks import max_pool


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (2, 9, 6, 3), (1, 3, 4, 1)])
def test_max_pool_is_flax_in_value_and_gradient(shape, stride, padding):
    """Also where values are equal: a third of them are zero, as after a ReLU, and negative at the edges."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(-2, 3, shape), jnp.float32)
    plain, pull_plain = jax.vjp(lambda x: nn.max_pool(x, (3, 3), (stride, stride), padding), x)
    found, pull = jax.vjp(lambda x: max_pool(x, stride, padding), x)
    np.testing.assert_array_equal(found, plain)
    weight = jnp.asarray(rng.integers(1, 9, plain.shape), jnp.float32)
    np.testing.assert_array_equal(pull(weight)[0], pull_plain(weight)[0])
    assert max_pool(x.astype(jnp.bfloat16), stride, padding).dtype == jnp.bfloat16
