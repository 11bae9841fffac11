"""A stage's parts: what its result depends on, its nets, its towers, its labels, and the files of its end."""

import json
import types

import jax
import numpy as np
import pytest

from build.test_networks import foreign
from supcon_jax import config as configs
from supcon_jax.build import stage, trunks, weights
from supcon_jax.build.names import GENERATORS
from supcon_jax.config import UserError
from supcon_jax.convert import tensors
from supcon_jax.core import State, Task
from supcon_jax.data.vocab import Vocab
from supcon_jax.methods import REFRESHED
from supcon_jax.nets.inception import Inception

TINY = "configs/shapes.py:tiny"


def plain(*settings, path=TINY):
    pairs = dict(setting.split("=", 1) for setting in settings)
    return configs.plain(configs.override(configs.load(path), pairs))


def moved(setting):
    """The stages whose results depend on a setting."""
    before, after = plain(), plain(setting)
    return [name for name in before["stages"] if stage.depends(before, name) != stage.depends(after, name)]


@pytest.mark.parametrize(
    "setting",
    ["data.threads=0", "data.root=/elsewhere", "data.test=val", "data.probe.root=/elsewhere", "data.probe.test=val",
     "data.bad_limit=0.5", "data.middle=0.5", "every.save=1", "every.sample=0",
     "keep.best=0", "eval_batch=4", "evals.matching.fakes=32", "mesh.data=1", "mesh.params=fsdp", "mesh.params_mib=1.5",
     "skip_limit=3", "cache=/elsewhere", "networks.fid_inception=/elsewhere/a.pth"],
)  # fmt: skip
def test_what_a_result_does_not_depend_on(setting):
    assert moved(setting) == []


@pytest.mark.parametrize(
    "setting",
    ["seed=1", "precision=bf16", "views.flip=True", "data.words=5", "data.size=64", "data.crop=resize", "data.train=val",
     "data.partner=same_image", "data.shuffle_pairs=True", "data.text=False", "data.label_share=0.1", "data.only_labelled=True",
     "data.label_map=('a->b',)", "data.probe.name=emoji", "data.args.seed=3", "data.name=cub"],
)  # fmt: skip
def test_what_every_result_depends_on(setting):
    assert moved(setting) == ["damsm", "attngan"]


def test_a_refresh_depends_on_what_evaluations_see():
    """PCL clusters codes of evaluation's view; all others learn the same whatever that is."""
    for method in ("simclr", "pcl"):
        path = f"configs/image.py:{method},tiny"
        whole, cut = (stage.depends(plain(f"data.middle={share}", path=path), method) for share in ("1", "0.5"))
        assert "middle" not in whole["data"]  # as before there was one
        assert (whole != cut) == (method in REFRESHED) == (method == "pcl")


@pytest.mark.parametrize("setting", ["damsm.batch=4", "damsm.nets.image.dim=8", "damsm.optim.model.lr=1e-4", "damsm.steps=9"])
def test_a_later_stage_depends_on_the_one_before(setting):
    assert moved(setting) == ["damsm", "attngan"]


@pytest.mark.parametrize("setting", ["attngan.batch=4", "attngan.nets.gen.width=8", "attngan.frozen.damsm=/a.safetensors"])
def test_an_earlier_stage_does_not_depend_on_the_one_behind(setting):
    assert moved(setting) == ["attngan"]


def test_encoders_from_a_file_cut_the_tie_to_the_stage_before():
    cut = "attngan.frozen.damsm=/a.safetensors"
    assert "before" not in stage.depends(plain(cut), "attngan")
    assert stage.depends(plain(cut), "attngan") == stage.depends(plain(cut, "damsm.steps=9"), "attngan")
    assert stage.depends(plain(), "attngan")["before"] == {"damsm": stage.depends(plain(), "damsm")}


def finished(config, folder):
    """A folder as a finished stage leaves it."""
    folder.mkdir(parents=True)
    now = stage.depends(config, "damsm")
    (folder / "config.json").write_text(json.dumps(now))
    (folder / "DONE").write_text(json.dumps({"config": configs.digest(now), "steps": 2, "numbers": {}}))


