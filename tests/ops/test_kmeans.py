"""k-means on devices: the steps of the one on the host, in blocks, over split rows, whatever becomes empty."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from dress import mesh, split
from supcon_jax.ops import clusters, kmeans

RNG = np.random.default_rng(0)
N, D, K = 64, 5, 7
X = RNG.normal(size=(N, D))
TRUTH = np.repeat(np.arange(8), 8)
APART = 5 * np.eye(8)[TRUTH] + 0.1 * RNG.normal(size=(64, 8))


def agrees(found, x, valid=None):
    """Every cluster occurs, rows lie with the nearest centre, and the distances are theirs."""
    live = np.ones(len(x), bool) if valid is None else valid
    centre, cluster, square = (np.asarray(a, np.float64) for a in found)
    apart = ((x[:, None] - centre[None]) ** 2).sum(-1)
    assert set(cluster[live]) == set(range(len(centre))) and (cluster[~live] == -1).all()
    np.testing.assert_allclose(square, np.where(live, apart.min(1), 0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(apart[np.arange(len(x)), cluster.astype(int)][live], apart.min(1)[live], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("devices, held", [(1, 2**26), (1, 100), (8, 2**26), (8, 100)])
def test_takes_the_steps_of_the_host(devices, held):
    """From the same centres, in one block or many (of uneven rows), on one device or eight."""
    start = X[:K] + 0.1
    want, total = clusters.lloyd(X, start)
    got = kmeans.lloyd(split(jnp.asarray(X, jnp.float32), devices), jnp.asarray(start, jnp.float32), rounds=50, held=held)
    assert (np.asarray(got.cluster) == want).all()
    np.testing.assert_allclose(got.square.sum(), total, rtol=1e-5)
    np.testing.assert_allclose(got.centre, np.stack([X[want == c].mean(0) for c in range(K)]), rtol=1e-4, atol=1e-5)


def test_blocks_that_do_not_divide():
    x, centre = X[:61], X[:K]
    want = ((x[:, None] - centre[None]) ** 2).sum(-1)
    cluster, square = kmeans.nearest(jnp.asarray(x, jnp.float32), jnp.asarray(centre, jnp.float32), held=90)
    assert cluster.shape == square.shape == (61,) and (np.asarray(cluster) == want.argmin(1)).all()
    np.testing.assert_allclose(square, want.min(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("first", kmeans.FIRST)
def test_clusters_are_found_where_there_are_some(first):
    run = functools.partial(kmeans.kmeans, jnp.asarray(APART, jnp.float32), 8, first=first, starts=12)
    found = run(jax.random.key(0))
    agrees(found, APART)
    assert clusters.nmi(np.asarray(found.cluster), TRUTH) == pytest.approx(1)
    for one, again in zip(found, run(jax.random.key(0)), strict=True):
        np.testing.assert_array_equal(one, again)
    assert (np.asarray(run(jax.random.key(1)).cluster) != np.asarray(found.cluster)).any()


def test_the_best_start_is_kept():
    x = jnp.asarray(X, jnp.float32)
    totals = [float(kmeans.kmeans(x, K, key, first="rows").square.sum()) for key in jax.random.split(jax.random.key(3), 5)]
    assert float(kmeans.kmeans(x, K, jax.random.key(3), first="rows", starts=5).square.sum()) == pytest.approx(min(totals))
    assert max(totals) > 1.01 * min(totals)


@pytest.mark.parametrize("first", kmeans.FIRST)
def test_split_rows_give_the_same_clusters(first):
    one, eight = (
        kmeans.kmeans(split(jnp.asarray(X, jnp.float32), devices), K, jax.random.key(5), first=first, rounds=50)
        for devices in (1, 8)
    )
    agrees(eight, X)
    assert (np.asarray(one.cluster) == np.asarray(eight.cluster)).all()


@pytest.mark.parametrize("first", kmeans.FIRST)
def test_rows_stay_on_their_devices(first):
    """No device ever holds all rows, nor the products of all rows with the centres."""
    x = jax.ShapeDtypeStruct((N, D), jnp.float32, sharding=NamedSharding(mesh(8), PartitionSpec("data")))
    key = jax.eval_shape(lambda: jax.random.key(0))
    text = kmeans.kmeans.lower(x, K, key, rounds=3, held=100, first=first).compile().as_text()
    assert re.search("all-reduce", text) and not re.search(rf"f32\[{N},({D}|{K})\]", text)


@pytest.mark.parametrize("valid", [np.ones(N, bool), np.arange(N) % 4 > 0], ids=["all", "padded"])
def test_empty_clusters_take_the_farthest_rows(valid):
    """Centres that nobody is near, as many rows as clusters, rows that are all alike: each cluster occurs."""
    live, given = valid, jnp.asarray(valid)
    x = jnp.asarray(X, jnp.float32)
    far = jnp.asarray(np.concatenate([X[1:3], 1e3 + RNG.normal(size=(K - 2, D))]), jnp.float32)
    agrees(kmeans.lloyd(x, far, valid=given), X, live)
    for rounds in (0, 1):
        found = kmeans.lloyd(x, far, valid=given, rounds=rounds)
        assert set(np.asarray(found.cluster)[live].tolist()) == set(range(K))
    many = kmeans.kmeans(x, int(live.sum()), jax.random.key(0), valid=given)
    assert sorted(np.asarray(many.cluster)[live].tolist()) == list(range(live.sum())) and np.asarray(many.square).max() < 1e-6
    same = kmeans.kmeans(jnp.ones((N, D)), K, jax.random.key(0), valid=given)
    assert set(np.asarray(same.cluster)[live].tolist()) == set(range(K)) and np.isfinite(same.centre).all()


def test_no_cluster_is_emptied_to_fill_another():
    """The same as on the host: the farthest row is all that the second cluster has."""
    x, start = np.array([[0.0], [0.1], [0.3], [130.0]]), np.array([[0.0], [100.0], [500.0]])
    got = kmeans.lloyd(jnp.asarray(x, jnp.float32), jnp.asarray(start, jnp.float32), rounds=50)
    assert got.cluster.tolist() == clusters.lloyd(x, start)[0].tolist() == [0, 0, 2, 1]


def test_first_centres_lie_apart():
    """k-means++ meets each of eight groups far more often than random rows do."""

    @jax.jit
    def groups(key):
        chosen = kmeans.seeds(jnp.asarray(APART, jnp.float32), 8, key, jnp.arange(64) > 0)
        return jnp.argmax(chosen, axis=1)

    met = [len(set(groups(key).tolist())) for key in jax.random.split(jax.random.key(0), 20)]
    assert np.mean(met) > 7.9  # random rows: 5.4


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="65 clusters of 64 rows"):
        kmeans.kmeans(jnp.asarray(X), 65, jax.random.key(0))
    with pytest.raises(ValueError, match="first is 'random'"):
        kmeans.kmeans(jnp.asarray(X), 5, jax.random.key(0), first="random")
