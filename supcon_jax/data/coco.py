"""MS COCO 2014 with captions and the categories of its objects as several labels, in the folders as published."""

import json
from typing import NamedTuple

import numpy as np
from etils import epath

from supcon_jax.config import UserError
from supcon_jax.data.fetch import home
from supcon_jax.data.folder import listing
from supcon_jax.data.images import decode
from supcon_jax.data.source import Source

SPLITS = {  # name -> (which year's part it lies in, its name in Karpathy's list)
    "train": ("train", None),
    "test": ("val", None),
    "karpathy_train": ("train", "train"),
    "karpathy_restval": ("val", "restval"),
    "karpathy_val": ("val", "val"),
    "karpathy_test": ("val", "test"),
}
PLACES = ("images/{part}2014", "{part}2014", "images/{part}2014/jpg", "images")  # where published codes keep pictures
FETCH = "run: python -m supcon_jax.data.fetch coco --from DIR, with the archives in DIR"
KARPATHY = "dataset_coco.json"
KEPT = {"images", "annotations", "categories", "id", "file_name", "image_id", "caption", "category_id", "iscrowd", "name"}


class Record(NamedTuple):
    """One picture: its id, file name, all captions, objects {(category 0..79, whether a crowd)}, split of Karpathy's list
    ("" where that list is absent)."""

    number: int
    name: str
    captions: tuple[str, ...]
    objects: frozenset[tuple[int, bool]]
    karpathy: str


def coco(split, root=None, *, captions=5, crowd=True):
    """One split of COCO 2014.

    split: "train" (82,783 pictures of train2014) or "test" (40,504 of val2014, what text-to-image papers test on), or
        "karpathy_train", "karpathy_restval", "karpathy_val", "karpathy_test" by dataset_coco.json.
    root: folder with annotations/ and the pictures, or the one above it (then named coco), or a folder with the tfds set
        `coco_captions_multilabel`, which is read where annotations/ is absent. By default where fetch puts it.
    captions: so many of each picture are kept, in the order of their ids; most have five, some six or seven.
    crowd: whether a category that only a crowd region shows counts as a label.
    Labels u8[records, 80], categories in the order of their ids (1 to 90, with gaps); a row of zeros where a picture
    shows no object: it anchors no label term, and its partner is the same picture with another caption.
    Records in the order of their ids.
    Raises UserError: a file is missing, misplaced or disagrees with another; BadRecord, later on: a damaged picture.
    Differs from AttnGAN: records are not in the order of the pickles, and no class ids are made up.
    """
    if split not in SPLITS:
        raise UserError(f"coco has no split {split!r}: use one of {', '.join(SPLITS)}")
    if captions < 1:
        raise UserError(f"coco: captions={captions}: keep at least 1")
    root, (part, listed) = epath.Path(home(root)), SPLITS[split]
    folder = find(root)
    if folder is not None:
        classes, chosen = records(part, folder)
        place = pictures(part, folder, chosen)
        chosen = members(chosen, listed, folder)

        def image(record):
            return decode(place / chosen[record].name)

    else:
        chosen, classes, image = _prepared(part, listed, root)
    labels = np.zeros((len(chosen), len(classes)), np.uint8)
    for row, record in enumerate(chosen):
        labels[row, [label for label, many in record.objects if crowd or not many]] = 1
    return Source(
        name="coco",
        split=split,
        captions=[record.captions[:captions] for record in chosen],
        labels=labels,
        classes=classes,
        image=image,
        keys=[record.name for record in chosen],
    )


def find(root):
    """The folder that holds annotations/, or None."""
    for folder in (epath.Path(root), epath.Path(root) / "coco"):
        if (folder / "annotations").is_dir():
            return folder
    return None


