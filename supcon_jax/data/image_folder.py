"""Pictures in one folder for each class: the usual way to lay a labelled set of pictures out."""

import numpy as np

from supcon_jax import storage
from supcon_jax.config import UserError
from supcon_jax.data.folder import listing
from supcon_jax.data.images import decode
from supcon_jax.data.source import Source

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif")
OTHER = {"test": "val"}  # where a set has no split of that name


def image_folder(split, root):
    """One split of root/SPLIT/CLASS/*.png, .jpg, .jpeg, .webp or .gif, pictures of any size.

    split: name of the folder; root/val stands for "test" where there is no root/test. root: local or remote.
    Pictures right in root/SPLIT are records without a label (-1), so that pretraining may have pictures that nobody named.
    Classes are the folders of root/train by name, or, where those pictures are all unlabelled, those of the split at hand.
    Returns Source without captions, its records by class and name; labels None where no picture of it has one.
    Raises UserError: no such folder, no picture in it, a class that root/train lacks.
    """
    root = storage.place(root)
    names = [name for name in (split, OTHER.get(split)) if name]
    found = next((name for name in names if (root / name).is_dir()), None)
    if found is None:
        raise UserError(f"{root} has no folder {' or '.join(names)}: lay it out as {root}/{split}/CLASS/*.png")
    named, classes = _classes(root, found), _classes(root, "train")
    if not classes:
        classes = named or _classes(root, next((name for name in ("test", "val") if (root / name).is_dir()), found))
    if strange := sorted(set(named) - set(classes)):
        raise UserError(f"{root / found / strange[0]} is a class that {root / 'train'} has not: both need the same classes")
    keys, labels = [], []
    for label, folder in [(-1, found), *((classes.index(name), f"{found}/{name}") for name in named)]:
        pictures = sorted(name for name in listing(root / folder) if name.lower().endswith(ENDINGS))
        keys += [f"{folder}/{name}" for name in pictures]
        labels += [label] * len(pictures)
    if not keys:
        raise UserError(f"{root / found} holds no picture ({', '.join(ENDINGS)}): lay it out as {root}/{split}/CLASS/*.png")
    return Source(
        name="image_folder",
        split=split,
        captions=None,
        labels=np.array(labels, np.int32) if max(labels) >= 0 else None,
        classes=tuple(classes),
        image=lambda record: decode(root / keys[record]),
        keys=keys,
    )


def _classes(root, split):
    """Names of the folders in a split's folder, sorted, hidden ones left out."""
    folder = root / split
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith(".") and entry.is_dir())
