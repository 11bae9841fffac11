"""A data set known by its published sizes only: blank pictures and made-up words, for compiling without the set."""

import numpy as np

from supcon_jax.config import UserError
from supcon_jax.data.source import Source

# records of each split, classes, and words of the vocabulary with the end mark. CUB's words are those of AttnGAN's
# released vocabulary; a vocabulary built from the captions differs by a few.
SIZES = {
    "cub": {
        "records": {"train": 8855, "test": 2933, "official_train": 5994, "official_test": 5794},
        "classes": 200,
        "words": 5450,
    },
}


def blank(split, root=None, *, of):
    """One split of the data set `of` in size alone: every picture black, one label each, no caption that means anything.

    root: not used; all sets are called alike. of: a name of SIZES.
    Returns Source. Raises UserError: a set or a split whose sizes are not known.
    """
    if of not in SIZES or split not in SIZES[of]["records"]:
        raise UserError(f"the sizes of {of}/{split} are not known: get the data set itself")
    records, classes = SIZES[of]["records"][split], SIZES[of]["classes"]
    made = SIZES[of]["words"] - 2  # the end mark, and "a", which every vocabulary has
    picture = np.zeros((8, 8, 3), np.uint8)
    return Source(
        name=of,
        split=split,
        captions=[(" ".join(["a", *(f"w{word}" for word in range(record, made, records))]),) for record in range(records)],
        labels=np.arange(records, dtype=np.int32) % classes,
        classes=tuple(str(c) for c in range(classes)),
        image=lambda record: picture,
        keys=[str(record) for record in range(records)],
    )
