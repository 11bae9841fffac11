"""False-negative cancellation with a teacher, support views and earlier keys: what is found, and what becomes of it."""

import jax
import numpy as np
import pytest

from methods import unimodal_world as w

T, V, MOST, THRESHOLD = 0.3, 4, 3, 0.98
GIVEN = {"temperature": T, "support": V - 2, "queue": 5 * w.N, "most": MOST, "threshold": THRESHOLD}


def encoded(state, batch):
    """Codes of all views by the network and by the teacher, both averages after."""
    nets, teacher = w.nets_of("fnc"), state.memory["teacher"]
    (x,) = w.drawn(batch, w.key_of(state), "fnc", more=V - 2)
    x = x.reshape(-1, *x.shape[2:])
    z, stats = w.through(nets, state.params["model"], state.stats["model"], x, "image", "project")
    k, after = w.through(nets, teacher["params"], teacher["stats"], x, "image", "project")
    return z["project"], k["project"], stats, after


def by_loops(z, k, old, attract):
    """(loss, how many keys are found for a picture) of z and k [n V, d], rows in the order of the pictures, and old keys."""
    keys = np.concatenate([k, old])
    record = np.concatenate([np.arange(len(k)) // V, np.full(len(old), -1)])
    losses, counts = [], []
    for i in range(len(k) // V):
        score = {j: max(k[i * V + v] @ keys[j] for v in range(V)) for j in range(len(keys)) if record[j] != i}
        nearest = sorted(score, key=score.get, reverse=True)[:MOST]
        found = {j for j in nearest if score[j] > THRESHOLD}
        counts.append(len(found))
        for a in range(i * V, i * V + V):
            s = keys @ z[a] / T
            there = [j for j in range(len(keys)) if j != a and (attract or j not in found)]
            near = [j for j in there if record[j] == i or j in found]
            losses.append(np.log(np.exp(s[there]).sum()) - s[near].mean())
    return np.mean(losses), np.mean(counts)


def kept(state):
    """Valid keys of the queue, oldest slot first."""
    queue = jax.device_get(state.memory["queue"])
    order = np.roll(np.arange(len(queue.rows.valid)), -queue.next)
    return queue.rows.x[order][queue.rows.valid[order]].astype(np.float64)


@pytest.mark.parametrize("attract", [True, False], ids=["attracted", "eliminated"])
def test_the_loss_is_its_formula_and_the_queue_keeps_the_latest_views(attract):
    batches, task = [w.pictures(seed) for seed in range(3)], w.made("fnc", attract=attract, **GIVEN)
    states, told = w.walk(task, batches)
    wanted, previous = [], np.zeros((0, w.D))
    for step in range(3):
        z, k, stats, after = w.ran(encoded, states[step], batches[step])
        z, k = w.exact(z), w.exact(k)
        np.testing.assert_allclose(kept(states[step]), previous, atol=1e-5)
        want, count = by_loops(z, k, kept(states[step]), attract)
        assert told[step]["model/loss"] == pytest.approx(want, rel=2e-5)
        assert told[step]["model/found"] == pytest.approx(count)
        wanted.append(count)
        assert w.tiny.far(states[step + 1].stats["model"], stats) < 1e-5
        assert w.tiny.far(states[step + 1].memory["teacher"]["stats"], after) < 1e-5
        views = k.reshape(w.N, V, -1).swapaxes(0, 1).reshape(-1, w.D)
        previous = np.concatenate([previous, views])[-5 * w.N :]
    assert len(previous) == 5 * w.N and 0 < max(wanted) and min(wanted) < MOST


def test_the_teacher_follows_and_everything_learns():
    _, _, states, _ = w.world("fnc")
    for name in ("image", "project"):
        old, new = states[0].memory["teacher"]["params"][name], states[1].params["model"][name]
        want = jax.tree.map(lambda a, b: 0.7 * np.asarray(a, np.float64) + 0.3 * np.asarray(b), old, new)
        assert w.tiny.far(states[1].memory["teacher"]["params"][name], want) < 1e-6
    assert w.idle(states[1]) == set()


def test_without_anything_found_or_kept_it_is_contrast_with_the_teacher():
    """No key is above a cosine of 1, and the first teacher is the network: the loss of each view among all others."""
    task, batch = w.made("fnc", **{**GIVEN, "queue": 0, "threshold": 1.0}), w.pictures()
    states, told = w.walk(task, [batch])
    z, _, _, _ = w.ran(encoded, states[0], batch)
    z = w.exact(z)
    s = z @ z.T / T
    np.fill_diagonal(s, -np.inf)
    record = np.arange(len(z)) // V
    near = (record[:, None] == record[None, :]) & ~np.eye(len(z), dtype=bool)
    want = np.mean(np.log(np.exp(s).sum(1)) - np.where(near, s, 0).sum(1) / (V - 1))
    assert told[0]["model/loss"] == pytest.approx(want, rel=2e-5) and told[0]["model/found"] == 0


def test_more_to_find_than_there_are_keys_is_refused():
    task = w.made("fnc", queue=0, most=10_000)
    state = w.begin(task, w.pictures())
    with pytest.raises(ValueError, match="most=10000: there are 24 keys; use 1 to as many"):
        jax.eval_shape(lambda s, b: task.players[0].loss(s.params, s, {}, b, s.key), state, w.pictures())
