"""Sources, vocabulary and batches of a run: which words count, what is written, what each split gives."""

import copy
import dataclasses
import json
import os

import numpy as np
import pytest
from PIL import Image

from data.layouts import coco_layout
from supcon_jax import config as configs
from supcon_jax.build import datasets, stage
from supcon_jax.build.datasets import open_data
from supcon_jax.config import UserError
from supcon_jax.data.source import BadRecord
from supcon_jax.data.synthetic import shapes
from supcon_jax.data.vocab import Vocab, tokenise

PLAIN = configs.plain(configs.override(
    configs.load("configs/shapes.py:tiny"), {"data.args.records": "20", "data.size": "24", "data.threads": "0"}
))  # fmt: skip


def config(**data):
    changed = copy.deepcopy(PLAIN)
    changed["data"].update(data)
    return changed


def words(source):
    return {word for record in source.captions for caption in record for word in tokenise(caption)}


def test_the_vocabulary_holds_the_words_of_both_splits():
    data = open_data(config(args=PLAIN["data"]["args"] | {"records": 2}), None)
    assert words(data.test) - words(data.train)  # else this could not fail
    assert set(data.vocab.words) == {"<end>"} | words(data.test) | words(data.train)
    assert data.classes == 64


def test_the_vocabulary_is_written_once_and_other_captions_are_refused(tmp_path):
    made = open_data(PLAIN, tmp_path / "w").vocab
    path = tmp_path / "w" / "vocab.json"
    before = path.stat().st_mtime_ns
    assert open_data(PLAIN, tmp_path / "w").vocab.words == made.words == tuple(json.loads(path.read_text()))
    assert path.stat().st_mtime_ns == before
    other = config(args=PLAIN["data"]["args"] | {"seed": 1, "records": 2})
    with pytest.raises(UserError, match=r"vocab\.json was made from other captions .* use another --workdir"):
        open_data(other, tmp_path / "w")


def test_a_pretrained_vocabulary_goes_before_the_captions(tmp_path):
    own = open_data(PLAIN, None)
    given = Vocab(("<end>", "zebra", *sorted(own.vocab.words[1:])))
    data = open_data(PLAIN, tmp_path, given)
    assert data.vocab is given and Vocab.load(tmp_path / "vocab.json").words == given.words
    mine, theirs = own.evaluation("test", 10, 24)[0]["text"], data.evaluation("test", 10, 24)[0]["text"]
    assert (mine != theirs).any() and list(map(own.vocab.decode, mine[:, 0])) == list(map(given.decode, theirs[:, 0]))


def test_a_pretrained_vocabulary_of_other_words_is_refused(tmp_path):
    with pytest.raises(UserError, match="records of split test are unusable"):
        open_data(PLAIN, tmp_path, Vocab(("<end>", "zebra"))).evaluation("test", 10, 24)
    assert "no caption with a known word" in (tmp_path / "skipped.jsonl").read_text()


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    open_data(PLAIN, None).evaluation("test", 8, 24)
    assert not list(tmp_path.iterdir())


def test_vocab_json_is_replaced_whole(tmp_path):
    """A second name of the old file still holds the old words: nobody ever reads half a file."""
    path, kept = tmp_path / "vocab.json", tmp_path / "kept.json"
    Vocab(("<end>", "red")).save(path)
    os.link(path, kept)
    Vocab(("<end>", "blue", "green")).save(path)
    assert Vocab.load(kept).words == ("<end>", "red") and Vocab.load(path).words == ("<end>", "blue", "green")
    assert {item.name for item in tmp_path.iterdir()} == {"vocab.json", "kept.json"}


def test_evaluation_gives_one_branch_in_order_and_stops_at_the_limit():
    data = open_data(PLAIN, None)
    whole = data.evaluation("test", 8, 24)
    assert [item["index"].shape for item in whole] == [(8, 1)] * 3
    assert np.concatenate([item["index"][:, 0] for item in whole]).tolist() == [*range(20), *[-1] * 4]
    for limit, number in ((1, 1), (8, 1), (9, 2), (24, 3), (1000, 3), (None, 3), (0, 3)):
        assert len(data.evaluation("test", 8, 24, limit)) == number
    assert not np.array_equal(data.evaluation("train", 8, 24)[0]["image"], whole[0]["image"])


def test_training_gives_both_branches_and_goes_on_from_a_batch():
    data = open_data(PLAIN, None)
    stream = data.training(4, 24)
    first, second = next(stream), next(stream)
    assert first["image"].shape == (4, 2, 24, 24, 3)
    np.testing.assert_array_equal(first["label"][:, 0], first["label"][:, 1])  # the partner's is the same
    later = next(data.training(4, 24, start=1))
    for name in second:
        np.testing.assert_array_equal(later[name], second[name])
    assert next(open_data(config(partner="none"), None).training(4, 24))["image"].shape[1] == 1


