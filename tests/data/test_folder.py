"""data/folder.py: one's own pictures and captions.jsonl."""

import hashlib
import json

import numpy as np
import pytest

from data.layouts import folder_layout
from supcon_jax.config import UserError
from supcon_jax.data.folder import SHARES, folder, outside, pictures, share
from supcon_jax.data.source import BadRecord


def _write(root, *lines):
    (root / "captions.jsonl").write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines) + "\n")


@pytest.fixture
def root(tmp_path):
    """Two good pictures and no captions.jsonl yet."""
    folder_layout(tmp_path, 2)
    return tmp_path


A, B = {"image": "pictures/0000.png"}, {"image": "pictures/0001.png"}


def test_pictures_of_a_model_without_captions(root):
    (root / "pictures" / "0000.jpeg").write_bytes((root / "pictures" / "0001.png").read_bytes())
    (root / "pictures" / "notes.txt").write_text("no picture")
    found = pictures(root / "pictures")
    assert list(found.keys) == ["0000.jpeg", "0000.png", "0001.png"] and found.labels is None
    assert list(found.captions) == [(), (), ()] and found.image(2).shape == (36, 40, 3)
    np.testing.assert_array_equal(found.image(0), found.image(2))


def test_pictures_of_a_model_with_captions(root):
    """In the order of the lines, whatever their splits; the first caption is the one that was drawn."""
    second = {**A, "captions": ["a"], "labels": "y", "split": "train"}
    _write(root, {**B, "captions": ["b", "other"], "labels": "x", "split": "test"}, second)
    found = pictures(root)
    assert list(found.keys) == [B["image"], A["image"]] and list(found.captions) == [("b",), ("a",)]
    assert found.labels.tolist() == [0, 1] and found.classes == ("x", "y")
    _write(root, {**B, "captions": ["b"]}, A)
    with pytest.raises(UserError, match="line 2 has no caption but other lines have: give it on all lines or on none"):
        pictures(root)
    _write(root, {"image": "pictures/absent.png", "captions": ["b"]})
    with pytest.raises(UserError, match="line 1: .*absent.png is missing"):
        pictures(root)


def test_pictures_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="absent is no folder"):
        pictures(tmp_path / "absent")
    with pytest.raises(UserError, match="holds no .png or .jpg"):
        pictures(tmp_path)


def test_single_labels_and_splits(tmp_path):
    folder_layout(tmp_path)
    train, test = folder("train", tmp_path), folder("test", tmp_path)
    assert (len(train), len(test)) == (16, 8) and not set(train.keys) & set(test.keys)
    assert train.classes == test.classes == ("blue", "green", "red", "yellow")
    assert train.labels.dtype == np.int32 and train.labels.shape == (16,)
    for label, captions in zip(train.labels, train.captions, strict=True):
        assert captions[0] == f"a {train.classes[label]} ellipse"
    assert train.image(0).shape == (36, 40, 3) and abs(int(train.image(0)[16, 18, 0]) - 220) < 5


def test_multi_labels(tmp_path):
    folder_layout(tmp_path, labels="multi")
    source = folder("train", tmp_path)
    assert source.labels.dtype == np.uint8 and source.labels.shape == (16, 4)
    assert set(source.labels.sum(1)) == {1, 2}


def test_no_labels(tmp_path):
    folder_layout(tmp_path, labels=None)
    assert folder("train", tmp_path).labels is None


def test_some_without_label_are_multi_hot_rows_of_zeros(root):
    _write(root, {**A, "labels": ["x"], "split": "train"}, {**B, "labels": [], "split": "train"})
    np.testing.assert_array_equal(folder("train", root).labels, [[1], [0]])


def test_integer_labels_and_a_label_without_list(root):
    _write(root, {**A, "labels": 10, "split": "train"}, {**B, "labels": [9], "split": "train"})
    source = folder("train", root)
    assert source.classes == ("9", "10")  # by value, not as text
    np.testing.assert_array_equal(source.labels, [1, 0])


def test_one_split_on_labels_of_the_whole_file(root):
    _write(root, {**A, "labels": ["x"], "split": "a"}, {**B, "labels": ["x", "y"], "split": "b"})
    assert folder("a", root).labels.shape == (1, 2)  # multi-hot, as the other split needs it


