"""Pictures of any model, in a folder, scored by the protocols that our own generators are scored by."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile

import numpy as np
from etils import epath

from supcon_jax import core
from supcon_jax.build import evaluations, stage
from supcon_jax.build.datasets import open_data
from supcon_jax.build.encoders import encoders
from supcon_jax.build.networks import network
from supcon_jax.config import UserError
from supcon_jax.data import folder as folders
from supcon_jax.data import source as sources
from supcon_jax.gans import GANS

MEASURES = {"generation": evaluations.evaluate_generation, "matching": evaluations.evaluate_matching}


class Strict:
    """In the place of data.skipped.Skipped: a model's picture that cannot be used is never left out in silence."""

    def __init__(self, place):
        self.place = place

    def add(self, split, key, reason):
        raise UserError(f"{self.place}/{key}: {reason}; mend it, or take it out")


@dataclasses.dataclass(frozen=True, eq=False)
class Pictures(evaluations.Context):
    """What evaluations are made from where the pictures lie in a folder. place: that folder; width: of its pictures."""

    source: sources.Source
    place: str
    width: int

    makes = True

    def generate(self, state):
        return lambda batch, key: batch["image"][:, 0].astype(np.float32) / 127.5 - 1  # rounds to the same bytes again

    def captions(self):
        return Again(self, np.arange(len(self.source)))

    def varied(self, captions: int):
        """The first captions that have two pictures or more, at most DRAWS of each."""
        rows = repeated([said[:1] for said in self.source.captions], captions, evaluations.DRAWS)
        return (Again(self, rows), len(rows)) if len(rows) else None

    @property
    def made(self) -> dict:
        said = f"captions.jsonl of {self.place}" if self.source.captions[0] else "none"
        origin = f"the first of {len(self.source)} pictures in {self.place}"
        return {"fake_origin": origin, "captions": said, "ema": "unknown", "truncation": "unknown"}


@dataclasses.dataclass(frozen=True, eq=False)
class Again:
    """Batches of some rows of the folder, read anew on each pass: there may be too many pictures to hold."""

    context: Pictures
    rows: np.ndarray

    def __iter__(self):
        c, data = self.context, self.context.config["data"]
        source = sources.chosen(c.source, self.rows)
        vocab = c.data.vocab if source.captions[0] else None
        batches = sources.batches(
            source, vocab, batch=c.config["eval_batch"], size=c.width, words=data["words"], seed=c.config["seed"],
            train=False, threads=data["threads"], bad=Strict(c.place),
        )  # fmt: skip
        with contextlib.closing(batches):
            yield from batches


def repeated(captions, number: int, most: int) -> np.ndarray:
    """i[rows]: up to `most` rows of each of the first `number` captions that stand on two rows or more; in passes over
    the captions, as a generator draws them."""
    found: dict = {}
    for row, caption in enumerate(captions):
        if caption:
            found.setdefault(caption, []).append(row)
    groups = [rows[:most] for rows in found.values() if len(rows) > 1][:number]
    return np.array([rows[k] for k in range(most) for rows in groups if k < len(rows)], int)


def opened(place: str, data) -> tuple[sources.Source, int]:
    """(the folder's pictures with labels as the data set numbers them, their side).

    Raises UserError: as folder.pictures; pictures that are not squares of one size (met when they are read).
    """
    source = folders.pictures(place)
    side = len(square(source, 0, place, None))
    labels = renamed(source, data, place)
    classes = data.train.classes if labels is not None else ()
    image = lambda record: square(source, record, place, side)  # noqa: E731
    return dataclasses.replace(source, image=image, labels=labels, classes=classes), side


def square(source: sources.Source, record: int, place: str, side: int | None):
    """One picture. Raises UserError: it is damaged, no square, or of another size than the first one."""
    key = source.keys[record]
    try:
        image = source.image(record)
    except sources.BadRecord as error:
        Strict(place).add("fakes", key, error)
    height, width = image.shape[:2]
    if height != width or side not in (None, height):
        want = f"{side} x {side} as {source.keys[0]}" if side else "squares"
        raise UserError(f"{place}/{key} is {width} x {height}: a protocol resizes from one size, so all must be {want}")
    return image


def renamed(source: sources.Source, data, place) -> np.ndarray | None:
    """The folder's labels as the data set's: i32[n], or u8[n, c] where that has several; None where either has none.

    A label is the name of a class, or its number from 0.
    Raises UserError: a class that the data set lacks, several labels where it has one.
    """
    ours, names = data.train.labels, {name: i for i, name in enumerate(data.train.classes)}
    if source.labels is None or ours is None:
        return None
    numbers = []
    for name in source.classes:
        number = names.get(name, int(name) if name.isdecimal() and int(name) < len(names) else None)
        if number is None:
            raise UserError(f"{place}: label {name!r} is no class of the config's data; they are {shown(data.train.classes)}")
        numbers.append(number)
    if ours.ndim == 1:
        if source.labels.ndim == 2:
            raise UserError(f"{place}: some pictures have several labels or none, the config's data has one each")
        return np.asarray(numbers, np.int32)[source.labels]
    hot = np.eye(len(numbers), dtype=np.uint8)[source.labels] if source.labels.ndim == 1 else source.labels
    out = np.zeros((len(hot), len(names)), np.uint8)
    out[:, numbers] = hot
    return out


