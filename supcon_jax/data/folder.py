"""Pictures in a folder and a captions.jsonl beside them: the way to bring one's own data."""

import hashlib
import json
import pathlib

import numpy as np
from etils import epath

from supcon_jax import storage
from supcon_jax.config import UserError
from supcon_jax.data.images import decode
from supcon_jax.data.source import Source

KEYS = ("image", "captions", "labels", "split")
SHARES = (("train", 90), ("val", 5), ("test", 5))  # per cent, where the file names no splits


def folder(split, root, *, captions="captions.jsonl"):
    """One split of a folder: each line of `captions.jsonl` is {"image", "captions", "labels", "split"}.

    image: path of the picture inside root. captions: a list of strings, may be empty. labels (may be left out): one
    string or integer, or a list of them. split (on all lines or on none): name of the split.
    Without splits in the file, a hash of the picture's path decides: "train" 90 %, "val" 5 %, "test" 5 %.
    split: name of the split. root: the folder, local or remote. captions: name of the file inside root.
    Returns Source. At most one label each, and no line without: labels i32[records]. Several, or some lines without:
    multi-hot u8[records, c]. No label in the whole file: None. Classes are those of the whole file, sorted.
    Raises UserError: with the line's number, JSON that cannot be read, unknown keys, wrong types, a picture that is
    missing, named twice or outside root; a split without records.
    """
    root = storage.place(root)
    path = root / captions
    if not path.exists():
        raise UserError(f"{path} is missing: write one line of JSON per picture, or correct data.root")
    lines = _lines(path)
    _check_images(lines, root, path)
    classes, labels = _labels(lines, path)
    splits = _splits(lines, path)
    chosen = [i for i, name in enumerate(splits) if name == split]
    if not chosen:
        raise UserError(f"{path} has no record for split {split!r} but some for {', '.join(sorted(set(splits)))}")
    keys = [lines[i]["image"] for i in chosen]
    return Source(
        name="folder",
        split=split,
        captions=[lines[i]["captions"] for i in chosen],
        labels=None if labels is None else labels[chosen],
        classes=classes,
        image=lambda record: decode(root / keys[record]),
        keys=keys,
    )


def pictures(root, *, captions="captions.jsonl"):
    """Pictures that some model made: all of a folder, to be scored.

    With `captions` in it (as in `folder`, splits ignored) the pictures that it lists, in its order, and the caption that
    each was made from, which is its first. Without: every .png and .jpg in the folder itself, by name, and no captions.
    Returns Source, its split "fakes"; `captions` holds one caption each or none.
    Raises UserError: no such folder, no pictures, what `folder` raises, some lines with and some without a caption.
    """
    root = storage.place(root)
    if not root.is_dir():
        raise UserError(f"{root} is no folder: give the one that holds the pictures")
    path, labels, classes = root / captions, None, ()
    if path.exists():
        lines = _lines(path)
        _check_images(lines, root, path)
        keys, said = [line["image"] for line in lines], [tuple(line["captions"][:1]) for line in lines]
        bare = [line["line"] for line, words in zip(lines, said, strict=True) if not words]
        if bare and len(bare) < len(lines):
            raise UserError(f"{path}, line {bare[0]} has no caption but other lines have: give it on all lines or on none")
        classes, labels = _labels(lines, path)
    else:
        keys = sorted(name for name in listing(root) if name.lower().endswith((".png", ".jpg", ".jpeg")))
        said = [()] * len(keys)
    if not keys:
        raise UserError(f"{root} holds no .png or .jpg: give the folder that holds the pictures")
    return Source("folder", "fakes", said, labels, classes, lambda record: decode(root / keys[record]), keys)


def listing(path):
    """Names of the files in a folder, none if it is missing; one look for all of them, for remote folders' sake."""
    try:
        return {entry.name for entry in epath.Path(path).iterdir()}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def outside(name):
    """Whether a path leaves the folder that it should stay in, as POSIX or Windows would read it."""
    parts = pathlib.PureWindowsPath(name)
    return not name or name.startswith("/") or bool(parts.anchor) or ".." in parts.parts or "\0" in name


