import jax
import jax.numpy as jnp
import numpy as np

from supcon_jax.nets.norm import BatchNorm


def test_training_normalises_by_the_batch_and_moves_unbiased_averages():
    x = np.random.default_rng(0).normal(3, 2, (5, 2, 2, 3)).astype(np.float32)
    net = BatchNorm()
    start = net.init(jax.random.key(0), x, train=True)
    assert not start["batch_stats"]["mean"].any()
    y, moved = net.apply(start, x, train=True, mutable=["batch_stats"])
    rows = x.reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(y.reshape(-1, 3), (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5), atol=1e-5)
    np.testing.assert_allclose(moved["batch_stats"]["mean"], 0.1 * rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(moved["batch_stats"]["var"], 0.9 + 0.1 * rows.var(0, ddof=1), rtol=1e-5)
    y = net.apply({"params": start["params"], **moved}, x, train=False)
    kept = moved["batch_stats"]
    np.testing.assert_allclose(y, (x - kept["mean"].reshape(1, 1, 1, 3)) / np.sqrt(kept["var"] + 1e-5).reshape(
        1, 1, 1, 3), atol=1e-5)


def test_statistics_stay_float32_in_bfloat16():
    x = jnp.asarray(np.random.default_rng(0).normal(100, 1, (4096, 2)), jnp.bfloat16)
    net = BatchNorm()
    y, moved = net.apply(net.init(jax.random.key(0), x, train=False), x, train=True, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16 and moved["batch_stats"]["var"].dtype == np.float32
    rows = np.asarray(x, np.float64)
    np.testing.assert_allclose(moved["batch_stats"]["var"], 0.9 + 0.1 * rows.var(0, ddof=1), rtol=1e-4)
