"""What second stages take from a trained encoder: how it learned to see pictures, and weights that may lack averages."""

import dataclasses
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from supcon_jax import config
from supcon_jax.build import compile, datasets, pretext, run, stage
from supcon_jax.config import UserError
from supcon_jax.core import Task
from supcon_jax.nets import heads


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


SHAPES = types.SimpleNamespace(vocab=None, classes=3)
HEADS = {"simclr": 8, "moco_v2": 8, "simsiam": 8, "barlow": 8, "cmc": 16}  # numbers in tiny codes; two halves side by side


@pytest.mark.parametrize("word", HEADS)
def test_a_students_codes_are_as_long_as_its_teachers(word):
    c = plain(f"{word},seed", **{"student.nets.project.dim": 0})
    towers = {"teacher": {"nets": c[word]["nets"]}}
    assert stage.told_nets(c["student"], towers)["project"]["dim"] == HEADS[word]
    assert stage.own_nets(c[word], towers) == c[word]["nets"]  # of its own length
    assert run.promised(c, "student")["nets"]["project"]["dim"] == HEADS[word]
    run.check(plain(f"{word},compress", **{"student.nets.project.dim": 5}))  # two spaces
    with pytest.raises(UserError) as caught:
        run.check(plain(f"{word},seed", **{"student.nets.project.dim": 5}))
    said = f"gives codes of 5 numbers, the teacher's have {HEADS[word]}: use dim=0 for as many"
    assert str(caught.value) == f"config.student.nets.project.dim=5 {said}"
    with pytest.raises(UserError, match=said):  # and of a file
        stage.build_nets(plain("simclr,seed", **{"student.nets.project.dim": 5}), "student", SHAPES, towers)


def test_only_a_student_leaves_the_length_of_its_codes_open():
    with pytest.raises(UserError, match=r"config.simclr.nets.project.dim=0: must be at least 1"):
        plain("simclr,seed", **{"simclr.nets.project.dim": 0})
    with pytest.raises(UserError, match=r"config.student.nets.project.dim=-1: must be at least 1, or 0 for as many as"):
        plain("simclr,seed", **{"student.nets.project.dim": -1})


def test_an_encoder_without_codes_has_no_student():
    for word in ("cpc,seed", "cpc,compress"):
        with pytest.raises(UserError, match="config.student.frozen.teacher: a student follows codes, and this encoder has no"):
            run.check(plain(word))


def test_what_depends_on_files_is_left_to_the_stage_itself():
    c = plain("simclr,seed", **{"student.nets.project.dim": 5, "student.frozen.teacher": "/a.safetensors"})
    assert run.promised(c, "student") is None
    assert run.promised(c | {"stages": ["student"]}, "student") is None
    assert run.promised(plain("linear,simclr") | {"stages": ["linear"]}, "linear") is None
    drawn = run.promised(plain("supervised"), "supervised")
    assert set(drawn["nets"]) == {"image"} and drawn["stage"] == "supervised"


def test_more_layers_than_a_projection_has_are_told_before_the_first_stage():
    for name in ("linear", "finetune"):
        run.check(plain(f"simclr,{name}", **{f"{name}.args.layers": 2}))
        with pytest.raises(UserError, match=f"^config.{name}.args.layers=3, and the encoder's projection has 2 that"):
            run.check(plain(f"simclr,{name}", **{f"{name}.args.layers": 3}))
    with pytest.raises(UserError, match="^config.linear.args.layers=1, and the encoder's projection has 0"):
        run.check(plain("cpc,linear", **{"linear.args.layers": 1}))


def test_a_classifiers_file_tells_the_nets_that_it_reads():
    c = plain("byol,finetune")
    whole = {"encoder": {"nets": c["byol"]["nets"]}}
    assert stage.told_nets(c["finetune"], whole) == {"image": c["byol"]["nets"]["image"]}
    c["finetune"]["args"]["layers"] = 1
    told = json.loads(json.dumps(stage.told_nets(c["finetune"], whole)))
    nets = stage.build_nets(c, "finetune", SHAPES, {"encoder": {"nets": told}})
    assert set(nets) == {"image", "project"} and nets["project"] == heads.byol(8, 8).clone(kept=1)
    above = c | {"linear": {**c["finetune"], "args": {**c["finetune"]["args"], "layers": 2}}}
    with pytest.raises(UserError, match="config.linear.args.layers=2, and the encoder's projection has 1"):
        stage.build_nets(above, "linear", SHAPES, {"encoder": {"nets": told}})


DISTIL = {"distil": {"method": "distil", "args": {"size": 32}, "nets": {}, "frozen": {"teacher": "stage:simclr"}}}


def test_a_teacher_that_gives_no_answers():
    c = plain("simclr,finetune") | DISTIL
    for name in ("finetune", "distil"):
        pretext.agree(c, "distil", {"teacher": {"nets": {}, "config": c, "stage": name}})
    with pytest.raises(UserError, match="^config.distil.frozen.teacher: simclr learned no classes; train a classifier on it"):
        run.check(c | {"stages": ["simclr", "distil"]})
    assert pretext.needed("teacher", "distil", "distil").startswith("distil needs a trained classifier: name a method")
    have = {"teacher": {"params": {"image": {}, "classes": {"bias": np.zeros(5)}}}}
    assert (pretext.classes(c, "distil", have, 5), pretext.classes(c, "distil", have, 0)) == (5, 5)
    assert pretext.classes(c, "finetune", {}, 7) == 7
    with pytest.raises(UserError, match="the teacher tells 5 classes apart, and config.data.name='shapes' has 4"):
        pretext.classes(c, "distil", have, 4)
    with pytest.raises(UserError, match="config.distil.frozen.teacher: these weights hold no classifier"):
        pretext.classes(c, "distil", {"teacher": {"params": {"image": {}}}}, 5)


def test_what_of_a_file_a_stage_has_learned_itself():
    tree = {"params": {"image": {"a": 1}, "classes": {"b": 2}}, "stats": {"image": {"c": 3}}}
    fixed, learns = ({"method": "finetune", "args": {"freeze": freeze}} for freeze in (True, False))
    assert pretext.learned(fixed, tree) == {"params": {"classes": {"b": 2}}} and pretext.learned(learns, tree) is tree
    assert pretext.learned({"method": "simclr", "args": {}}, tree) is tree
    c = plain("simclr")
    assert set(pretext.unprobed(c, "simclr")["simclr"]["optim"]) == {"model"} == set(c["simclr"]["optim"]) - {"probe"}
