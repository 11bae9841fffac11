"""data/cub.py and data/cub_captions.py on a generated folder with the published layout, file by file."""

import io
import os
import pickle
import re
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from data.layouts import BIRDS, cub_layout
from supcon_jax.config import UserError
from supcon_jax.data import cub as module
from supcon_jax.data.cub import crop_box, cub
from supcon_jax.data.source import BadRecord


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return cub_layout(tmp_path_factory.mktemp("cub"))


@pytest.fixture
def own(made, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(made, tmp_path / "birds")


def _first(root, split="test"):
    return pickle.loads((root / split / "filenames.pickle").read_bytes())[0]


def test_splits_are_disjoint_and_complete(made):
    train, test = cub("train", made), cub("test", made)
    assert (len(train), len(test)) == (8, 8)
    assert set(train.labels) == {1, 2} and set(test.labels) == {0, 3}
    assert train.classes == test.classes == BIRDS
    assert not set(train.keys) & set(test.keys)
    assert all(train.classes[label] == key.split("/")[0] for label, key in zip(train.labels, train.keys, strict=True))
    assert [len(captions) for captions in test.captions] == [10] * 8
    assert test.captions[0][0] == "this small red bird has a short beak, number 0."


def test_split_without_pickles_is_the_same(made, own):
    for split in ("train", "test"):
        shutil.rmtree(own / split)
    for split in ("train", "test"):
        np.testing.assert_array_equal(cub(split, own).keys, cub(split, made).keys)


def test_built_in_split():
    assert len(module.TEST) == len(set(module.TEST)) == 50
    assert sorted(module.TEST) == list(module.TEST) and module.TEST[0] == 1 and module.TEST[-1] == 197


def test_official_splits(made, own):
    train, test = cub("official_train", made), cub("official_test", made)
    assert set(train.labels) == set(test.labels) == {0, 1, 2, 3}
    assert len(train) == len(test) == 8 and not set(train.keys) & set(test.keys)
    (own / "CUB_200_2011" / "train_test_split.txt").unlink()
    assert len(cub("train", own)) == 8
    with pytest.raises(UserError, match="train_test_split.txt is missing"):
        cub("official_test", own)


def test_root_may_be_the_folder_above(made, own):
    assert own.name == "birds"
    assert cub("train", own.parent).keys == cub("train", made).keys


def test_crop_rule():
    image = np.arange(60 * 80 * 3, dtype=np.uint32).reshape(60, 80, 3)
    x, y, w, h = 30, 20, 21, 16  # r = int(15.75), middle (int(40.5), int(28))
    np.testing.assert_array_equal(crop_box(image, (x, y, w, h)), image[13:43, 25:55])
    np.testing.assert_array_equal(crop_box(image, (0, 0, 10, 40)), image[0:50, 0:35])  # clipped, not padded
    np.testing.assert_array_equal(crop_box(image, (60, 40, 20, 20)), image[35:60, 55:80])
    with pytest.raises(BadRecord, match="outside"):
        crop_box(image, (500, 500, 10, 10))


def test_images(made):
    cut, whole = cub("test", made), cub("test", made, bbox_crop=False)
    for i in (0, 7):
        with Image.open(made / "CUB_200_2011" / "images" / f"{whole.keys[i]}.jpg") as picture:
            np.testing.assert_array_equal(whole.image(i), np.asarray(picture))
        assert cut.image(i).shape[0] < whole.image(i).shape[0]
    assert np.abs(cut.image(0).mean((0, 1))[0] - 220) < 90 and cut.image(0).dtype == np.uint8


@pytest.mark.parametrize("name", ["images", "classes", "image_class_labels", "bounding_boxes"])
def test_missing_table_is_named(own, name):
    (own / "CUB_200_2011" / f"{name}.txt").unlink()
    with pytest.raises(UserError, match=f"{name}.txt is missing.*fetch cub"):
        cub("train", own)


def test_missing_files_are_named(own):
    name = _first(own)
    captions = own / "text" / f"{name}.txt"
    text = captions.read_text()
    captions.unlink()
    with pytest.raises(UserError, match=re.escape(f"{captions} is missing")):
        cub("test", own)
    assert len(cub("train", own)) == 8  # the other split does not need it
    captions.write_text(text)
    picture = own / "CUB_200_2011" / "images" / f"{name}.jpg"
    picture.rename(picture.with_suffix(".jpeg"))
    with pytest.raises(UserError, match=re.escape(f"{picture} is missing")):
        cub("test", own)
    shutil.rmtree(own / "text" / BIRDS[1])
    with pytest.raises(UserError, match="text/002.Laysan_Albatross is missing or empty"):
        cub("train", own)
    (own / "test" / "filenames.pickle").unlink()
    with pytest.raises(UserError, match="test/filenames.pickle is missing but"):
        cub("train", own)


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="neither CUB_200_2011/images.txt nor cub_captions"):
        cub("train", tmp_path)
    with pytest.raises(UserError, match="no split 'val'"):
        cub("val", tmp_path)


