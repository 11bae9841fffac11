"""Losses that treat their negatives otherwise, against the loops; what connects them with each other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
import oracles_unimodal
from dress import DOORS, cases, dress
from supcon_jax.losses import contrast, negatives
from supcon_jax.ops import rows, sharded
from supcon_jax.ops.rows import Rows

N, D = 12, 5
RNG = np.random.default_rng(0)
LABEL = np.array([9, -1, 0, 0, 0, 1, 1, 2, 2, 2, 2, 1])
X, Y = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in RNG.normal(size=(2, N, D)))
SELF, NOTHING = np.eye(N, dtype=bool), np.zeros((N, N), bool)

LOSSES = {  # the library's function, the loops', what both are given
    "decoupled": (negatives.decoupled, oracles.decoupled, {}),
    "decoupled_weighted": (negatives.decoupled, oracles.decoupled, {"sigma": 0.5}),
    "debiased": (negatives.debiased, oracles.debiased, {"prior": 0.1, "beta": 0.0}),
    "hard": (negatives.debiased, oracles.debiased, {"prior": 0.1, "beta": 1.0}),
    "hard_alone": (negatives.debiased, oracles.debiased, {"prior": 0.0, "beta": 0.5}),
    "hardened": (negatives.hardened, oracles_unimodal.hardened, {"alpha": 3.0}),
    "in": (negatives.supcon_in, oracles.supcon_in, {}),
    "one_positive": (negatives.one_positive, oracles.one_positive, {"mean": "anchors"}),
    "one_positive_terms": (negatives.one_positive, oracles.one_positive, {"mean": "terms"}),
}


KEYS = {f"{name}-{own}": (name, own) for name in LOSSES for own in (True, False)}


@pytest.mark.parametrize("case, devices", cases(KEYS, ["decoupled-True", "debiased-False"], long=False))
def test_equals_the_loops(case, devices):
    name, own = KEYS[case]
    fn, slow, options = LOSSES[name]

    def loss(x, y, scale, sums):
        q = Rows(x, jnp.asarray(LABEL), jnp.arange(N))
        return fn(q, None if own else q.replace(x=y), scale=scale, sums=sums, **options)

    value, _ = dress(loss, [X, Y, np.float64(4)], devices=devices)
    w = oracles.same_label(LABEL, LABEL)
    np.testing.assert_allclose(value, slow(X, X if own else Y, w, 4.0, SELF if own else NOTHING, **options), rtol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_each_pair_is_met_once(name):
    """As many products as supcon has, in either pass; one positive alone first needs the sums over the negatives, and
    negatives of another scale are other logits."""

    def products(fn, options):
        def loss(x):
            q = Rows(x, jnp.asarray(LABEL), jnp.arange(N))
            return fn(q, q.replace(x=x + 1), scale=4.0, sums=sharded.tiled(), **options)

        return str(jax.make_jaxpr(jax.grad(loss))(jnp.asarray(X, jnp.float32))).count("dot_general")

    fn, _, options = LOSSES[name]
    visits = 2 if fn in (negatives.one_positive, negatives.hardened) else 1
    assert products(fn, options) == visits * products(contrast.supcon, {}) == visits * 4


PLACES = [
    ("hard", "ring", True),
    ("decoupled_weighted", "hybrid", False),
    ("in", "tiled", True),
    ("one_positive", "gather", True),
    ("hardened", "ring", True),
]


@pytest.mark.parametrize("name, place, own", PLACES)
def test_every_door_is_the_definition(name, place, own):
    def loss(x, y, scale, sums):
        q = Rows(x, jnp.asarray(LABEL), jnp.arange(N, dtype=jnp.int32))
        return LOSSES[name][0](q, None if own else q.replace(x=y), scale=scale, sums=sums, **LOSSES[name][2])

    with jax.enable_x64(True):
        args = jnp.asarray(X), jnp.asarray(Y), jnp.asarray(4.0)
        used = DOORS[place](1 if place == "tiled" else 8, tile=(4, 6))
        got, want = (jax.jit(jax.value_and_grad(functools.partial(loss, sums=d), (0, 1, 2)))(*args) for d in (used, rows.dense))
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12 * max(1, np.abs(other).max()))


def test_a_scale_for_each_row_and_padding():
    """One positive through tiles: every row has a bias of its own, so nothing is symmetric any more."""
    scale, valid = np.linspace(2, 5, N), np.arange(N) != 4
    with jax.enable_x64(True):
        q = Rows(jnp.asarray(X), jnp.asarray(LABEL), jnp.arange(N), jnp.asarray(valid))
        for given in (scale, 4.0):
            got = negatives.one_positive(q, scale=jnp.asarray(given), sums=sharded.tiled(tile=(4, 4)))
            w, out = oracles.same_label(LABEL, LABEL), SELF | ~valid[:, None] | ~valid[None, :]
            want = oracles.one_positive(X, X, w, np.broadcast_to(given, N), out, "anchors")
            np.testing.assert_allclose(got, want, rtol=1e-12)


def test_scaled_means_over_all_anchors():
    """base and empty="zero" say what they say for supcon: times T/T0, and empty rows count as zero."""
    q = Rows(jnp.asarray(X), jnp.asarray(LABEL))
    for fn in (negatives.decoupled, negatives.supcon_in, negatives.one_positive):
        whole = fn(q, scale=4.0, base=0.5, empty="zero")
        np.testing.assert_allclose(whole, fn(q, scale=4.0) / (4 * 0.5) * (N - 2) / N, rtol=1e-5)


def pairs(x):
    """Rows of two views each."""
    return Rows(jnp.asarray(x, jnp.float32), jnp.arange(N) // 2, jnp.arange(N))


def test_without_prior_and_beta_it_is_ntxent():
    got = negatives.debiased(pairs(X), scale=4.0, prior=0.0)
    np.testing.assert_allclose(got, contrast.supcon(pairs(X), scale=4.0), rtol=1e-5)


def test_harder_negatives_pull_at_the_slope_of_all():
    """The weights of negatives have no gradient: that of the loss is the one of these logits with alpha cos held still."""
    with jax.enable_x64(True):
        q = Rows(jnp.asarray(X), jnp.asarray(LABEL), jnp.arange(N))
        scale, alpha = jnp.asarray(4.0), 3.0

        def plain(x, scale):
            c = x @ x.T
            w = jnp.asarray(oracles.same_label(LABEL, LABEL)) * ~SELF
            s = jnp.where(SELF, -jnp.inf, scale * c + jnp.where(w > 0, 0, alpha * jax.lax.stop_gradient(c)))
            number = w.sum(1)
            each = jax.nn.logsumexp(s, axis=1) - jnp.sum(w * scale * c, 1) / jnp.maximum(number, 1)
            return jnp.sum(jnp.where(number > 0, each, 0)) / jnp.sum(number > 0)

        got, want = (
            jax.jit(jax.value_and_grad(fn, (0, 1)))(q.x, scale)
            for fn in (lambda x, scale: negatives.hardened(q.replace(x=x), scale=scale, alpha=alpha), plain)
        )
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)
    same = negatives.hardened(pairs(X), scale=4.0, alpha=0.0)
    np.testing.assert_allclose(same, contrast.supcon(pairs(X), scale=4.0), rtol=1e-5)


def test_mean_inside_is_not_larger_than_outside():
    q = Rows(jnp.asarray(X), jnp.asarray(LABEL))
    assert negatives.supcon_in(q, scale=4.0) <= contrast.supcon(q, scale=4.0)
    np.testing.assert_allclose(negatives.supcon_in(pairs(X), scale=4.0), contrast.supcon(pairs(X), scale=4.0), rtol=1e-5)


@functools.cache
def compiled(name):
    fn, _, options = LOSSES[name]
    return jax.jit(jax.value_and_grad(lambda x, scale, label: fn(Rows(x, label), scale=scale, **options), (0, 1)))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("labels", ["all alike", "all different", "pairs"])
def test_scale_100_and_rows_without_negatives_are_finite(name, labels):
    label = {"all alike": np.zeros(N, np.int32), "all different": np.arange(N), "pairs": np.arange(N) // 2}[labels]
    for x in (X, np.repeat(X[:1], N, axis=0), np.concatenate([X[:6], -X[:6]])):
        value, grads = compiled(name)(np.float32(x), np.float32(100), np.int32(label))
        assert np.isfinite(value) and all(np.isfinite(g).all() for g in grads)


def test_the_floor_of_a_debiased_sum_has_no_gradient_from_negatives():
    """One far negative and a large prior: the discounted sum is below its least value."""
    x = jnp.asarray([[1.0, 0], [1.0, 0], [-1.0, 0]])
    label = jnp.array([0, 0, 1])
    run = functools.partial(negatives.debiased, scale=2.0, prior=0.5)
    value, grad = jax.jit(jax.value_and_grad(lambda x: run(Rows(x, label))))(x)
    np.testing.assert_allclose(value, np.log1p(np.exp(-4)), rtol=1e-5)
    assert not np.any(grad[2])


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="prior"):
        negatives.debiased(pairs(X), scale=1.0, prior=1.0)
    with pytest.raises(ValueError, match="norm"):
        negatives.supcon_in(pairs(X), scale=1.0, norm="weight")
    with pytest.raises(ValueError, match="mean"):
        negatives.one_positive(pairs(X), scale=1.0, mean="pairs")
    with pytest.raises(ValueError, match="one scale"):
        negatives.hardened(pairs(X), scale=jnp.ones(N), alpha=1.0)
    with pytest.raises(ValueError, match="labels"):
        negatives.decoupled(Rows(jnp.asarray(X)), scale=1.0)
