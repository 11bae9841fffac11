"""Caltech-UCSD Birds 200-2011 with ten captions per picture, in the folders that text-to-image work uses."""

import pickle
from typing import NamedTuple

import numpy as np
from etils import epath

from supcon_jax import storage
from supcon_jax.config import UserError
from supcon_jax.data.fetch import home
from supcon_jax.data.folder import listing
from supcon_jax.data.images import decode
from supcon_jax.data.source import BadRecord, Source

SPLITS = ("train", "test", "official_train", "official_test")
FETCH = "run: python -m supcon_jax.data.fetch cub --from DIR, with the archives in DIR"

# Classes (numbers of classes.txt) of the zero-shot test split: 50 of 200, 2,933 of 11,788 pictures. Akata et al. made it,
# Reed et al. 2016 collected captions for it, and the test/filenames.pickle that text-to-image papers share lists the
# pictures of just these classes.
TEST = (
    1, 4, 6, 8, 9, 14, 23, 29, 31, 33, 34, 35, 36, 37, 38, 43, 49, 51, 53, 66, 72, 79, 83, 84, 86, 91, 95, 96, 98, 101,
    102, 103, 112, 114, 119, 121, 130, 135, 138, 147, 156, 163, 165, 166, 180, 183, 185, 186, 187, 197,
)  # fmt: skip


class Record(NamedTuple):
    """One picture: its number in images.txt, class folder/file, class 0..199, box (x, y, w, h) in pixels, captions."""

    number: int
    name: str
    label: int
    box: tuple[int, int, int, int]
    captions: tuple[str, ...]


def cub(split, root=None, *, bbox_crop=True):
    """One split of CUB-200-2011.

    split: "train" (150 classes) or "test" (the other 50), or "official_train" and "official_test" (all 200 classes in
        both, by train_test_split.txt).
    root: folder with CUB_200_2011/ and text/, or the one above it (then named cub or birds), or a folder with the tfds
        set `cub_captions`, which is read where the pictures' own folder is absent. By default where fetch puts it.
    bbox_crop: cut the picture to the bird: `crop_box`.
    train and test come from train/filenames.pickle and test/filenames.pickle where both are there, else from TEST.
    Records in the order of images.txt. Labels i32[records], the class's place in classes.txt from 0, classes all names.
    Raises UserError: a file is missing, misplaced or disagrees with another; BadRecord, later on: a damaged picture.
    Differs from AttnGAN: records are not in the order of the pickles.
    """
    if split not in SPLITS:
        raise UserError(f"cub has no split {split!r}: use one of {', '.join(SPLITS)}")
    root = storage.place(home(root))
    folder = find(root)
    if folder is None:
        for place in (root, root / "cub", root / "birds"):
            if (place / "cub_captions").is_dir():
                return _prepared(split, place, bbox_crop)
        raise UserError(f"{root} has neither CUB_200_2011/images.txt nor cub_captions/: set data.root, or {FETCH}")
    classes, chosen = records(split, folder)

    def image(record):
        raw = decode(folder / "CUB_200_2011" / "images" / f"{chosen[record].name}.jpg")
        return crop_box(raw, chosen[record].box) if bbox_crop else raw

    return _source(split, classes, chosen, image)


def crop_box(image, box):
    """Cut a square around a box: three quarters of its longer side to each side of its middle.

    r = int(0.75 max(w, h)), middle (int((2 x + w) / 2), int((2 y + h) / 2)), as the loaders of StackGAN and AttnGAN do.
    image: u8[h0, w0, 3]. box: x, y, w, h in pixels. Returns u8[<= 2 r, <= 2 r, 3]; clipped, not padded, at the borders.
    Raises BadRecord: nothing of the picture lies there.
    """
    x, y, width, height = (int(value) for value in box)
    r = int(max(width, height) * 0.75)
    middle_x, middle_y = int((2 * x + width) / 2), int((2 * y + height) / 2)
    cut = image[max(0, middle_y - r) : max(0, middle_y + r), max(0, middle_x - r) : max(0, middle_x + r)]
    if not cut.size:
        raise BadRecord(f"the box {tuple(box)} lies outside the picture of {image.shape[1]} x {image.shape[0]} pixels")
    return cut


