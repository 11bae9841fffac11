"""The sigmoid pair loss against the loop, through every door."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from dress import cases, dress, grid, mesh
from supcon_jax.losses import pairwise
from supcon_jax.ops import rows, sharded
from supcon_jax.ops.rows import Rows

N, D = 12, 5
RNG = np.random.default_rng(0)
X, Y = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in RNG.normal(size=(2, N, D)))
LABEL = np.array([9, -1, 0, 0, 0, 1, 1, 2, 2, 2, 2, 1])
SELF, NOTHING = np.eye(N, dtype=bool), np.zeros((N, N), bool)


def loss(x, y, scale, bias, sums, own=False, labelled=False):
    q = Rows(x, jnp.asarray(LABEL), jnp.arange(N))
    weights = rows.same_label if labelled else rows.same_index
    return pairwise.siglip(q, None if own else q.replace(x=y), scale=scale, bias=bias, weights=weights, sums=sums)


@pytest.mark.parametrize("case, devices", cases(["pairs", "labelled", "own"], ["labelled"], long=False))
def test_equals_the_loop(case, devices):
    own, labelled = case == "own", case != "pairs"
    value, _ = dress(
        lambda *args, sums: loss(*args, sums, own, labelled),
        [X, Y, np.float64(4), np.float64(-3)],
        full=case == "labelled",
        devices=devices,
    )
    w = oracles.same_label(LABEL, LABEL) if labelled else np.eye(N)
    np.testing.assert_allclose(value, oracles.siglip(X, X if own else Y, w, 4.0, -3.0, SELF if own else NOTHING), rtol=1e-12)


PLACES = [
    pytest.param(name, own, marks=pytest.mark.slow if own == (name in ("tiled", "hybrid")) else ())
    for name in ("tiled", "ring", "hybrid", "auto") for own in (False, True)
]  # fmt: skip


@pytest.mark.parametrize("name, own", PLACES)
def test_every_door_is_the_definition(name, own):
    used = {
        "tiled": sharded.tiled(tile=(4, 6)),
        "ring": sharded.ring(mesh(4), tile=(2, 2)),
        "hybrid": sharded.hybrid(grid(8), "chip", "host"),
        "auto": sharded.auto(),
    }[name]
    with jax.enable_x64(True):
        args = jnp.asarray(X), jnp.asarray(Y), jnp.linspace(1.0, 5, N) if not own else jnp.asarray(4.0), jnp.asarray(-3.0)
        got, want = (
            jax.jit(jax.value_and_grad(lambda *a, d=d: loss(*a, d, own, labelled=True), (0, 1, 2, 3)))(*args)
            for d in (used, rows.dense)
        )
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12 * max(1, np.abs(other).max()))


def test_padding_rows_change_nothing():
    q, k = Rows(jnp.asarray(X), valid=jnp.arange(N) < 8), Rows(jnp.asarray(Y), valid=jnp.arange(N) < 8)
    cut = [jax.tree.map(lambda a: a[:8], r.replace(valid=None)) for r in (q, k)]
    how = {"scale": 4.0, "bias": -3.0}
    for sums in (rows.dense, sharded.gather(mesh(8))):
        got = pairwise.siglip(q, k, sums=sums, **how)
        np.testing.assert_allclose(got, pairwise.siglip(*cut, **how), rtol=1e-6)
