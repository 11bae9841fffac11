"""Batch normalisation: by the batch, by groups of rows, on any number of devices; averages; precision. Spectral norm."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dress import split
from supcon_jax.nets.norm import BatchNorm, SpectralNorm


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


def training(groups):
    """(output, new averages) and the gradients of a number made of the output."""
    net = BatchNorm(groups=groups)

    def number(params, x, weight):
        stats = {"mean": jnp.full(3, 0.5), "var": jnp.full(3, 2.0)}
        y, moved = net.apply({"params": params, "batch_stats": stats}, x, train=True, mutable=["batch_stats"])
        return (y * weight).sum(), (y, moved["batch_stats"])

    return jax.jit(jax.value_and_grad(number, (0, 1), has_aux=True))


def grouped_args(dtype=np.float32):
    rng = np.random.default_rng(0)
    x, weight = rng.normal(3, 2, (16, 2, 2, 3)), rng.normal(size=(16, 2, 2, 3))
    params = {"scale": jnp.asarray([1.0, 2.0, 0.5], jnp.float32), "bias": jnp.asarray([0.0, 1.0, -1.0], jnp.float32)}
    return params, x.astype(dtype), weight.astype(dtype)


@pytest.mark.parametrize("groups", [1, 4, 16])
def test_each_group_of_neighbours_is_normalised_by_itself(groups):
    params, x, weight = grouped_args()
    (_, (y, moved)), (_, slope) = training(groups)(params, x, weight)
    parts = x.astype(np.float64).reshape(groups, -1, 3)
    mean, var = parts.mean(1, keepdims=True), parts.var(1, keepdims=True)
    want = (parts - mean) / np.sqrt(var + 1e-5) * np.asarray(params["scale"]) + np.asarray(params["bias"])
    np.testing.assert_allclose(y, want.reshape(x.shape), atol=2e-5)
    np.testing.assert_allclose(moved["mean"], 0.45 + 0.1 * mean.mean((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(moved["var"], 1.8 + 0.1 * parts.var(1, ddof=1).mean(0), rtol=1e-5)
    own = np.asarray(slope).reshape(groups, -1, 3)
    assert np.abs(own.sum(1)).max() < 1e-3 * np.abs(own).max()  # a shift of one group alone changes nothing


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_groups_do_not_depend_on_the_devices(groups):
    params, x, weight = grouped_args()
    want = training(groups)(params, x, weight)
    args = params, split(x, 8), split(weight, 8)
    run = training(groups).lower(*args).compile()
    for got, one in zip(jax.tree.leaves(jax.device_get(run(*args))), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(got, one, rtol=1e-5, atol=1e-5)
    sent = re.findall(r"= (\S+) (?:all-gather|all-to-all|collective-permute)\(", run.as_text())
    assert all(np.prod([int(n) for n in re.findall(r"\d+", shape.split("[")[1].split("]")[0])]) < x.size / 3 for shape in sent)


def test_rows_that_the_groups_cannot_share_are_refused():
    params, x, weight = grouped_args()
    with pytest.raises(ValueError, match="16 rows cannot be shared by groups=5; use a divisor of 16"):
        training(5)(params, x, weight)


def spectral(w, steps):
    """(kernel, its vectors) after so many training calls, then one more that does not train."""
    net = SpectralNorm()
    variables = net.init(jax.random.key(0), w, train=False)

    def once(_, stats):
        return net.apply({"batch_stats": stats}, w, train=True, mutable=["batch_stats"])[1]["batch_stats"]

    stats = jax.lax.fori_loop(0, steps, once, variables["batch_stats"])
    return net.apply({"batch_stats": stats}, w, train=False), stats


def test_spectral_norm_comes_to_the_largest_singular_value():
    """Also in a kernel's four axes, whose last one holds the features."""
    w = np.random.default_rng(0).normal(size=(3, 3, 2, 5)).astype(np.float32)
    left, sizes, right = np.linalg.svd(w.reshape(-1, 5).astype(np.float64), full_matrices=False)
    got, stats = jax.jit(spectral, static_argnums=1)(w, 300)
    np.testing.assert_allclose(got, w / sizes[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.abs(left[:, 0] @ stats["v"]), 1, rtol=1e-4)
    np.testing.assert_allclose(np.abs(right[0] @ stats["u"]), 1, rtol=1e-4)


def test_one_step_of_spectral_norm_and_its_gradient():
    """v from u, u from the new v; the gradient knows that sigma = u W v depends on W, and takes u and v as constants."""
    rng = np.random.default_rng(0)
    w, u, v, weight = (rng.normal(size=s) for s in ((4, 3), 3, 4, (4, 3)))
    with jax.enable_x64(True):

        def number(w):
            y, new = SpectralNorm().apply({"batch_stats": {"u": u, "v": v}}, w, train=True, mutable=["batch_stats"])
            return (y * weight).sum(), (y, new["batch_stats"])

        (_, (y, new)), slope = jax.value_and_grad(number, has_aux=True)(jnp.asarray(w))
    v1 = w @ u / np.linalg.norm(w @ u)
    u1 = v1 @ w / np.linalg.norm(v1 @ w)
    sigma = v1 @ w @ u1
    np.testing.assert_allclose(new["v"], v1, rtol=1e-10)
    np.testing.assert_allclose(new["u"], u1, rtol=1e-10)
    np.testing.assert_allclose(y, w / sigma, rtol=1e-10)
    np.testing.assert_allclose(slope, weight / sigma - (weight * w).sum() / sigma**2 * np.outer(v1, u1), rtol=1e-9)


def test_without_affine_there_is_nothing_to_learn():
    x = np.random.default_rng(0).normal(3, 2, (6, 3)).astype(np.float32)
    plain, bare = BatchNorm(), BatchNorm(affine=False)
    variables = plain.init(jax.random.key(0), x, train=True)
    start = bare.init(jax.random.key(0), x, train=True)
    assert "params" not in start
    want, got = (net.apply(v, x, train=True, mutable=["batch_stats"]) for net, v in ((plain, variables), (bare, start)))
    np.testing.assert_array_equal(got[0], want[0])
    np.testing.assert_array_equal(got[1]["batch_stats"]["var"], want[1]["batch_stats"]["var"])


def test_a_clamped_variance_is_raised_in_training_only():
    x = np.stack([np.r_[-1.0, 1.0], np.r_[-1e-3, 1e-3]], 1).astype(np.float32)  # variances 1 and 1e-6, eps 1e-5
    net = BatchNorm(clamp=True)
    start = net.init(jax.random.key(0), x, train=True)
    y, moved = net.apply(start, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(y, x / np.sqrt([[1, 1e-5]]), rtol=1e-5)
    still = {"params": start["params"], "batch_stats": moved["batch_stats"]}
    np.testing.assert_array_equal(net.apply(still, x, train=False), BatchNorm().apply(still, x, train=False))
