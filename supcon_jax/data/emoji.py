"""Emoji as a small real set of pictures, captions and labels: Google's 64 x 64 drawings with OpenMoji's tags."""

import functools
import json
import re
import unicodedata

import numpy as np
from etils import epath

from supcon_jax import storage
from supcon_jax.config import UserError
from supcon_jax.data.fetch import home
from supcon_jax.data.folder import listing, share
from supcon_jax.data.images import decode
from supcon_jax.data.source import Source

TONES = {"1F3FB": "light", "1F3FC": "medium light", "1F3FD": "medium", "1F3FE": "medium dark", "1F3FF": "dark"}
FETCH = "run: python -m supcon_jax.data.fetch emoji"


def emoji(split, root=None, *, labels="single", uses=10, test=10, skin_tones=False):
    """One split of the emoji.

    split: "train" or "test". root: folder of `fetch emoji`, or the one above it; by default where fetch puts it.
    labels: "single": the subgroup, one of 99, i32[records]; "group": the group, one of ten, such as Food & Drink; "multi":
        u8[records, c] over the groups, the subgroups and every tag that at least `uses` emoji bear (the variants of an emoji
        count once), in both splits together.
    test: per cent of the emoji in the test split, by a hash of the code points. Gender, direction and skin tone do not
        count: variants of one emoji look alike and stay together.
    skin_tones: whether the variants by skin tone are records too (then 3,786 instead of 1,911).
    Captions: up to ten sentences made of the name, the short names and the tags, in ASCII.
    Pictures: u8[64, 64, 3], the transparent background white.
    Raises UserError: unknown split or labels; files missing or unreadable.
    """
    if split not in ("train", "test"):
        raise UserError(f"emoji has no split {split!r}: use train or test")
    if labels not in KINDS:
        raise UserError(f"emoji knows no labels {labels!r}: use one of {', '.join(KINDS)}")
    if not 0 < test < 100:
        raise UserError(f"emoji: test={test} per cent: use 1 to 99")
    folder = _folder(storage.place(home(root)))
    everything = _entries(folder)
    classes, table = KINDS[labels](everything, uses)
    present = listing(folder / "images")
    keys, captions, rows = [], [], []
    for row, entry in enumerate(everything):
        if share(concept(entry["code"]), (("test", test), ("train", 100 - test))) != split:
            continue
        for code, tone in [(entry["code"], None), *(entry["tones"] if skin_tones else ())]:
            if f"{code}.png" not in present:
                raise UserError(f"{folder / 'images' / code}.png is missing: {FETCH}")
            keys.append(code)
            captions.append(sentences(entry["names"], entry["tags"], tone))
            rows.append(row)
    return Source(
        name="emoji",
        split=split,
        captions=captions,
        labels=table[rows],
        classes=classes,
        image=lambda record: decode(folder / "images" / f"{keys[record]}.png"),
        keys=keys,
    )


def concept(code):
    """Code points without what only varies an emoji: gender, direction of movement, skin tone, variation selector."""
    code = re.sub(r"-(FE0F|1F3F[B-F])", "", code.upper())
    code = re.sub(r"-200D-(2640|2642|27A1)", "", code)
    return re.sub(r"^1F46[89](?=-200D)", "1F9D1", code)  # man or woman with ... -> person with ...


def sentences(names, tags, tone=None):
    """Up to ten different captions from an emoji's names (the best first) and tags; tone: of the skin, in words."""
    if tone:
        names = [f"{name} with {tone} skin" for name in names]
    name, other, tags = names[0], names[-1], list(tags) or [names[-1]]
    first, second, last = tags[0], tags[1 % len(tags)], tags[-1]
    made = [
        name,
        f"an emoji of {name}",
        f"a small picture of {other}",
        f"{name}, {first}",
        f"a drawing of {name}, {first} and {second}",
        f"{other} on a white background",
        f"an icon for {first}, {second} and {last}",
        f"this is {name}",
        f"{last}: {name}",
        f"the {other} symbol, also {second}",
    ]
    return list(dict.fromkeys(made))


def _folder(root):
    """The folder with emoji.json: the one given or its `emoji`."""
    for folder in (epath.Path(root), epath.Path(root) / "emoji"):
        if (folder / "emoji.json").exists():
            return folder
    raise UserError(f"{epath.Path(root)} has neither emoji.json nor emoji/emoji.json: {FETCH}")


def _entries(folder):
    """The emoji in the order of their code points: code, names, group, subgroup, tags, tones [(code, words)]."""
    base, more = _read(folder / "emoji.json"), _read(folder / "openmoji.json")
    try:
        by_code = {_plain(row["hexcode"]): row for row in more}
        entries = [_entry(row, by_code.get(_plain(row["unified"]))) for row in base if row["has_img_google"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder}: emoji.json or openmoji.json is of another layout ({error!r}): {FETCH}") from None
    return sorted(entries, key=lambda entry: entry["code"])


def _entry(row, match):
    """One emoji of emoji.json with its row of openmoji.json, if there is one."""
    short = [_ascii(name.replace("_", " ").replace("-", " ")) for name in row["short_names"]]
    name = _ascii(match["annotation"] if match else row["name"]).lower()
    tags = match["tags"].split(",") + match["openmoji_tags"].split(",") if match else []
    tags = list(dict.fromkeys(_ascii(tag).lower() for tag in tags))
    tones = []
    for code, variant in row.get("skin_variations", {}).items():
        if variant["has_img_google"]:
            words = " and ".join(dict.fromkeys(TONES[part] for part in code.split("-")))
            tones.append((variant["unified"].lower(), words))
    return {
        "code": row["unified"].lower(),
        "names": list(dict.fromkeys(filter(None, [name, *short]))),
        "group": row["category"],
        "subgroup": row["subcategory"],
        "tags": [tag for tag in tags if tag and tag != name],
        "tones": tones,
    }


def _single(entries, uses, key="subgroup"):
    classes = sorted({entry[key] for entry in entries})
    place = {name: i for i, name in enumerate(classes)}
    return tuple(classes), np.array([place[entry[key]] for entry in entries], np.int32)


def _multi(entries, uses):
    bearers = {}  # tag -> the different emoji that bear it
    for entry in entries:
        for tag in entry["tags"]:
            bearers.setdefault(tag, set()).add(concept(entry["code"]))
    held = [
        {f"group/{entry['group']}", f"subgroup/{entry['subgroup']}"}
        | {f"tag/{tag}" for tag in entry["tags"] if len(bearers[tag]) >= uses}
        for entry in entries
    ]
    classes = sorted(set.union(*held))
    place = {name: i for i, name in enumerate(classes)}
    table = np.zeros((len(entries), len(classes)), np.uint8)
    for row, names in enumerate(held):
        table[row, [place[name] for name in names]] = 1
    return tuple(classes), table


KINDS = {"single": _single, "group": functools.partial(_single, key="group"), "multi": _multi}


def _read(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: {FETCH}") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}): {FETCH}") from None


def _plain(code):
    """Code points without the variation selector, which the two sets write differently."""
    return code.upper().replace("-FE0F", "")


def _ascii(text):
    """Without accents and typographic marks: the vocabulary knows ASCII only and would cut words in two."""
    text = unicodedata.normalize("NFKD", text.replace("\u2019", "'")).encode("ascii", "ignore").decode()
    return " ".join(text.split())
