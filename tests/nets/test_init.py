import jax
import jax.numpy as jnp
import numpy as np
import pytest

from supcon_jax.nets import init


def draw(key):
    return {"tall": init.orthogonal(key, (3, 3, 4, 8)), "wide": init.orthogonal(key, (4, 16)),
            "flat": init.uniform(0.1)(key, (1000,)), "one": init.normal(0.02, 1.0)(key, (1000,)),
            "fixed": init.normal(0.0, 1.0)(key, (3,)), "zero": jnp.zeros(2)}


@pytest.mark.parametrize("make", [draw, lambda key: init.on_host(draw, key)])
def test_values_are_what_their_names_say(make):
    out = make(jax.random.key(3))
    tall = np.asarray(out["tall"]).reshape(36, 8)
    np.testing.assert_allclose(tall.T @ tall, np.eye(8), atol=1e-5)
    np.testing.assert_allclose(out["wide"] @ out["wide"].T, np.eye(4), atol=1e-5)
    assert np.abs(out["flat"]).max() <= 0.1 and 0.05 < np.std(out["flat"]) < 0.065
    assert abs(np.mean(out["one"]) - 1) < 0.005 and 0.018 < np.std(out["one"]) < 0.022
    np.testing.assert_array_equal(out["fixed"], 1)
    assert all(isinstance(a, jax.Array) and a.dtype == np.float32 for a in jax.tree.leaves(out))


def test_on_host_follows_its_key_and_hands_arguments_on():
    a, b, c = (init.on_host(draw, jax.random.key(s)) for s in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert np.abs(a["flat"] - c["flat"]).max() > 0.01
    np.testing.assert_array_equal(init.on_host(lambda key, x: 2 * x["x"], jax.random.key(0), {"x": np.ones(3)}), 2)
