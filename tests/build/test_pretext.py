"""What second stages take from a trained encoder: how it learned to see pictures, and weights that may lack averages."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from supcon_jax import config
from supcon_jax.build import compile, datasets, pretext, stage
from supcon_jax.core import Task


def plain(word, **settings):
    return config.plain(config.override(config.load(f"configs/image.py:{word},tiny"), {k: str(v) for k, v in settings.items()}))


@pytest.mark.parametrize(
    "word,norm", [("simclr,linear", "half"), ("cmc,linear", "lab"), ("moco_v2,imagenet,linear", "imagenet")]
)
def test_pictures_are_normalised_as_the_encoder_learned_to_see_them(word, norm):
    c = plain(word)
    first, second = c["stages"]
    said = stage.described(c, first, None, {})
    assert said["norm"] == norm and said["kind"] == "encoder"
    towers = {"encoder": said}
    assert pretext.seen(c, second, towers)[second]["args"]["norm"] == norm and c[second]["args"]["norm"] == ""
    assert stage.described(c, second, None, towers)["norm"] == norm  # and so does a third stage
    own = plain(word, **{f"{second}.args.norm": "none"})
    assert pretext.seen(own, second, towers) is own and stage.described(own, second, None, towers)["norm"] == "none"
    assert pretext.seen(c, second, {"encoder": {"nets": {}}}) is c  # weights that do not say


def test_an_encoder_without_averages_is_begun_with_and_handed_on():
    tower = {"params": {"image": {"kernel": np.ones(3, np.float32)}}}
    task = Task(lambda key, batch: {"params": {"model": {"image": {"kernel": jnp.zeros(3)}, "classes": {}}},
                                    "stats": {"model": {"image": {}}}}, ())  # fmt: skip
    begun, left = pretext.started(task, {"finetune": {"args": {"freeze": False}}}, "finetune", {"encoder": tower, "other": {}})
    made = begun.init(jax.random.key(0), {})
    assert left == {"other": {}} and made["stats"] == {"model": {"image": {}}}
    np.testing.assert_array_equal(made["params"]["model"]["image"]["kernel"], np.ones(3))
    state = dataclasses.make_dataclass("Given", ["params", "stats"])({"model": {"classes": {}}}, {"model": {}})
    out = pretext.export(state, {"encoder": tower})
    assert out["params"]["image"] is tower["params"]["image"] and out["stats"] == {"image": {}}
    shapes = jax.eval_shape(lambda: tower)
    kept, _ = pretext.started(task, {"x": {"args": {"freeze": True}}}, "x", {"encoder": tower})
    assert kept is task
    only, _ = pretext.started(task, {"x": {"args": {"freeze": False}}}, "x", {"encoder": shapes})
    assert not np.asarray(only.init(jax.random.key(0), {})["params"]["model"]["image"]["kernel"]).any()


def test_what_is_clustered_are_the_records_that_are_trained_on():
    c = plain("pcl", **{"data.label_share": 0.5, "data.only_labelled": True})
    data = datasets.open_data(c, None)
    index = np.concatenate([batch["index"][:, 0] for batch in data.in_order(16, 32)])
    assert sorted(index[index >= 0]) == list(range(len(data.taught))) and len(data.taught) < len(data.train)
    first = next(iter(data.in_order(16, 32)))["image"][3, 0]
    np.testing.assert_array_equal(first, data.taught.image(3))


def test_a_second_stage_can_be_compiled_for(tmp_path):
    trees, about, _ = compile.frozen_shapes(plain("simclr,finetune"), "finetune", tmp_path)
    assert set(trees["encoder"]["params"]) == {"image", "project"} and "image" in about["encoder"]["nets"]