def test_done_says_what_stands_there_or_what_differs(tmp_path):
    assert stage.done(plain(), "damsm", tmp_path) is None
    finished(plain(), tmp_path / "damsm")
    assert stage.done(plain("data.threads=0", "attngan.args.z=3"), "damsm", tmp_path)["steps"] == 2
    with pytest.raises(UserError) as caught:
        stage.done(plain("seed=1", "damsm.args.scl=0"), "damsm", tmp_path)
    said = "is finished with another config (damsm.args.scl: 1.0 -> 0.0; seed: 0 -> 1); use another --workdir"
    assert str(caught.value) == f"{tmp_path / 'damsm'} {said}"
    (tmp_path / "damsm" / "DONE").rename(tmp_path / "damsm" / "DONE.part")
    assert stage.done(plain("seed=1"), "damsm", tmp_path) is None


def data(labels, words=("<end>", "red", "ring")):
    return types.SimpleNamespace(taught=types.SimpleNamespace(labels=labels), vocab=Vocab(words))


SINGLE, SEVERAL = np.arange(4), np.eye(4, dtype=np.uint8)


@pytest.mark.parametrize(
    "mode,labels,use",
    [("single", SEVERAL, "any, all, jaccard, idf or mulsupcon"), ("any", SINGLE, "single"), ("mulsupcon", SINGLE, "single")],
)
def test_a_label_mode_that_the_labels_do_not_fit(mode, labels, use):
    with pytest.raises(UserError, match=rf"^config\.damsm\.args\.label_mode='{mode}', but .* each; use {use}$"):
        stage.check_labels({"label_mode": mode, "scl": 0.5}, data(labels), "damsm")


@pytest.mark.parametrize(
    "term,labels,said", [("label_head", None, "records have none"), ("unicl", SEVERAL, "several labels each")]
)
def test_a_term_that_the_labels_do_not_fit(term, labels, said):
    args = {"label_mode": "single", "scl": 0.5, "term": term}
    with pytest.raises(UserError, match=rf"^config\.damsm\.args\..*{said}"):
        stage.check_labels(args, data(labels), "damsm")
    stage.check_labels(args | {"scl": 0.0}, data(labels), "damsm")


@pytest.mark.parametrize(
    "args,labels",
    [*(({"label_mode": "single", "scl": 1.0, "term": x}, SEVERAL) for x in ("xmc", "ntxent", "label_head")),
     ({"label_mode": "single", "scl": 1.0}, SINGLE),
     ({"label_mode": "jaccard", "scl": 1.0}, SEVERAL),
     ({"label_mode": "any", "scl": 0.0}, SINGLE), ({"label_mode": "any", "scl": 1.0}, None), ({"flip": False}, SEVERAL)],
)  # fmt: skip
def test_labels_that_fit_or_are_not_read(args, labels):
    stage.check_labels(args, data(labels), "damsm")


@pytest.mark.parametrize("mode,labels,said", [("any", SINGLE, "one label each; use single"),
                                              ("single", SEVERAL, "several labels each; use any, all, jaccard"),
                                              ("any", None, "no labels; use single")])  # fmt: skip
def test_supervised_contrast_reads_labels_of_its_mode(mode, labels, said):
    with pytest.raises(UserError, match=rf"^config\.supcon\.args\.label_mode='{mode}', but the records have {said}"):
        stage.check_labels({"label_mode": mode}, data(labels), "supcon", "supcon")
    for fits, those in (("single", SINGLE), ("any", SEVERAL), ("single", None)):
        stage.check_labels({"label_mode": fits}, data(those), "supcon", "supcon")


def test_a_classifier_of_one_label_is_refused_several():
    with pytest.raises(UserError, match=r"^config\.linear learns one label of each picture, but the records have several"):
        stage.check_labels({}, data(SEVERAL), "linear", "finetune")
    stage.check_labels({}, data(SINGLE), "linear", "finetune")


def test_a_stage_that_reads_captions_is_refused_data_without(tmp_path):
    config = plain("data.args.records=20", "data.text=False")
    with pytest.raises(UserError, match=r"damsm reads captions, and the data have none: .*config.data.text=True"):
        stage.build(config, "damsm", tmp_path, evaluate=False)


