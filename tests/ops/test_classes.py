"""Sums over positives from sums over classes: the definition, where they apply and where they must not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dress import DOORS, THROUGH
from supcon_jax.ops import readings, rows, rules
from supcon_jax.ops.readings import Reading
from supcon_jax.ops.rows import Rows

D, N, M, C = 4, 19, 22, 5


def draw():
    """Labels of singletons, of unlabelled rows, and a class that only one side has; some rows are not valid."""
    rng = np.random.default_rng(0)
    label = rng.integers(-1, 3, N), rng.integers(-1, 4, M)
    label[0][:2] = 4, -7
    return *(jnp.asarray(rng.normal(size=(n, D))) for n in (N, M)), *(jnp.asarray(a, jnp.int32) for a in label)


def loss(sums, x, y, a, b, scale):
    """Rows, both sides, own keys, a scale for each row, several readings."""
    q = Rows(x, a, jnp.arange(N, dtype=jnp.int32), jnp.arange(N) % 6 != 2)
    k = Rows(y, b, jnp.arange(M, dtype=jnp.int32), jnp.arange(M) % 7 != 3)
    same = rows.same_label
    found = [
        *rows.both(sums, q, k, scale=scale, weigh=same),
        sums(q, q, scale=scale, weigh=same, veto=rows.same_index),
        sums(q, k, scale=scale * jnp.linspace(1.0, 2, N), weigh=same),
        *readings.read(sums, q, q, scale=scale, readings=(Reading(same, rows.same_index), Reading(same, None, -0.5))),
    ]
    total = 0.0
    for s in found:
        order = jnp.sin(jnp.arange(len(s.lse), dtype=s.lse.dtype))
        total += jnp.sum(order * (jnp.where(s.lse > -1e29, s.lse, 0) + jnp.cos(order) * s.pos * s.wgt + s.cnt))
    return total, found


@functools.cache
def judged(used):
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        run = jax.jit(jax.value_and_grad(functools.partial(loss, used), (0, 1, 4), has_aux=True))
        return run(*draw(), jnp.asarray(3.0))


@pytest.mark.parametrize("name, devices", THROUGH)
def test_sums_over_classes_are_the_definition(name, devices):
    got, want = judged(DOORS[name](devices, tile=(8, 8), classes=C)), judged(rows.dense)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        one, other = np.asarray(one), np.asarray(other)
        most = max(1, np.abs(np.where(other > -1e29, other, 0)).max())
        np.testing.assert_allclose(np.maximum(one, -1e29), np.maximum(other, -1e29), rtol=0, atol=1e-12 * most)


def apart(q, k):
    return q.index[:, None] + 1 == k.index[None, :]


OTHERS = {  # weigh, veto, whether the keys are the queries: whether it is short
    "label": (rows.same_label, None, False, True),
    "itself": (rows.same_label, rows.same_index, True, True),
    "index": (rows.same_label, rows.same_index, False, False),
    "veto": (rows.same_label, apart, True, False),
    "everyone": (rules.everyone, None, True, False),
}


@pytest.mark.parametrize("weigh, veto, own, short", OTHERS.values(), ids=OTHERS)
def test_other_rules_and_vetoes_take_the_tiles(weigh, veto, own, short):
    x, y, a, b = (jnp.asarray(v, jnp.float32 if v.ndim == 2 else jnp.int32) for v in draw())
    q, k = Rows(x, a, jnp.arange(N)), Rows(y, b, jnp.arange(M))

    def run(q, k, used):
        return used(q, q if own else k, scale=2.0, weigh=weigh, veto=veto).pos

    tiled = DOORS["tiled"](1, classes=C)
    assert ("scatter-add" in str(jax.make_jaxpr(functools.partial(run, used=tiled))(q, k))) == short
    got, want = (jax.jit(functools.partial(run, used=used))(q, k) for used in (tiled, rows.dense))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_the_tiles_hold_no_weights_and_devices_exchange_classes_only():
    x = jax.ShapeDtypeStruct((64, D), jnp.float32)

    def loss(x, used):
        q = Rows(x, jnp.arange(64) % C, jnp.arange(64))
        s = used(q, q.replace(x=x + 1), scale=2.0, weigh=rows.same_label)
        return jnp.sum(s.lse - s.pos)

    text = [jax.jit(jax.grad(functools.partial(loss, used=DOORS["ring"](8, **how)))).lower(x).compile().as_text()
            for how in ({"classes": C}, {})]  # fmt: skip
    labels = ["s32[8,8]" in one or "pred[8,8]" in one for one in text]
    assert labels == [False, True] and "all-gather" not in text[0] and f"f32[{C},{D}]" in text[0]


def test_ids_beyond_the_classes_are_refused():
    q = Rows(jnp.ones((4, D)), jnp.array([0, 1, 5, 5]), jnp.arange(4))
    used = functools.partial(DOORS["tiled"](1, classes=C), scale=1.0, weigh=rows.same_label)
    with pytest.raises(ValueError, match="classes = 5"):
        used(q, q)
    assert np.isnan(jax.jit(used)(q, q).pos).all()
    padding = q.replace(valid=jnp.array([1, 1, 0, 0]))
    assert np.isfinite(used(padding, padding).pos).all()
