"""Labels on a trained encoder: fixed, it stays bit for bit; else it begins where it was and learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from methods import unimodal_world as w
from methods.test_probe import LABEL, entropy
from supcon_jax.build import pretext
from supcon_jax.nets import heads

KINDS = (
    "finetune",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("cmc", "cpc")),
)  # encoders that give rows, a tuple of rows, a grid


def encoder(name="finetune", seed=3):
    """Weights of a trained encoder, with averages that are not those of a start."""
    net = w.nets_of(name)["image"]
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((2, w.SIZE, w.SIZE, 3)), train=False))
    made = w.tiny.fill(shapes, seed)
    tower = {"params": {"image": made["params"]}}  # files keep no empty ones
    return {"encoder": tower | ({"stats": {"image": made["batch_stats"]}} if "batch_stats" in made else {})}


def built(freeze, name="finetune", tower=None, **options):
    """(task, towers) as a stage of this encoder is built."""
    task = w.made("finetune", nets={"image": w.nets_of(name)["image"]}, freeze=freeze, **options)
    return pretext.started(task, {"linear": {"args": {"freeze": freeze}}}, "linear", tower or encoder(name))


def batches():
    return [{**w.pictures(seed), "label": LABEL} for seed in range(2)]


def rows(h):
    """One row of features for each picture."""
    h = [np.asarray(part, np.float64) for part in (h if isinstance(h, tuple) else (h,))]
    return np.concatenate([part.mean((1, 2)) if part.ndim == 4 else part for part in h], axis=1)


def features(net, own, batch, key, train):
    (x,) = w.drawn(batch, key, "finetune")
    return net.apply(own, x[:, 0], train=train, mutable=["batch_stats"] if train else False)


@pytest.mark.parametrize("name", KINDS)
def test_a_fixed_encoder_stays_bit_for_bit(name):
    task, towers = built(True, name)
    given = jax.device_get(towers)
    states, told = w.walk(task, batches(), towers)
    assert set(states[2].params["model"]) == {"classes"} and states[2].stats["model"] == states[2].memory == {}
    assert w.tiny.same(towers, given) and w.tiny.same(pretext.export(states[2], towers)["params"]["image"],
                                                      given["encoder"]["params"]["image"])  # fmt: skip
    tower, net = towers["encoder"], w.nets_of(name)["image"]
    own = {"params": tower["params"]["image"], "batch_stats": tower.get("stats", {}).get("image", {})}
    h = rows(w.ran(lambda own, b, key: features(net, own, b, key, False), own, batches()[1], w.key_of(states[1])))
    head = states[1].params["model"]["classes"]
    value, right = entropy(h @ np.asarray(head["kernel"], np.float64) + np.asarray(head["bias"]), LABEL[:, 0])
    assert told[1]["model/loss"] == pytest.approx(value, rel=2e-5)
    assert told[1]["model/right_percent"] == pytest.approx(100 * right)
    assert told[0]["model/loss"] == pytest.approx(np.log(w.CLASSES), rel=1e-5) and w.idle(states[2]) == set()
    found = w.ran(lambda s, b: task.heads["features"](s, towers, b, None), states[2], {"image": batches()[1]["image"][:, 0]})
    assert found["h"].shape == h.shape


@pytest.mark.parametrize("name", KINDS)
def test_without_freeze_it_begins_at_the_towers_weights_and_learns(name):
    given = encoder(name)["encoder"]
    task, towers = built(False, name)
    assert towers == {}
    states, told = w.walk(task, batches())
    assert w.tiny.same(states[0].params["model"]["image"], given["params"]["image"])
    assert w.tiny.same(states[0].stats["model"]["image"], given.get("stats", {}).get("image", {}))
    assert not np.asarray(states[0].params["model"]["classes"]["kernel"]).any()
    assert told[0]["model/loss"] == pytest.approx(np.log(w.CLASSES), rel=1e-5)
    net = w.nets_of(name)["image"]
    own = {"params": states[1].params["model"]["image"], "batch_stats": states[1].stats["model"]["image"]}
    h, new = w.ran(lambda own, b, key: features(net, own, b, key, True), own, batches()[1], w.key_of(states[1]))
    assert w.tiny.far(states[2].stats["model"]["image"], new.get("batch_stats", {})) < 1e-5
    head = states[1].params["model"]["classes"]
    value, _ = entropy(rows(h) @ np.asarray(head["kernel"], np.float64) + np.asarray(head["bias"]), LABEL[:, 0])
    assert told[1]["model/loss"] == pytest.approx(value, rel=2e-5) and w.idle(states[2]) == set()


def test_smoothing():
    """A share of each label lies on all classes alike; those of unlabelled pictures do not count."""
    task, towers = built(True, smoothing=0.3)
    states, _ = w.walk(task, batches()[:1], towers)
    scores = np.random.default_rng(0).standard_normal((6, w.CLASSES)).astype(np.float32)
    state = states[1].replace(params={"model": {"classes": {"kernel": scores, "bias": scores[0]}}})
    value = w.ran(lambda s, t, b: task.players[0].loss(s.params, s, t, b, w.key_of(s))[0], state, towers, batches()[1])
    net, tower = w.nets_of("finetune")["image"], towers["encoder"]
    own = {"params": tower["params"]["image"], "batch_stats": tower["stats"]["image"]}
    h = rows(w.ran(lambda own, b, key: features(net, own, b, key, False), own, batches()[1], w.key_of(state)))
    logits = h @ scores.astype(np.float64) + scores[0]
    share = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    wanted = 0.7 * np.eye(w.CLASSES)[LABEL[:, 0]] + 0.1
    assert value == pytest.approx(-(wanted * share).sum(1)[LABEL[:, 0] >= 0].mean(), rel=2e-5)


def test_several_labels_are_refused():
    task, towers = built(True)
    batch = {**batches()[0], "label": np.ones((w.N, 1, 4), np.float32)}
    state = jax.eval_shape(lambda: w.core.init_state(task, jax.random.key(0), batches()[0]))
    with pytest.raises(ValueError, match="one label of each picture"):
        jax.eval_shape(lambda s, t: task.players[0].loss(s.params, s, t, batch, jax.random.key(0)), state, towers)


def projected(head):
    """An encoder's weights with those of its projection, all layers of it."""
    tower = encoder()["encoder"]
    made = w.tiny.fill(jax.eval_shape(lambda: head.init(jax.random.key(0), jnp.zeros((2, 6)))), 4)
    stats = {"project": made["batch_stats"]} if "batch_stats" in made else {}
    return {"encoder": {"params": {**tower["params"], "project": made["params"]}, "stats": {**tower["stats"], **stats}}}


