"""Students of a frozen encoder: SEED's one queue, CompRess's two."""

import jax
import numpy as np
import pytest

import oracles_unimodal
from methods import unimodal_world as w
from supcon_jax.nets import heads

COMPRESS = {"kind": "compress", "temperature": 0.3}


def tower():
    """The teacher's weights, with averages that are not those of a start."""
    nets = w.nets_of("student")
    own = {"image": nets["teacher/image"], "project": nets["teacher/project"]}
    like = jax.eval_shape(lambda: own["image"].init(jax.random.key(0), np.zeros((2, w.SIZE, w.SIZE, 3), np.float32)))
    head = jax.eval_shape(lambda: own["project"].init(jax.random.key(0), np.zeros((2, 7), np.float32)))
    image, project = w.tiny.fill(like, 3), w.tiny.fill(head, 4)
    params = {"image": image["params"], "project": project["params"]}
    return {"teacher": {"params": params, "stats": {"image": image["batch_stats"]}}}  # files keep no empty ones


def walked(**options):
    batches, task = [w.pictures(seed) for seed in range(2)], w.made("student", **options)
    return batches, *w.walk(task, batches, tower())


def codes(state, batch):
    """Codes of one view: the student's in training, the teacher's by its averages."""
    (x,) = w.drawn(batch, w.key_of(state), "student")
    nets, above = w.nets_of("student"), tower()["teacher"]
    out, stats = w.through(nets, state.params["model"], state.stats["model"], x[:, 0], "image", "project")
    t = nets["teacher/image"].apply({"params": above["params"]["image"], "batch_stats": above["stats"]["image"]}, x[:, 0])
    return out["project"], nets["teacher/project"].apply({"params": above["params"]["project"]}, t), stats


def held(state, name="queue"):
    rows = jax.device_get(state.memory[name].rows)
    return rows.x[rows.valid].astype(np.float64)


def test_seed():
    """Keys are the queue's and the teacher's own code of the picture; what is not filled does not count."""
    batches, states, told = walked(temperature=0.2, teacher_temperature=0.05)
    for step in range(2):
        s, t, stats = w.ran(codes, states[step], batches[step])
        s, t, old = w.exact(s), w.exact(t), held(states[step])
        assert len(old) == step * w.N
        rows = [[np.append(old @ x, x @ y) / T for x, y in zip(z, t, strict=True)] for z, T in ((s, 0.2), (t, 0.05))]
        assert told[step]["model/loss"] == pytest.approx(oracles_unimodal.distilled(*rows), rel=2e-5, abs=1e-6)
        np.testing.assert_allclose(states[step + 1].memory["queue"].rows.x[step], t, atol=1e-5)
        assert w.tiny.far(states[step + 1].stats["model"], stats) < 1e-5
    assert set(states[2].memory) == {"queue"} and w.idle(states[2]) == set()


def test_compress():
    """Each net has a queue of its own codes; the picture itself is not among the keys."""
    batches, states, told = walked(**COMPRESS)
    assert told[0]["model/loss"] == 0 and set(states[0].memory) == {"queue", "teacher_queue"}
    s, t, _ = w.ran(codes, states[1], batches[1])
    s, t = w.exact(s), w.exact(t)
    mine, theirs = held(states[1]), held(states[1], "teacher_queue")
    want = oracles_unimodal.distilled(s @ mine.T / 0.3, t @ theirs.T / 0.3, kl=True)
    assert told[1]["model/loss"] == pytest.approx(want, rel=1e-4)
    np.testing.assert_allclose(states[2].memory["queue"].rows.x[1], s, atol=1e-5)
    np.testing.assert_allclose(states[2].memory["teacher_queue"].rows.x[1], t, atol=1e-5)
    assert w.idle(states[2]) == set()


def test_codes_of_two_lengths():
    nets = {**w.nets_of("student"), "teacher/project": heads.moco(9)}
    with pytest.raises(ValueError, match=r"nets.project gives codes of 5 numbers, the teacher's have 9: use as many"):
        jax.eval_shape(w.made("student", nets=nets).init, jax.random.key(0), w.pictures())
    made = jax.eval_shape(w.made("student", nets=nets, **COMPRESS).init, jax.random.key(0), w.pictures())["memory"]
    assert (made["queue"].rows.x.shape, made["teacher_queue"].rows.x.shape) == ((2, w.N, w.D), (2, w.N, 9))


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind='teach': use seed or compress"):
        w.made("student", kind="teach")