def test_a_stage_of_pictures_alone_leaves_weights_without_a_vocabulary(tmp_path):
    config = plain("data.args.records=20", "data.text=False", path="configs/shapes.py:classifier,tiny")
    built = stage.build(config, "classifier", tmp_path, evaluate=True)
    assert "text" not in next(built.run.data()) and built.run.evals
    arrays = {"model": {"a": np.zeros(2, np.float32)}}
    counts = {"step": np.int32(2), "skipped": np.int32([0, 0]), "key": jax.random.key(0)}
    full = State(**counts, params=arrays, opt={}, stats=arrays, memory={})
    stage.write_done(
        full, {}, config=config, name="classifier", folder=tmp_path / "classifier", data=built.data, towers={}, about={}
    )
    assert weights.load(tmp_path / "classifier" / "weights.safetensors")[1]["vocab"] is None


def test_slices_decide_what_the_devices_share():
    section = {"batch": 48, "args": {"slices": 4}}
    assert stage.slice_of(section, "damsm") == 12 and stage.slice_of({"batch": 48, "args": {}}, "damsm") == 48
    with pytest.raises(UserError, match=r"^config\.damsm\.args\.slices=5 does not divide config\.damsm\.batch=48; use 4 or 6$"):
        stage.slice_of(section | {"args": {"slices": 5}}, "damsm")
    assert moved("damsm.args.slices=2") == ["damsm", "attngan"]  # BatchNorm sees other pictures together


def test_nets_follow_the_vocabulary_the_sizes_and_the_encoders_file():
    config = plain("precision=bf16", "attngan.nets.gen.sizes=(16,32)")
    assert stage.build_nets(config, "damsm", data(SINGLE), {})["text"].vocab == 3
    about = {"damsm": {"nets": plain("damsm.nets.image.dim=24")["damsm"]["nets"]}}
    nets = stage.build_nets(config, "attngan", data(SINGLE), about)
    assert set(nets) == {"image", "text", "gen", "disc"} and [net.size for net in nets["disc"]] == [16, 32]
    assert nets["image"].dim == 24 and nets["text"].vocab == 3  # as the file says, not this config
    assert {net.dtype.__name__ for net in (nets["image"], nets["gen"], *nets["disc"])} == {"bfloat16"}


TRUNK = "configs/cub.py:damsm,tiny"


def test_a_missing_trunk_is_told_in_one_line(tmp_path):
    for place, said in (("", "FILE, or train"), ("/nowhere/a.pth", "FILE (/nowhere/a.pth is missing), or train")):
        config = plain("damsm.nets.image.frozen=True", f"damsm.frozen.trunk={place}", path=TRUNK)
        with pytest.raises(UserError) as caught:
            stage.load_frozen(config, "damsm", tmp_path)
        line = str(caught.value)
        assert line.startswith("damsm.nets.image.frozen=True needs torchvision's inception_v3_google weights")
        assert f"--config.damsm.frozen.trunk={said} the trunk with --config.damsm.nets.image.frozen=False" in line
        assert "\n" not in line
    assert stage.load_frozen(plain("damsm.nets.image.frozen=False", path=TRUNK), "damsm", tmp_path) == ({}, {}, {})
    trained = plain("damsm.nets.image.frozen=False", "damsm.frozen.trunk=/nowhere/a.pth", path=TRUNK)
    with pytest.raises(UserError, match=r"^--config\.damsm\.frozen\.trunk=/nowhere/a.pth: no such file; give torchvision's"):
        stage.load_frozen(trained, "damsm", tmp_path)


def test_a_trunk_with_other_keys_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", **{"conv1.weight": np.ones((64, 3, 7, 7), np.float32)})
    config = plain("damsm.nets.image.frozen=True", f"damsm.frozen.trunk={tmp_path / 'other.npz'}", path=TRUNK)
    with pytest.raises(UserError, match="conv1.weight|Conv2d_1a_3x3|missing"):
        stage.load_frozen(config, "damsm", tmp_path)


