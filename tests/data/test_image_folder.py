"""data/image_folder.py on folders made here."""

import shutil

import numpy as np
import pytest
from PIL import Image

from supcon_jax.config import UserError
from supcon_jax.data.image_folder import image_folder
from supcon_jax.data.skipped import BadRecord
from supcon_jax.data.source import batches

NAMES = {"train": {"zebra": 3, "ant": 4, "owl": 2}, "test": {"owl": 1, "ant": 2, "zebra": 1}}


def draw(path, value, size=(40, 24)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 0, 0)).save(path)


@pytest.fixture
def root(tmp_path):
    for split, classes in NAMES.items():
        for value, (name, count) in enumerate(classes.items()):
            for i in range(count):
                draw(tmp_path / split / name / f"{i}.{'JPG' if i == 1 else 'png'}", 40 * value, (20 + i, 24 + value))
    (tmp_path / "train" / "ant" / "notes.txt").write_text("no picture")
    (tmp_path / "train" / ".cache").mkdir()
    return tmp_path


def test_classes_and_records(root):
    train, test = image_folder("train", root), image_folder("test", root)
    assert train.captions is None and train.classes == test.classes == ("ant", "owl", "zebra")
    assert list(train.labels) == [0] * 4 + [1] * 2 + [2] * 3 and list(test.labels) == [0, 0, 1, 2]
    assert train.keys[:3] == ["train/ant/0.png", "train/ant/1.JPG", "train/ant/2.png"]
    assert train.image(2).shape == (25, 22, 3) and train.image(4)[0, 0, 0] == 80  # of any size; owl was drawn third


def test_val_stands_for_test(root):
    (root / "test").rename(root / "val")
    assert list(image_folder("test", root).labels) == list(image_folder("val", root).labels) == [0, 0, 1, 2]


def test_pictures_outside_the_classes_have_no_label(root):
    draw(root / "train" / "loose.png", 9)
    train = image_folder("train", root)
    assert train.keys[0] == "train/loose.png" and train.labels[0] == -1 and len(train) == 10
    for name in NAMES["train"]:
        shutil.rmtree(root / "train" / name)
    bare = image_folder("train", root)
    assert (
        bare.labels is None and len(bare) == 1 and bare.classes == image_folder("test", root).classes == ("ant", "owl", "zebra")
    )


def test_a_damaged_picture_is_replaced(root):
    (root / "train" / "owl" / "0.png").write_bytes(b"no picture")
    train = image_folder("train", root)
    with pytest.raises(BadRecord):
        train.image(4)
    stream = batches(train, None, batch=9, size=16, words=1, crop="centre", threads=0)
    batch = next(stream)
    assert batch["image"].shape == (9, 1, 16, 16, 3) and 4 not in batch["index"] and set(batch) == {"image", "label", "index"}
    np.testing.assert_array_equal(batch["label"], train.labels[batch["index"]])


def test_mistakes(root, tmp_path):
    with pytest.raises(UserError, match=r"no folder val: lay it out as .*/val/CLASS"):
        image_folder("val", root)
    draw(root / "test" / "yak" / "0.png", 1)
    with pytest.raises(UserError, match="test/yak is a class that .*train has not"):
        image_folder("test", root)
    (tmp_path / "empty" / "train" / "a").mkdir(parents=True)
    with pytest.raises(UserError, match="holds no picture"):
        image_folder("train", tmp_path / "empty")
