"""Students of a frozen encoder: SEED's one queue, CompRess's two; of a classifier, by its answers."""

import jax
import numpy as np
import pytest

import oracles_unimodal
from methods import unimodal_world as w
from methods.test_probe import LABEL
from supcon_jax.methods.probe import logits
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


def judge(project=None):
    """(nets, weights) of a classifier on the teacher's encoder, or on the first layers of its projection."""
    given, nets = tower()["teacher"], w.nets_of("distil")
    params, stats, width = {"image": given["params"]["image"]}, given["stats"], 7
    if project:
        own = w.tiny.fill(jax.eval_shape(lambda: project.init(jax.random.key(0), np.zeros((2, 7), np.float32))), 6)
        nets["teacher/project"], width = project, 7
        params["project"], stats = own["params"], {**stats, "project": own["batch_stats"]}
    rng = np.random.default_rng(5)
    params["classes"] = {"kernel": rng.standard_normal((width, w.CLASSES)).astype(np.float32), "bias": np.float32([1, 0, -1])}
    return nets, {"teacher": {"params": params, "stats": stats}}


def answers(state, batch, nets, towers):
    """Scores of one view: the student's in training, the teacher's by its averages."""
    (x,) = w.drawn(batch, w.key_of(state), "distil")
    own, above = state.params["model"], towers["teacher"]
    out, stats = w.through(nets, own, state.stats["model"], x[:, 0], "image")
    t = x[:, 0]
    for name in ("image", "project"):
        if f"teacher/{name}" in nets:
            t = nets[f"teacher/{name}"].apply({"params": above["params"][name], "batch_stats": above["stats"][name]}, t)
    return logits(own["classes"], out["image"]), logits(above["params"]["classes"], t), stats


def valued(task, state, towers, batch):
    """(value, metrics) of the loss at a state."""
    value, aux = w.ran(lambda s, t, b: task.players[0].loss(s.params, s, t, b, w.key_of(s)), state, towers, batch)
    return value, aux.metrics


@pytest.mark.parametrize("project", [None, heads.simclr(w.D).clone(kept=1)])
def test_distil(project):
    """Pictures without a label count in the teacher's term alone."""
    nets, towers = judge(project)
    batches = [{**w.pictures(seed), "label": LABEL} for seed in range(2)]
    task = w.made("distil", nets=nets, alpha=0.3, temperature=0.5)
    states, said = w.walk(task, batches, towers)
    assert set(states[0].params["model"]) == {"image", "classes"} and states[2].memory == {}
    for step in range(2):
        s, t, stats = w.ran(lambda s, b, f: answers(s, b, nets, f), states[step], batches[step], towers)
        want = oracles_unimodal.answered(np.float64(s), np.float64(t), LABEL[:, 0], 0.3, 0.5)
        assert said[step]["model/loss"] == pytest.approx(want, rel=2e-5)
        assert said[step]["model/agree_percent"] == pytest.approx(100 * np.mean(s.argmax(1) == t.argmax(1)))
        right = (s.argmax(1) == LABEL[:, 0])[LABEL[:, 0] >= 0].mean()
        assert said[step]["model/right_percent"] == pytest.approx(100 * right)
        assert w.tiny.far(states[step + 1].stats["model"], stats) < 1e-5
    assert w.idle(states[2]) == set()
    whole = {"image": batches[0]["image"][:, 0]}
    seen = w.ran(lambda s, b: {name: head(s, {}, b, None) for name, head in task.heads.items()}, states[2], whole)
    assert {name: seen["features"][name].shape for name in "hz"} == {"h": (w.N, 6), "z": (w.N, 6)}
    np.testing.assert_allclose(seen["classes"], logits(states[2].params["model"]["classes"], seen["features"]["h"]), atol=1e-5)


def test_distil_without_labels_reads_none_and_with_labels_alone_is_finetune():
    nets, towers = judge()
    batch = {**w.pictures(1), "label": LABEL}
    state = w.walk(w.made("distil", nets=nets), [batch], towers)[0][1]
    free = w.made("distil", nets=nets, alpha=1.0, temperature=2.0)
    value, said = valued(free, state, towers, batch)
    many = {**batch, "label": np.ones((w.N, 1, 4), np.float32)}
    assert valued(free, state, towers, many) == (value, said) and set(said) == {"agree_percent"}
    s, t, _ = w.ran(lambda s, b, f: answers(s, b, nets, f), state, batch, towers)
    assert value == pytest.approx(oracles_unimodal.answered(np.float64(s), np.float64(t), LABEL[:, 0], 1.0, 2.0), rel=2e-5)
    only, plain = w.made("distil", nets=nets, alpha=0.0, smoothing=0.2), w.made("finetune", smoothing=0.2)
    got, want = valued(only, state, towers, batch), valued(plain, state, {}, batch)
    assert got[0] == pytest.approx(want[0], rel=1e-6) and got[1]["right_percent"] == want[1]["right_percent"]
    with pytest.raises(ValueError, match="one label of each picture"):
        valued(w.made("distil", nets=nets, alpha=0.5), state, towers, many)


def test_no_gradient_reaches_the_teacher():
    nets, towers = judge(heads.simclr(w.D).clone(kept=1))
    batch = {**w.pictures(1), "label": LABEL}
    for name, given, own in (("distil", towers, nets), ("student", tower(), None)):
        task = w.made(name, nets=own, **({"alpha": 0.5} if name == "distil" else {}))
        state = w.begin(task, batch)

        def loss(given, state, task=task):
            return task.players[0].loss(state.params, state, given, batch, w.key_of(state))[0]

        assert all(not np.any(g) for g in jax.tree.leaves(w.ran(jax.grad(loss), given, state)))
