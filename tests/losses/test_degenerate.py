"""Rows that say nothing: equal rows, zero rows, one class. Losses have the value that follows, and all is finite."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from supcon_jax.losses import bank, contrast, decorrelate, distill, negatives, predict, predictive, prototypes, swapped
from supcon_jax.ops import rows
from supcon_jax.ops.arrays import unit
from supcon_jax.ops.rows import Rows
from supcon_jax.ops.similar import cancelled

N, D, K, T = 8, 6, 5, 0.1
RNG = np.random.default_rng(0)
INDEX = np.arange(N, dtype=np.int32)


def pair_rows(a, b, label=None):
    label = jnp.tile(jnp.arange(N) if label is None else label, 2)
    return Rows(unit(jnp.concatenate([a, b])), label, jnp.arange(2 * N), record=jnp.tile(jnp.arange(N), 2))


def by_pairs(fn, label=None, **how):
    return lambda a, b: fn(pair_rows(a, b, label), scale=1 / T, **how)


def towers(fn, **how):
    return lambda a, b: fn(Rows(unit(a)), Rows(unit(b)), scale=1 / T, **how)


def fewer(attract):
    def loss(a, b):
        q, rules = cancelled(pair_rows(a, b), most=3, threshold=0.5, attract=attract)
        return contrast.supcon(q, scale=1 / T, **rules)

    return loss


def first_rows(b, number):
    """Rows of another network: as the other view's first ones."""
    return jax.lax.stop_gradient(unit(b[:number]))


def kept(form):
    how = {"form": "nce", "z": 1.0} if form == "nce" else {}
    return lambda a, b: bank.contrast(Rows(unit(a)), first_rows(b, N), INDEX, INDEX[:K], scale=1 / T, **how)


def proto(how):
    def loss(a, b):
        one = prototypes.Prototypes(first_rows(b, K), jnp.full(K, T, a.dtype), INDEX % K)
        return prototypes.proto_nce(Rows(unit(a)), [one], negatives=how)

    return loss


def seed(a, b):
    t = first_rows(b, N)
    return distill.distilled(Rows(unit(a)), Rows(t[:K]), t, t[:K], own=t, scale=1 / T, teacher_scale=10.0)


def predicted(how):
    w = jnp.eye(D)[None]
    return lambda a, b: predictive.cpc(jnp.stack([a, b], 1), jnp.stack([a, b], 1), w.astype(a.dtype), negatives=how)