def _lines(path):
    """Parse and check every line; labels become a list, and each record keeps its line's number."""
    records = []
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8") from None
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except ValueError as error:
            raise UserError(f"{where} is not JSON ({error}): one object per line") from None
        records.append({**_record(record, where), "line": number})
    if not records:
        raise UserError(f"{path} has no records: write one line of JSON per picture")
    return records


def _record(record, where):
    """One parsed line with its types checked."""
    if not isinstance(record, dict) or not isinstance(record.get("image"), str):
        raise UserError(f'{where}: an object with "image", the path of a picture inside the folder, is needed')
    unknown = sorted(set(record) - set(KEYS))
    if unknown:
        raise UserError(f"{where}: unknown key {unknown[0]!r}: use {', '.join(KEYS)}")
    if outside(record["image"]):
        raise UserError(f"{where}: image {record['image']!r} leads out of the folder: give a path inside it")
    captions = record.get("captions", [])
    if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
        raise UserError(f"{where}: captions must be a list of strings")
    labels = record.get("labels")
    labels = [] if labels is None else labels if isinstance(labels, list) else [labels]
    if not all(isinstance(label, str | int) and not isinstance(label, bool) for label in labels):
        raise UserError(f"{where}: labels must be strings or integers")
    split = record.get("split")
    if split is not None and (not isinstance(split, str) or not split):
        raise UserError(f"{where}: split must be a name such as train")
    return {"image": record["image"], "captions": captions, "labels": labels, "split": split}


def _check_images(lines, root, path):
    """Every picture is there and stands on one line only: a second line might put it into another split."""
    folders, seen = {}, {}
    for record in lines:
        image, where = root / record["image"], f"{path}, line {record['line']}"
        first = seen.setdefault(str(pathlib.PurePosixPath(record["image"])), record["line"])
        if first != record["line"]:
            raise UserError(f"{where}: {record['image']} stands on line {first} already: put its captions on one line")
        parent = image.parent
        if parent not in folders:
            folders[parent] = listing(parent)
        if image.name not in folders[parent]:
            raise UserError(f"{where}: {image} is missing: correct the path or remove the line")


def _labels(lines, path):
    """(names of the classes, labels of all lines)."""
    kinds = {}
    for record in lines:
        for label in record["labels"]:
            kinds.setdefault(type(label), record["line"])
    if len(kinds) > 1:
        raise UserError(f"{path}: labels on line {kinds[str]} are strings, on line {kinds[int]} integers: use one kind")
    names = sorted({label for record in lines for label in record["labels"]})
    place = {name: i for i, name in enumerate(names)}
    classes = tuple(str(name) for name in names)
    if not names:
        return (), None
    if all(len(record["labels"]) == 1 for record in lines):
        return classes, np.array([place[record["labels"][0]] for record in lines], np.int32)
    labels = np.zeros((len(lines), len(names)), np.uint8)
    for row, record in enumerate(lines):
        labels[row, [place[label] for label in record["labels"]]] = 1
    return classes, labels


def _splits(lines, path):
    """Split of each line: as written, or by the picture's path."""
    given = {record["split"] is not None for record in lines}
    if given == {True, False}:
        line = next(record["line"] for record in lines if record["split"] is None)
        raise UserError(f"{path}, line {line} has no split but other lines have: give it on all lines or on none")
    if given == {True}:
        return [record["split"] for record in lines]
    return [share(str(pathlib.PurePosixPath(record["image"])), SHARES) for record in lines]


def share(name, shares):
    """Which of the (split, per cent) a name falls into: by its hash alone, so the same on every machine."""
    point = int.from_bytes(hashlib.sha256(name.encode("utf-8")).digest()[:8], "big") % 100
    for split, size in shares:
        if point < size:
            return split
        point -= size
    raise ValueError(f"shares {shares} do not add up to 100")