def test_encoders_come_from_the_stage_or_a_file_with_their_digest(tmp_path):
    tree = {"params": {"text": {"a": np.ones(2, np.float32)}}}
    for place in (tmp_path / "w" / "damsm" / "weights.safetensors", tmp_path / "other.safetensors"):
        weights.save(place, tree, {"kind": "damsm", "vocab": ["<end>"], "place": str(place)})
    for setting, place in (("stage:damsm", tmp_path / "w" / "damsm" / "weights.safetensors"),
                           (str(tmp_path / "other.safetensors"), tmp_path / "other.safetensors")):  # fmt: skip
        trees, about, hashes = stage.load_frozen(plain(f"attngan.frozen.damsm={setting}"), "attngan", tmp_path / "w")
        assert about["damsm"]["place"] == str(place) and hashes == {"damsm": tensors.sha256(place)}
        assert isinstance(trees["damsm"]["params"]["text"]["a"], jax.Array)
    weights.save(tmp_path / "judge.safetensors", tree, {"kind": "classifier"})
    with pytest.raises(UserError, match="holds 'classifier', not 'damsm'"):
        stage.load_frozen(plain(f"attngan.frozen.damsm={tmp_path / 'judge.safetensors'}"), "attngan", tmp_path)
    with pytest.raises(UserError, match=r"attngan needs pretrained encoders: .*--config\.attngan\.frozen\.damsm=FILE"):
        stage.load_frozen(plain("attngan.frozen.damsm="), "attngan", tmp_path)


def test_an_encoder_that_nobody_gives_is_drawn_where_it_has_a_net_and_learns(tmp_path):
    config = plain(path="configs/image.py:supervised,tiny")
    assert stage.load_frozen(config, "supervised", tmp_path) == ({}, {}, {})
    fixed = plain("supervised.args.freeze=True", path="configs/image.py:supervised,tiny")
    with pytest.raises(UserError, match="supervised needs a trained encoder"):
        stage.load_frozen(fixed, "supervised", tmp_path)
    with pytest.raises(UserError, match="finetune needs a trained encoder"):
        stage.load_frozen(plain("finetune.frozen.encoder=", path="configs/image.py:finetune,tiny"), "finetune", tmp_path)
    made = stage.build(config, "supervised", tmp_path, evaluate=False)
    batch = next(made.data.training(16, 32))
    drawn = jax.eval_shape(made.task.init, jax.random.key(0), batch)["params"]["model"]
    assert {*drawn} == {"image", "classes"} and drawn["classes"]["kernel"].shape == (16, 64)


def test_a_trained_encoder_takes_the_place_of_the_one_that_would_be_drawn():
    config = plain("supervised.frozen.encoder=/a.safetensors", path="configs/image.py:supervised,tiny")
    wide = {"net": "conv_trunk", "width": 7, "depth": 1, "norm": "batch", "groups": 1}
    towers = {"encoder": {"nets": {"image": wide}}}
    nets = stage.build_nets(config, "supervised", types.SimpleNamespace(vocab=None, classes=64), towers)
    assert (nets["image"].width, nets["image"].depth) == (7, 1)
    assert stage.told_nets(config["supervised"], towers)["image"] == wide


def test_a_stage_may_be_told_fewer_labels_than_the_others(tmp_path):
    path = "configs/image.py:simclr,finetune,tiny"
    few = plain("finetune.data.label_share=0.5", path=path)
    assert stage.told_labels(few, "finetune")["data"]["label_share"] == 0.5
    assert stage.told_labels(few, "simclr") == few
    whole, first, shared = plain(path=path), "simclr", plain("data.label_share=0.5", path=path)
    assert stage.depends(few, first) == stage.depends(whole, first) != stage.depends(shared, first)
    assert stage.depends(few, "finetune") != stage.depends(whole, "finetune")
    assert stage.told_labels(shared, "finetune")["data"]["label_share"] == 0.5
    with pytest.raises(UserError, match="config.finetune.data.label_share=0.0: must be a share above 0 to 1"):
        plain("finetune.data.label_share=0", path=path)
    half = plain("supervised.data.label_share=0.5", path="configs/image.py:supervised,tiny")
    built = stage.build(half, "supervised", tmp_path, evaluate=False)
    assert len(built.data.taught) < len(built.data.train) == 160


def state(value):
    """A GAN's state after 7 steps of which 1 was refused; the averaged generator is twice the live one."""
    array = np.full(2, value, np.float32)
    return State(
        step=np.int32(7), skipped=np.int32([1, 0]), key=jax.random.key(0), params={"gen": {"a": array}, "disc": {"a": -array}},
        opt={}, stats={"gen": {"m": array + 1}, "disc": {}}, memory={"ema": {"a": 2 * array}},
    )  # fmt: skip


