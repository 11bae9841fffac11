"""data/coco.py, coco_captions.py and coco_layout.py on a generated folder with the published layout, file by file."""

import json
import re
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from data.layouts import coco_layout, zipped
from supcon_jax.config import UserError
from supcon_jax.data import coco as module
from supcon_jax.data import fetch
from supcon_jax.data.coco import coco
from supcon_jax.data.partners import Partners


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return coco_layout(tmp_path_factory.mktemp("scenes"))


@pytest.fixture
def own(made, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(made, tmp_path / "coco")


def edit(root, name, change):
    path = root / "annotations" / f"{name}2014.json"
    table = json.loads(path.read_text())
    change(table)
    path.write_text(json.dumps(table))
    return path


def test_records_labels_and_captions(made):
    train, test = coco("train", made), coco("test", made)
    assert (len(train), len(test)) == (12, 8) and not set(train.keys) & set(test.keys)
    assert train.classes == test.classes == ("person", "car", "dog", "toothbrush")  # in the order of their ids
    assert train.labels.dtype == np.uint8 and train.labels.shape == (12, 4)
    for row, said, name in zip(train.labels, train.captions, train.keys, strict=True):
        words = [c for c, shown in zip(train.classes, row, strict=True) if shown]
        assert sorted(said[0].split(" of ")[1].split(",")[0].split(" and ")) == sorted(words or ["nothing"])
        assert [text.rsplit(" ", 1)[1] for text in said] == ["0.", "1.", "2.", "3.", "4."]  # of six, by id, no new lines
        assert re.fullmatch(r"COCO_train2014_\d{12}\.jpg", name)
    assert list(train.keys) == sorted(train.keys)
    assert not train.labels[0].any() and train.labels[2].sum() == 1
    assert len(coco("train", made, captions=6).captions[1]) == 6


def test_a_crowd_may_count(made):
    with_crowds, without = coco("train", made).labels, coco("train", made, crowd=False).labels
    assert with_crowds[1].tolist() == [1, 0, 0, 0] and not without[1].any()
    np.testing.assert_array_equal(np.delete(with_crowds, 1, 0), np.delete(without, 1, 0))


def test_pictures_and_partners(made):
    train = coco("train", made)
    with Image.open(made / "images" / "train2014" / train.keys[3]) as picture:
        np.testing.assert_array_equal(train.image(3), np.asarray(picture))
    partners = Partners(train.labels)(np.zeros(9, int), np.arange(9, dtype=np.uint64), np.arange(9, dtype=np.uint64))
    assert not partners.any()  # a picture without objects is its own partner


@pytest.mark.parametrize("place", ["{part}2014", "images/{part}2014/jpg", "images"])
def test_places_of_the_pictures(made, tmp_path, place):
    root = coco_layout(tmp_path / "coco", place=place)
    for split in ("train", "test"):
        assert coco(split, tmp_path).keys == coco(split, made).keys  # the folder above will do
        np.testing.assert_array_equal(coco(split, root).image(1), coco(split, made).image(1))


def test_karpathy(made, own):
    assert coco("karpathy_train", made).keys == coco("train", made).keys
    parts = [coco(f"karpathy_{name}", made) for name in ("restval", "val", "test")]
    assert sorted(key for part in parts for key in part.keys) == list(coco("test", made).keys)
    assert [len(part) for part in parts] == [3, 3, 2]
    whole = coco("test", made)
    for i, key in enumerate(parts[1].keys):
        at = whole.keys.index(key)
        assert parts[1].captions[i] == whole.captions[at]
        np.testing.assert_array_equal(parts[1].labels[i], whole.labels[at])
        np.testing.assert_array_equal(parts[1].image(i), whole.image(at))
    (own / "dataset_coco.json").write_text("[]")
    with pytest.raises(UserError, match="dataset_coco.json is not Karpathy's list"):
        coco("karpathy_val", own)
    (own / "dataset_coco.json").unlink()
    assert len(coco("test", own)) == 8
    with pytest.raises(UserError, match="no picture of Karpathy's split 'val': put dataset_coco.json"):
        coco("karpathy_val", own)


def test_what_is_missing_is_named(own, tmp_path):
    with pytest.raises(UserError, match="neither annotations/ nor coco_captions_multilabel"):
        coco("train", tmp_path / "no")
    with pytest.raises(UserError, match="no split 'val'"):
        coco("val", own)
    (own / "images" / "val2014" / coco("test", own).keys[4]).unlink()
    with pytest.raises(UserError, match=r"COCO_val2014_\d+.jpg is missing \(1 pictures"):
        coco("test", own)
    shutil.rmtree(own / "images" / "train2014")
    with pytest.raises(UserError, match=r"lies in none of images/train2014, train2014.*fetch coco"):
        coco("train", own)
    (own / "annotations" / "instances_train2014.json").unlink()
    with pytest.raises(UserError, match="instances_train2014.json is missing"):
        coco("train", own)


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("instances_train", lambda t: t["annotations"][0].update(category_id=2), "shows category 2, which has no name"),
        ("instances_train", lambda t: t["annotations"][0].update(image_id=5), "speaks of picture 5"),
        ("captions_train", lambda t: t["annotations"][0].update(image_id=5), "speaks of picture 5"),
        ("captions_train", lambda t: t["images"].pop(), "list other pictures"),
        ("captions_train", lambda t: t["images"].append(t["images"][0]), "one id twice"),
        ("captions_train", lambda t: t.pop("annotations"), "is not COCO's JSON (KeyError"),
        ("instances_train", lambda t: t["annotations"][0].pop("iscrowd"), "is not COCO's JSON (KeyError"),
        ("instances_train", lambda t: t["annotations"][0].update(category_id="dog"), "is not COCO's JSON (ValueError"),
    ],
)
def test_wrong_tables(own, name, change, message):
    path = edit(own, name, change)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        coco("train", own)
    assert path.name in str(caught.value) and "\n" not in str(caught.value)
    path.write_text("{")
    with pytest.raises(UserError, match="is not COCO's JSON"):
        coco("train", own)


