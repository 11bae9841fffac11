"""Lay out the archives of CUB-200-2011 and its captions as `cub.py` reads them, with a checklist."""

import pathlib
import re
from collections import Counter

from supcon_jax.config import UserError
from supcon_jax.data import arrange, cub

PUBLISHED = "0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081"  # CUB_200_2011.tgz, 1,150,585,339 bytes
TABLES = ("images.txt", "classes.txt", "image_class_labels.txt", "bounding_boxes.txt", "train_test_split.txt")
COUNTS = {"pictures": 11788, "captions": 11788, "train": 8855, "test": 2933}

RULES = (  # end of a path, wherever it lies -> its place
    (re.compile(r"(?:^|/)CUB_200_2011/(" + "|".join(map(re.escape, TABLES)) + r")$"), r"CUB_200_2011/\1"),
    (re.compile(r"(?:^|/)images/([^/]+/[^/]+\.jpg)$"), r"CUB_200_2011/images/\1"),
    (re.compile(r"(?:^|/)(?:text|text_c10)/([^/]+/[^/]+\.txt)$"), r"text/\1"),
    (re.compile(r"(?:^|/)(train|test)/filenames\.pickle$"), r"\1/filenames.pickle"),
)


def _kind(path):
    """What a laid out file counts as."""
    other = "tables" if path.name in TABLES else "captions"
    return {".jpg": "pictures", ".pickle": "split lists"}.get(path.suffix, other)


def lay_out(source, target, *, small=False, say=print):
    """Bring what lies in `source`, archives (also inside archives) or unpacked folders, to the places `cub.py` knows.

    source: folder to look through; None: nothing to bring, only check. target: gets CUB_200_2011/, text/ and, if found,
    train/ and test/. Files that are there already, with the same size, are left. small: accept any number of pictures.
    say: called with the lines of the checklist.
    Returns nothing. Raises UserError: something needed is missing or wrong, after the checklist.
    """
    target = pathlib.Path(target)
    if source is not None:
        source = pathlib.Path(source)
        if not source.is_dir():
            raise UserError(f"--from {source} is no folder: give the one with CUB_200_2011.tgz and the captions")
        arrange.bring(source, target, RULES, _kind, say, {"CUB_200_2011.tgz": PUBLISHED})
    elif not target.is_dir():
        raise UserError(f"{target} is missing: give --from DIR with CUB_200_2011.tgz and the captions' archive in DIR")
    missing = _checklist(target, say)
    if missing:
        raise UserError(f"cub is not complete in {target}: {'; '.join(missing)}")
    _verify(target, small, say)
    say(f"ready: --config=configs/cub.py --config.data.root={target.parent}")


def _checklist(target, say):
    """Say what is there and what is not; returns what must be added."""
    missing = []
    for name in TABLES:
        if (target / "CUB_200_2011" / name).exists():
            say(f"[ok]       CUB_200_2011/{name}")
        elif name == "train_test_split.txt":
            say(f"[absent]   CUB_200_2011/{name}: only official_train and official_test need it")
        else:
            say(f"[MISSING]  CUB_200_2011/{name}")
            missing.append(f"CUB_200_2011/{name} is missing, it is in CUB_200_2011.tgz")
    for place, what, archive in (
        ("CUB_200_2011/images", "jpg", "CUB_200_2011.tgz"),
        ("text", "txt", "the archive with one text file of ten captions per picture"),
    ):
        count = sum(1 for _ in (target / place).glob(f"*/*.{what}"))
        say(f"[{'ok' if count else 'MISSING'}]".ljust(11) + f"{place}/: {count} files")
        if not count:
            missing.append(f"{place}/ has no {what} files, they are in {archive}")
    for name in ("train", "test"):
        there = (target / name / "filenames.pickle").exists()
        why = "" if there else ": the built-in list of the 50 test classes is used unless both are there"
        say(f"[{'ok' if there else 'absent'}]".ljust(11) + f"{name}/filenames.pickle{why}")
    return missing


def _verify(target, small, say):
    """Read it all as training will, and count."""
    found, lines = {}, Counter()
    for split in ("train", "test"):
        classes, records = cub.records(split, target)
        found[split] = len(records)
        lines.update(len(record.captions) for record in records)
        say(f"[ok]       {split}: {len(records)} pictures of {len({record.label for record in records})} classes")
    found["pictures"] = found["captions"] = found["train"] + found["test"]
    for count, pictures in sorted(lines.items()):
        if count != 10:
            say(f"[note]     {pictures} pictures have {count} captions instead of 10")
    wrong = [f"{what} {found[what]} instead of {COUNTS[what]}" for what in COUNTS if found[what] != COUNTS[what]]
    if wrong and not small:
        raise UserError(f"{target} is not the published set: {', '.join(wrong)}; add what is missing, or say --small")