@pytest.mark.parametrize(
    "name, old, new, message",
    [
        ("image_class_labels", "1 1\n", "1 5\n", "image 1 has class 5, but classes.txt has 1 to 4"),
        ("image_class_labels", "1 1\n", "1 0\n", "image 1 has class 0"),
        ("image_class_labels", "1 1\n", "1 2\n", "image 1 has class 002.Laysan_Albatross but lies in 001"),
        ("image_class_labels", "1 1\n", "", "no line for image 1"),
        ("image_class_labels", "2 1\n", "1 1\n", "line 2: a new number"),
        ("classes", "2 002", "7 002", "numbered 1 to 4"),
        ("images", "1 001.", "1 ../001.", "no path of the form"),
    ],
)
def test_wrong_tables(own, name, old, new, message):
    path = own / "CUB_200_2011" / f"{name}.txt"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=re.escape(message)):
        cub("test", own)


@pytest.mark.parametrize("box", ["1 5 5 20", "1 a b c d", "1 5.0 5.0 0.0 20.0", "1 nan 5 20 20", "1 inf 5 20 20"])
def test_wrong_boxes(own, box):
    path = own / "CUB_200_2011" / "bounding_boxes.txt"
    path.write_text("\n".join([box, *path.read_text().splitlines()[1:]]))
    with pytest.raises(UserError, match="bounding_boxes.txt"):
        cub("test", own)


def test_wrong_split_lists(own):
    path = own / "test" / "filenames.pickle"
    names = pickle.loads(path.read_bytes())
    for bad, message in (
        ([*names, "009.Nobody/Nobody_1"], "009.Nobody/Nobody_1"),
        ([*names, names[0]], "twice"),
        ([*names, _first(own, "train")], "class 002.Laysan_Albatross stands in train/ and in test"),
        ({"a": 1}, "no list of names"),
        ([1, 2], "no list of names"),
    ):
        path.write_bytes(pickle.dumps(bad, protocol=2))
        with pytest.raises(UserError, match=re.escape(message)):
            cub("test", own)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_pickle_protocols(own, protocol):
    path = own / "test" / "filenames.pickle"
    path.write_bytes(pickle.dumps(pickle.loads(path.read_bytes()), protocol=protocol))
    assert len(cub("test", own)) == 8


def test_python_2_pickle(own):
    path = own / "test" / "filenames.pickle"
    names = pickle.loads(path.read_bytes())
    path.write_bytes(b"(lp0\n" + b"".join(b"S'%s'\na" % name.encode() for name in names) + b".")
    assert len(cub("test", own)) == 8


class _Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x], lambda x: ["a", {"b": x}]])
def test_evil_pickle_is_refused(own, tmp_path, wrap):
    path, trace = own / "test" / "filenames.pickle", tmp_path / "was_here"
    for protocol in (0, 2):
        path.write_bytes(pickle.dumps(wrap(_Evil(trace)), protocol=protocol))
        with pytest.raises(UserError, match=r"filenames.pickle cannot be read.*names (posix|nt)\.mkdir") as caught:
            cub("test", own)
        assert "\n" not in str(caught.value)
    assert not trace.exists()
    pickle.loads(path.read_bytes())  # it would have worked
    assert trace.exists()