def shown(classes) -> str:
    return ", ".join(map(str, classes[:5])) + (f" and {len(classes) - 5} more" if len(classes) > 5 else "")


def score(config: dict, place: str, workdir: epath.Path | None) -> tuple[list[str], dict]:
    """Scores a folder of pictures by the evaluations of a plain config.

    place: the folder, see data.folder.pictures. workdir: where the encoders of the config's stages lie, if they do, and
    where the numbers are written to, as fakes/NAME-HASH/evals.json; None: they are only returned.
    Returns (lines that say what is left out and why, {metric: {"eval", "value", "protocol", "line"}}).
    Raises UserError: as folder.pictures; fewer pictures than an evaluation asks for; nothing that could be measured.
    """
    with tempfile.TemporaryDirectory() as spare:
        context, lines = open_all(config, place, workdir, epath.Path(spare))
        asked, left = wanted(context)
        lines += left
        records = {}
        for name in asked:
            found = MEASURES[name](context, None, config["evals"][name])
            records |= {key: {"eval": name, **record} for key, record in found.items()}
    if not records:
        raise UserError(f"nothing to measure: {'; '.join(lines)}")
    if workdir:
        largest = max((r["protocol"] for r in records.values()), key=lambda p: p["fake_number"])
        path = workdir / "fakes" / f"{epath.Path(place).name}-{largest['fake_content']}" / "evals.json"
        evaluations.stored(path, records)
        lines.append(f"written to {path}")
    return lines, records


def open_all(config: dict, place: str, workdir, spare) -> tuple[Pictures, list[str]]:
    """What the evaluations are made from, and lines about what is missing."""
    stages = [name for name in config["stages"] if config[name]["method"] in GANS]
    if not stages:
        raise UserError(f"the config trains no generator (its stages: {', '.join(config['stages'])}): choose one that does")
    name = stages[-1]
    lines, missing = [], lacking(config, name, workdir)
    if missing:
        lines.append(f"no encoders ({missing}): no R-precision by them")
        data, task, towers, hashes, mesh = open_data(config, None), core.Task(None, ()), {}, {}, None
    else:
        towers, about, hashes = stage.load_frozen(config, name, workdir or spare)
        built = stage.build(config, name, workdir or spare, False, towers=lambda *_: (towers, about, hashes))
        data, task, mesh = built.data, built.task, built.run.mesh
    source, side = opened(place, data)
    if data.vocab is None:
        raise UserError("config.data has no captions (data.text, or the set itself), which a generator draws from")
    unknown = sum(data.vocab.read(said[0], config["data"]["words"])[1] for said in source.captions if said)
    if unknown and not missing:
        lines.append(f"{unknown} words of the captions are not in the encoders' vocabulary and left out")
    if any(not key.lower().endswith(".png") for key in source.keys):
        lines.append("some pictures are no PNG: what their compression changed is scored with them")
    folder = (workdir or spare) / name
    context = Pictures(config, name, folder, task, towers, hashes, data, mesh, source, str(place), side)
    evaluations.check_middle(context)
    return context, lines


def lacking(config: dict, name: str, workdir) -> str:
    """Which file of the stage's encoders is not there though the config does not name it; empty where all are."""
    for key, place in config[name]["frozen"].items():
        if key in ("damsm", "clip") and not place:
            return f"--config.{name}.frozen.{key}=FILE gives them"
        if place.startswith("stage:") and not (workdir and (workdir / place[6:] / "weights.safetensors").is_file()):
            return f"--workdir of a finished stage {place[6:]} or --config.{name}.frozen.{key}=FILE gives them"
    return ""


def wanted(context: Pictures) -> tuple[list[str], list[str]]:
    """(evaluations that this folder and these files allow, lines about the others)."""
    found, lines, config = [], [], context.config
    if "attributes" in config["evals"]:
        lines.append("attributes are judged of this library's generators only, whose captions' truth is known")
    if not context.source.captions[0]:
        lines.append("no captions in captions.jsonl: no R-precision, CLIP-score or diversity")
    if context.source.labels is None:
        lines.append("no labels of the data set's classes: no R-precision within the class, no label accuracy")
    for name in [name for name in config["evals"] if name in MEASURES]:
        options = config["evals"][name]
        if name == "matching" and not context.source.captions[0]:
            continue
        if name == "matching" and not context.task.heads and not encoders(config["networks"]):
            lines.append("no CLIP (--config.networks.clip=FILE gives one): no R-precision and CLIP-score by it")
            continue
        if name == "generation" and not options["networks"]:
            lines.append("config.evals.generation.networks is empty: no FID and the like")
            continue
        if options["fakes"] > len(context.source):
            raise UserError(
                f"{context.place} holds {len(context.source)} pictures, config.evals.{name}.fakes asks for {options['fakes']}: "
                f"give more, or --config.evals.{name}.fakes={len(context.source)}"
            )
        for one in options.get("networks", ()):
            network(one, config["networks"])
        found.append(name)
    return found, lines
