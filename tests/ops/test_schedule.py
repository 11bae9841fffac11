"""The teacher's share at the steps that published schedules are told by."""

import math

import jax
import jax.numpy as jnp
import pytest

from supcon_jax.ops.schedule import momentum_at

K = 200


@pytest.mark.parametrize("start,end", [(0.996, 1.0), (0.99, 0.999), (0.999, 0.999)])
def test_half_a_cosine(start, end):
    run = jax.jit(lambda k: momentum_at(k, K, start, end))
    for k in (0, 1, 9, 10, 11, K // 2, K, K + 5):
        want = end - (end - start) * (1 + math.cos(math.pi * min(k, K) / K)) / 2
        assert float(run(jnp.int32(k))) == pytest.approx(want, abs=1e-7), k
    assert run(jnp.int32(0)) == pytest.approx(start) and run(jnp.int32(K)) == pytest.approx(end)
