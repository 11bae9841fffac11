"""The definition of the row sums and of every rule, against double loops in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from supcon_jax.ops import rows
from supcon_jax.ops.rows import Rows

N, M, D, C = 7, 9, 4, 5


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def multihot(rng, n):
    label = (rng.random((n, C)) < 0.35).astype(np.uint8)
    label[0] = 0  # a row without any label
    label[1] = label[-1]  # and two alike
    return label


RULES = {
    "same_label": (rows.same_label, oracles.same_label, False),
    "any": (rows.any_label, oracles.any_label, True),
    "all": (rows.all_labels, oracles.all_labels, True),
    "jaccard": (rows.jaccard(), oracles.jaccard, True),
    "jaccard_0.5": (rows.jaccard(0.5), lambda a, b: oracles.jaccard(a, b, 0.5), True),
    "idf": (rows.idf(), oracles.idf, True),
}


@pytest.mark.parametrize("name", RULES)
def test_rule_and_sums_equal_the_loops(name, rng):
    rule, oracle, multi = RULES[name]
    draw = (lambda n: multihot(rng, n)) if multi else (lambda n: rng.integers(-1, 3, n))
    a, b, x, y = draw(N), draw(M), rng.normal(size=(N, D)), rng.normal(size=(M, D))
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        q, k = Rows(jnp.asarray(x), jnp.asarray(a), jnp.arange(N)), Rows(jnp.asarray(y), jnp.asarray(b), jnp.arange(M))
        weigh, q, k = rows.ready(rule, q, k)
        w = oracle(a, b)
        assert 0 < (w > 0).mean() < 1
        np.testing.assert_allclose(weigh(q, k), w, rtol=1e-12)
        got = jax.jit(lambda q, k: rows.dense(q, k, scale=3.0, weigh=weigh, veto=rows.same_index))(q, k)
    want = oracles.row_sums(x, y, 3.0, w, np.eye(N, M, dtype=bool))
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_idf_discounts_what_everyone_has():
    label = jnp.array([[1, 1, 0], [1, 1, 0], [1, 0, 1]])
    q = Rows(jnp.ones((3, 2)), label)
    weigh, a, b = rows.ready(rows.idf(), q, q)
    np.testing.assert_allclose(weigh(a, b), [[1, 1, 0], [1, 1, 0], [0, 0, 1]], atol=1e-6)


def test_identity_rules():
    q = Rows(jnp.ones((3, 2)), jnp.array([4, 4, -1]), jnp.array([0, 1, 2]), record=jnp.array([0, 1, 1]))
    k = Rows(jnp.ones((3, 2)), jnp.array([4, 4, -1]), jnp.array([1, 0, 2]), record=jnp.array([1, 0, 1]))
    np.testing.assert_array_equal(rows.same_index(q, k), [[0, 1, 0], [1, 0, 0], [0, 0, 1]])
    np.testing.assert_array_equal(rows.same_record(q, k), [[0, 1, 0], [1, 0, 1], [1, 0, 1]])
    np.testing.assert_array_equal(rows.same_label_other(q, k), [[1, 0, 0], [0, 1, 0], [0, 0, 0]])
    np.testing.assert_array_equal(rows.own_or(rows.same_label)(q, k), [[1, 1, 0], [1, 1, 0], [1, 0, 1]])


def test_weights_given_as_a_matrix(rng):
    mask, column = rng.random((N, 4)), rng.integers(0, 4, M)
    q, k = Rows(jnp.ones((N, D)), jnp.asarray(mask)), Rows(jnp.ones((M, D)), jnp.asarray(column))
    np.testing.assert_allclose(rows.from_mask(q, k), [[row[c] for c in column] for row in mask], rtol=1e-6)


def test_mulsupcon_counts_the_labels_that_have_a_positive(rng):
    label = multihot(rng, N)
    label[:, 4] = 0
    label[2, 4] = 1  # a label of its own: no positive
    x = jnp.asarray(rng.normal(size=(N, D)))
    q = Rows(x, jnp.asarray(label), jnp.arange(N))
    weigh, a, b = rows.ready(rows.mulsupcon, q, q, rows.same_index)
    wgt = jax.jit(lambda a, b: rows.dense(a, b, scale=1.0, weigh=weigh, veto=rows.same_index).wgt)(a, b)
    want = [sum(label[:, c].sum() > 1 for c in np.flatnonzero(label[i])) for i in range(N)]
    np.testing.assert_allclose(wgt, want, rtol=1e-6)
    with pytest.raises(ValueError, match="veto"):
        rows.ready(rows.mulsupcon, q, q, rows.same_label_other)


def test_wholly_masked_rows_are_finite_and_move_nothing(rng):
    x = jnp.asarray(rng.normal(size=(3, D)), jnp.float32)

    def total(x, scale):
        valid = jnp.array([1.0, 0.0, 1.0])
        q = Rows(x, jnp.array([0, 0, 1]), jnp.arange(3), valid)
        sums = rows.dense(q, q, scale=scale, weigh=rows.same_label, veto=rows.other(lambda q, k: rows.same_index(q, k) | True))
        nothing = rows.dense(q, q, scale=scale, weigh=rows.same_label, veto=lambda q, k: jnp.ones((3, 3), bool))
        for one in nothing:
            assert np.isfinite(jax.lax.stop_gradient(one) if not isinstance(one, jax.core.Tracer) else 0).all()
        return sum(jnp.sum(one) for one in nothing) + jnp.sum(sums.wgt * sums.lse)

    value, grads = jax.value_and_grad(total, (0, 1))(x, jnp.float32(100))
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in grads)
    assert not np.any(grads[0][1])


def test_scale_100_and_duplicates_are_finite():
    x = jnp.ones((6, D)) / 2
    q = Rows(x, jnp.zeros(6, jnp.int32), jnp.arange(6))

    def loss(x):
        sums = rows.dense(q.replace(x=x), q.replace(x=x), scale=100.0, weigh=rows.same_label, veto=rows.same_index)
        return jnp.mean(sums.lse - sums.pos / sums.wgt)

    value, grad = jax.jit(jax.value_and_grad(loss))(x)
    np.testing.assert_allclose(value, np.log(5), rtol=1e-4)
    assert np.isfinite(grad).all()


def test_two_key_sets_merge_into_one(rng):
    q = Rows(jnp.asarray(rng.normal(size=(N, D))), jnp.asarray(rng.integers(0, 3, N)))
    k = Rows(jnp.asarray(rng.normal(size=(M, D))), jnp.asarray(rng.integers(0, 3, M)))
    left, right = jax.tree.map(lambda a: a[:4], k), jax.tree.map(lambda a: a[4:], k)
    run = functools.partial(rows.dense, scale=5.0, weigh=rows.same_label)
    whole, both = jax.jit(lambda: (run(q, k), rows.merge(run(q, left), run(q, right))))()
    for one, other in zip(both, whole, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_bfloat16_is_accumulated_in_float32():
    x = jnp.ones((300, 2), jnp.bfloat16)
    sums = rows.dense(Rows(x), Rows(x), scale=1.0, weigh=lambda q, k: jnp.ones((300, 300)))
    assert sums.lse.dtype == jnp.float32
    np.testing.assert_allclose(sums.pos, 600, rtol=1e-6)
    np.testing.assert_allclose(sums.lse, 2 + np.log(300), rtol=1e-6)
