"""The evaluations of features on a little set of coloured pictures: what the head is handed, once a state, and what is told."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from supcon_jax import shard
from supcon_jax.build import evaluations, representations
from supcon_jax.build.datasets import Data
from supcon_jax.config import UserError
from supcon_jax.data.source import Source
from supcon_jax.evals import streams
from supcon_jax.evals.protocol import numbers

CLASSES = ("red", "green", "blue")
OPTIONS = {"words": 4, "crop": "none", "bad_limit": 0.0, "threads": 1, "partner": "none", "middle": 1.0}
SIDE = 8


def split(name, records, several=False):
    """Records of three classes in turn: the class is the colour, half of it left; the rest noise."""
    rng = np.random.default_rng(len(name) + records)
    label = (np.arange(records) % 3).astype(np.int32)
    noise = rng.integers(0, 100, (records, SIDE, SIDE, 3)).astype(np.uint8)
    pictures = noise + (80 * np.eye(3, dtype=np.uint8))[label][:, None, None]
    labels = np.eye(3, dtype=np.uint8)[label] if several else label
    names = [f"{name}{i}" for i in range(records)]
    return Source("toys", name, [["it"]] * records, labels, CLASSES, lambda i: pictures[i], names)


def data(several=False, middle=1.0):
    train, test = split("train", 50, several), split("test", 25, several)
    return Data(train, train, test, None, OPTIONS | {"middle": middle}, 0)


class Head:
    """Colours as h, two mixtures of them as z; counts how often it is traced and handed pictures."""

    def __init__(self, floats=255.0, side=SIDE):
        self.handed, self.floats, self.side = 0, floats, side

    def __call__(self, state, frozen, batch, key):
        assert batch["image"].shape[1:] == (self.side, self.side, 3)
        jax.debug.callback(self.count)
        scale = self.floats if jnp.issubdtype(batch["image"].dtype, jnp.floating) else 1.0
        x = batch["image"].astype(jnp.float32) * scale / 255
        h = jnp.concatenate([x[:, :4].mean((1, 2)), x[:, 4:].mean((1, 2))], axis=1) * state["scale"] + frozen["shift"]
        return {"h": h, "z": h @ jnp.eye(6, 2)}

    def count(self):
        self.handed += 1


class State(dict):
    """A state that can be told from another, as flax's can."""


jax.tree_util.register_pytree_node(State, lambda s: (tuple(s.values()), tuple(s)), lambda names, x: State(zip(names, x)))


def state():
    return State(scale=jnp.float32(3.0))


def context(folder, evals=(), head=None, several=False, **more):
    own = more.get("data") or data(several)
    share = (own.probe or own).options["middle"]
    config = {
        "data": {"name": "toys", "train": "train", "test": "test", "shuffle_pairs": False, "middle": share},
        "eval_batch": 10,
        "simclr": {"size": SIDE, "args": {"recipe": "toy", "size": SIDE}},
        "evals": dict(evals),
    }
    task = types.SimpleNamespace(heads={"features": head or Head()})
    frozen = {"shift": jnp.float32(0.5)}
    return evaluations.Context(config, "simclr", folder, task, frozen, {}, own, shard.data_mesh(1))


EVERY = {
    "knn": {"every": 0}, "linear": {"every": 0, "preset": "mocov3", "on": ["h", "z"]},
    "fewshot": {"every": 0, "shots": [1, 5], "draws": 3}, "clusters": {"every": 0, "on": "z"}, "spectrum": {"every": 0},
}  # fmt: skip


def test_all_evaluations_of_a_state_share_its_features(tmp_path):
    made = context(tmp_path / "simclr", EVERY)
    head, one = made.task.heads["features"], state()
    one["step"] = np.int32(7)
    one.step = one["step"]
    found = {item.name: item.fn(one) for item in evaluations.build(made)}
    jax.effects_barrier()
    assert list(found) == list(EVERY) and head.handed == 3 + 5  # batches of ten out of 25 and 50
    kinds = ("top1", "false_negative", "false_negative_chance")
    assert set(found["knn"]) == {f"knn_h_{kind}" for kind in kinds}
    assert set(found["linear"]) == {f"linear_{on}_{kind}" for on in "hz" for kind in ("top1", "ece")}
    assert set(found["fewshot"]) == {"fewshot_h_1", "fewshot_h_1_std", "fewshot_h_5", "fewshot_h_5_std"}
    assert {"clusters_z_nmi", "clusters_z_ari", "clusters_z_accuracy"} <= set(found["clusters"])
    assert found["knn"]["knn_h_top1"] == found["linear"]["linear_h_top1"] == 100 > found["linear"]["linear_z_top1"] - 1e-9
    assert "spectrum_h_participation" in found["spectrum"] and "spectrum_h_alignment" not in found["spectrum"]
    told = json.loads((tmp_path / "simclr" / "evals.json").read_text())
    assert set(told) == {name for values in found.values() for name in values}
    own = told["linear_z_top1"]["protocol"]
    assert (own["network"], own["real_origin"], own["train_origin"]) == ("simclr features z", "toys/test", "toys/train")
    assert (own["real_number"], own["train_number"]) == (25, 50) and told["linear_z_top1"]["step"] == 7
    assert own["real_content"] and own["train_content"] not in ("", own["real_content"])
    other = state()
    evaluations.EVALS["knn"][0](made, other, EVERY["knn"])
    jax.effects_barrier()
    assert head.handed == 2 * (3 + 5)  # another state, other features