def end(folder, config, name="attngan"):
    towers = {"damsm": {"params": {"text": {"e": np.zeros(1, np.float32)}, "image": {}}}}
    about = {"damsm": {"nets": {"text": {"net": "rnn"}, "image": {"net": "inception"}}}}
    stage.write_done(
        state(3.0), {"matching/r1": 0.5}, config=config, name=name, folder=folder, data=data(SINGLE), towers=towers,
        about=about,
    )  # fmt: skip


@pytest.mark.parametrize("name", [name for name in GENERATORS if name != "galip"])  # which keeps a CLIP, see test_clip.py
def test_the_end_of_a_gan_keeps_its_averaged_generator_and_its_text_encoder(tmp_path, name):
    config = plain("data.root=/secret/place", "cache=/secret/cache", "networks.fid_inception=/secret/file")
    end(tmp_path / name, config, name)
    tree, about, sha = weights.load(tmp_path / name / "weights.safetensors", name)
    assert tree["gen"]["params"]["a"].tolist() == [6, 6] and tree["gen"]["stats"]["m"].tolist() == [4, 4]
    assert tree["text"]["e"].tolist() == [0] and set(tree) == {"gen", "text"}
    assert about["vocab"] == ["<end>", "red", "ring"] and set(about["nets"]) == {"gen", "text", "image"}
    assert about["stage"] == name and "/secret" not in json.dumps(about)
    said = stage.done(config, name, tmp_path)
    assert (said["steps"], said["skipped"], said["weights"]) == (7, 1, sha) and said["numbers"] == {"matching/r1": 0.5}
    assert {path.name for path in (tmp_path / name).iterdir()} == {"DONE", "weights.safetensors"}


def test_without_weights_there_is_no_end(tmp_path, monkeypatch):
    def full(*args):
        raise OSError("no space left on device")

    monkeypatch.setattr(weights, "save", full)
    with pytest.raises(OSError, match="no space"):
        end(tmp_path, plain())
    assert not list(tmp_path.iterdir())


def test_a_classifier_starts_from_the_trunk_of_a_file(tmp_path):
    """All of the trunk is the file's, of parameters and averages; the last layer is drawn, and all of it learns."""
    module, rng = Inception(0.0625, small=True, repeats=(1, 1, 1)), np.random.default_rng(0)
    trunk = foreign(tmp_path / "google.safetensors", module, rng)
    settings = (f"classifier.frozen.start={tmp_path / 'google.safetensors'}",)
    config = plain(*settings, path="configs/cub.py:classifier,tiny")
    drawn = {"params": {"model": {"trunk": 1, "label": 2}}, "stats": {"model": {"trunk": 3}}}
    made = trunks.begun(Task(lambda key, batch: drawn, ()), config, "classifier").init(None, None)
    assert made["params"]["model"]["label"] == 2
    for ours, theirs in (("params", "params"), ("stats", "batch_stats")):
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, np.float32(b)), made[ours]["model"]["trunk"], trunk[theirs])
    assert stage.load_frozen(config, "classifier", tmp_path) == ({}, {}, {})
    config["classifier"]["frozen"]["start"] = "/nowhere"
    with pytest.raises(UserError, match=r"^--config\.classifier\.frozen\.start=/nowhere: no such file; give torchvision's"):
        trunks.begun(Task(None, ()), config, "classifier")


def test_rates_are_scaled_by_the_stages_own_batch(monkeypatch):
    config, seen = plain("damsm.batch=4"), {}
    monkeypatch.setattr(stage.optim, "optimiser", lambda options, **sizes: seen.update(sizes))
    monkeypatch.setattr(stage, "call", lambda *args, **options: None)
    stage.make_task(config, "damsm", {}, types.SimpleNamespace(steps=7, epoch=3))
    assert seen == {"steps": 7, "epoch": 3, "batch": 4}


def test_values_that_do_not_go_together_are_told_in_one_line():
    values = {"supcon.args.label_mode": "any", "supcon.args.positives": "1"}
    config = configs.plain(configs.override(configs.load("configs/image.py:supcon"), values))
    with pytest.raises(UserError, match=r"^config\.supcon\.args: label_mode='any': positives and inside are for single labels"):
        stage.make_task(config, "supcon", {}, types.SimpleNamespace(steps=7, epoch=3))
