"""Lay out the archives of COCO 2014 as `coco.py` reads them, with a checklist."""

import pathlib
import re
from collections import Counter

from supcon_jax.config import UserError
from supcon_jax.data import arrange, coco

COUNTS = {"train": 82783, "test": 40504}
KARPATHY = {"karpathy_train": 82783, "karpathy_restval": 30504, "karpathy_val": 5000, "karpathy_test": 5000}
ARCHIVES = "train2014.zip, val2014.zip and annotations_trainval2014.zip"

RULES = (  # end of a path, wherever it lies -> its place
    (re.compile(r"(?:^|/)((?:captions|instances)_(?:train|val)2014\.json)$"), r"annotations/\1"),
    (re.compile(r"(?:^|/)(COCO_(train|val)2014_\d{12}\.jpg)$"), r"images/\g<2>2014/\1"),
    (re.compile(r"(?:^|/)(dataset_coco\.json)$"), r"\1"),
)


def lay_out(source, target, *, small=False, say=print):
    """Bring what lies in `source`, archives or unpacked folders, to the places `coco.py` knows.

    source: folder to look through; None: nothing to bring, only check. target: gets annotations/, images/ and, if found,
    dataset_coco.json. Files that are there already, with the same size, are left. small: accept any number of pictures.
    say: called with the lines of the checklist.
    Returns nothing. Raises UserError: something needed is missing or wrong, after the checklist.
    """
    target = pathlib.Path(target)
    if source is not None:
        if not pathlib.Path(source).is_dir():
            raise UserError(f"--from {source} is no folder: give the one with {ARCHIVES}")
        arrange.bring(source, target, RULES, lambda path: "pictures" if path.suffix == ".jpg" else "tables", say)
    elif not target.is_dir():
        raise UserError(f"{target} is missing: give --from DIR with {ARCHIVES} in DIR")
    missing = []
    for name in (f"annotations/{what}_{part}2014.json" for what in ("captions", "instances") for part in ("train", "val")):
        there = (target / name).exists()
        say(f"[{'ok' if there else 'MISSING'}]".ljust(11) + name)
        if not there:
            missing.append(f"{name} is missing, it is in annotations_trainval2014.zip")
    listed = (target / coco.KARPATHY).exists()
    say(f"[{'ok' if listed else 'absent'}]".ljust(11) + coco.KARPATHY + ("" if listed else ": only karpathy_* splits need it"))
    if missing:
        raise UserError(f"coco is not complete in {target}: {'; '.join(missing)}")
    _verify(target, COUNTS | (KARPATHY if listed else {}), small, say)
    say(f"ready: --config=configs/coco.py --config.data.root={target.parent}")


def _verify(target, counts, small, say):
    """Read it all as training will, and count."""
    found = {}
    for part, split in (("train", "train"), ("val", "test")):
        classes, records = coco.records(part, target)
        coco.pictures(part, target, records)
        found[split] = len(records)
        found |= Counter(f"karpathy_{record.karpathy}" for record in records if record.karpathy)
        bare, mute = (sum(not getattr(record, what) for record in records) for what in ("objects", "captions"))
        say(f"[ok]       {split}: {len(records)} pictures, {len(classes)} categories; {bare} show no object")
        if mute:
            say(f"[note]     {mute} pictures of {split} have no caption: they will be skipped")
    wrong = [f"{what} {found.get(what, 0)} instead of {number}" for what, number in counts.items() if found.get(what) != number]
    if wrong and not small:
        raise UserError(f"{target} is not the published set: {', '.join(wrong)}; add what is missing, or say --small")
