"""data/tfds.py on small prepared sets, one of them by tfds' own cifar10 builder from an archive made here."""

import io
import sys
import tarfile

import numpy as np
import pytest

from supcon_jax.config import UserError
from supcon_jax.data import fetch
from supcon_jax.data import tfds as module
from supcon_jax.data.skipped import BadRecord

tfds = pytest.importorskip("tensorflow_datasets")


def picture(split, i, side=16):
    """Noise whose first pixel tells which record it is."""
    out = np.random.default_rng([len(split), i]).integers(0, 256, (side, side, 3)).astype(np.uint8)
    out[0, 0] = (i, 7, 9)
    return out


class TinyPictures(tfds.core.GeneratorBasedBuilder):
    """Arrays with two kinds of labels, as many of tfds' builders yield them; the unlabelled split has -1."""

    VERSION = tfds.core.Version("1.2.0")
    RELEASE_NOTES = {"1.2.0": "First version."}
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name, version="1.2.0") for name in ("small", "grey")]
    url_infos = None
    counts = {"train": 20, "test": 10, "unlabelled": 6}

    def _info(self):
        channels = 1 if self.builder_config.name == "grey" else 3
        features = {
            "picture": tfds.features.Image(shape=(16, 16, channels)),
            "fine": tfds.features.ClassLabel(names=["a", "b", "c", "d"]),
            "coarse": tfds.features.ClassLabel(num_classes=2),
            "id": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(builder=self, description="Noise.", features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split, count) for split, count in self.counts.items()}

    def _generate_examples(self, split, count):
        for i in range(count):
            fine, pixels = -1 if split == "unlabelled" else i % 4, picture(split, i)
            pixels = pixels[..., :1] if self.builder_config.name == "grey" else pixels
            yield i, {"picture": pixels, "fine": fine, "coarse": fine // 2, "id": f"{split} {i}"}


ARGS = {"builder": "tiny_pictures/small", "image": "picture", "label": "fine"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    for name in ("small", "grey"):
        assert fetch.main(["tfds", "--name", f"tiny_pictures/{name}", "--root", str(root)]) == 0
    assert not any(name.startswith("tensorflow.") for name in sys.modules)  # arrays were encoded without it
    return root


def ids(source):
    return [int(source.image(i)[0, 0, 0]) for i in range(len(source))]


def test_splits_labels_and_pictures(root):
    train, test = module.tfds("train", root, **ARGS), module.tfds("test", root / "tfds", **ARGS)
    assert train.captions is None and train.classes == test.classes == ("a", "b", "c", "d")
    assert len(train) == 20 and sorted(ids(train)) == list(range(20)) and sorted(ids(test)) == list(range(10))
    for source, split in ((train, "train"), (test, "test")):
        for record, i in enumerate(ids(source)):
            assert source.labels[record] == i % 4
            np.testing.assert_array_equal(source.image(record), picture(split, i))
    coarse = module.tfds("train", root, **ARGS | {"label": "coarse"})
    np.testing.assert_array_equal(coarse.labels, train.labels // 2)
    assert coarse.classes == ("0", "1")
    assert module.tfds("test", root, **ARGS | {"label": ""}).labels is None


def test_parts_and_sums_of_splits(root):
    whole = module.tfds("train", root, **ARGS)
    first, last = (module.tfds(split, root, **ARGS) for split in ("train[:75%]", "train[75%:]"))
    assert len(first) == 15 and ids(first) + ids(last) == ids(whole)
    np.testing.assert_array_equal(np.concatenate([first.labels, last.labels]), whole.labels)
    both = module.tfds("train+unlabelled", root, **ARGS)
    assert len(both) == 26 and (both.labels == -1).sum() == 6
    assert (module.tfds("unlabelled", root, **ARGS).labels == -1).all()


def test_grey_pictures_become_rgb(root):
    source = module.tfds("test", root, **ARGS | {"builder": "tiny_pictures/grey"})
    for record, i in enumerate(ids(source)):
        np.testing.assert_array_equal(source.image(record), np.repeat(picture("test", i)[..., :1], 3, -1))


def test_labels_of_large_sets_are_read_once(root, monkeypatch):
    wanted = module.tfds("train", root, **ARGS).labels
    folder = root / "tfds" / "tiny_pictures" / "small" / "1.2.0"
    assert not list(folder.glob("*.npy"))
    monkeypatch.setattr(module, "MANY", 15)
    monkeypatch.setattr(module, "BLOCK", 8)
    np.testing.assert_array_equal(module.tfds("train", root, **ARGS).labels, wanted)
    (kept,) = folder.glob("supcon_labels-*.npy")
    np.save(kept, wanted[::-1])
    np.testing.assert_array_equal(module.tfds("train", root, **ARGS).labels, wanted[::-1])
    np.testing.assert_array_equal(module.tfds("train", root, **ARGS | {"label": "coarse"}).labels, wanted // 2)
    for path in folder.glob("*.npy"):
        path.unlink()


@pytest.mark.parametrize(
    "split,changes,said",
    [
        ("train", {"builder": "cifar10"}, r"neither cifar10 nor tfds/cifar10: run python -m .*fetch tfds --name cifar10"),
        ("val", {}, r"no split 'val' but .*train"),
        ("train[:x]", {}, r"no split 'train\[:x\]'"),
        ("train", {"label": "id"}, r"label='id': .* has the classes coarse, fine"),
        ("train", {"image": "image"}, r"no feature 'image' but .*picture"),
    ],
)
def test_mistakes(root, split, changes, said):
    with pytest.raises(UserError, match=said) as caught:
        module.tfds(split, root, **ARGS | changes)
    assert "\n" not in str(caught.value)


def test_a_damaged_picture_is_a_bad_record(root, monkeypatch):
    from supcon_jax.data import prepared

    opened = prepared.opened

    class Cut:
        def __init__(self, rows):
            self.rows = rows

        def __len__(self):
            return len(self.rows)

        def __getitems__(self, keys):
            return self.rows.__getitems__(keys)

        def __getitem__(self, key):
            return {**self.rows[key], "picture": self.rows[key]["picture"][:60]}

    def cut(*args):
        info, rows = opened(*args)
        return info, Cut(rows)

    monkeypatch.setattr(prepared, "opened", cut)
    with pytest.raises(BadRecord, match="cannot be decoded"):
        module.tfds("test", root, **ARGS).image(0)


def test_another_format_is_refused(root, tmp_path):
    """tfrecord, which only TensorFlow reads: the folder tells its format in dataset_info.json."""
    import shutil

    place = tmp_path / "tiny_pictures" / "small" / "1.2.0"
    shutil.copytree(root / "tfds" / "tiny_pictures" / "small" / "1.2.0", place)
    for path in place.iterdir():
        text = path.read_bytes()
        if path.suffix == ".json":
            path.write_bytes(text.replace(b"array_record", b"tfrecord"))
        else:
            path.rename(path.with_name(path.name.replace("array_record", "tfrecord")))
    with pytest.raises(UserError, match="cannot be read without TensorFlow: move it away and run python -m .*fetch tfds"):
        module.tfds("train", tmp_path, **ARGS)


def test_what_cannot_be_prepared_is_said_in_one_line(tmp_path, capsys):
    for name, said in (("", "name the set"), ("no_such_set", "could not be prepared (DatasetNotFoundError")):
        assert fetch.main(["tfds", "--name", name, "--root", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1


def archived(path, folder, files):
    """A .tar.gz with these files in one folder."""
    with tarfile.open(path, "w:gz") as made:
        for name, data in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(data)
            made.addfile(member, io.BytesIO(data))


def prepared_by_hand(tmp_path, name, url):
    """Runs tfds' own builder on the archive in tmp_path; its checksum stands in for that of the real one."""
    from tensorflow_datasets.core.download import checksums

    builder = tfds.builder_cls(name)
    builder.url_infos = {url: checksums.compute_url_info(tmp_path / url.rsplit("/", 1)[1])}
    try:
        assert fetch.main(["tfds", "--name", name, "--from", str(tmp_path), "--root", str(tmp_path / "data")]) == 0
    finally:
        del builder.url_infos
    assert not any(name.startswith("tensorflow.") for name in sys.modules)
    return tmp_path / "data"


def test_cifar10_from_an_archive_brought_by_hand(tmp_path):
    """The archive's layout as published, 12 pictures in each of its six files."""
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    files = {"batches.meta.txt": "\n".join(names).encode() + b"\n\n"}
    rng, truth = np.random.default_rng(0), {}
    for part in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        rows = rng.integers(0, 256, (12, 3073)).astype(np.uint8)
        rows[:, 0] = np.arange(12) % 10
        files[f"{part}.bin"] = rows.tobytes()
        truth |= {row[1:].reshape(3, 32, 32).transpose(1, 2, 0).tobytes(): row[0] for row in rows}
    archived(tmp_path / "cifar-10-binary.tar.gz", "cifar-10-batches-bin", files)
    root = prepared_by_hand(tmp_path, "cifar10", "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz")
    train, test = (module.tfds(split, root) for split in ("train", "test"))
    assert train.classes == names and len(train) == 60 and len(test) == 12
    for source in (train, test):
        for record in range(len(source)):
            assert truth[source.image(record).tobytes()] == source.labels[record]


def test_stl10_trains_on_its_unlabelled_pictures(tmp_path):
    rng, files, truth = np.random.default_rng(0), {"class_names.txt": "\n".join("abcdefghij").encode()}, {}
    for part, count in (("train", 5), ("test", 4), ("unlabeled", 6)):
        pixels = rng.integers(0, 256, (count, 3, 96, 96)).astype(np.uint8)
        files[f"{part}_X.bin"] = pixels.tobytes()
        labels = np.arange(1, count + 1, dtype=np.uint8) if part != "unlabeled" else np.zeros(count, np.uint8)
        files |= {} if part == "unlabeled" else {f"{part}_y.bin": labels.tobytes()}
        truth |= {x.transpose(2, 1, 0).tobytes(): int(label) - 1 for x, label in zip(pixels, labels, strict=True)}
    archived(tmp_path / "stl10_binary.tar.gz", "stl10_binary", files)
    root = prepared_by_hand(tmp_path, "stl10", "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz")
    both = module.tfds("train+unlabelled", root, builder="stl10")
    assert len(both) == 11 and both.classes == tuple("abcdefghij") and both.image(0).shape == (96, 96, 3)
    for record in range(11):
        assert truth[both.image(record).tobytes()] == both.labels[record]