@pytest.mark.parametrize("head,layers,freeze", [
    (heads.simclr(w.D), 1, True), (heads.simclr(w.D), 1, False), (heads.simclr(w.D), 2, True), (heads.moco2(w.D), 1, False),
])  # fmt: skip
def test_a_classifier_on_the_projections_first_layers(head, layers, freeze):
    """They are fixed or learn as the encoder does, and are handed on; the layers above them are left behind."""
    nets, given = {"image": w.nets_of("finetune")["image"], "project": head}, projected(head)
    task = w.made("finetune", nets=nets, freeze=freeze, layers=layers)
    task, towers = pretext.started(task, {"x": {"args": {"freeze": freeze, "layers": layers}}}, "x", given)
    cut = {kind: {"image": tree["image"], "project": heads.first(tree.get("project", {}), layers)}
           for kind, tree in given["encoder"].items()}  # fmt: skip
    states, told = w.walk(task, batches(), towers)
    assert w.tiny.same(towers, {"encoder": cut} if freeze else {})
    begun = pretext.export(states[0], towers)
    assert {*begun["params"]} == {"image", "project", "classes"} and not begun["params"].pop("classes")["kernel"].any()
    assert w.tiny.same(begun, cut)

    def codes(own, batch, key):
        (x,) = w.drawn(batch, key, "finetune")
        short = nets | {"project": head.clone(kept=layers)}
        if not freeze:
            out, stats = w.through(short, own["params"], own["stats"], x[:, 0], "image", "project")
            return out["project"], stats
        h = short["image"].apply({"params": own["params"]["image"], "batch_stats": own["stats"]["image"]}, x[:, 0])
        return short["project"].apply({"params": own["params"]["project"], "batch_stats": own["stats"]["project"]}, h), {}

    own = pretext.export(states[1], towers)
    z, stats = w.ran(codes, own, batches()[1], w.key_of(states[1]))
    assert z.shape == (w.N, w.D if layers == 2 else 6)
    if layers == 1:
        assert z.min() == 0 < z.max()  # after its ReLU
    scores = z @ np.asarray(own["params"]["classes"]["kernel"], np.float64) + np.asarray(own["params"]["classes"]["bias"])
    assert told[1]["model/loss"] == pytest.approx(entropy(scores, LABEL[:, 0])[0], rel=2e-5) and w.idle(states[2]) == set()
    assert w.tiny.far(states[2].stats["model"], stats) < 1e-5
    assert w.tiny.same(pretext.export(states[2], towers)["params"]["project"], cut["params"]["project"]) == freeze
    found = w.ran(lambda s, b: task.heads["features"](s, towers, b, None), states[2], {"image": batches()[1]["image"][:, 0]})
    assert (found["h"].shape, found["z"].shape) == ((w.N, 6), z.shape)
    scores = w.ran(lambda s, b: task.heads["classes"](s, towers, b, None), states[2], {"image": batches()[1]["image"][:, 0]})
    head = states[2].params["model"]["classes"]
    np.testing.assert_allclose(scores, found["z"] @ np.asarray(head["kernel"]) + np.asarray(head["bias"]), atol=1e-5)


@pytest.mark.parametrize("head,have", [(heads.simclr(w.D), 2), (heads.LabHead(w.D), 0), (None, 0)])
def test_more_layers_than_the_projection_has(head, have):
    nets = {"image": w.nets_of("finetune")["image"]} | ({"project": head} if head else {})
    with pytest.raises(ValueError, match=f"^layers=3, and the encoder's projection has {have} that can be kept"):
        w.made("finetune", nets=nets, layers=3)