def test_only_the_training_split_is_shuffled_for_the_twin():
    true, twin = open_data(PLAIN, None), open_data(config(shuffle_pairs=True), None)
    assert twin.train.captions != true.train.captions and (twin.train.labels != true.train.labels).any()
    assert list(twin.test.captions) == list(true.test.captions)
    np.testing.assert_array_equal(twin.test.labels, true.test.labels)
    assert sorted(map(tuple, twin.train.captions)) == sorted(map(tuple, true.train.captions))


def test_unusable_records_are_listed_in_the_folder_up_to_the_limit(tmp_path):
    def image(record):
        if record in (3, 5):
            raise BadRecord("cut off")
        return np.zeros((24, 24, 3), np.uint8)

    def evaluated(limit, folder):
        data = open_data(config(bad_limit=limit), folder)
        broken = dataclasses.replace(data, test=dataclasses.replace(data.test, image=image))
        return broken.evaluation("test", 10, 24)

    assert len(evaluated(0.1, tmp_path / "a")) == 2
    listed = [json.loads(line) for line in (tmp_path / "a" / "skipped.jsonl").read_text().splitlines()]
    assert [(line["key"], line["reason"]) for line in listed] == [("test-000003", "cut off"), ("test-000005", "cut off")]
    with pytest.raises(UserError, match=r"2 of 20 records of split test are unusable.*raise data\.bad_limit"):
        evaluated(0.05, tmp_path / "b")


@pytest.mark.parametrize(
    "changes,said",
    [({"name": "mnist"}, "config.data.name 'mnist' is not known; use one of: blank, coco, cub, digits, .*, shapes, tfds"),
     ({"args": {"colour": 1}}, "config.data.args.colour is not an argument of shapes; it takes: .*records"),
     ({"args": {"labels": "both"}}, "labels='both'.*use one of shape, single, placed")],
)  # fmt: skip
def test_wrong_names_and_arguments_of_a_data_set(changes, said):
    with pytest.raises(UserError, match=said):
        open_data(config(**changes), None)


def test_splits_with_other_classes(tmp_path):
    """Two folders of one layout whose labels are not the same: a class would be counted under another's number."""
    plain = config(name="coco", args={}, root=str(coco_layout(tmp_path / "coco")))
    path = tmp_path / "coco" / "annotations" / "instances_val2014.json"
    path.write_text(path.read_text().replace('"toothbrush"', '"hair drier"'))
    with pytest.raises(UserError, match="train and test have other classes"):
        open_data(plain, None)


@pytest.mark.parametrize("how", [{"label_noise": 0.5}, {"label_missing": 0.5}, {"labels_from": "clusters", "clusters": 4}])
def test_only_training_is_told_other_labels(how):
    clean, told = open_data(config(partner="none"), None), open_data(config(partner="none", **how), None)
    a, b = ({name: next(data.training(20, 24))[name][:, 0] for name in ("index", "label")} for data in (clean, told))
    np.testing.assert_array_equal(a["index"], b["index"])
    assert (a["label"] != b["label"]).sum() == 10 if "clusters" not in how else told.classes == 4 and b["label"].max() == 3
    for split in ("train", "test"):  # what is measured
        a, b = (data.evaluation(split, 10, 24)[0]["label"] for data in (clean, told))
        np.testing.assert_array_equal(a, b)


def test_pictures_without_their_captions(tmp_path):
    whole, bare = open_data(PLAIN, None), open_data(config(text=False), tmp_path, Vocab(("<end>", "zebra")))
    assert bare.vocab is None and datasets.plain_words(bare.vocab) is None and not list(tmp_path.iterdir())
    assert bare.train.captions is bare.test.captions is bare.taught.captions is None
    a, b = next(whole.training(4, 24)), next(bare.training(4, 24))
    assert set(a) - set(b) == {"text", "text_len"}
    for name in b:
        np.testing.assert_array_equal(a[name], b[name])
    (batch, _) = bare.evaluation("test", 10, 24)
    assert set(batch) == {"image", "label", "index", "valid"}
    named = open_data(config(text=False, labels_from="clusters", clusters=4), None)  # what was said may still make labels
    assert named.taught.captions is None and named.classes == 4


def test_a_set_without_captions(tmp_path):
    """image_folder by its name; labels from captions cannot be."""
    for split in ("train", "test"):
        for label, name in enumerate("ab"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (20 + 9 * label, 24), (90 * label, 0, 0)).save(tmp_path / split / name / "0.png")
    one = {"name": "image_folder", "root": str(tmp_path), "args": {}, "crop": "centre", "partner": "none"}
    data = open_data(config(**one), tmp_path / "w")
    batch = next(data.training(2, 16))
    assert data.vocab is None and data.classes == 2 and not (tmp_path / "w").exists()
    assert batch["image"].shape == (2, 1, 16, 16, 3)
    np.testing.assert_array_equal(batch["image"][:, 0, 0, 0, 0], 90 * batch["label"][:, 0])
    with pytest.raises(UserError, match="config.data.labels_from='clusters' reads captions, and image_folder has none"):
        open_data(config(**one, labels_from="clusters", clusters=2), None)


