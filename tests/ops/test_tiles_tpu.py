"""The TPU kernels, interpreted, against XLA's tiles, and through the doors against the definition."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

import runs
from supcon_jax.losses.contrast import info_nce_both, supcon
from supcon_jax.losses.negatives import decoupled
from supcon_jax.ops import rows, rules, scores, sharded, tiles, tiles_tpu
from supcon_jax.ops.rows import Rows
from supcon_jax.ops.tiles import PLAIN, Asked, Form, Pull, Rules, plus_all

LABELS = Rules(rows.same_label, None, rows.same_index)
READINGS = {  # what is read of the logits, and how
    "two": ((LABELS, Rules(rules.everyone, None, rows.same_label, 1.5)), PLAIN),
    "each side its own": ((Rules(rows.own_or(rows.same_label), rows.same_label, rows.other(rows.same_label)),), PLAIN),
    "several labels": ((Rules(rows.jaccard(), None, rows.same_index),), PLAIN),
    "alone": ((Rules(rows.same_label),), Form(sigmoid=True)),
    "bounded, without weights": ((LABELS._replace(weighed=False), LABELS), Form(bound=40.0)),
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Several kernel calls for a few hundred rows; interpreted kernels take longer to compile than to run."""
    monkeypatch.setattr(tiles_tpu, "BLOCK", 256)
    with runs.quick_to_compile():
        yield


def draw(n, seed=0, several=False, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    label = rng.random((n, 6)) < 0.3 if several else rng.integers(-1, 3, n).astype(np.int32)
    index = jnp.arange(n, dtype=jnp.int32)
    x = jnp.asarray(rng.normal(size=(n, 16)), dtype)
    return Rows(x, jnp.asarray(label), index, jnp.asarray(rng.random(n) < 0.9), index // 2)


def close(got, want, at_most):
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
        assert one.shape == other.shape and np.isfinite(one).all()
        np.testing.assert_allclose(one, other, rtol=at_most, atol=at_most * np.abs(other).max())


def passes(backend, rules, half, form, **how):
    """Sums of both sides and the gradients of a seeded reading of them."""

    how |= {"form": form}

    def pull(one):
        order = jnp.arange(len(one[0]), dtype=jnp.float32)
        return Pull(one[0], jnp.sin(order), None if one.wgt is None else jnp.cos(order))

    @functools.partial(jax.jit)
    def run(z, q, k):
        mine, theirs = backend.block_stats(z, q, k, rules, tile=(128, 256), columns=True, half=half, **how)
        found = (plus_all(mine, theirs),) if half else (mine, theirs)
        read = [[one.pairs() if form.sigmoid else one.sums() for one in side] for side in found]
        pulls = [tuple(map(pull, side)) for side in read]
        pulls = pulls * 2 if half else pulls
        dz, dk = backend.block_grads(z, q, k, *pulls, rules, tile=(128, 256), half=half, **how)
        return read, (0.3 * dz.x + dk if half else (dz, dk))  # 0.3: the queries are the keys times so much

    return run


@pytest.mark.parametrize(
    "name, half",
    [
        ("two", True),
        pytest.param("bounded, without weights", False, marks=pytest.mark.slow),
        pytest.param("alone", False, marks=pytest.mark.slow),  # each compiles for ten seconds and more
        pytest.param("each side its own", False, marks=pytest.mark.slow),
        pytest.param("several labels", True, marks=pytest.mark.slow),
    ],
)
def test_sums_and_gradients(name, half):
    """300 rows in two blocks of several tiles, the last ones not full."""
    several = name == "several labels"
    q = draw(300, 0, several)
    k, (rules, form) = q if half else draw(200, 1, several), READINGS[name]
    z = Asked(0.3 * q.x, jnp.linspace(-1, 1, 300, dtype=jnp.float32) if form.sigmoid else None)
    found = passes(tiles_tpu, rules, half, form, interpret=True)(z, q, k)
    close(found, passes(tiles, rules, half, form)(z, q, k), 1e-5)


@pytest.mark.slow
def test_several_labels_that_are_one():
    q = draw(20, 0, several=True)
    q = q.replace(label=q.label[:, :1])
    rules, form = READINGS["several labels"]

    def sums(backend, **how):
        run = functools.partial(backend.block_stats, rules=rules, form=form, tile=(128, 128), **how)
        return [one.sums() for one in jax.jit(run)(Asked(q.x), q, q)[0]]

    close(sums(tiles_tpu, interpret=True), sums(tiles), 1e-5)


@pytest.mark.slow
def test_bfloat16_rows_and_sides_that_want_no_gradient():
    q, k = draw(130, 0, dtype=jnp.bfloat16), draw(40, 1, dtype=jnp.bfloat16)
    pull = Pull(*(jnp.ones(130) * c for c in (9.0, 0.5, -0.2)))

    def grads(backend, moves, **how):
        run = functools.partial(backend.block_grads, tile=(128, 128), moves=moves, **how)
        return jax.jit(lambda q, k: run(Asked(q.x), q, k, (pull,), None, (LABELS,)))(q, k)

    for moves in ((True, False), (False, True)):
        found = grads(tiles_tpu, moves, interpret=True)
        assert [one is not None for one in found] == list(moves)
        close(found, grads(tiles, moves), 1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("make", [sharded.gather, sharded.ring])
def test_through_a_door_of_two_devices(make):
    """Value and gradient of losses whose rows are split, where every array varies over the mesh: plain ones, one whose
    positives come from sums over classes, one of two readings."""
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])
    door = make(mesh, kernel="pallas", tile=(128, 128), classes=3)
    z, scale = draw(72).x, jnp.float32(0.5)
    q = Rows(z, draw(72).label, jnp.arange(72, dtype=jnp.int32), None, jnp.arange(72, dtype=jnp.int32) // 2)

    def losses(z, scale, sums):
        a, b = q.replace(x=z), q.replace(x=z[::-1])
        one = supcon(a, scale=scale, sums=sums) + decoupled(a, b, scale=scale, sums=sums)
        return one + info_nce_both(a, b, scale=scale, sums=sums)[1]

    run = [jax.jit(jax.value_and_grad(functools.partial(losses, sums=sums), (0, 1))) for sums in (door, rows.dense)]
    close(run[0](z, scale), run[1](z, scale), 1e-5)


def test_what_the_kernels_cannot_do_is_refused():
    q = draw(8)
    with pytest.raises(ValueError, match='say "xla" or "pallas"'):
        sharded.tiled(kernel="triton")
    with jax.enable_x64(True), pytest.raises(ValueError, match="count in float32"):
        sharded.tiled(kernel="pallas")(q.replace(x=q.x.astype(jnp.float64)), q, scale=1.0, weigh=rules.everyone)

    with pytest.raises(ValueError, match="inner products only.*use XLA's tiles"):
        sets = q.replace(x=q.x[:, None])
        sharded.tiled(kernel="pallas").by(scores.MaxSim())(sets, sets, scale=1.0, weigh=rows.same_label)

    def near(q, k):
        return q.x @ k.x.T > 0.5

    with pytest.raises(ValueError, match="may not read embeddings"):
        sharded.tiled(kernel="pallas")(q, draw(8, 1), scale=1.0, weigh=near)