def find(root):
    """The folder that holds CUB_200_2011/ and text/, or None."""
    for folder in (epath.Path(root), epath.Path(root) / "cub", epath.Path(root) / "birds"):
        if (folder / "CUB_200_2011").is_dir():
            return folder
    return None


def records(split, folder):
    """(names of the classes, the split's records in the order of images.txt), everything on disk checked."""
    tables = folder / "CUB_200_2011"
    classes = _classes(tables / "classes.txt")
    names = _table(tables / "images.txt", 1)
    labels = _table(tables / "image_class_labels.txt", 1)
    boxes = _table(tables / "bounding_boxes.txt", 4)
    names = {number: _stem(name, tables / "images.txt") for number, (name,) in names.items()}
    chosen = _members(split, folder, names)
    found = {}
    out = []
    for number, name in names.items():
        if name not in chosen:
            continue
        label = _label(labels, number, name, classes, tables)
        if number not in boxes:
            raise UserError(f"{tables / 'bounding_boxes.txt'} has no line for image {number} ({name}): {FETCH}")
        _present(folder, name, found)
        captions = _captions(folder / "text" / f"{name}.txt")
        out.append(Record(number, name, label, _box(boxes[number], number, tables), captions))
    if not out:
        raise UserError(f"{folder} has no picture of split {split!r}: see {tables / 'images.txt'} and the split lists")
    return classes, out


def _source(split, classes, chosen, image):
    return Source(
        name="cub",
        split=split,
        captions=[record.captions for record in chosen],
        labels=np.array([record.label for record in chosen], np.int32),
        classes=classes,
        image=image,
        keys=[record.name for record in chosen],
    )


def _prepared(split, folder, bbox_crop):
    """The same from the tfds set; tfds is imported only here."""
    try:
        from supcon_jax.data import cub_captions
    except ModuleNotFoundError as error:
        missing = f"{folder / 'cub_captions'} is a tfds set, but {error.name} is not installed"
        raise UserError(f"{missing}: pip install 'supcon_jax[tfds]'") from None
    classes, chosen, raw = cub_captions.opened(folder, split)
    if not bbox_crop:
        return _source(split, classes, chosen, raw)
    return _source(split, classes, chosen, lambda record: crop_box(raw(record), chosen[record].box))


def _table(path, columns):
    """A file of lines "number value ..." -> {number: values}."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} is missing: {FETCH}") from None
    out = {}
    for line, row in enumerate(text.splitlines(), 1):
        parts = row.split()
        if not parts:
            continue
        if len(parts) != columns + 1 or not parts[0].isdecimal() or int(parts[0]) in out:
            need = f"a new number and {columns} values are needed"
            raise UserError(f"{path}, line {line}: {need}, found {row[:60]!r}: {FETCH}")
        out[int(parts[0])] = parts[1:]
    if not out:
        raise UserError(f"{path} is empty: {FETCH}")
    return out


def _classes(path):
    table = _table(path, 1)
    if sorted(table) != list(range(1, len(table) + 1)):
        raise UserError(f"{path}: the classes must be numbered 1 to {len(table)} without gaps: {FETCH}")
    return tuple(table[number][0] for number in sorted(table))


def _stem(name, path):
    """ "class/file.jpg" -> "class/file"."""
    parts = name.split("/")
    if len(parts) != 2 or not name.endswith(".jpg") or ".." in parts:
        raise UserError(f"{path}: {name!r} is no path of the form class/file.jpg: {FETCH}")
    return name[: -len(".jpg")]


def _label(labels, number, name, classes, tables):
    path = tables / "image_class_labels.txt"
    if number not in labels:
        raise UserError(f"{path} has no line for image {number} ({name}): {FETCH}")
    (label,) = labels[number]
    if not label.isdecimal() or not 1 <= int(label) <= len(classes):
        raise UserError(f"{path}: image {number} has class {label}, but classes.txt has 1 to {len(classes)}: {FETCH}")
    if classes[int(label) - 1] != name.split("/")[0]:
        raise UserError(f"{path}: image {number} has class {classes[int(label) - 1]} but lies in {name}: {FETCH}")
    return int(label) - 1


def _box(values, number, tables):
    try:
        x, y, width, height = (int(float(value)) for value in values)
        if width < 1 or height < 1:
            raise ValueError
    except (ValueError, OverflowError):
        where = f"{tables / 'bounding_boxes.txt'}: image {number}"
        raise UserError(f"{where} has the box {' '.join(values)}, not x y width height: {FETCH}") from None
    return x, y, width, height


def _present(folder, name, found):
    """Picture and captions are there; each class's folders are listed once."""
    bird = name.split("/")[0]
    for place, ending, what in (("CUB_200_2011/images", "jpg", "pictures"), ("text", "txt", "captions")):
        if (place, bird) not in found:
            found[place, bird] = listing(folder / place / bird)
            if not found[place, bird]:
                raise UserError(f"{folder / place / bird} is missing or empty, it should hold {what}: {FETCH}")
        if f"{name.split('/')[1]}.{ending}" not in found[place, bird]:
            raise UserError(f"{folder / place / name}.{ending} is missing: {FETCH}")


