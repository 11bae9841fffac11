"""Contrast with kept rows: against the loops, in every dress and through every door; what the bank becomes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles_unimodal as slow
from dress import DOORS, cases, dress, split
from supcon_jax.losses import bank, contrast
from supcon_jax.ops import rows
from supcon_jax.ops.rows import Rows

RNG = np.random.default_rng(0)
N, D, SIZE, M = 16, 5, 40, 6


def units(*shape):
    x = RNG.normal(size=shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


X, Y, KEPT, QUEUE = units(N, D), units(N, D), units(SIZE, D), units(24, D)
INDEX = RNG.permutation(SIZE)[:N].astype(np.int32)
DRAWN = {"shared": RNG.integers(0, SIZE, M), "per_anchor": RNG.integers(0, SIZE, (N, M))}
DRAWN["shared"][2], DRAWN["per_anchor"][3, 1] = INDEX[5], INDEX[3]  # own rows among the negatives
FORMS = {"softmax": {}, "nce": {"form": "nce", "z": 300.0}}


def kept(x, scale, sums=rows.dense, negatives="shared", **how):
    given = (jnp.asarray(KEPT, x.dtype), jnp.asarray(INDEX), jnp.asarray(DRAWN[negatives], jnp.int32))
    return bank.contrast(Rows(x), *given, scale=scale, sums=sums, **how)


CASES = {
    f"{negatives}-{form}-{own}": (negatives, form, own)
    for negatives in bank.NEGATIVES for form in FORMS for own in ("keep", "drop")
}  # fmt: skip


@pytest.mark.parametrize("case, devices", cases(CASES, ["shared-nce-keep", "per_anchor-softmax-drop"], long=False))
def test_equals_the_loops(case, devices):
    negatives, form, own = CASES[case]
    fn = functools.partial(kept, negatives=negatives, own=own, **FORMS[form])
    value, _ = dress(fn, [X, np.float64(6)], full=case == "shared-nce-keep", devices=devices)
    how = {**FORMS[form]}
    want = slow.bank(X, KEPT, INDEX, DRAWN[negatives], 6.0, how.pop("form", form), how.pop("z", None), own == "keep")
    np.testing.assert_allclose(value, want, rtol=1e-11)


def test_the_same_rows_shared_or_drawn_by_each():
    for how in FORMS.values():
        given = (jnp.asarray(KEPT, jnp.float32), jnp.asarray(INDEX))
        shared = jnp.asarray(DRAWN["shared"], jnp.int32)
        each = jnp.tile(shared[None], (N, 1))
        run = jax.jit(functools.partial(bank.contrast, Rows(jnp.asarray(X, jnp.float32)), *given, scale=6.0, **how))
        np.testing.assert_allclose(run(shared), run(each), rtol=1e-5)
        normaliser = jax.jit(functools.partial(bank.normaliser, Rows(jnp.asarray(X, jnp.float32)), *given, scale=6.0))
        z = [normaliser(d) for d in (shared, each)]
        np.testing.assert_allclose(*z, rtol=1e-5)


def queued(x, own, others, scale, sums, base=None):
    return bank.among(Rows(x), own, Rows(others), scale=scale, base=base, sums=sums)


@pytest.mark.parametrize("base, devices", cases([None, 0.5], [None], long=False))
def test_own_keys_and_a_queue(base, devices):
    value, grads = dress(functools.partial(queued, base=base), [X, Y, QUEUE, np.float64(6)], full=base is None, devices=devices)
    each = [slow.among(6 * slow.dot(x, y), [6 * slow.dot(x, o) for o in QUEUE]) for x, y in zip(X, Y, strict=True)]
    np.testing.assert_allclose(value, np.mean(each) / (1 if base is None else 6 * base), rtol=1e-12)
    assert all(np.abs(g).max() > 1e-4 for g in grads)


def test_own_keys_and_a_queue_are_info_nce():
    """The same keys in one set, the other rows' own keys under a veto: n x n more products, the same number."""
    with jax.enable_x64(True):
        q = contrast.with_index(Rows(jnp.asarray(X)))
        index = jnp.concatenate([q.index, jnp.full(len(QUEUE), -1, jnp.int32)])
        k = Rows(jnp.concatenate([jnp.asarray(Y), jnp.asarray(QUEUE)]), index=index)
        veto = lambda q, k: ~rows.same_index(q, k) & (k.index >= 0)[None, :]  # noqa: E731
        want = jax.jit(lambda q, k: contrast.info_nce(q, k, scale=6.0, veto=veto))(q, k)
        got = jax.jit(lambda x, y: queued(x, y[:N], y[N:], 6.0, rows.dense))(q.x, k.x)
        np.testing.assert_allclose(got, want, rtol=1e-12)


@functools.cache
def judged(used, form):
    with jax.enable_x64(True):
        fn = functools.partial(kept, sums=used, own="drop", **FORMS[form])
        return jax.device_get(jax.jit(jax.value_and_grad(fn, (0, 1)))(jnp.asarray(X), jnp.asarray(6.0)))


PLACES = [
    pytest.param(place, form, marks=pytest.mark.slow if (form == "nce") != (place == "ring") else ())
    for place in ("tiled", "ring", "hybrid")
    for form in FORMS
]


