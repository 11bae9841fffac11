"""Which evaluations a stage gets, what their heads are handed, and how the numbers are kept."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from supcon_jax import config as configs
from supcon_jax import shard
from supcon_jax.build import evaluations
from supcon_jax.config import UserError
from supcon_jax.data.vocab import Vocab
from supcon_jax.evals import protocol


def plain(*settings, path="configs/shapes.py"):
    pairs = dict(setting.split("=", 1) for setting in settings)
    return configs.plain(configs.override(configs.load(path), pairs))


HEADS = {
    "damsm": {"image", "text"}, "attngan": {"image", "text", "generate"}, "classifier": {"attributes"}, "mute": {"image"},
}  # fmt: skip


def context(folder, heads, config=None, frozen=None, batch=None, name="attngan"):
    config = config or plain()
    task = types.SimpleNamespace(heads=heads if isinstance(heads, dict) else dict.fromkeys(heads))
    batches = lambda *asked: [batch]  # noqa: E731
    data = types.SimpleNamespace(vocab=Vocab(("<end>", "red", "ring")), probe=None, evaluation=batches, stream=batches)
    return evaluations.Context(config, name, folder, task, frozen or {}, {}, data, shard.data_mesh(1))


@pytest.mark.parametrize(
    "kind,names",
    [("damsm", ["geometry", "matching"]), ("attngan", ["attributes", "generation", "matching"]), ("classifier", ["attributes"]),
     ("mute", [])],
)  # fmt: skip
def test_a_stage_gets_the_evaluations_that_its_heads_serve(tmp_path, kind, names):
    found = evaluations.build(context(tmp_path, HEADS[kind], plain("evals.matching.every=7")))
    assert sorted(item.name for item in found) == names
    assert {item.name: item.every for item in found}.get("matching", 7) == 7


def test_an_unknown_evaluation_is_refused_before_the_training(tmp_path):
    config = plain()
    config["evals"]["beauty"] = {"every": 0}
    known = "matching, geometry, generation, attributes, labels, knn, linear, fewshot, clusters, spectrum, robustness"
    with pytest.raises(UserError, match=f"^config.evals.beauty is not known; use one of: {known}$"):
        evaluations.build(context(tmp_path, HEADS["damsm"], config))


def test_pictures_that_are_made_are_scored_whole(tmp_path):
    for path in ("configs/shapes.py", "configs/cub.py", "configs/coco.py"):
        whole = context(tmp_path, HEADS["attngan"], plain(path=path))
        evaluations.check_middle(whole)
        assert whole.seen == whole.side and whole.resize == f"{whole.side} px as trained"
    with pytest.raises(UserError, match="config.data.middle=0.5: attngan makes whole pictures"):
        evaluations.build(context(tmp_path, HEADS["attngan"], plain("data.middle=0.5")))
    evaluations.build(context(tmp_path, HEADS["damsm"], plain("data.middle=0.5")))


def test_a_missing_network_is_told_before_the_training(tmp_path):
    config = plain("evals.generation.networks=('pt',)")
    with pytest.raises(UserError, match="network pt needs the torch FID Inception file"):
        evaluations.build(context(tmp_path, HEADS["attngan"], config))
    evaluations.build(context(tmp_path, HEADS["damsm"], config))  # which never looks at it


def test_numbers_of_several_evaluations_stand_in_one_file(tmp_path):
    def first(context, state, options):
        return protocol.record({"fid": 3.0, "kid": 0.5}, protocol.Protocol(network="n", seed=options["seed"]))

    def second(context, state, options):
        return protocol.record({"fid": 2.0}, protocol.Protocol())

    made = context(tmp_path / "attngan", {})
    at = [types.SimpleNamespace(step=np.int32(step)) for step in (5, 10)]
    assert evaluations.measured(first, made, {"seed": 4}, at[0]) == {"fid": 3.0, "kid": 0.5}
    assert evaluations.measured(second, made, {}, at[1]) == {"fid": 2.0}
    found = json.loads((tmp_path / "attngan" / "evals.json").read_text())
    assert {name: (record["step"], record["value"]) for name, record in found.items()} == {"fid": (10, 2.0), "kid": (5, 0.5)}
    assert found["kid"]["protocol"]["network"] == "n" and found["kid"]["protocol"]["seed"] == 4
    assert [path.name for path in (tmp_path / "attngan").iterdir()] == ["evals.json"]


def test_a_protocol_tells_the_twin_from_the_truth(tmp_path):
    assert context(tmp_path, {}).origin() == context(tmp_path, {}).origin("test") == "shapes/test"
    twin = context(tmp_path, {}, plain(path="configs/shapes.py:twin"))
    assert (twin.origin(), twin.origin("train")) == ("shapes/test", "shapes/train, pairs shuffled")


BATCH = {
    "text": np.int32([[[1, 2, 0], [9, 9, 9]], [[2, 0, 0], [9, 9, 9]]]), "text_len": np.int32([[2, 9], [1, 9]]),
    "label": np.int32([[0, 0], [1, 1]]),
}  # fmt: skip


def draw(state, frozen, batch, key):
    """Pictures that show the number of words, the state, the tower and the noise."""
    assert set(batch) == {"text", "text_len"} and batch["text"].shape == (2, 3)
    grey = batch["text_len"] / 10 + state + frozen["tower"] + 0.01 * jax.random.uniform(key, (2,))
    return jnp.broadcast_to(grey[:, None, None, None], (2, 32, 32, 3))


def test_the_generator_reads_the_first_branch_the_state_and_the_towers(tmp_path):
    made = context(tmp_path, {"generate": draw}, frozen={"tower": jnp.float32(0.3)})
    pictures = np.asarray(made.generate(jnp.float32(-0.5))(BATCH, jax.random.key(1)))
    np.testing.assert_allclose(pictures[:, 0, 0, 0], [0.0, -0.1], atol=0.01001)
    other = np.asarray(made.generate(jnp.float32(0.5))(BATCH, jax.random.key(1)))
    np.testing.assert_allclose(other, pictures + 1, atol=1e-6)
    assert made.head("generate") is made.head("generate")  # compiled once


def test_a_protocol_tells_how_the_generator_draws(tmp_path):
    config = plain("evals.generation.diversity=1")
    config["attngan"]["args"] |= {"truncate": 0.88, "ema": 0.0}
    made = context(tmp_path, {"generate": draw}, config, batch=BATCH)
    said = {"fake_origin": "attngan from shapes/test", "captions": "one for each record, by seed"}
    assert made.made == said | {"ema": False, "truncation": 0.88}
    config["attngan"]["args"] |= {"truncate": 0.0, "ema": 0.9}
    assert made.made == said | {"ema": True, "truncation": None}
    batches, number = made.varied(1)
    assert number == evaluations.DRAWS == 10 and batches[0]["valid"].tolist() == [1, 0] and made.varied(0) is None


def test_the_accuracy_of_a_classifier_on_real_pictures(tmp_path):
    """Two of three right; the row that fills up the batch counts nowhere."""
    head = lambda state, frozen, batch, key: {"label": 1.0 * jax.nn.one_hot(batch["image"][:, 0, 0, 0], 4)}  # noqa: E731
    image = np.zeros((4, 1, 8, 8, 3), np.uint8) + np.uint8([1, 2, 3, 0])[:, None, None, None, None]
    batch = {"image": image, "index": np.int32([[0], [1], [2], [-1]]), "valid": np.float32([1, 1, 1, 0])}
    made = context(tmp_path, {"attributes": head}, batch=batch, name="classifier")
    made.data.classes, made.data.test = 4, types.SimpleNamespace(labels=np.int32([1, 2, 0]))
    out = evaluations.evaluate_labels(made, None, {"reals": 0})["label_accuracy"]
    assert out["value"] == pytest.approx(200 / 3)
    assert out["protocol"]["real_number"] == 3 and out["protocol"]["subsets"] == "4 classes"
    assert out["protocol"]["real_content"] and out["protocol"]["network"] == "classifier in training"
    assert out["protocol"]["resize"] == "32 px as trained"


def test_codes_are_unit_rows(tmp_path):
    heads = {
        "image": lambda state, frozen, batch, key: (None, batch["image"][:, 0, 0].astype(jnp.float32)),
        "text": lambda state, frozen, batch, key: (None, batch["text"].astype(jnp.float32)),
    }
    made = context(tmp_path, heads)
    images = np.uint8([[[[3, 0, 4]]], [[[0, 5, 12]]]])
    codes = evaluations.image_code(made, None)(images)
    np.testing.assert_allclose(codes, [[0.6, 0, 0.8], [0, 5 / 13, 12 / 13]], rtol=1e-6)
    codes = evaluations.text_code(made, None)(BATCH)
    np.testing.assert_allclose(codes, [[5**-0.5, 2 * 5**-0.5, 0], [1, 0, 0]], rtol=1e-6)


def test_the_geometry_is_that_of_the_stages_own_codes_on_the_test_split(tmp_path):
    """Two pictures of two classes at a right angle, each with its own caption's code."""
    heads = {
        "image": lambda state, frozen, batch, key: (None, state * batch["image"][:, 0, 0].astype(jnp.float32)),
        "text": lambda state, frozen, batch, key: (None, batch["text"][:, :2].astype(jnp.float32)),
    }
    batch = {
        "image": np.uint8([[[[[3, 0]]]], [[[[0, 5]]]]]), "text": np.int32([[[2, 0]], [[0, 7]]]),
        "text_len": np.int32([[2], [2]]), "label": np.int32([[0], [1]]), "index": np.int32([[4], [5]]),
    }  # fmt: skip
    made = context(tmp_path, heads, batch=batch, name="damsm")
    out = evaluations.evaluate_geometry(made, jnp.float32(1), {"reals": 0, "seed": 3})
    told = out["both_alignment"]["protocol"]
    assert (told["network"], told["real_origin"], told["seed"]) == ("damsm encoders", "shapes/test", 3)
    assert out["both_alignment"]["value"] == 0 and out["image_rank"]["value"] == pytest.approx(2)
    assert out["both_between"]["value"] == 0 and "both_within" not in out


def test_samples_are_the_same_captions_and_noise_every_time(tmp_path):
    made = context(tmp_path, {"generate": draw}, frozen={"tower": jnp.float32(0)}, batch=BATCH)
    show = evaluations.sampler(made)
    one, again, later = (np.asarray(show(jnp.float32(value))) for value in (0, 0, 0.3))
    np.testing.assert_array_equal(one, again)
    assert one.shape == later.shape and (one != later).any()
    assert evaluations.sampler(made, 1)(jnp.float32(0)).width < one.shape[1]