def _captions(path):
    """Lines of a caption file; bytes that are no UTF-8, of which the published ones have some, become a space."""
    text = path.read_bytes().decode("utf-8", "replace").replace("\ufffd", " ")
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _members(split, folder, names):
    """Names of the split's pictures."""
    if split.startswith("official"):
        path = folder / "CUB_200_2011" / "train_test_split.txt"
        table, wanted = _table(path, 1), str(int(split == "official_train"))
        if set(table) != set(names) or not {value for (value,) in table.values()} <= {"0", "1"}:
            raise UserError(f"{path} must say 0 or 1 for each image of images.txt: {FETCH}")
        return {name for number, name in names.items() if table[number] == [wanted]}
    lists = {name: folder / name / "filenames.pickle" for name in ("train", "test")}
    there = [name for name, path in lists.items() if path.exists()]
    if not there:
        return {name for name in names.values() if (int(name.split(".")[0]) in TEST) == (split == "test")}
    if len(there) == 1:
        (missing,) = {"train", "test"} - set(there)
        raise UserError(
            f"{lists[missing]} is missing but {lists[there[0]]} is there: add it, or remove both for the built-in split"
        )
    members = {name: _list(path, set(names.values())) for name, path in lists.items()}
    both = {name.split("/")[0] for name in members["train"]} & {name.split("/")[0] for name in members["test"]}
    if both:
        raise UserError(f"{folder}: class {min(both)} stands in train/ and in test/filenames.pickle: take both from one source")
    return members[split]


class _Plain(pickle.Unpickler):
    """Lists and strings only: whatever names a class or function, and so might run it, is refused."""

    def find_class(self, module, name):
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def persistent_load(self, pid):
        raise pickle.UnpicklingError("it has outside parts")


def _list(path, names):
    """The names in a filenames.pickle, each of which images.txt must have."""
    with path.open("rb") as file:
        try:
            found = _Plain(file, encoding="latin1").load()
        except Exception as error:  # a damaged pickle can raise almost anything
            raise UserError(f"{path} cannot be read as a list of names ({error}): take it from its source") from None
    if not isinstance(found, list) or not found or not all(isinstance(name, str) for name in found):
        raise UserError(f"{path} is no list of names: take it from its source again")
    found = [name.replace("\\", "/") for name in found]
    strange = sorted(set(found) - names)
    if strange:
        raise UserError(f"{path} names {strange[0]!r}, which is not in CUB_200_2011/images.txt: take the set's own lists")
    if len(set(found)) != len(found):
        raise UserError(f"{path} names a picture twice: take it from its source again")
    return set(found)