def records(part, folder):
    """(names of the categories, the records of "train" or "val" in the order of their ids), the tables checked."""
    paths = {what: folder / "annotations" / f"{what}_{part}2014.json" for what in ("captions", "instances")}
    tables = {what: _table(path) for what, path in paths.items()}
    place = {number: i for i, number in enumerate(sorted(tables["instances"]["categories"]))}
    classes = tuple(tables["instances"]["categories"][number] for number in place)
    names = tables["captions"]["images"]
    if names != tables["instances"]["images"]:
        other = f"{paths['captions']} and {paths['instances']} list other pictures"
        raise UserError(f"{other}: take both from one archive: {FETCH}")
    said, seen = {number: [] for number in names}, {number: set() for number in names}
    for _, image, text in sorted(tables["captions"]["annotations"]):
        _known(image, names, paths["captions"])
        said[image] += filter(None, [text.strip()])
    for _, image, (category, crowd) in tables["instances"]["annotations"]:
        _known(image, names, paths["instances"])
        if category not in place:
            raise UserError(f"{paths['instances']}: picture {image} shows category {category}, which has no name: {FETCH}")
        seen[image].add((place[category], crowd))
    split = karpathy(folder)
    found = [
        Record(number, names[number], tuple(said[number]), frozenset(seen[number]), split.get(number, ""))
        for number in sorted(names)
    ]
    return classes, found


def karpathy(folder):
    """{picture's id: split} of Karpathy's list; empty where there is none."""
    path = next((p for p in (folder / KARPATHY, folder / "annotations" / KARPATHY) if p.exists()), None)
    if path is None:
        return {}
    try:
        return {int(row["cocoid"]): str(row["split"]) for row in json.loads(path.read_text(encoding="utf-8"))["images"]}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not Karpathy's list ({type(error).__name__}: {error}): take it from its source") from None


def members(chosen, listed, folder):
    """The records of one of Karpathy's splits; all of them if `listed` is None."""
    if listed is None:
        return chosen
    found = [record for record in chosen if record.karpathy == listed]
    if not found:
        raise UserError(f"{folder} has no picture of Karpathy's split {listed!r}: put {KARPATHY} there")
    return found


def pictures(part, folder, chosen):
    """The folder that holds the pictures of these records; every one of them must be there."""
    for place in PLACES:
        path = folder / place.format(part=part)
        if (path / chosen[0].name).exists():
            break
    else:
        tried = ", ".join(place.format(part=part) for place in PLACES)
        raise UserError(f"{folder}: {chosen[0].name} lies in none of {tried}: {FETCH}")
    missing = {record.name for record in chosen} - listing(path)
    if missing:
        raise UserError(f"{path / min(missing)} is missing ({len(missing)} pictures are): {FETCH}")
    return path


def _table(path):
    """A JSON file of COCO: {"images": {id: file}, "annotations": [(id, image, what it says)], "categories": {id: name}}.

    Outlines of objects, most of the file, are dropped while it is read.
    """
    if not path.exists():
        raise UserError(f"{path} is missing: {FETCH}")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"), object_hook=lambda d: {k: d[k] for k in KEPT & d.keys()})
        images = {int(row["id"]): row["file_name"] for row in raw["images"]}
        if len(images) != len(raw["images"]) or not images:
            raise UserError(f"{path}: no pictures, or one id twice: {FETCH}")
        rows = [(int(row["id"]), int(row["image_id"]), _says(row)) for row in raw["annotations"]]
        return {
            "images": images,
            "annotations": rows,
            "categories": {int(row["id"]): row["name"] for row in raw.get("categories", ())},
        }
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not COCO's JSON ({type(error).__name__}: {error}): {FETCH}") from None


def _says(row):
    """What an annotation says: a caption, or (category, whether a crowd)."""
    return str(row["caption"]) if "caption" in row else (int(row["category_id"]), bool(row["iscrowd"]))


def _known(image, names, path):
    if image not in names:
        raise UserError(f"{path} speaks of picture {image}, which it does not list: {FETCH}")


def _prepared(part, listed, root):
    """The same from the tfds set; tfds is imported only here."""
    for place in (root, root / "coco"):
        if (place / "coco_captions_multilabel").is_dir():
            break
    else:
        raise UserError(f"{root} has neither annotations/ nor coco_captions_multilabel/: set data.root, or {FETCH}")
    try:
        from supcon_jax.data import coco_captions
    except ModuleNotFoundError as error:
        missing = f"{place / 'coco_captions_multilabel'} is a tfds set, but {error.name} is not installed"
        raise UserError(f"{missing}: pip install 'supcon_jax[tfds]'") from None
    classes, found, raw = coco_captions.opened(place, part)
    kept = members(found, listed, place)
    where = {record.number: i for i, record in enumerate(found)}
    return kept, classes, lambda record: raw(where[kept[record].number])
