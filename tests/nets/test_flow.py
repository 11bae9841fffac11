"""The velocity network: shapes, its start at zero, compute type, what it reads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gans import tiny
from supcon_jax.nets import init
from supcon_jax.nets.flow import Velocity, waves

X, T, S = jnp.ones((2, 8, 8, 3)), jnp.array([0.2, 0.9]), jnp.ones((2, 5))


def test_begins_at_zero_and_reads_picture_time_and_sentence():
    net = Velocity(width=4, sizes=(8,), most=2)
    params = init.on_host(net.init, jax.random.key(0), X, T, S)["params"]
    zero = {"/".join(k.key for k in path[:-1]) for path, x in jax.tree_util.tree_leaves_with_path(params)
            if path[-1].key == "kernel" and not np.any(x)}  # fmt: skip
    assert zero == {"velocity", "down0/conv1", "down1/conv1", "up0/conv1"}
    run = jax.jit(lambda *a: net.apply({"params": tiny.fill(params)}, *a))
    first = run(X, T, S)
    assert first.shape == X.shape and first.dtype == jnp.float32
    for other in ((2 * X.at[:, 0].set(0), T, S), (X, T / 2, S), (X, T, -S)):
        assert float(jnp.abs(run(*other) - first).max()) > 1e-2
    np.testing.assert_allclose(run(X, T, S.at[1].set(0))[0], first[0], rtol=1e-5)  # rows do not see each other


def test_half_precision_gives_float32():
    net = Velocity(width=4, sizes=(8,), most=2, dtype=jnp.bfloat16)
    out, variables = jax.eval_shape(net.init_with_output, jax.random.key(0), X, T, S)
    assert out.dtype == jnp.float32 and {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("sizes,said", [((8, 16), "one size"), ((12,), "4 \\* 2\\^k")])
def test_sizes_that_it_cannot_paint(sizes, said):
    with pytest.raises(ValueError, match=said):
        jax.eval_shape(Velocity(sizes=sizes).init, jax.random.key(0), X, T, S)


def test_waves_tell_times_apart():
    rows = waves(jnp.linspace(0, 1, 50), 8)
    assert rows.shape == (50, 16) and np.abs(rows).max() <= 1
    gap = np.linalg.norm(rows[:, None] - rows[None], axis=-1) + 9 * np.eye(50)
    assert gap.min() > 0.3
