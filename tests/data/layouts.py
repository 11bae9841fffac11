"""Small folders with exactly the files of real data sets, so that the readers and the tiny presets have something to read."""

import io
import json
import pathlib
import pickle
import tarfile
import zipfile

import numpy as np
from PIL import Image

BIRDS = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross", "004.Groove_billed_Ani")
COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 160, 40),
    "blue": (40, 60, 220),
    "yellow": (240, 220, 40),
    "white": (245, 245, 245),
    "black": (15, 15, 15),
    "purple": (140, 40, 170),
    "orange": (245, 140, 20),
}
TEST = (1, 4)  # of BIRDS: those that the published split tests on


def _bird(rng, colour, width, height, box):
    """Noise with a coloured ellipse in the box: u8[height, width, 3]."""
    image = rng.integers(90, 150, (height, width, 3)).astype(np.uint8)
    x, y, w, h = box
    rows, columns = np.mgrid[:height, :width]
    inside = ((columns - x - w / 2) / (w / 2)) ** 2 + ((rows - y - h / 2) / (h / 2)) ** 2 <= 1
    image[inside] = colour
    return image


def cub_layout(root, classes=BIRDS, per_class=4, *, pickles=True, captions=10, seed=0):
    """CUB_200_2011 and its captions as they are published; returns root.

    classes: names "001.Name", or how many to make up. per_class: pictures of each. pickles: also the split lists, with
    class 1 and every third after it (as the built-in split has it for BIRDS) in the test split.
    A class has a colour, which its captions name.
    """
    root, rng = pathlib.Path(root), np.random.default_rng(seed)
    if isinstance(classes, int):
        classes = [f"{i:03d}.Bird_{i}" for i in range(1, classes + 1)]
    tables = root / "CUB_200_2011"
    lines = {name: [] for name in ("images", "image_class_labels", "bounding_boxes", "train_test_split")}
    members, number = {"train": [], "test": []}, 0
    for label, name in enumerate(classes, 1):
        colour = list(COLOURS)[(label - 1) % len(COLOURS)]
        (tables / "images" / name).mkdir(parents=True)
        (root / "text" / name).mkdir(parents=True)
        for i in range(per_class):
            number += 1
            stem = f"{name.split('.')[1].title()}_{i + 1:04d}_{796000 + number}"
            width, height = int(rng.integers(60, 90)), int(rng.integers(50, 80))
            box = (
                int(rng.integers(0, 20)),
                int(rng.integers(0, 15)),
                int(rng.integers(24, 38)),
                int(rng.integers(24, 34)),
            )
            picture = Image.fromarray(_bird(rng, COLOURS[colour], width, height, box))
            picture.save(tables / "images" / name / f"{stem}.jpg", quality=90)
            said = [f"this small {colour} bird has a short beak, number {k}." for k in range(captions)]
            (root / "text" / name / f"{stem}.txt").write_text("\n".join(said) + "\n")
            lines["images"].append(f"{number} {name}/{stem}.jpg")
            lines["image_class_labels"].append(f"{number} {label}")
            lines["bounding_boxes"].append(f"{number} " + " ".join(f"{value:.1f}" for value in box))
            lines["train_test_split"].append(f"{number} {int(i % 2 == 0)}")
            members["test" if label % 3 == 1 else "train"].append(f"{name}/{stem}")
    lines["classes"] = [f"{label} {name}" for label, name in enumerate(classes, 1)]
    for name, rows in lines.items():
        (tables / f"{name}.txt").write_text("\n".join(rows) + "\n")
    for split, names in members.items() if pickles else ():
        (root / split).mkdir()
        (root / split / "filenames.pickle").write_bytes(pickle.dumps(names, protocol=2))
    return root