NOISE = K / N
EQUAL = {  # the loss of two views, and its value where all rows are equal
    "ntxent": (lambda a, b: contrast.ntxent(unit(jnp.stack([a, b], 1)), scale=1 / T), np.log(2 * N - 1)),
    "ntxent_T0": (lambda a, b: contrast.ntxent(unit(jnp.stack([a, b], 1)), scale=10.0, base=0.07), np.log(2 * N - 1) / 0.7),
    "supcon_one_class": (by_pairs(contrast.supcon, jnp.zeros(N, jnp.int32)), np.log(2 * N - 1)),
    "supcon_in_one_class": (by_pairs(negatives.supcon_in, jnp.zeros(N, jnp.int32)), np.log(2 * N - 1)),
    "decoupled_one_class": (by_pairs(negatives.decoupled, jnp.zeros(N, jnp.int32)), 0),  # no negatives: empty
    "one_positive_one_class": (by_pairs(negatives.one_positive, jnp.zeros(N, jnp.int32)), 0),
    "hardened_one_class": (by_pairs(negatives.hardened, jnp.zeros(N, jnp.int32), alpha=1.0), np.log(2 * N - 1)),
    "decoupled": (by_pairs(negatives.decoupled), np.log(2 * N - 2)),
    "decoupled_weighted": (by_pairs(negatives.decoupled, sigma=0.5), np.log(2 * N - 2)),
    "one_positive": (by_pairs(negatives.one_positive), np.log(2 * N - 1)),
    "debiased": (by_pairs(negatives.debiased, prior=0.1), np.log(2 * N - 1)),
    "hard": (by_pairs(negatives.debiased, prior=0.1, beta=1.0), np.log(2 * N - 1)),
    "hardened": (by_pairs(negatives.hardened, alpha=1.0), np.log(1 + (2 * N - 2) * np.e)),
    "eliminated": (fewer(False), np.log(2 * N - 1 - 3)),
    "attracted": (fewer(True), np.log(2 * N - 1)),
    "info_nce": (towers(contrast.info_nce), np.log(N)),
    "queue": (lambda a, b: bank.among(Rows(unit(a)), unit(b), Rows(first_rows(b, K)), scale=1 / T), np.log(1 + K)),
    "bank": (kept("softmax"), np.log(1 + K)),
    "bank_nce": (
        kept("nce"), np.log1p((NOISE + 1e-7) / np.exp(10)) + K * np.log((np.exp(10) + NOISE + 1e-7) / NOISE),
    ),
    "proto_code": (proto("code"), np.log(N)),
    "proto_paper": (proto("paper"), np.log(K)),
    "seed": (seed, np.log(1 + K)),
    "compress": (
        lambda a, b: distill.compress(Rows(unit(a)), Rows(first_rows(b, K)), unit(b), first_rows(b, K), scale=10.0), 0,
    ),
    "soft_labels": (distill.soft_labels, None),
    "swav": (lambda a, b: swapped.swapped(unit(jnp.stack([a, b], 1)), unit(b[:K]), scale=1 / T), np.log(K)),
    "byol": (predict.byol, 0),
    "simsiam": (predict.simsiam, -1),
    "barlow": (decorrelate.barlow, D),
    "vicreg": (decorrelate.vicreg, 25 * (1 - 1e-2)),
    "cpc_batch": (predicted("batch"), np.log(N)),
    "cpc_sequence": (predicted("sequence"), np.log(2)),
    "cpc_both": (predicted("both"), np.log(2 * N)),
}  # fmt: skip


@functools.cache
def program(name):
    return jax.jit(jax.value_and_grad(EQUAL[name][0], (0, 1)))


@pytest.mark.parametrize("name", EQUAL)
def test_equal_rows(name):
    x = jnp.tile(jnp.asarray(RNG.normal(size=(1, D)), jnp.float32), (N, 1))
    value, grads = program(name)(x, x)
    if EQUAL[name][1] is not None:
        np.testing.assert_allclose(value, EQUAL[name][1], rtol=2e-5, atol=2e-6)
    assert all(np.isfinite(g).all() for g in grads)


@pytest.mark.parametrize("name", EQUAL)
def test_zero_rows_are_finite(name):
    """One zero row, one in both views, nothing but zeros."""
    x = jnp.asarray(RNG.normal(size=(2, N, D)), jnp.float32)
    gone = (jnp.arange(N) != 2)[:, None]
    for a, b in ((x[0] * gone, x[1]), (x[0] * gone, x[1] * gone), (0 * x[0], 0 * x[1])):
        value, grads = program(name)(a, b)
        assert np.isfinite(value) and all(np.isfinite(g).all() for g in grads)


@pytest.mark.parametrize("name", EQUAL)
def test_half_precision_zeros_are_finite(name):
    value, grads = program(name)(*jnp.zeros((2, N, D), jnp.bfloat16))
    assert np.isfinite(value) and all(g.dtype == jnp.bfloat16 and np.isfinite(g.astype(jnp.float32)).all() for g in grads)


def test_without_any_positive_nothing_moves():
    x = unit(jnp.asarray(RNG.normal(size=(N, D)), jnp.float32))
    for fn in (contrast.supcon, negatives.supcon_in, negatives.decoupled, functools.partial(negatives.hardened, alpha=1.0)):
        value, grad = jax.value_and_grad(lambda x, fn=fn: fn(Rows(x, jnp.arange(N)), scale=10.0, weights=rows.same_label))(x)
        assert value == 0 and not np.any(grad)
