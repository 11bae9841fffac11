import jax
import jax.numpy as jnp
import numpy as np
import pytest

from supcon_jax.ops import arrays


def test_unit_rows_and_zero_rows():
    x = np.array([[3.0, 4.0], [0.0, 0.0], [1e-3, 0.0]], np.float32)
    np.testing.assert_allclose(arrays.unit(jnp.asarray(x)), [[0.6, 0.8], [0, 0], [1, 0]], rtol=1e-6)
    grad = jax.grad(lambda x: arrays.unit(x)[:, 0].sum())(jnp.asarray(x))
    assert np.isfinite(grad).all()
    assert arrays.unit(jnp.asarray(x, jnp.bfloat16)).dtype == jnp.bfloat16


def test_cosine_and_its_gradient_at_zero():
    a, b = jnp.array([[1.0, 0.0], [0.0, 0.0]]), jnp.array([[1.0, 1.0], [1.0, 0.0]])
    np.testing.assert_allclose(arrays.cosine(a, b), [np.sqrt(0.5), 0], rtol=1e-6)
    assert np.isfinite(jax.grad(lambda a: arrays.cosine(a, b).sum())(a)).all()


@pytest.mark.parametrize("axis, want", [(None, 2.0), (1, [1.5, 0.0, 3.0])])
def test_masked_mean_ignores_what_is_masked(axis, want):
    x = jnp.array([[1.0, 2.0], [np.nan, np.inf], [3.0, np.nan]])
    mask = jnp.array([[True, True], [False, False], [True, False]])
    np.testing.assert_allclose(arrays.masked_mean(x, mask, axis), want)
    assert np.isfinite(jax.grad(lambda x: arrays.masked_mean(x, mask))(x)).all()


def test_average_keeps_dtypes():
    old, new = {"a": jnp.ones(2), "b": jnp.zeros(2, jnp.bfloat16)}, {"a": jnp.zeros(2), "b": jnp.ones(2, jnp.bfloat16)}
    out = arrays.average(old, new, 0.75)
    np.testing.assert_allclose(out["a"], 0.75)
    assert out["b"].dtype == jnp.bfloat16