def test_few_labels():
    """The config's keys reach data/labels.py, and training sees what they say."""
    args = PLAIN["data"]["args"] | {"labels": "shape", "records": 60}
    clean, few = open_data(config(args=args), None), open_data(config(args=args, label_share=0.2, partner="none"), None)
    kept = few.taught.labels >= 0
    assert len(np.unique(clean.train.labels)) <= kept.sum() < 20 and (few.train.labels == clean.train.labels).all()
    only = open_data(config(args=args, label_share=0.2, partner="none", only_labelled=True), None)
    assert len(only.taught) == kept.sum() and len(only.train) == 60
    assert (next(only.training(32, 24))["label"] >= 0).all() and (next(few.training(32, 24))["label"] < 0).any()
    told = dict(label_noise=1.0, label_noise_kind="asymmetric", label_map=["circle->ring"])
    swapped = open_data(config(args=args, **told), None).taught.labels
    np.testing.assert_array_equal(swapped != clean.train.labels, clean.train.labels == 0)
    assert (swapped[clean.train.labels == 0] == 5).all()


def probed(**probe):
    return config(partner="none", probe={"name": "", "root": "", "train": "train", "test": "test", "args": {}, **probe})


def test_what_evaluations_and_a_refresh_see_is_the_middle_and_training_sees_all():
    args = {"size": 24, "records": 12, "labels": "shape", "seed": 9}
    given = probed(name="shapes", train="val", args=args)
    whole, cut = (open_data({**given, "data": {**given["data"], "middle": share}}, None) for share in (1.0, 0.75))
    for split in ("train", "test"):
        for a, b in zip(whole.evaluation(split, 8, 24), cut.evaluation(split, 8, 24), strict=True):
            np.testing.assert_array_equal(b["image"], a["image"][:, :, 3:21, 3:21])
    assert next(cut.probe.stream("test", 8, 24))["image"].shape == (8, 1, 18, 18, 3)
    np.testing.assert_array_equal(next(cut.in_order(8, 24))["image"], next(whole.in_order(8, 24))["image"][:, :, 3:21, 3:21])
    batch = next(cut.training(8, 24))
    assert batch["image"].shape[2:] == batch["probe_image"].shape[2:] == (24, 24, 3)
    np.testing.assert_array_equal(batch["image"], next(whole.training(8, 24))["image"])


def test_a_probe_reads_a_set_of_its_own(tmp_path):
    args = {"size": 24, "records": 12, "labels": "shape", "seed": 9}
    data = open_data(probed(name="shapes", train="val", args=args), tmp_path)
    other = shapes("val", **args)
    stream, alone = data.training(4, 24), open_data(probed(), None)
    assert alone.probe is None and "probe_image" not in next(alone.training(4, 24))
    first = [next(stream) for _ in range(3)]
    for batch, own in zip(first, alone.training(4, 24)):
        assert batch["probe_image"].shape == (4, 1, 24, 24, 3) and batch["probe_label"].shape == (4, 1)
        for name in own:
            np.testing.assert_array_equal(batch[name], own[name])
    seen = {x.tobytes(): int(label) for batch in first for x, label in zip(batch["probe_image"], batch["probe_label"][:, 0])}
    assert seen == {other.image(i).tobytes(): int(other.labels[i]) for i in range(12)}  # an epoch of its own
    assert data.probe.classes == 8 and data.probe.vocab is None
    (held,) = data.probe.evaluation("test", 12, 24)
    np.testing.assert_array_equal(held["label"][:, 0], shapes("test", **args).labels)
    kept = data.training(4, 24)
    next(kept)
    saved = json.loads(json.dumps(kept.state()))
    again = data.training(4, 24)
    again.restore(saved)
    for _ in range(2):
        a, b = next(kept), next(again)
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
    without = next(data.training(4, 24, probed=False))  # as stages do that train no probe
    assert without.keys() == next(alone.training(4, 24)).keys()
    later = next(data.training(4, 24, start=2))
    np.testing.assert_array_equal(later["probe_image"], first[2]["probe_image"])
    with pytest.raises(UserError, match="has none in data.probe"):
        data.training(4, 24).restore({key: value for key, value in saved.items() if key != "probe"})
    kept.close()


@pytest.mark.parametrize(
    "probe,said",
    [({"name": "mnist"}, "config.data.probe.name 'mnist' is not known"),
     ({"name": "shapes", "args": {"colour": 1}}, "config.data.probe.args.colour is not an argument of shapes"),
     ({"name": "shapes", "args": {"records": 8, "labels": "multi"}}, "probe.name='shapes': a set with one label for each")],
)  # fmt: skip
def test_wrong_sets_of_a_probe(probe, said):
    with pytest.raises(UserError, match=said):
        open_data(probed(**probe), None)


def test_a_classifier_is_told_the_labels_of_the_set(tmp_path):
    plain = configs.plain(configs.override(configs.load("configs/shapes.py:classifier,tiny"), {
        "data.args.records": "20", "data.size": "24", "data.labels_from": "clusters", "data.clusters": "4"}))  # fmt: skip
    with pytest.raises(UserError, match="labels_from=clusters: classifier learns the set's own classes; use set"):
        stage.build(plain, "classifier", tmp_path, evaluate=False)