@pytest.mark.parametrize("data", [b"", b"junk", pickle.dumps(list(range(100)))[:40], pickle.dumps(np.float64(1))])
def test_damaged_pickle(own, data):
    (own / "test" / "filenames.pickle").write_bytes(data)
    with pytest.raises(UserError, match="filenames.pickle cannot be read"):
        cub("test", own)


def test_damaged_picture_and_odd_captions_are_records(own):
    name = _first(own)
    (own / "CUB_200_2011" / "images" / f"{name}.jpg").write_bytes(b"no picture")
    captions = own / "text" / f"{name}.txt"
    captions.write_bytes(b"\n \n")
    source = cub("test", own)
    assert source.captions[0] == ()
    with pytest.raises(BadRecord, match="cannot be decoded"):
        source.image(0)
    assert source.image(1).ndim == 3
    captions.write_bytes(b"a bird\xff\xfewith wings\r\nblue\n\n")
    assert cub("test", own).captions[0] == ("a bird  with wings", "blue")


def test_prepared_set_reads_as_the_folder(made, own):
    pytest.importorskip("tensorflow_datasets")
    from supcon_jax.data.cub_captions import prepare

    spoilt = own / "CUB_200_2011" / "images" / f"{_first(own)}.jpg"
    spoilt.write_bytes(b"no picture")
    builder = prepare(own, own.parent / "out")
    assert sorted(builder.info.splits) == ["official_test", "official_train", "test", "train"]
    assert {file.suffix for file in builder.data_path.iterdir()} >= {".json"}
    for split in module.SPLITS:
        raw, read = cub(split, own), cub(split, own.parent / "out")
        assert list(raw.keys) == list(read.keys) and raw.classes == read.classes
        assert [tuple(c) for c in raw.captions] == [tuple(c) for c in read.captions]
        np.testing.assert_array_equal(raw.labels, read.labels)
        for record in range(1, len(raw)):
            np.testing.assert_array_equal(raw.image(record), read.image(record))
    with pytest.raises(BadRecord):
        cub("test", own.parent / "out").image(0)
    row = builder.as_data_source("train")[0]
    height, width = row["image"].shape[:2]
    x, y, w, h = row["bbox_pixels"]
    np.testing.assert_allclose(row["bbox"], [y / height, x / width, (y + h) / height, (x + w) / width], rtol=1e-5)
    assert not any(name.startswith("tensorflow.") for name in sys.modules)


def test_prepared_set_without_official_split(own, capsys):
    pytest.importorskip("tensorflow_datasets")
    from supcon_jax.data import cub_captions

    (own / "CUB_200_2011" / "train_test_split.txt").unlink()
    assert cub_captions.main(["--root", str(own), "--out", str(own.parent / "out")]) == 0
    assert "train: 8 records" in capsys.readouterr().out
    with pytest.raises(UserError, match="no split 'official_test' but train, test"):
        cub("official_test", own.parent / "out")
    assert cub_captions.main(["--root", str(own.parent / "nowhere"), "--out", str(own.parent)]) == 2


def test_prepared_set_without_tfds(tmp_path, monkeypatch):
    (tmp_path / "cub_captions").mkdir()
    monkeypatch.delitem(sys.modules, "supcon_jax.data.cub_captions", raising=False)
    monkeypatch.delattr("supcon_jax.data.cub_captions", raising=False)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match=r"tensorflow_datasets is not installed: pip install 'supcon_jax\[tfds\]'"):
        cub("train", tmp_path)


def test_layout_pictures_are_jpeg(made):
    for path in (made / "CUB_200_2011" / "images").rglob("*.jpg"):
        assert Image.open(io.BytesIO(path.read_bytes())).format == "JPEG"
