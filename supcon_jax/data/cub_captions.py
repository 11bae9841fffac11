"""CUB-200-2011 with captions as a tfds set in ArrayRecord files, which needs no TensorFlow to make or to read.

python -m supcon_jax.data.cub_captions --root DIR --out DIR
"""

import argparse
import sys

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from supcon_jax.config import UserError
from supcon_jax.data import cub
from supcon_jax.data.fetch import home
from supcon_jax.data.images import decode
from supcon_jax.data.source import BadRecord


class CubCaptions(tfds.core.GeneratorBasedBuilder):
    """Pictures (uncropped JPEG as published), captions, class and bounding box; splits by class and by picture."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = "The folder that `python -m supcon_jax.data.fetch cub --from DIR` lays out."
    url_infos = None  # nothing to download; a search for checksums needs importlib_resources, which tfds does not require

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                    "image_id": np.int64,
                    "filename": tfds.features.Text(),
                    "label": tfds.features.ClassLabel(num_classes=200),
                    "label_name": tfds.features.Text(),
                    "bbox": tfds.features.BBoxFeature(),  # shares of height and width, as other tfds sets have it
                    "bbox_pixels": tfds.features.Tensor(shape=(4,), dtype=np.int32),  # x, y, w, h: what crop_box takes
                    "captions": tfds.features.Sequence(tfds.features.Text()),
                }
            ),
            supervised_keys=("image", "label"),
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager):
        folder = cub.find(epath.Path(dl_manager.manual_dir))
        if folder is None:
            raise UserError(f"{dl_manager.manual_dir} has no CUB_200_2011/: {cub.FETCH}")
        official = (folder / "CUB_200_2011" / "train_test_split.txt").exists()
        made = {split: cub.records(split, folder) for split in cub.SPLITS if official or "_" not in split}
        self.info.metadata["classes"] = list(made["train"][0])
        return {split: self._generate_examples(folder, *found) for split, found in made.items()}

    def _generate_examples(self, folder, classes, records):
        for record in records:
            data = (folder / "CUB_200_2011" / "images" / f"{record.name}.jpg").read_bytes()
            yield (
                record.name,
                {
                    "image": data,
                    "image_id": record.number,
                    "filename": record.name,
                    "label": record.label,
                    "label_name": classes[record.label],
                    "bbox": _shares(data, record.box),
                    "bbox_pixels": np.array(record.box, np.int32),
                    "captions": list(record.captions),
                },
            )


def prepare(root, out):
    """Make the set `cub_captions` from the published folders.

    root: what `cub.cub` reads. out: where `cub_captions/` will lie; a finished one is left alone.
    Returns the builder. Raises UserError: as `cub.cub`.
    """
    if cub.find(epath.Path(root)) is None:
        raise UserError(f"{root} has no CUB_200_2011/: {cub.FETCH}")
    builder = CubCaptions(data_dir=str(out), file_format="array_record")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(root)))
    return builder


def opened(root, split):
    """One split of a prepared set: (names of the classes, records in the order of images.txt, record -> u8[h0, w0, 3]).

    All records are read once, for their captions and labels; pictures stay on disk, encoded.
    """
    builder = tfds.builder_from_directory(_newest(root / "cub_captions"))
    if split not in builder.info.splits:
        there = ", ".join(builder.info.splits)
        raise UserError(f"{root / 'cub_captions'} has no split {split!r} but {there}: prepare it anew")
    rows = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    found = sorted((_record(rows[place]), place) for place in range(len(rows)))
    records, places = zip(*found, strict=True)
    return tuple(builder.info.metadata["classes"]), records, lambda record: decode(rows[places[record]]["image"])


def _record(row):
    return cub.Record(
        number=int(row["image_id"]),
        name=row["filename"].decode(),
        label=int(row["label"]),
        box=tuple(int(value) for value in row["bbox_pixels"]),
        captions=tuple(caption.decode() for caption in row["captions"]),
    )


def _newest(path):
    """The highest version below the set's folder."""
    versions = [entry for entry in path.iterdir() if (entry / "dataset_info.json").exists()]
    if not versions:
        raise UserError(f"{path} holds no finished version: remove it and run python -m supcon_jax.data.cub_captions")
    return max(versions, key=lambda entry: [int(part) if part.isdecimal() else 0 for part in entry.name.split(".")])


def _shares(data, box):
    """Pixels -> shares of the picture, or all of it where it cannot be decoded (found out again at every reading)."""
    try:
        height, width = decode(data).shape[:2]
    except BadRecord:
        return tfds.features.BBox(0.0, 0.0, 1.0, 1.0)
    x, y, w, h = box
    ymin, xmin, ymax, xmax = np.clip([y / height, x / width, (y + h) / height, (x + w) / width], 0.0, 1.0).tolist()
    return tfds.features.BBox(ymin, xmin, ymax, xmax)


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m supcon_jax.data.cub_captions", description=__doc__.splitlines()[0])
    parser.add_argument("--root", default=None, help="folder that holds CUB_200_2011/ and text/")
    parser.add_argument("--out", default=None, help="folder to hold cub_captions/; the root if left out")
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


if __name__ == "__main__":
    sys.exit(main())
