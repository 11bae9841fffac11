"""Labelled pictures of any tfds set, read from its ArrayRecord files; neither reading nor most preparing needs TensorFlow."""

import contextlib
import glob
import hashlib
import importlib.util
import io
import os
import sys
import types
from unittest import mock

import numpy as np
from etils import epath
from PIL import Image

from supcon_jax import storage
from supcon_jax.config import UserError
from supcon_jax.data.fetch import home
from supcon_jax.data.images import decode
from supcon_jax.data.source import Source

MANY = 100_000  # records; of a larger set the labels are kept in a file, as reading them means reading every picture
BLOCK = 1024  # records read at once


def tfds(split, root=None, *, builder="cifar10", label="label", image="image"):
    """One split of a tfds set of labelled pictures: cifar10, cifar100, stl10, svhn_cropped, imagenette, imagenet2012, ...

    split: as tfds writes it: "train", "test", "validation", "train[:90%]", "train+unlabelled" (of stl10), ...
    root: folder with BUILDER/VERSION/dataset_info.json, as tfds lays it out, or the one above it (then named tfds); by
        default where `fetch tfds` puts it. The files must be in the format array_record.
    builder: name of the set, with its config after a stroke where it has several: "imagenet2012_subset/10pct".
    label, image: names of the features. label "" reads none.
    Returns Source without captions. Labels are i32[records] as the set numbers its classes, -1 where it says so (as in
    stl10's split "unlabelled"), None for label "". Of sets above MANY records they are kept beside the set's files after the
    first look, if the folder can be written.
    Raises UserError: the set is not there, unfinished or in another format; unknown split or features; a label that is no
    class; tfds is not installed.
    """
    where, command = storage.place(home(root)), f"python -m supcon_jax.data.fetch tfds --name {builder.split('/')[0]}"
    path = next((p for folder in (where, where / "tfds") if (p := epath.Path(folder) / builder).is_dir()), None)
    if path is None:
        raise UserError(f"{where} has neither {builder} nor tfds/{builder}: run {command} --root {where} where the network is")
    info, rows = _prepared().opened(path, split, command.removeprefix("python -m "), image)
    classes, labels = (), None
    if label:
        names = sorted(name for name, feature in info.features.items() if hasattr(feature, "names"))
        if label not in names:
            raise UserError(f"config.data.args.label={label!r}: {builder} has the classes {', '.join(names) or 'of nothing'}")
        classes = tuple(info.features[label].names)
        labels = _labels(rows, label, split, path / str(info.version))
    return Source(
        name=f"tfds {builder}",
        split=split,
        captions=None,
        labels=labels,
        classes=classes,
        image=lambda record: decode(rows[record][image]),
        keys=[f"{split} {i}" for i in range(len(rows))],
    )


def prepare(name, root=None, manual=None, say=print):
    """Download a set and write it as ArrayRecord files below root/tfds; a finished one is left alone.

    name: of the builder, with its config after a stroke. manual: folder with archives that were brought by hand: those
    that tfds cannot download (ImageNet), and any other under the name that it has in the address.
    Returns the folder of the version. Raises UserError: no such set, no network, archives that are missing or changed, a
    builder that itself needs TensorFlow.
    """
    if not name:
        raise UserError("name the set: python -m supcon_jax.data.fetch tfds --name cifar10")
    prepared, out = _prepared(), f"{home(root)}/tfds"
    again = f"python -m supcon_jax.data.fetch tfds --name {name}"
    try:
        builder = prepared.tfds.builder(name, data_dir=out, file_format="array_record")
        builder._generate_examples = _encoded(builder, builder._generate_examples)
        os.environ.setdefault("TFDS_DISABLE_PROGRESS_BAR", "1")
        with _plain_files(builder):
            builder.download_and_prepare(download_config=prepared.tfds.download.DownloadConfig(manual_dir=manual))
    except Exception as error:  # each builder has its own ways to fail: no network, no archive, no such name
        line = " ".join(str(error).split())[:300]
        if lacks := getattr(error, "name", None) if isinstance(error, ImportError) else None:
            line = f"{lacks} is not installed: pip install {lacks}"
        raise UserError(
            f"{name} could not be prepared ({type(error).__name__}: {line}): is the network there, and are archives that tfds "
            f"cannot fetch in --from DIR? or run {again} where it works and copy {out}"
        ) from None
    for split, found in builder.info.splits.items():
        say(f"{split}: {found.num_examples} records")
    say(f"in {builder.data_path}; use it with --config.data.name=tfds and args builder={name!r}")
    return epath.Path(builder.data_path)


def _prepared():
    """data/prepared.py, which imports tfds."""
    try:
        from supcon_jax.data import prepared
    except ImportError as error:
        raise UserError(f"tfds sets need {error.name}: pip install 'supcon_jax[tfds]'") from None
    return prepared


def _labels(rows, label, split, folder):
    """Labels of all records, i32[records]; those of a large set are kept in the folder."""
    digest = hashlib.sha256(f"{split} {label} {len(rows)}".encode()).hexdigest()[:12]
    kept = folder / f"supcon_labels-{digest}.npy"
    if len(rows) > MANY and kept.exists():
        return np.load(io.BytesIO(kept.read_bytes()))
    blocks = (rows.__getitems__(range(i, min(i + BLOCK, len(rows)))) for i in range(0, len(rows), BLOCK))
    labels = np.array([row[label] for block in blocks for row in block], np.int32)
    if len(rows) > MANY:
        data = io.BytesIO()
        np.save(data, labels)
        try:
            storage.write(kept, data.getvalue())
        except OSError:  # a shared folder that may only be read: they are read again next time
            pass
    return labels


@contextlib.contextmanager
def _plain_files(builder):
    """Where TensorFlow is not installed, tfds' unpacking and the builder's own module read files through this instead.

    Most builders of pictures use no more of it than tf.io.gfile. One that does fails, and says what it misses.
    """
    if importlib.util.find_spec("tensorflow"):
        yield
        return
    names = types.SimpleNamespace
    file = names(GFile=open, exists=os.path.exists, isdir=os.path.isdir, listdir=os.listdir, glob=glob.glob)
    text = names(as_text=lambda name: name if isinstance(name, str) else name.decode("utf-8"))
    stand = names(io=names(gfile=file), compat=text)
    modules = [importlib.import_module("tensorflow_datasets.core.download.extractor"), sys.modules[type(builder).__module__]]
    with contextlib.ExitStack() as stack:
        for module in modules:
            if hasattr(module, "tf"):
                stack.enter_context(mock.patch.object(module, "tf", stand))
        yield


def _encoded(builder, generate):
    """The builder's own generator with every u8 array that stands for a picture as a PNG: tfds encodes arrays by TensorFlow."""

    def examples(*args, **options):
        features, made = builder.info.features, generate(*args, **options)
        if not hasattr(made, "__iter__"):
            return made
        pictures = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
        return ((key, {**row, **{name: _png(row[name]) for name in pictures}}) for key, row in made)

    return examples


def _png(picture):
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8:
        return picture
    data = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(data, "PNG")
    return data.getvalue()