def folder_layout(root, records=24, *, labels="single", splits=("train", "train", "test"), seed=0):
    """Pictures below root/pictures and captions.jsonl; returns root.

    labels: "single", "multi", or None for none at all. splits: gone through in turn; None leaves the key out.
    """
    root, rng, lines = pathlib.Path(root), np.random.default_rng(seed), []
    (root / "pictures").mkdir(parents=True)
    for i in range(records):
        colour, other = list(COLOURS)[i % 4], list(COLOURS)[(i + 1 + i // 4) % 4]
        image = f"pictures/{i:04d}.png"
        Image.fromarray(_bird(rng, COLOURS[colour], 40, 36, (6, 6, 24, 20))).save(root / image)
        line = {"image": image, "captions": [f"a {colour} ellipse", f"an ellipse that is {colour}, picture {i}"]}
        if labels:
            line["labels"] = [colour] if labels == "single" or colour == other else [colour, other]
        if splits:
            line["split"] = splits[i % len(splits)]
        lines.append(json.dumps(line))
    (root / "captions.jsonl").write_text("\n".join(lines) + "\n")
    return root


def emoji_layout(root, per_group=20, *, seed=0):
    """What `fetch emoji` leaves: emoji.json, openmoji.json and images/; returns root.

    Two groups of two subgroups each; every fifth emoji of the first group has two variants by skin tone.
    """
    root, rng = pathlib.Path(root), np.random.default_rng(seed)
    (root / "images").mkdir(parents=True)
    base, more = [], []
    for i in range(2 * per_group):
        group, colour = ("Animals", "Food")[i // per_group], list(COLOURS)[i % len(COLOURS)]
        code = f"1F{0x400 + i:03X}" + ("-FE0F" if i % 4 == 0 else "")
        row = {
            "name": f"{colour} THING {i}".upper(),
            "unified": code,
            "short_names": [f"{colour}_thing", f"thing-{i}"],
            "category": group,
            "subcategory": f"{group.lower()}-{i % 2}",
            "has_img_google": True,
        }
        drawn = [code]
        if i < per_group and i % 5 == 0:
            codes = {tone: f"{code.removesuffix('-FE0F')}-{tone}" for tone in ("1F3FB", "1F3FF")}
            row["skin_variations"] = {tone: {"unified": c, "has_img_google": True} for tone, c in codes.items()}
            drawn += codes.values()
        base.append(row)
        tags = f"{colour}, {group.lower()}" + (", rare" if i == 3 else f", {colour} thing 5" if i == 5 else "")
        plain = code.removesuffix("-FE0F")  # the two sets disagree about the variation selector
        more.append({"hexcode": plain, "annotation": f"{colour} thing {i}", "tags": tags, "openmoji_tags": ""})
        for one in drawn:
            picture = np.zeros((64, 64, 4), np.uint8)
            picture[16:48, 16:48] = (*COLOURS[colour], 255)
            picture[:8, :8, :3] = rng.integers(0, 255, 3)  # hidden below full transparency
            Image.fromarray(picture).save(root / "images" / f"{one.lower()}.png")
    (root / "emoji.json").write_text(json.dumps(base))
    (root / "openmoji.json").write_text(json.dumps(more))
    return root


def tar(path, files, link=None):
    """A .tgz of the named bytes, and of a symbolic link (name, target) if one is given; returns path."""
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        if link:
            member = tarfile.TarInfo(link[0])
            member.type, member.linkname = tarfile.SYMTYPE, link[1]
            archive.addfile(member)
    return path


def zipped(path, files):
    """A zip of the named bytes; returns path."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


CATEGORIES = {1: ("person", "red"), 3: ("car", "blue"), 18: ("dog", "yellow"), 90: ("toothbrush", "white")}


def coco_layout(root, train=12, test=8, *, place="images/{part}2014", karpathy=True, seed=0):
    """annotations/ and pictures of COCO 2014 as they are published, with 4 of its 80 categories; returns root.

    place: where the pictures lie. Each picture shows squares in the colours of its categories; picture 0 of a part shows
    nothing, picture 1 a crowd of persons only, picture 2 one category twice. Captions are written in a mixed order.
    """
    root, rng, listed = pathlib.Path(root), np.random.default_rng(seed), []
    (root / "annotations").mkdir(parents=True)
    number = mark = 0
    for part, count in (("train", train), ("val", test)):
        folder = root / place.format(part=part)
        folder.mkdir(parents=True, exist_ok=True)
        images, said, seen = [], [], []
        for i in range(count):
            number += 7
            name = f"COCO_{part}2014_{number:012d}.jpg"
            some = sorted(rng.permutation(list(CATEGORIES))[: 1 + i % 3])
            shown = {0: [], 1: [1], 2: [3, 3]}.get(i, some)
            picture = rng.integers(90, 150, (48, 56, 3)).astype(np.uint8)
            for k, category in enumerate(shown):
                picture[8:24, 4 + 16 * k : 18 + 16 * k] = COLOURS[CATEGORIES[category][1]]
                mark += 1
                box = {"bbox": [4 + 16 * k, 8, 14, 16], "segmentation": [[4, 8, 18, 8, 18, 24]], "area": 224.0}
                seen.append({"id": mark, "image_id": number, "category_id": int(category), "iscrowd": int(i == 1), **box})
            Image.fromarray(picture).save(folder / name, quality=90)
            images.append({"id": number, "file_name": name, "height": 48, "width": 56, "license": 1})
            words = " and ".join(CATEGORIES[c][0] for c in dict.fromkeys(shown)) or "nothing"
            for k in rng.permutation(5 + i % 2).tolist():
                said.append({"id": 100 * number + k, "image_id": number, "caption": f"a picture of {words}, number {k}.\n"})
            split = "train" if part == "train" else ("restval", "val", "test")[i % 3]
            listed.append({"cocoid": number, "filename": name, "filepath": f"{part}2014", "split": split, "sentences": []})
        about = {"info": {"year": 2014}, "licenses": [], "images": images}
        names = [{"id": c, "name": CATEGORIES[c][0], "supercategory": "thing"} for c in reversed(CATEGORIES)]
        tables = {"captions": {"annotations": said}, "instances": {"annotations": seen, "categories": names}}
        for what, table in tables.items():
            (root / "annotations" / f"{what}_{part}2014.json").write_text(json.dumps({**about, **table}))
    if karpathy:
        (root / "dataset_coco.json").write_text(json.dumps({"dataset": "coco", "images": listed}))
    return root


def all_layouts(folder):
    """Where files in the layout of each data set lie that are read from disk, by name."""
    return {
        "shapes": "",
        "cub": cub_layout(folder / "cub"),
        "coco": coco_layout(folder / "coco"),
        "emoji": emoji_layout(folder / "emoji"),
        "folder": folder_layout(folder / "folder"),
        "folder multi": folder_layout(folder / "multi", labels="multi"),
        "folder none": folder_layout(folder / "none", labels=None),
    }