def test_fewer_records_are_read_where_fewer_are_asked_for(tmp_path):
    made = context(tmp_path)
    out = representations.evaluate_knn(made, state(), {"reals": 12, "train_reals": 20, "k": 3})
    jax.effects_barrier()
    assert made.task.heads["features"].handed == 2 + 2
    own = out["knn_h_top1"]["protocol"]
    assert (own["real_number"], own["train_number"], own["neighbours"]) == (12, 20, 3)


def test_features_are_judged_on_the_probes_own_set_where_there_is_one(tmp_path):
    other = types.SimpleNamespace(probe=data(), train=None, test=None)
    out = representations.evaluate_knn(context(tmp_path, data=other), state(), {})
    assert out["knn_h_top1"]["value"] == 100 and out["knn_h_top1"]["protocol"]["real_origin"] == "toys/test"


@pytest.mark.parametrize("name", ["knn", "linear"])
def test_several_labels_are_ranked(tmp_path, name):
    out = numbers(representations.EVALS[name](context(tmp_path, several=True), state(), {"preset": "mocov3"}))
    assert set(out) == {f"{name}_h_map"} and out[f"{name}_h_map"] > 99


REFUSED = {
    "on": ("knn", {"on": ["h", "y"]}, False, r"config.evals.knn.on=\('h', 'y'\): must be h"),
    "preset": ("linear", {"preset": "adam"}, False, "config.evals.linear.preset='adam': use one of simclr"),
    "several": ("clusters", {}, True, "config.evals.clusters reads one label of each record, and those of toys have several"),
    "kinds": (
        "robustness",
        {"kinds": ["fog", "moths"]},
        False,
        "config.evals.robustness.kinds: moths not known; use some of gaussian",
    ),
    "baseline": ("robustness", {"baseline": "/no/such.json"}, False, "baseline=/no/such.json: no such file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_before_the_training(tmp_path, case):
    name, options, several, line = REFUSED[case]
    with pytest.raises(UserError, match=line):
        evaluations.build(context(tmp_path, {name: {"every": 0, **options}}, several=several))


@pytest.mark.parametrize("labels", [None, -1])
def test_records_without_labels_have_a_spectrum_alone(tmp_path, labels):
    """A set without labels, and a split none of whose records has one: neighbours would all be of no class."""
    bare = data()
    object.__setattr__(bare.train, "labels", labels and np.full(len(bare.train), labels))
    evaluations.build(context(tmp_path, {"spectrum": {"every": 0}}, data=bare))
    with pytest.raises(UserError, match="config.evals.knn reads labels, and the records of toys/train have none: name"):
        evaluations.build(context(tmp_path, {"knn": {"every": 0}}, data=bare))


def test_views_tell_of_alignment_and_lidar(tmp_path, monkeypatch):
    """Views in which pictures are brighter or darker: two for a recipe's call, as many calls as are needed."""
    calls = []

    def crops(images, key, *, recipe, size, norm, change, small):
        calls.append((recipe, size, norm, change))
        light = jax.random.uniform(key, (len(images), 2, 1, 1, 1), minval=0.5)
        return (images[:, None].astype(jnp.float32) / 255 * light,)

    monkeypatch.setattr(representations.recipes, "crops", crops)
    made, one = context(tmp_path), state()
    out = representations.evaluate_spectrum(made, one, {"views": 3, "on": ["h", "z"], "reals": 12})
    assert calls == [("toy", SIDE, "none", {})] and out["spectrum_h_lidar"]["protocol"]["real_number"] == 12
    assert out["spectrum_z_alignment"]["protocol"]["settings"] == "3 views of each picture, 2 dimensions"
    assert out["spectrum_h_lidar"]["protocol"]["subsets"] == "views of the recipe toy"
    assert 0 < out["spectrum_h_alignment"]["value"] < 0.1 and out["spectrum_h_lidar"]["value"] > 1
    views, _ = representations.viewed(made, one, {"views": 3, "reals": 12})
    assert views["h"].shape == (12, 3, 6) and len({tuple(view) for view in np.round(views["h"][5], 5)}) == 3


ROBUST = {"kinds": ["dark", "none"], "severities": [1, 5], "eps": [4, 16], "sweep": 1, "reals": 15, "pgd_steps": 5}


def test_robustness_is_that_of_a_classifier_fitted_to_clean_features(tmp_path, monkeypatch):
    seen = []

    def corrupted(images, kind, severity, seed=0):
        seen.append((len(images), kind, severity, seed))
        return images * np.uint8(severity < 5) if kind == "dark" else images

    monkeypatch.setattr(representations.corrupt, "corrupted", corrupted)
    out = representations.evaluate_robustness(context(tmp_path), state(), ROBUST | {"seed": 4})
    values = numbers(out)
    assert seen == [(15, kind, severity, 4) for kind in ("dark", "none") for severity in (1, 5)]
    assert values["corruption_clean"] == values["corruption_none"] == 0 < values["corruption_dark"]
    assert values["adversarial_clean"] == 100 and values["adversarial_pgd_128"] == 0 and values["adversarial_masked"] == 0
    assert 100 >= values["adversarial_pgd_4"] >= values["adversarial_pgd_16"]
    own = out["adversarial_pgd_16"]["protocol"]
    assert own["settings"].startswith("lbfgs") and (own["real_number"], own["train_number"], own["seed"]) == (15, 50, 4)
    path = tmp_path / "base.json"
    path.write_text(json.dumps({"dark": 50.0, "none": 10.0}))
    relative = representations.evaluate_robustness(context(tmp_path), state(), {**ROBUST, "eps": [], "baseline": str(path)})
    assert relative["corruption_mce"]["value"] == pytest.approx(values["corruption_dark"])
    assert not any(name.startswith("adversarial") for name in relative)


def test_a_head_that_reads_floats_otherwise_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"must read f32 pictures in \[0, 1\]"):
        representations.evaluate_robustness(context(tmp_path, head=Head(floats=1.0)), state(), {"eps": [4], "sweep": 1})


def test_every_evaluation_sees_the_middle_and_says_so(tmp_path, monkeypatch):
    """The head refuses pictures of any other size; those that are read are the middle of the whole ones, in every protocol."""
    side = 6
    monkeypatch.setattr(evaluations, "LEAST", side)
    monkeypatch.setattr(
        representations.recipes, "crops", lambda images, key, **how: (jnp.stack([images, images], 1) / jnp.float32(255),)
    )
    monkeypatch.setattr(representations.corrupt, "corrupted", lambda images, kind, severity, seed=0: images)
    options = {**EVERY, "spectrum": {"every": 0, "views": 2}, "robustness": {**ROBUST, "every": 0, "kinds": ["fog"]},
               "labels": {"every": 0, "reals": 0}}  # fmt: skip
    head = Head(side=side)
    made = context(tmp_path / "simclr", options, head, data=data(middle=0.75))
    made.task.heads["classes"] = lambda *how: head(*how)["h"][:, :3]
    one = state()
    one["step"] = np.int32(7)
    one.step = one["step"]
    for item in evaluations.build(made):
        item.fn(one)
    told = json.loads((tmp_path / "simclr" / "evals.json").read_text())
    assert {name.split("_")[0] for name in told} >= {"knn", "linear", "fewshot", "clusters", "spectrum", "corruption",
                                                     "adversarial", "label"}  # fmt: skip
    assert {record["protocol"]["resize"] for record in told.values()} == {"middle 6 of 8 px"}
    content = {record["protocol"]["real_content"] for name, record in told.items() if "corruption" not in name}
    want = streams.Content()
    want.add(streams.Part(np.stack([made.data.test.image(i)[1:7, 1:7] for i in range(25)]), np.ones(25, bool), {}))
    assert str(want) in content and told["knn_h_top1"]["protocol"]["real_content"] == str(want)
    assert context(tmp_path).resize == "8 px as trained"


def test_a_middle_that_leaves_too_little_is_refused_before_the_training(tmp_path):
    with pytest.raises(UserError, match=r"config.data.middle=0.5 leaves 4 of 8 pixels: use a share that leaves 8"):
        evaluations.build(context(tmp_path, data=data(middle=0.5)))