def test_empty_captions_are_left_out(own):
    edit(own, "captions_train", lambda t: [row.update(caption=" \n") for row in t["annotations"] if row["image_id"] == 7])
    assert coco("train", own).captions[0] == () and len(coco("train", own).captions[1]) == 5


def test_prepared_set_reads_as_the_folder(made, tmp_path, capsys):
    pytest.importorskip("tensorflow_datasets")
    from supcon_jax.data import coco_captions

    assert coco_captions.main(["--root", str(made), "--out", str(tmp_path)]) == 0
    assert "train: 12 records" in capsys.readouterr().out
    for split in module.SPLITS:
        for crowd in (True, False):
            raw, read = coco(split, made, crowd=crowd), coco(split, tmp_path, crowd=crowd)
            assert list(raw.keys) == list(read.keys) and raw.classes == read.classes
            assert [tuple(c) for c in raw.captions] == [tuple(c) for c in read.captions]
            np.testing.assert_array_equal(raw.labels, read.labels)
        for record in range(len(raw)):
            np.testing.assert_array_equal(raw.image(record), read.image(record))
    assert not any(name.startswith("tensorflow.") for name in sys.modules)
    assert coco_captions.main(["--root", str(tmp_path / "no"), "--out", str(tmp_path)]) == 2


def test_archives_as_published(made, tmp_path, capsys):
    down = tmp_path / "down"
    down.mkdir()
    for part in ("train", "val"):
        files = {f"{part}2014/{p.name}": p.read_bytes() for p in (made / "images" / f"{part}2014").iterdir()}
        zipped(down / f"{part}2014.zip", files)
    tables = {f"annotations/{p.name}": p.read_bytes() for p in (made / "annotations").iterdir()}
    zipped(down / "annotations_trainval2014.zip", tables)
    command = ["coco", "--from", str(down), "--root", str(tmp_path / "data")]
    assert fetch.main([*command, "--small"]) == 0
    out = capsys.readouterr().out
    assert "[laid out] pictures: 20 new, 0 already there" in out and "[absent]   dataset_coco.json" in out
    assert "[ok]       train: 12 pictures, 4 categories; 1 show no object" in out
    assert coco("test", tmp_path / "data").captions == coco("test", made).captions
    assert fetch.main(command) == 2
    out, error = capsys.readouterr()
    assert "pictures: 0 new, 20 already there" in out and "train 12 instead of 82783" in error
    (tmp_path / "data" / "coco" / "annotations" / "captions_val2014.json").unlink()
    assert fetch.main(["coco", "--root", str(tmp_path / "data"), "--small"]) == 2
    out, error = capsys.readouterr()
    assert "[MISSING]  annotations/captions_val2014.json" in out and "is in annotations_trainval2014.zip" in error