@pytest.mark.parametrize("place, form", PLACES)
def test_every_door_is_the_definition(place, form):
    used = DOORS[place](1 if place == "tiled" else 8, tile=(4, 6))
    for one, other in zip(jax.tree.leaves(judged(used, form)), jax.tree.leaves(judged(rows.dense, form)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("lam, devices", cases([0.0, 0.3, 1.0], [0.3], long=False))
def test_a_changed_image_and_the_image(lam, devices):
    def loss(x, y, scale, sums):
        given = (jnp.asarray(KEPT, x.dtype), jnp.asarray(INDEX), jnp.asarray(DRAWN["shared"], jnp.int32))
        return bank.pirl(Rows(x), Rows(y), *given, scale=scale, lam=lam, sums=sums)

    value, (dx, dy, _) = dress(loss, [X, Y, np.float64(6)], devices=devices)
    own, other = (slow.bank(v, KEPT, INDEX, DRAWN["shared"], 6.0, "softmax") for v in (X, Y))
    np.testing.assert_allclose(value, lam * other + (1 - lam) * own, rtol=1e-12)
    assert dx.any() == (lam < 1) and dy.any() == (lam > 0)


def test_rows_that_are_not_valid_drop_out():
    valid = np.arange(N) % 4 > 0
    x = jnp.asarray(np.where(valid[:, None], X, 7.0), jnp.float32)
    args = jnp.asarray(KEPT, jnp.float32), jnp.asarray(INDEX)
    for negatives, how in (("shared", {}), ("per_anchor", {}), ("shared", FORMS["nce"])):
        drawn = DRAWN[negatives]
        run = jax.jit(functools.partial(bank.contrast, scale=6.0, **how))
        got = run(Rows(x, valid=jnp.asarray(valid)), *args, jnp.asarray(drawn))
        picks = drawn if drawn.ndim == 1 else drawn[valid]
        want = slow.bank(X[valid], KEPT, INDEX[valid], picks, 6.0, how.get("form", "softmax"), how.get("z"))
        np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("devices", [1, 8])
def test_rows_move_by_index(devices):
    """Each example once, a repeated one by its first row that is valid, padding not at all; the others stay as they are."""
    index = np.array([3, 7, 3, 11, 20, 7, 0, 39], np.int32)
    valid = np.array([0, 1, 1, 0, 1, 1, 1, 1], bool)
    want = KEPT.copy()
    for i, at in enumerate(index):
        if valid[i] and at not in index[:i][valid[:i]]:
            want[at] = 0.25 * KEPT[at] + 0.75 * X[i]
            want[at] /= np.linalg.norm(want[at])
    old, new = (split(jnp.asarray(a, jnp.float32), devices) for a in (KEPT, X[:8]))
    run = jax.jit(functools.partial(bank.update, momentum=0.25))
    np.testing.assert_allclose(run(old, jnp.asarray(index), new, valid=jnp.asarray(valid)), want, rtol=1e-5, atol=1e-6)


def test_draws_and_the_first_rows():
    key = jax.random.key(0)
    shared, each = (bank.draw(key, SIZE, N, 4000, negatives) for negatives in bank.NEGATIVES)
    assert shared.shape == (4000,) and each.shape == (N, 4000) and (each[0] != each[1]).any()
    for drawn in (shared, each[0]):
        count = np.bincount(drawn, minlength=SIZE)
        assert len(count) == SIZE and count.min() > 50 and count.max() < 160  # 100 each, ten standard deviations are 99
    first = np.asarray(bank.start(key, 2000, 12))
    assert (
        first.dtype == np.float32 and np.abs(first).max() <= 0.5 and np.mean(np.sum(first**2, 1)) == pytest.approx(1, rel=0.02)
    )
    with pytest.raises(ValueError, match="negatives is 'each'"):
        bank.draw(key, SIZE, N, 4, "each")


def test_scale_100_zero_rows_and_equal_rows_are_finite():
    given = (jnp.asarray(KEPT, jnp.float32), jnp.asarray(INDEX), jnp.asarray(DRAWN["shared"]))
    for how in FORMS.values():
        run = jax.jit(jax.value_and_grad(lambda x, how=how: bank.contrast(Rows(x), *given, scale=100.0, **how)))
        for x in (X, np.zeros((N, D)), np.repeat(X[:1], N, axis=0)):
            value, grad = run(np.float32(x))
            assert np.isfinite(value) and np.isfinite(grad).all()
    value = bank.contrast(Rows(jnp.zeros((N, D))), *given, scale=100.0)
    np.testing.assert_allclose(value, np.log(1 + M), rtol=1e-6)


def test_mistakes_are_named():
    for how, said in (
        ({"form": "NCE"}, "form is 'NCE'"), ({"own": "no"}, "own is 'no'"), ({"form": "nce"}, "z is the constant"),
        ({"z": 3.0}, "z is the constant"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            kept(jnp.asarray(X), 6.0, **how)
    with pytest.raises(ValueError, match="lam is 2"):
        bank.pirl(Rows(X), Rows(Y), KEPT, INDEX, DRAWN["shared"], scale=1.0, lam=2)
