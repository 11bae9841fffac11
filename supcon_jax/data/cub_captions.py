"""CUB-200-2011 with captions as a tfds set in ArrayRecord files, which needs no TensorFlow to make or to read.

python -m supcon_jax.data.cub_captions --root DIR --out DIR
"""

import sys

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from supcon_jax.config import UserError
from supcon_jax.data import cub, prepared
from supcon_jax.data.images import decode
from supcon_jax.data.source import BadRecord

MODULE = "supcon_jax.data.cub_captions"


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
    return prepared.prepare(CubCaptions, root, out)


def opened(root, split):
    """One split of a prepared set: (names of the classes, records in the order of images.txt, record -> u8[h0, w0, 3]).

    All records are read once, for their captions and labels; pictures stay on disk, encoded.
    """
    info, rows = prepared.opened(root / "cub_captions", split, MODULE)
    found = sorted((_record(rows[place]), place) for place in range(len(rows)))
    records, places = zip(*found, strict=True)
    return tuple(info.metadata["classes"]), records, lambda record: decode(rows[places[record]]["image"])


def _record(row):
    return cub.Record(
        number=int(row["image_id"]),
        name=row["filename"].decode(),
        label=int(row["label"]),
        box=tuple(int(value) for value in row["bbox_pixels"]),
        captions=tuple(caption.decode() for caption in row["captions"]),
    )


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
    return prepared.command(MODULE, __doc__.splitlines()[0], "CUB_200_2011/ and text/", prepare, argv)


if __name__ == "__main__":
    sys.exit(main())
