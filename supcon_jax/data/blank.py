"""Data sets known by their published sizes only: blank pictures and made-up words, for compiling without the set."""

import numpy as np

from supcon_jax.config import UserError
from supcon_jax.data.source import Source

# Records of each split, classes, and words of the vocabulary with the end mark, 0 where pictures have no captions; several:
# a picture has several labels. Words are those of AttnGAN's released vocabularies; one built from the captions differs by a
# few. Sets without captions go by their names in tfds.
SIZES = {
    "cub": {
        "records": {"train": 8855, "test": 2933, "official_train": 5994, "official_test": 5794},
        "classes": 200,
        "words": 5450,
    },
    "coco": {"records": {"train": 82_783, "test": 40_504}, "classes": 80, "words": 27_297, "several": True},
    "imagenet2012": {"records": {"train": 1_281_167, "validation": 50_000}, "classes": 1000, "words": 0},
    "cifar10": {"records": {"train": 50_000, "test": 10_000}, "classes": 10, "words": 0},
    "cifar100": {"records": {"train": 50_000, "test": 10_000}, "classes": 100, "words": 0},
    "imagenette": {"records": {"train": 9_469, "validation": 3_925}, "classes": 10, "words": 0},
}


def known(data: dict) -> str:
    """The name in SIZES of the set that a config's data section asks for; "" where there is none."""
    name = data["args"].get("builder", "") if data["name"] == "tfds" else data["name"]
    return name if name in SIZES else ""


def blank(split, root=None, *, of):
    """One split of the data set `of` in size alone: every picture black, one label each or one of several, no caption that
    means anything.

    root: not used; all sets are called alike. of: a name of SIZES.
    Returns Source. Raises UserError: a set or a split whose sizes are not known.
    """
    if of not in SIZES or split not in SIZES[of]["records"]:
        raise UserError(f"the sizes of {of}/{split} are not known: get the data set itself")
    size = SIZES[of]
    records, classes, captions = size["records"][split], size["classes"], None
    if size["words"]:
        made = size["words"] - 2  # the end mark, and "a", which every vocabulary has
        captions = [(" ".join(["a", *(f"w{word}" for word in range(record, made, records))]),) for record in range(records)]
    labels = np.arange(records, dtype=np.int32) % classes
    if size.get("several"):
        labels = (labels[:, None] == np.arange(classes)[None]).astype(np.uint8)
    picture = np.zeros((8, 8, 3), np.uint8)
    return Source(
        name=of,
        split=split,
        captions=captions,
        labels=labels,
        classes=tuple(str(c) for c in range(classes)),
        image=lambda record: picture,
        keys=[str(record) for record in range(records)],
    )
