"""Data sets known by size alone."""

import pytest

from supcon_jax.config import UserError
from supcon_jax.data import blank, coco, cub_layout
from supcon_jax.data.source import batches
from supcon_jax.data.vocab import Vocab


def test_cub_has_its_published_sizes():
    train, test = (blank.blank(split, of="cub") for split in ("train", "test"))
    assert (len(train), len(test), len(train.classes)) == (cub_layout.COUNTS["train"], cub_layout.COUNTS["test"], 200)
    assert len(Vocab.from_captions([*train.captions, *test.captions])) == 5450
    assert all("a" in caption.split() for captions in train.captions for caption in captions)
    assert sum(blank.SIZES["cub"]["records"][f"official_{split}"] for split in ("train", "test")) == 11788


def test_coco_has_several_labels_and_imagenet_no_captions():
    train, test = (blank.blank(split, of="coco") for split in ("train", "test"))
    assert (len(train), len(test), train.labels.shape) == (82_783, 40_504, (82_783, 80))
    assert set(coco.SPLITS) >= set(blank.SIZES["coco"]["records"]) and (train.labels.sum(1) == 1).all()
    assert len(Vocab.from_captions([*train.captions, *test.captions])) == 27_297
    data = {"name": "tfds", "args": {"builder": "imagenet2012"}}
    assert blank.known(data) == "imagenet2012" and not blank.known({"name": "folder", "args": {}})
    assert not blank.known({"name": "tfds", "args": {"builder": "svhn_cropped"}})
    one = blank.blank("validation", of=blank.known(data))
    assert one.captions is None and len(one) == 50_000 and len(one.classes) == 1000


def test_its_batches_are_those_of_a_set(tmp_path):
    source = blank.blank("train", of="cub")
    vocab = Vocab.from_captions(source.captions)
    batch = next(batches(source, vocab, batch=4, size=32, words=18, partner="same_label", crop="resize_crop"))
    assert batch["image"].shape == (4, 2, 32, 32, 3) and not batch["image"].any()
    assert batch["text"].shape == (4, 2, 18) and (batch["text_len"] >= 1).all() and batch["label"].shape == (4, 2)


@pytest.mark.parametrize("of, split", [("cub", "val"), ("moths", "train")])
def test_unknown_sizes_are_told(of, split):
    with pytest.raises(UserError, match=f"the sizes of {of}/{split} are not known"):
        blank.blank(split, of=of)