def test_hash_decides_where_no_split_is_given(tmp_path):
    folder_layout(tmp_path, 40, splits=None)
    found = {}
    for split, _ in SHARES:
        try:
            found[split] = set(folder(split, tmp_path).keys)
        except UserError as error:
            assert f"no record for split {split!r}" in str(error)
            found[split] = set()
    assert sum(map(len, found.values())) == len(set.union(*found.values())) == 40
    before = found["train"]
    lines = (tmp_path / "captions.jsonl").read_text().splitlines()
    _write(tmp_path, *reversed(lines[:30]))  # the split of a picture depends on nothing else
    assert set(folder("train", tmp_path).keys) == {key for key in before if int(key[9:13]) < 30}


def test_shares():
    names = [f"pictures/{i}.png" for i in range(20000)]
    counts = {split: sum(share(name, SHARES) == split for name in names) / 200 for split, _ in SHARES}
    for split, size in SHARES:
        assert abs(counts[split] - size) < 1, counts
    points = [int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) % 100 for name in names]  # pinned: a change leaks
    assert [share(name, SHARES) for name in names] == ["train" if p < 90 else "val" if p < 95 else "test" for p in points]


@pytest.mark.parametrize(
    "line, message",
    [
        ("{oops", "line 3 is not JSON"),
        ("[1]", 'line 3: an object with "image"'),
        ({"captions": []}, 'line 3: an object with "image"'),
        ({"image": 3}, 'line 3: an object with "image"'),
        ({**B, "caption": "x"}, "line 3: unknown key 'caption'"),
        ({**B, "captions": "x"}, "line 3: captions must be a list"),
        ({**B, "captions": [1]}, "line 3: captions must be a list"),
        ({**B, "labels": [1.5]}, "line 3: labels must be"),
        ({**B, "labels": [True]}, "line 3: labels must be"),
        ({**B, "labels": {"a": 1}}, "line 3: labels must be"),
        ({**B, "split": 3}, "line 3: split must be"),
        ({**B, "split": "train"}, "line 1 has no split"),
        ({"image": "pictures/none.png"}, "line 3: .*none.png is missing"),
        ({"image": "pictures"}, None),
        ({"image": "../secret.png"}, "line 3: image '../secret.png' leads out"),
        ({"image": "/etc/secret.png"}, "leads out of the folder"),
        ({"image": "pictures\\..\\..\\x.png"}, "leads out of the folder"),
        ({"image": "C:/x.png"}, "leads out of the folder"),
        ({"image": ""}, "leads out of the folder"),
        (A, "line 3: pictures/0000.png stands on line 1 already"),
        ({"image": "pictures//0000.png"}, "stands on line 1 already"),
    ],
)
def test_bad_lines_are_named(root, line, message):
    _write(root, A, "", line)
    if message is None:  # a folder named as a picture: found out when it is read
        lines = [json.loads(text) for text in (root / "captions.jsonl").read_text().splitlines() if text]
        _write(root, *({**record, "split": "train"} for record in lines))
        with pytest.raises(BadRecord):
            folder("train", root).image(1)
        return
    with pytest.raises(UserError, match=message) as caught:
        folder("train", root)
    assert "\n" not in str(caught.value) and "captions.jsonl" in str(caught.value)


def test_bad_files_are_named(root):
    _write(root, {**A, "labels": ["x"]}, {**B, "labels": [1]})
    with pytest.raises(UserError, match="labels on line 1 are strings, on line 2 integers"):
        folder("train", root)
    _write(root, "")
    with pytest.raises(UserError, match="has no records"):
        folder("train", root)
    _write(root, {**A, "split": "a"}, {**B, "split": "b"})
    with pytest.raises(UserError, match="no record for split 'train' but some for a, b"):
        folder("train", root)
    (root / "captions.jsonl").write_bytes(b'{"image": "\xff"}')
    with pytest.raises(UserError, match="not UTF-8"):
        folder("train", root)
    (root / "captions.jsonl").unlink()
    with pytest.raises(UserError, match="captions.jsonl is missing"):
        folder("train", root)


def test_damaged_picture_is_a_bad_record(root):
    _write(root, {**A, "split": "train"}, {**B, "split": "train"})
    (root / "pictures" / "0000.png").write_bytes(b"")
    with pytest.raises(BadRecord):
        folder("train", root).image(0)
    assert folder("train", root).image(1).shape == (36, 40, 3)


def test_outside():
    assert all(outside(name) for name in ("", "..", "a/../b", "/a", "\\a", "C:a", "//host/share/x", "a\0b"))
    assert not any(outside(name) for name in ("a", "a/b.png", "..a", "a..b/c", "./a"))
