"""MoCo: keys of a teacher in another order, the queue behind the loss, who moves; v3 within the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
import oracles_unimodal
from methods import unimodal_world as w
from supcon_jax.build import pretext, weights
from supcon_jax.convert import tensors

GROUPED = {"nets": {**w.nets_of("moco", groups=2)}}
CHAIN = ("image", "project", "predict")


@pytest.fixture(scope="module")
def queued():
    """Three steps of MoCo with BatchNorm in two groups."""
    batches, task = [w.pictures(seed) for seed in range(3)], w.made("moco", **GROUPED)
    return batches, *w.walk(task, batches)


def encoded(state, batch, shuffled):
    """Codes of queries and of keys in the order of their encoding, that order, both averages after."""
    nets, key, teacher = GROUPED["nets"], w.key_of(state), state.memory["teacher"]
    (x,) = w.drawn(batch, key, "moco")
    order = jnp.where(shuffled, jax.random.permutation(jax.random.fold_in(key, 1), w.N), jnp.arange(w.N))
    q, stats = w.through(nets, state.params["model"], state.stats["model"], x[:, 0], "image", "project")
    k, after = w.through(nets, teacher["params"], teacher["stats"], x[:, 1][order], "image", "project")
    return q["project"], k["project"], order, stats, after


def seen(state, batch, shuffled=True):
    """(queries, keys) of a step that a state is about to make, in the order of the batch, and both averages after."""
    q, k, order, stats, after = w.ran(encoded, state, batch, shuffled)
    assert shuffled == (order != np.arange(w.N)).any()
    keys = np.empty(k.shape)
    keys[order] = w.exact(k)
    return w.exact(q), keys, stats, after


def in_queue(state):
    """Valid keys, in float64."""
    rows = jax.device_get(state.memory["queue"].rows)
    return rows.x[rows.valid].astype(np.float64)


def test_the_loss_is_its_formula_and_the_queue_keeps_the_keys(queued):
    batches, states, told = queued
    for step in range(3):
        q, k, stats, after = seen(states[step], batches[step])
        old = in_queue(states[step])
        assert len(old) == min(step, 2) * w.N
        want = np.mean([oracles_unimodal.among(5 * a @ b, 5 * old @ a) for a, b in zip(q, k, strict=True)])
        assert told[step]["model/loss"] == pytest.approx(want, rel=2e-5, abs=1e-6)
        queue = jax.device_get(states[step + 1].memory["queue"])
        np.testing.assert_allclose(queue.rows.x[step % 2], k, atol=1e-5)  # the oldest slot, rows as in the batch
        assert queue.next == (step + 1) % 2
        if step:
            np.testing.assert_array_equal(queue.rows.x[1 - step % 2], states[step].memory["queue"].rows.x[1 - step % 2])
        assert w.tiny.far(states[step + 1].stats["model"], stats) < 1e-5
        assert w.tiny.far(states[step + 1].memory["teacher"]["stats"], after) < 1e-5


def test_without_a_shuffle_groups_see_other_neighbours(queued):
    batches, states, _ = queued
    _, k, _, _ = seen(states[1], batches[1])
    _, plain, _, _ = seen(states[1], batches[1], shuffled=False)
    assert np.abs(k - plain).max() > 1e-3
    task = w.made("moco", shuffle=False, **GROUPED)
    loss = w.ran(lambda s, b: task.players[0].loss(s.params, s, {}, b, w.key_of(s)), states[1], batches[1])[1].memory
    np.testing.assert_allclose(loss["queue"].rows.x[1], plain, atol=1e-5)


def test_the_teacher_follows_what_the_student_has_become(queued):
    _, states, _ = queued
    assert w.tiny.same(states[0].memory["teacher"]["params"], states[0].params["model"])
    for before, now in zip(states[:-1], states[1:], strict=True):
        for name in ("image", "project"):
            old, new = before.memory["teacher"]["params"][name], now.params["model"][name]
            want = jax.tree.map(lambda a, b: 0.7 * np.asarray(a, np.float64) + 0.3 * np.asarray(b), old, new)
            assert w.tiny.far(now.memory["teacher"]["params"][name], want) < 1e-6
            gap = w.tiny.far(before.params["model"][name], new)
            assert gap > 1e-3 if before is not states[0] else gap == 0  # against no key there is nothing to learn
    assert w.tiny.far(states[3].memory["teacher"]["stats"], states[3].stats["model"]) > 1e-3
    assert w.idle(states[3]) == set()


def test_a_queue_that_batches_do_not_fill_is_refused():
    with pytest.raises(ValueError, match="must be a multiple"):
        jax.eval_shape(w.made("moco", queue=w.N + 1).init, jax.random.key(0), w.pictures())
    with pytest.raises(ValueError, match="queue=0: without one there are no negatives"):
        w.made("moco", queue=0)


# ---- v3, and momentum on a schedule


def test_v3_is_its_formula():
    batches, _, states, told = w.world("moco3")
    nets = w.nets_of("moco3")

    def made(state, batch):
        (x,) = w.drawn(batch, w.key_of(state), "moco3")
        stats, teacher, q, k = state.stats["model"], state.memory["teacher"], [], []
        after = teacher["stats"]
        for view in range(2):
            out, stats = w.through(nets, state.params["model"], stats, x[:, view], *CHAIN)
            q.append(out["predict"])
            out, after = w.through(nets, teacher["params"], after, x[:, view], *CHAIN[:2])
            k.append(out["project"])
        return q, k, stats, after

    q, k, stats, after = w.ran(made, states[1], batches[1])
    q, k = ([w.exact(x) for x in rows] for rows in (q, k))
    want = 2 * 0.5 * (oracles.info_nce(q[0], k[1], 2.0) + oracles.info_nce(q[1], k[0], 2.0))
    assert told[1]["model/loss"] == pytest.approx(want, rel=2e-5)
    assert w.tiny.far(states[2].stats["model"], stats) < 1e-5
    assert w.tiny.far(states[2].memory["teacher"]["stats"], after) < 1e-5
    assert set(states[2].memory) == {"teacher"} and set(states[2].memory["teacher"]["params"]) == {"image", "project"}
    assert w.idle(states[2]) == set()


@pytest.mark.slow
def test_a_transformers_projection_of_patches_stays_as_it_was_drawn(tmp_path):
    """No rate, decay, momentum or BatchNorm moves it, in the student, its teacher, a weight file or a stage that follows."""
    task = w.made("moco3", nets=w.vit(), tx=w.adamw())
    states, told = w.walk(task, [w.pictures(seed) for seed in range(2)])
    drawn = np.asarray(states[0].stats["model"]["image"]["patch"])
    assert drawn.shape == (48, 8) and drawn.std() > 0.1 and not int(states[2].skipped[0])
    for state in states:
        for stats in (state.stats["model"], state.memory["teacher"]["stats"]):
            np.testing.assert_array_equal(stats["image"]["patch"], drawn)
    begun, end = (dict(tensors.flatten(jax.device_get(state.params["model"]["image"]), "/")) for state in states[::2])
    assert "patch" not in begun and all(
        (begun[name] != end[name]).any() for name in begun if name.endswith(("kernel", "class"))
    )
    weights.save(tmp_path / "w.safetensors", pretext.export(states[2], {}), {"kind": "encoder"})
    tree = weights.load(tmp_path / "w.safetensors")[0]
    np.testing.assert_array_equal(tree["stats"]["image"]["patch"], drawn)
    about = {"config": {"moco3": {"args": {"size": w.SIZE}}}, "stage": "moco3", "norm": w.recipes.own_norm("shapes")}
    got = w.ran(lambda x: pretext.encoded(w.vit()["image"], tree, about, x), w.pictures()["image"][:, 0])
    np.testing.assert_allclose(got, w.exact(w.features_of(task, states[2], w.pictures())["h"]), atol=1e-5)
    given = w.made("finetune", nets={"image": w.vit()["image"]}, freeze=False, tx=w.adamw())
    second, _ = pretext.started(given, {"x": {"args": {"freeze": False}}}, "x", {"encoder": tree})
    after, _ = w.walk(second, [w.pictures()])
    np.testing.assert_array_equal(after[1].stats["model"]["image"]["patch"], drawn)
    assert w.tiny.far(after[1].params["model"]["image"], tree["params"]["image"]) > 1e-4


@pytest.mark.parametrize("name", ["moco3", "byol"])
def test_momentum_follows_its_schedule(name):
    """At the steps 0, K/2 and K of K, and in the steps that were made."""
    _, task, states, _ = w.world(name)
    state = states[1]
    for step, m in ((0, 0.7), (w.STEPS // 2, 1 - 0.3 / 2), (w.STEPS, 1.0)):
        moved = task.after(state.replace(step=np.int32(step))).memory["teacher"]["params"]
        for part in ("image", "project"):
            old, new = state.memory["teacher"]["params"][part], state.params["model"][part]
            want = jax.tree.map(lambda a, b, m=m: m * np.asarray(a, np.float64) + (1 - m) * np.asarray(b), old, new)
            assert w.tiny.far(moved[part], want) < 1e-6
    m = 1 - 0.3 * (1 + np.cos(np.pi / w.STEPS)) / 2  # of the step that follows step 0
    old, new = states[1].memory["teacher"]["params"], {part: states[2].params["model"][part] for part in ("image", "project")}
    want = jax.tree.map(lambda a, b: m * np.asarray(a, np.float64) + (1 - m) * np.asarray(b), old, new)
    assert w.tiny.far(states[2].memory["teacher"]["params"], want) < 1e-6
