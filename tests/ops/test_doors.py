"""Every door, kind, view, shape and scale against the definition in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import covering
from dress import DOORS
from supcon_jax.ops import rows
from supcon_jax.ops.rows import Rows

D = 4


def hot(label):
    """Multi-hot labels from class ids: none for -1, two for the others."""
    return jax.nn.one_hot(label, 5) + jax.nn.one_hot(jnp.where(label < 0, -1, label // 2 + 3), 5)


def alike(q, k):
    """A veto that reads the embeddings."""
    return q.x @ k.x.T > 2


KINDS = {  # the rule, what it reads, the veto
    "pair": (rows.same_index, lambda label: label, None),
    "label": (rows.same_label, lambda label: label, rows.same_index),
    "own": (rows.own_or(rows.same_label), lambda label: label, rows.same_label_other),
    "jaccard": (rows.jaccard(0.3), hot, rows.same_index),
    "idf": (rows.idf(), hot, None),
    "mulsupcon": (rows.mulsupcon, hot, rows.same_index),
    "soft": (rows.shared, lambda label: jax.nn.softmax(hot(label) * 2, axis=1), alike),
}
SETTINGS = {
    "kind": list(KINDS),
    "door": list(DOORS),
    "devices": [1, 2, 4, 8],
    "view": ["rows", "both", "own", "fixed"],
    "shape": ["even", "ragged", "padded"],
    "scale": ["one", "by_row"],
    "tile": ["small", "whole"],
}


def sensible(case):
    return (case["door"] == "tiled") <= (case["devices"] == 1)


def loss(sums, case, x, y, scale):
    """A scalar that every sum reaches, with a weight of its own for each row."""
    rule, reads, veto = KINDS[case["kind"]]
    label = jnp.asarray(np.random.default_rng(3).integers(-1, 4, 40), jnp.int32)

    def several(x, label):
        n = len(x)
        index = jnp.arange(n, dtype=jnp.int32)
        valid = index % 5 != 1 if case["shape"] == "padded" else None
        return Rows(x, reads(label[:n]), index, valid, index // 2)

    q = several(x, label)
    if case["view"] == "own":
        k = q
    else:
        k = several(jax.lax.stop_gradient(y) if case["view"] == "fixed" else y, label[::-1])

    def one_way(q, k):
        weigh, q, k = rows.ready(rule, q, k, veto)
        return sums(q, k, scale=scale, weigh=weigh, veto=veto)

    if case["view"] != "both":
        found = (one_way(q, k),)
    elif sums is rows.dense:
        found = one_way(q, k), one_way(k, q)
    else:
        found = rows.both(sums, q, k, scale=scale, weigh=rule, veto=veto)
    total = 0.0
    for s in found:
        order = jnp.sin(jnp.arange(len(s.lse), dtype=s.lse.dtype))
        total += jnp.sum(order * jnp.where(s.lse > rows.LOWEST, s.lse, 0) + jnp.cos(order) * s.pos * s.wgt)
    return total, found


def judge(case):
    n, m = {"even": (32, 32), "ragged": (27, 38), "padded": (24, 21)}[case["shape"]]
    if case["view"] == "both" and case["scale"] == "by_row":
        m = n  # the same scale serves either side
    rng = np.random.default_rng(1)
    tile = {"small": (4, 6), "whole": (64, 64)}[case["tile"]]
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        x, y = jnp.asarray(rng.normal(size=(n, D))), jnp.asarray(rng.normal(size=(m, D)))
        scale = jnp.asarray(3.0 if case["scale"] == "one" else 1 + 4 * rng.random(n))
        used = DOORS[case["door"]](case["devices"], tile=tile)
        both = [jax.value_and_grad(functools.partial(loss, d, case), (0, 1, 2), has_aux=True) for d in (used, rows.dense)]
        (got, sums), grads = jax.jit(both[0])(x, y, scale)
        (want, defined), given = jax.jit(both[1])(x, y, scale)
        assert (np.abs(given[1]).max() > 0) == (case["view"] in ("rows", "both"))
        return close((got, sums, grads), (want, defined, given), 1e-12)


def close(got, want, share):
    """Equal to a share of each array's largest entry, and finite; the largest share found."""
    found = []
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        one, other = np.asarray(one), np.asarray(other)
        assert np.isfinite(one).all() and one.dtype == other.dtype
        largest = np.abs(np.where(other > rows.LOWEST, other, 0)).max()
        one, other = np.maximum(one, -1e29), np.maximum(other, -1e29)
        np.testing.assert_allclose(one, other, rtol=0, atol=share * max(largest, 1))
        found.append(np.abs(one - other).max(initial=0) / max(largest, 1))
    return float(max(found))


CASES = covering.pairs(SETTINGS, sensible)
PLAIN = CASES[::2]  # half of them: every setting, every kind through several doors
assert all({case[name] for case in PLAIN} == set(values) for name, values in SETTINGS.items())


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=() if c in PLAIN else pytest.mark.slow, id=covering.name(c)) for c in CASES]
)
def test_every_two_settings_meet(case):
    judge(case)


@pytest.mark.long
@pytest.mark.parametrize("name", DOORS)
@pytest.mark.parametrize("kind", KINDS)
def test_all_settings(kind, name, record_property):
    """For the committed record: pytest -m "long and not slow" -n 2 --dist=load tests/ops/test_doors.py --junitxml=..."""
    shares = [judge(case) for case in covering.product({**SETTINGS, "kind": [kind], "door": [name]}, sensible)]
    record_property("settings", len(shares))
    record_property("largest_share", f"{max(shares):.1e}")
