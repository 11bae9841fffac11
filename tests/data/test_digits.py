"""data/digits.py on files of the right layout made here, and on the real ones where they were fetched."""

import gzip
import pathlib

import numpy as np
import pytest

from supcon_jax.config import UserError
from supcon_jax.data import digits as module
from supcon_jax.data.fetch import home

SETS = {"mnist5k": ("mnist_5k.csv.gz", 5000, 784, 255), "digits": ("digits.csv.gz", 1797, 64, 16)}


def rows(name):
    """Noise, with labels in an order of their own."""
    _, records, pixels, most = SETS[name]
    rng = np.random.default_rng(1)
    return np.concatenate([rng.integers(0, most + 1, (records, pixels)), rng.permutation(np.arange(records) % 10)[:, None]], 1)


def write(root, name, table):
    (root / name).mkdir(parents=True, exist_ok=True)
    text = "\n".join(",".join(map(str, row)) for row in table.tolist())
    (root / name / SETS[name][0]).write_bytes(gzip.compress(text.encode(), 1))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    for name in SETS:
        write(root, name, rows(name))
    return root


@pytest.mark.parametrize("name", SETS)
def test_both_splits_hold_a_share_of_each_class_and_all_records_once(root, name):
    table = rows(name)
    train, test = (getattr(module, name)(split, root) for split in ("train", "test"))
    assert train.captions is None and train.classes == test.classes == tuple("0123456789")
    lines = [int(key.split()[1]) - 1 for source in (train, test) for key in source.keys]
    assert sorted(lines) == list(range(len(table)))
    np.testing.assert_array_equal(np.concatenate([train.labels, test.labels]), table[lines, -1])
    for label in range(10):
        count = (table[:, -1] == label).sum()
        assert (test.labels == label).sum() == count // 5
    again = getattr(module, name)("test", root / name)
    assert again.keys == test.keys


def test_pixels(root):
    table, source = rows("mnist5k"), module.mnist5k("test", root)
    line = int(source.keys[7].split()[1]) - 1
    np.testing.assert_array_equal(source.image(7), np.repeat(table[line, :-1].reshape(28, 28, 1), 3, -1))
    table, source = rows("digits"), module.digits("train", root)
    image, cells = source.image(3), table[int(source.keys[3].split()[1]) - 1, :-1].reshape(8, 8)
    assert image.shape == (32, 32, 3) and image.dtype == np.uint8
    np.testing.assert_array_equal(image, np.kron(np.rint(cells * 255 / 16), np.ones((4, 4)))[..., None].repeat(3, -1))
    assert module.digits("train", root, size=16).image(0).shape == (16, 16, 3)


def test_mistakes(root, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "installed", lambda package, file: [])  # what the environment holds besides
    for call, said in (
        (lambda: module.digits("val", root), "digits has no split 'val'"),
        (lambda: module.digits("train", root, size=30), "size=30: .*multiple of 8"),
        (lambda: module.mnist5k("train", tmp_path), "neither mnist_5k.csv.gz nor .*fetch mnist5k"),
    ):
        with pytest.raises(UserError, match=said):
            call()
    write(tmp_path, "digits", rows("digits")[:, 1:])
    with pytest.raises(UserError, match=r"of another layout, \(1797, 64\) instead of \(1797, 65\)"):
        module.digits("train", tmp_path)
    write(tmp_path, "digits", rows("digits") + 1)
    with pytest.raises(UserError, match="of another layout"):
        module.digits("train", tmp_path)
    path = tmp_path / "digits" / "digits.csv.gz"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be read"):
        module.digits("train", tmp_path)


def look_alike(name, root, counts):
    """Whether the mean picture of each digit in one split is most like that of the same digit in the other."""
    train, test = (getattr(module, name)(split, root) for split in ("train", "test"))
    assert (len(train), len(test)) == counts
    means = [[s.image(i).mean(-1) for i in np.flatnonzero(s.labels == k)[:30]] for s in (train, test) for k in range(10)]
    alike = np.corrcoef(np.mean(means, axis=1).reshape(20, -1))[:10, 10:]
    return (alike.argmax(1) == np.arange(10)).all()


def test_an_installed_package_stands_for_what_was_not_fetched(tmp_path):
    assert look_alike("digits", tmp_path, (1442, 355))
    assert module.installed("no_such_package", "digits.csv.gz") == []


@pytest.mark.data
@pytest.mark.parametrize("name,counts", [("mnist5k", (4000, 1000)), ("digits", (1442, 355))])
def test_real_digits(name, counts):
    if not (pathlib.Path(home()) / name / "fetched.json").exists():
        pytest.skip(f"{name} is not here: python -m supcon_jax.data.fetch {name}")
    assert look_alike(name, None, counts)
