"""SwAV: the loss over all crops, prototypes of length one, when the queue joins."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles_unimodal
from methods import unimodal_world as w
from supcon_jax.ops.arrays import merge

START = 3  # the queue is full before step 2


@pytest.fixture(scope="module")
def walked():
    batches, task = [w.pictures(seed) for seed in range(4)], w.made("swav", queue_start=START)
    return batches, task, *w.walk(task, batches)


def encoded(state, batch):
    """Codes of two full and six small crops [n, 8, d], each size encoded by itself, and averages after."""
    z, stats = [], state.stats["model"]
    for x in w.drawn(batch, w.key_of(state), "swav"):
        out, stats = w.through(w.nets_of("swav"), state.params["model"], stats, merge(x), "image", "project")
        z.append(out["project"].reshape(*x.shape[:2], -1))
    return jnp.concatenate(z, axis=1), stats


def test_the_loss_is_its_formula_and_the_queue_joins_when_full_and_due(walked):
    batches, _, states, told = walked
    for step in range(4):
        z, stats = w.ran(encoded, states[step], batches[step])
        z = w.exact(z)
        assert z.shape == (w.N, 8, w.D)
        centre = np.asarray(states[step].params["model"]["prototypes"], np.float64)
        rows = jax.device_get(states[step].memory["queue"].rows)
        held = rows.x.reshape(-1, 2, w.D).astype(np.float64) if rows.valid.all() else None
        without, joined = (oracles_unimodal.swapped(z, centre, 10.0, 0.2, 3, queue) for queue in (None, held))
        assert (held is not None) == (step >= 2)
        assert told[step]["model/loss"] == pytest.approx(joined if step >= START else without, rel=2e-5)
        assert step < 2 or abs(joined - without) > 1e-3
        after = jax.device_get(states[step + 1].memory["queue"])
        np.testing.assert_allclose(after.rows.x[step % 2], z[:, :2], atol=1e-5)
        assert after.next == (step + 1) % 2 and w.tiny.far(states[step + 1].stats["model"], stats) < 1e-5


def test_prototypes_move_and_stay_unit(walked):
    _, _, states, told = walked
    for before, now in zip(states[:-1], states[1:], strict=True):
        old, new = (np.asarray(s.params["model"]["prototypes"], np.float64) for s in (before, now))
        np.testing.assert_allclose(np.linalg.norm(new, axis=1), 1, atol=1e-6)
        step = old - 0.05 * np.asarray(now.opt["model"]["prototypes"])
        np.testing.assert_allclose(new, w.exact(step), atol=1e-6)
        assert np.abs(new - old).max() > 1e-4
    assert w.idle(states[-1]) == {"project/dense0/bias"}
    assert all(1 <= one["model/prototypes_used"] <= 7 for one in told)


def test_without_a_queue_nothing_is_kept():
    batch = w.pictures()
    made = jax.eval_shape(w.made("swav", queue=0).init, jax.random.key(0), batch)
    assert made["memory"] == {}
    with pytest.raises(ValueError, match="must be a multiple"):
        jax.eval_shape(w.made("swav", queue=w.N + 1).init, jax.random.key(0), batch)
