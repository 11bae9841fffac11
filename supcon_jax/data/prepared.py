"""Data sets as tfds keeps them, in ArrayRecord files, which need no TensorFlow to make or to read."""

import argparse
import sys

import tensorflow_datasets as tfds

from supcon_jax.config import UserError
from supcon_jax.data.fetch import home


def prepare(builder, root, out):
    """Makes a set below `out` from the published folders below `root`; a finished one is left alone. Returns the builder."""
    made = builder(data_dir=str(out), file_format="array_record")
    made.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(root)))
    return made


def opened(path, split, module, image="image"):
    """(info, rows of one split with pictures left encoded) of the set whose versions lie below `path`.

    split: as tfds writes it, also "train[:90%]". module: with its arguments, what prepares the set. image: the feature that
    holds the pictures.
    Raises UserError: no finished version, another format than ArrayRecord, no such split or feature; the line names the
    module that prepares it.
    """
    versions = [entry for entry in path.iterdir() if (entry / "dataset_info.json").exists()]
    if not versions:
        raise UserError(f"{path} holds no finished version: remove it and run python -m {module}")
    newest = max(versions, key=lambda entry: [int(part) if part.isdecimal() else 0 for part in entry.name.split(".")])
    builder = tfds.builder_from_directory(newest)
    try:
        builder.info.splits[split]  # this knows parts and sums of splits too
    except (KeyError, ValueError, AssertionError):
        raise UserError(
            f"{path} has no split {split!r} but {', '.join(builder.info.splits)}: use one of them, or prepare it anew"
        ) from None
    if image not in builder.info.features:
        raise UserError(f"{path} has no feature {image!r} but {', '.join(builder.info.features)}")
    try:
        return builder.info, builder.as_data_source(split, decoders={image: tfds.decode.SkipDecoding()})
    except NotImplementedError:
        raise UserError(
            f"{newest} is in a format that cannot be read without TensorFlow: move it away and run python -m {module}, "
            "which writes array_record"
        ) from None


def command(module, text, holds, prepare, argv=None):
    """Command line of a module that prepares a set: (root, out) -> builder; returns the exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=text)
    parser.add_argument("--root", default=None, help=f"folder that holds {holds}")
    parser.add_argument("--out", default=None, help="folder to hold the set; the root if left out")
    options = parser.parse_args(argv)
    root = home(options.root)
    try:
        builder = prepare(root, options.out or root)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, split in builder.info.splits.items():
        print(f"{name}: {split.num_examples} records")
    print(f"in {builder.data_path}")
    return 0
