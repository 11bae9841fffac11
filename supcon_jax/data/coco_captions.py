"""COCO 2014 with captions and categories as a tfds set in ArrayRecord files.

python -m supcon_jax.data.coco_captions --root DIR --out DIR
"""

import sys

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from supcon_jax.config import UserError
from supcon_jax.data import coco, prepared
from supcon_jax.data.images import decode

MODULE = "supcon_jax.data.coco_captions"


class CocoCaptionsMultilabel(tfds.core.GeneratorBasedBuilder):
    """Pictures (JPEG as published), all captions, categories with whether a crowd shows them, Karpathy's split."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = "The folder that `python -m supcon_jax.data.fetch coco --from DIR` lays out."
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
                    "captions": tfds.features.Sequence(tfds.features.Text()),
                    "category": tfds.features.Sequence(np.int64),
                    "crowd": tfds.features.Sequence(np.bool_),
                    "karpathy": tfds.features.Text(),
                }
            ),
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager):
        folder = coco.find(epath.Path(dl_manager.manual_dir))
        if folder is None:
            raise UserError(f"{dl_manager.manual_dir} has no annotations/: {coco.FETCH}")
        made = {part: coco.records(part, folder) for part in ("train", "val")}
        self.info.metadata["classes"] = list(made["train"][0])
        return {part: self._generate_examples(part, folder, found) for part, (_, found) in made.items()}

    def _generate_examples(self, part, folder, records):
        place = coco.pictures(part, folder, records)
        for record in records:
            objects = sorted(record.objects)
            yield (
                record.number,
                {
                    "image": (place / record.name).read_bytes(),
                    "image_id": record.number,
                    "filename": record.name,
                    "captions": list(record.captions),
                    "category": np.array([label for label, _ in objects], np.int64),
                    "crowd": np.array([many for _, many in objects], np.bool_),
                    "karpathy": record.karpathy,
                },
            )


def prepare(root, out):
    """Make the set `coco_captions_multilabel` from the published folders.

    root: what `coco.coco` reads. out: where the set will lie; a finished one is left alone.
    Returns the builder. Raises UserError: as `coco.coco`.
    """
    if coco.find(epath.Path(root)) is None:
        raise UserError(f"{root} has no annotations/: {coco.FETCH}")
    return prepared.prepare(CocoCaptionsMultilabel, root, out)


def opened(root, part):
    """"train" or "val" of a prepared set: (names of the categories, records in the order of their ids, record -> picture).

    All records are read once, for their captions and labels; pictures stay on disk, encoded.
    """
    info, rows = prepared.opened(root / "coco_captions_multilabel", part, MODULE)
    found = sorted(((_record(rows[place]), place) for place in range(len(rows))), key=lambda pair: pair[0].number)
    records, places = zip(*found, strict=True)
    return tuple(info.metadata["classes"]), list(records), lambda record: decode(rows[places[record]]["image"])


def _record(row):
    return coco.Record(
        number=int(row["image_id"]),
        name=row["filename"].decode(),
        captions=tuple(caption.decode() for caption in row["captions"]),
        objects=frozenset(zip(map(int, row["category"]), map(bool, row["crowd"]), strict=True)),
        karpathy=row["karpathy"].decode(),
    )


def main(argv=None):
    return prepared.command(MODULE, __doc__.splitlines()[0], "annotations/ and the pictures", prepare, argv)


if __name__ == "__main__":
    sys.exit(main())
