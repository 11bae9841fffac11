"""PCL: MoCo beside prototypes, and the clustering that makes them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles_unimodal
from methods import unimodal_world as w
from supcon_jax import shard
from supcon_jax.losses.prototypes import draw

GONE = (4, 11)  # records that cannot be read


@pytest.fixture(scope="module")
def clustered():
    """(batches, task, states, metrics) of two steps, and the state with clusters from which a third goes on."""
    batches, task, states, told = w.world("pcl")
    return batches, task, states, told, task.refresh.fn(states[2], {}, records())


def records():
    """The training set in its order: full batches, the last one filled up; unreadable records are left out of it."""
    images = whole()
    index = np.array([i for i in range(w.RECORDS) if i not in GONE])
    for at in range(0, len(index), w.N):
        some = np.concatenate([index[at : at + w.N], np.full(w.N, -1)])[: w.N].astype(np.int32)
        yield shard.place({"image": images[np.maximum(some, 0)], "index": some[:, None]}, shard.data_mesh(1))


def whole():
    """All records' pictures as `records` has them."""
    return np.random.default_rng(9).integers(0, 256, (w.RECORDS, 1, w.SIZE, w.SIZE, 3)).astype(np.uint8)


def encoded(state, batch):
    """Queries and keys of the step that a state is about to make."""
    (x,) = w.drawn(batch, w.key_of(state), "pcl")
    teacher, nets = state.memory["teacher"], w.nets_of("pcl")
    q, _ = w.through(nets, state.params["model"], state.stats["model"], x[:, 0], "image", "project")
    k, _ = w.through(nets, teacher["params"], teacher["stats"], x[:, 1], "image", "project")  # in any order alike
    return q["project"], k["project"]


def queued(state, q, k):
    rows = jax.device_get(state.memory["queue"].rows)
    old = rows.x[rows.valid].astype(np.float64)
    return np.mean([oracles_unimodal.among(5 * a @ b, 5 * old @ a) for a, b in zip(q, k, strict=True)])


def test_before_the_first_clustering_it_is_moco(clustered):
    batches, _, states, told, _ = clustered
    q, k = map(w.exact, w.ran(encoded, states[1], batches[1]))
    want = queued(states[1], q, k)
    assert told[1]["model/loss"] == pytest.approx(want, rel=2e-5) and told[1]["model/prototypes"] == 0
    queue = jax.device_get(states[2].memory["queue"])
    np.testing.assert_allclose(queue.rows.x[1], k, atol=1e-5)
    for one, k in zip(states[2].memory["clusters"], (3, 4), strict=True):
        assert one.centre.shape == (k, w.D) and (np.asarray(one.cluster) == -1).all()
    assert w.idle(states[2]) == set()


def test_the_teacher_follows(clustered):
    _, _, states, _, _ = clustered
    old, new = states[1].memory["teacher"]["params"], states[2].params["model"]
    want = jax.tree.map(lambda a, b: 0.7 * np.asarray(a, np.float64) + 0.3 * np.asarray(b), old, new)
    assert w.tiny.far(states[2].memory["teacher"]["params"], want) < 1e-6


def codes(teacher, images):
    """The teacher's codes of whole pictures, by its averages."""
    x = w.recipes.plain(images, size=w.SIZE, norm="half")
    for name, net in w.nets_of("pcl").items():
        x = net.apply({"params": teacher["params"][name], "batch_stats": teacher["stats"].get(name, {})}, x, train=False)
    return x


def test_clusters_are_those_of_the_teachers_codes_by_record(clustered):
    _, _, _, _, state = clustered
    z = w.exact(w.ran(codes, state.memory["teacher"], whole()[:, 0]))
    read = np.array([i not in GONE for i in range(w.RECORDS)])
    for one, k in zip(state.memory["clusters"], (3, 4), strict=True):
        cluster, centre = np.asarray(one.cluster), np.asarray(one.centre, np.float64)
        assert (cluster[~read] == -1).all() and set(cluster[read]) == set(range(k))
        np.testing.assert_allclose(np.linalg.norm(centre, axis=1), 1, atol=1e-6)
        mean = np.array([z[cluster == j].mean(0) for j in range(k)])
        near = ((z[read][:, None] - mean[None]) ** 2).sum(2)
        np.testing.assert_array_equal(near.argmin(1), cluster[read])  # the rounds were enough to settle
        np.testing.assert_allclose(centre, w.exact(mean), atol=1e-4)
        want = oracles_unimodal.concentration(z[read], mean, cluster[read], 0.2)
        np.testing.assert_allclose(one.spread, want, rtol=1e-4)
    before = clustered[2][2]
    assert w.tiny.same(state.params, before.params)
    assert all(w.tiny.same(state.memory[name], before.memory[name]) for name in ("queue", "teacher"))


def test_with_clusters_the_second_term_is_proto_nce(clustered):
    batches, task, _, _, state = clustered
    batch = {**batches[0], "index": np.array([3, 4, 5, 6, 17, 18, 19, 0], np.int32)[:, None]}  # one that was never read
    loss = task.players[0].loss
    value, aux = w.ran(lambda s, b: loss(s.params, s, {}, b, w.key_of(s)), state, batch)
    q, k = map(w.exact, w.ran(encoded, state, batch))
    kept, clusterings, drawn = batch["index"][:, 0] != 4, [], []
    for m, one in enumerate(state.memory["clusters"]):
        own = np.asarray(one.cluster)[batch["index"][:, 0]]
        ids, live = draw(jax.random.fold_in(w.key_of(state), 2 + m), jnp.asarray(own), len(one.centre), 2)
        drawn.append([int(i) for i, some in zip(ids, live, strict=True) if some])
        assert not set(drawn[-1]) & set(own.tolist())
        clusterings.append((np.asarray(one.centre, np.float64), np.asarray(one.spread, np.float64), own[kept]))
    want = oracles_unimodal.proto_nce(q[kept], clusterings, "code", drawn)
    assert aux.metrics["prototypes"] == pytest.approx(want, rel=5e-5) and want > 0.1
    assert aux.metrics["pictures"] == pytest.approx(queued(state, q, k), rel=2e-5)
    assert value == pytest.approx(want + queued(state, q, k), rel=5e-5)
    paper = w.made("pcl", negatives="paper", weight=0.5).players[0].loss
    value, aux = w.ran(lambda s, b: paper(s.params, s, {}, b, w.key_of(s)), state, batch)
    want = oracles_unimodal.proto_nce(q[kept], clusterings, "paper", None)
    assert aux.metrics["prototypes"] == pytest.approx(want, rel=5e-5)
    assert value == pytest.approx(0.5 * want + queued(state, q, k), rel=5e-5)


def test_when_it_clusters():
    refresh = w.made("pcl", start=3, every=2).refresh
    assert (refresh.start, refresh.every) == (3 * w.EPOCH, 2 * w.EPOCH)


def test_more_clusters_than_records_are_refused(clustered):
    with pytest.raises(ValueError, match="more clusters than the 20 records"):
        w.made("pcl", counts=(3, 21))
    task, state = w.made("pcl", counts=(19,)), clustered[2][2]
    with pytest.raises(ValueError, match="19 clusters of 18 records that can be read"):
        task.refresh.fn(state, {}, records())
