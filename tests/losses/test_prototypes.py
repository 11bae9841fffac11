"""ProtoNCE against the loops and in every dress; which prototypes are drawn, and how hot they are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles_unimodal as slow
from dress import dress, split
from supcon_jax.losses import prototypes
from supcon_jax.losses.prototypes import Prototypes, concentration, draw, proto_nce
from supcon_jax.ops import kmeans
from supcon_jax.ops.rows import Rows

RNG = np.random.default_rng(0)
N, D = 16, 5


def units(*shape):
    x = RNG.normal(size=shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


X = units(N, D)
GIVEN = [(units(k, D), RNG.uniform(0.1, 0.4, k), RNG.integers(0, 4, N)) for k in (7, 9)]
TAKEN = [np.array([5, 6]), np.array([8, 4])]


def clusterings(dtype, given=GIVEN):
    return [Prototypes(jnp.asarray(c, dtype), jnp.asarray(t, dtype), jnp.asarray(own, jnp.int32)) for c, t, own in given]


@pytest.mark.parametrize("negatives", prototypes.NEGATIVES)
def test_equals_the_loops(negatives):
    drawn = [(jnp.asarray(t), jnp.ones(2, bool)) for t in TAKEN] if negatives == "code" else None

    def loss(x, sums):
        return proto_nce(Rows(x), clusterings(x.dtype), negatives=negatives, drawn=drawn, sums=sums)

    value, _ = dress(loss, [X])
    np.testing.assert_allclose(value, slow.proto_nce(X, GIVEN, negatives, TAKEN), rtol=1e-12)


def test_prototypes_have_no_gradient_and_what_was_not_taken_does_not_count():
    def loss(x, taken):
        return proto_nce(Rows(x), clusterings(x.dtype), drawn=[(jnp.asarray(t), jnp.asarray(taken)) for t in TAKEN])

    with jax.enable_x64(True):
        got = jax.jit(lambda x: loss(x, [True, False]))(jnp.asarray(X))
        np.testing.assert_allclose(got, slow.proto_nce(X, GIVEN, "code", [t[:1] for t in TAKEN]), rtol=1e-12)
        one = clusterings(jnp.float64)[0]
        of = jax.jit(jax.grad(lambda c, t: proto_nce(Rows(jnp.asarray(X)), [one.replace(centre=c, spread=t)]), (0, 1)))
        assert not any(np.any(grad) for grad in of(one.centre, one.spread))


@pytest.mark.parametrize("negatives", prototypes.NEGATIVES)
def test_rows_without_a_cluster_drop_out(negatives):
    (centre, spread, own), x = GIVEN[0], X.copy()
    lost = np.arange(N) % 5 == 0
    x[lost] = 9.0
    with jax.enable_x64(True):
        one = clusterings(jnp.float64, [(centre, spread, np.where(lost, -1, own))])
        got = jax.jit(lambda x: proto_nce(Rows(x), one, negatives=negatives))(jnp.asarray(x))
    want = slow.proto_nce(X[~lost], [(centre, spread, own[~lost])], negatives, [[]])
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_draws_are_others_and_no_two_alike():
    own = jnp.array([0, 3, 3, -1, 7])
    run = jax.jit(functools.partial(draw, k=10, number=5))
    seen = set()
    for seed in range(20):
        ids, taken = run(jax.random.key(seed), own)
        assert taken.all() and len(set(ids.tolist())) == 5 and not {0, 3, 7} & set(ids.tolist())
        seen |= set(ids.tolist())
    assert seen == {1, 2, 4, 5, 6, 8, 9}
    ids, taken = draw(jax.random.key(0), own, 10, 40)  # more than there are
    assert len(ids) == 10 and int(taken.sum()) == 7 and not {0, 3, 7} & set(ids[taken].tolist())


@pytest.mark.parametrize("clip", [(10, 90), (0, 100)])
def test_concentration_is_that_of_the_loop(clip):
    """A cluster of one row and one of none are as hot as the widest; rows that are padding count nowhere."""
    k, n = 6, 40
    centre, cluster = units(k, D), RNG.integers(0, 4, n)
    cluster[0] = 4
    x = centre[cluster] + RNG.normal(size=(n, D)) * RNG.uniform(0.1, 0.6, k)[cluster][:, None]
    square, valid = np.sum((x - centre[cluster]) ** 2, 1), np.ones(n + 8, bool)
    valid[n:] = False
    run = jax.jit(functools.partial(concentration, k=k, temperature=0.2, clip=clip))
    args = [np.concatenate([square, np.full(8, 77.0)]).astype(np.float32), np.concatenate([cluster, np.zeros(8, int)])]
    got = run(*(split(jnp.asarray(a), 8) for a in args), valid=split(jnp.asarray(valid), 8))
    np.testing.assert_allclose(got, slow.concentration(x, centre, cluster, 0.2, clip=clip), rtol=1e-5)
    np.testing.assert_allclose(got.mean(), 0.2, rtol=1e-5)
    np.testing.assert_allclose(got[4], got.max(), rtol=1e-6)
    args[1][n:] = -1  # or rows that lie nowhere
    np.testing.assert_allclose(run(*map(jnp.asarray, args)), got, rtol=1e-6)


def test_clusters_without_extent_have_the_temperature_itself():
    got = concentration(jnp.zeros(6), jnp.array([0, 0, 1, 1, 2, 2]), 3, temperature=0.2)
    np.testing.assert_allclose(got, 0.2, rtol=1e-6)
    some = concentration(jnp.array([0.0, 0, 0, 0, 1, 1]), jnp.array([0, 0, 1, 1, 2, 2]), 3, temperature=0.2)
    assert (some > 0).all()


def test_prototypes_of_clusters_that_were_found():
    x = units(40, D)
    found = kmeans.kmeans(jnp.asarray(x, jnp.float32), 6, jax.random.key(0))
    one = prototypes.prototypes(found, temperature=0.2)
    centre, cluster = np.asarray(found.centre, np.float64), np.asarray(found.cluster)
    np.testing.assert_allclose(one.centre, centre / np.linalg.norm(centre, axis=1, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(one.spread, slow.concentration(x, centre, cluster, 0.2), rtol=1e-4)
    assert (np.asarray(one.cluster) == cluster).all()


def test_equal_rows_and_prototypes_give_the_log_of_the_candidates():
    x = np.repeat(np.float32(X[:1]), N, axis=0)
    one = Prototypes(jnp.asarray(x[:7]), jnp.asarray(np.full(7, 0.1, np.float32)), jnp.asarray(np.zeros(N, np.int32)))
    paper = jax.jit(lambda x: proto_nce(Rows(x), [one], negatives="paper"))
    code = jax.jit(jax.value_and_grad(lambda x: proto_nce(Rows(x), [one])))
    np.testing.assert_allclose(paper(x), np.log(7), rtol=1e-5)
    np.testing.assert_allclose(code(x)[0], np.log(N), rtol=1e-5)
    value, grad = code(0 * x)
    assert np.isfinite(value) and np.isfinite(grad).all()


def test_mistakes_are_named():
    q, given = Rows(jnp.asarray(X, jnp.float32)), clusterings(jnp.float32)
    with pytest.raises(ValueError, match="negatives is 'all'"):
        proto_nce(q, given, negatives="all")
    for negatives, drawn in (("paper", [None, None]), ("code", [None])):
        with pytest.raises(ValueError, match="drawn holds prototypes for each clustering"):
            proto_nce(q, given, negatives=negatives, drawn=drawn)
