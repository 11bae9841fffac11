"""Weights of others as weights of this library: what a file or folder holds, which stages that makes, where they go."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

from etils import epath

from supcon_jax import storage
from supcon_jax.build import adopt, model, stage, weights
from supcon_jax.build.adopt import Part
from supcon_jax.config import UserError, flat
from supcon_jax.convert import captions, kinds, tensors
from supcon_jax.data.vocab import Vocab
from supcon_jax.gans import GANS

STAGES = (*GANS, "damsm", "classifier")
UNUSED = ("vit", "efficientnet")  # known by their names only
# what the published codes do where our configs may do otherwise; their weights were trained so
PUBLISHED = {
    "attngan": {"attngan.nets.gen.mask": "compat", "damsm.nets.image.align_corners": True},
    "dmgan": {"dmgan.nets.gen.mask": "compat", "damsm.nets.image.align_corners": True},
    "galip": {"galip.args.clip_preproc": "compat"},
}


@dataclasses.dataclass
class Found:
    """What a file or folder holds. left: what is not used, by file, with the reason."""

    parts: dict[str, list[Part]] = dataclasses.field(default_factory=dict)
    files: dict[str, epath.Path] = dataclasses.field(default_factory=dict)
    vocab: Vocab | None = None
    left: dict[str, str] = dataclasses.field(default_factory=dict)

    def one(self, kind: str) -> Part | None:
        """The only part of its kind. Raises UserError: there are several."""
        parts = self.parts.get(kind, [])
        if len(parts) > 1:
            raise UserError(f"{' and '.join(p.name for p in parts)} each hold {kinds.KINDS[kind][0]}: leave one of them there")
        return parts[0] if parts else None


class Made(NamedTuple):
    """One weight file to be written. name: its folder, where there are several."""

    name: str
    tree: dict
    about: dict


def convert(config: dict | None, source: str, target: str) -> Iterator[str]:
    """Turns weights of others into those of this library, or exports those of a work folder; yields lines to print.

    config: which stages they belong to; CLIP and networks of stages need one. source: a file or a folder; a work folder,
    a stage's folder, a weight file or the name of shipped weights is exported. target: a new .safetensors file for one
    network or stage, a new .json file for a vocabulary alone, or a new folder.
    Raises UserError, before anything is written: see README, "Weights of others".
    """
    place = storage.place(target)
    if place.exists():
        raise UserError(f"--to={target} is there already: name a new file or folder")
    if place.suffix in tensors.SUFFIXES[1:]:
        raise UserError(f"--to={target}: weights are written as .safetensors")
    if not storage.kind(place) and any(above.exists() and not above.is_dir() for above in place.parents):
        raise UserError(f"--to={target}: a file is in the way; name another place")
    if own := own_file(source):
        yield export(own, place)
        return
    found = look(storage.place(source))
    made, lines = build(config, found, source)
    yield from lines
    yield from (f"left out: {name} ({why})" for name, why in found.left.items())
    for item in made:
        yield from advice(item)
    try:
        yield from write(made, found.vocab, place)
    except OSError as error:
        raise UserError(f"--to={target} cannot be written ({error.strerror or error}): name another place") from None


def own_file(source: str) -> epath.Path | None:
    """The file, if the source is weights of this library. Raises UserError: nothing is there at all."""
    path = storage.place(source)
    if path.is_dir():
        return model.find(source, STAGES) if any((path / at).is_file() for at in places()) else None
    path = model.find(source, STAGES)
    if path.suffix != ".safetensors":
        return None
    with storage.local(path) as file:
        return path if "about" in tensors.metadata(file) else None


def places() -> list[str]:
    """Where a folder of this library holds its weights."""
    return ["weights.safetensors", *(f"{name}/weights.safetensors" for name in STAGES)]


def export(path: epath.Path, place: epath.Path) -> str:
    """Copies a weight file of this library whole, so that it keeps its digest. Raises UserError: it is damaged."""
    if place.suffix != ".safetensors":
        raise UserError(f"--to={place}: name a .safetensors file for the weights of {path}")
    tree, about, _ = weights.load(path)
    storage.write(place, path.read_bytes())
    stages = f"stage {about['stage']} of a config for {about['config']['data']['name']}" if "stage" in about else "one network"
    return f"{path} ({about['kind']}: {', '.join(sorted(tree))}; {stages}) lies in {place}"


def look(path: epath.Path) -> Found:
    """Reads a file, or the files that lie in a folder (not in folders below it).

    Raises UserError: nothing to read, a damaged file, one that asks for code, a file of an unknown network.
    """
    found = Found()
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    for file in files:
        if file.name == "vocab.json" or file.suffix == ".pickle" and (file == path or file.name.startswith("captions")):
            if found.vocab is not None:
                raise UserError(f"{path} holds several vocabularies, {file.name} is one: leave one of them there")
            found.vocab = words(file)
            continue
        if file != path and file.suffix not in tensors.SUFFIXES:
            found.left[file.name] = "no weight file"
            continue
        given = tensors.read(file)
        parts = kinds.told(given)
        why = ", ".join(f"it holds {kinds.KINDS[kind][0]}" for kind in parts if kind in UNUSED)
        if file == path and (why or not parts):
            known = ", ".join(what for kind, (what, _) in kinds.KINDS.items() if kind not in UNUSED)
            first = ", ".join(list(given)[:3])
            raise UserError(f"{file}: {why or f'names such as {first} belong to none of the networks known here: {known}'}")
        if why or not parts:
            found.left[file.name] = why or "no network known here"
            continue
        for kind, inside in parts.items():
            found.parts.setdefault(kind, []).append(Part(kind, file.name, inside))
            found.files[file.name] = file
    if not found.parts and found.vocab is None:
        raise UserError(f"{path} holds neither weights known here nor a captions.pickle: look for them in folders below it")
    return found


def words(file: epath.Path) -> Vocab:
    """The vocabulary of vocab.json or captions.pickle. Raises UserError: it is none."""
    if file.suffix == ".json":
        return Vocab.load(file)
    found = captions.words(file)
    try:
        return Vocab(found)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def build(config: dict | None, found: Found, source: str) -> tuple[list[Made], list[str]]:
    """The weight files that can be made of what was found, and lines about them. Raises UserError: something lacks."""
    made, lines = [], []
    if part := found.one("inception"):
        tree, classes, lines = adopt.inception_v3(part)
        made.append(Made("inception", tree, {"kind": "inception", "classes": classes}))
    if part := found.one("resnet"):
        tree, told, more = adopt.residual(part)
        lines += more
        made.append(Made("resnet", tree, {"kind": "resnet", **told}))
    if not set(found.parts) - {"inception", "resnet"}:
        return made, lines
    if config is None:
        raise UserError(f"--config is missing: {source} holds {', '.join(kinds.KINDS[kind][0] for kind in found.parts)}, "
                        "whose sizes and stage a config tells, such as --config=configs/cub.py:attngan")
    gan, towers, about = generator(config, found), {}, {}
    if part := found.one("clip"):
        name, towers["clip"], about["clip"], _ = adopt.read_clip(config, found.files[part.name])
        made.append(Made("clip", towers["clip"], about["clip"] | {
            "kind": "clip", "config": stage.known(config), "stage": name}))
        lines.append(f"{part.name}: CLIP")
    if found.one("text_encoder") or found.one("image_encoder"):
        name, towers["damsm"], told = damsm(config, found, source, alone=gan is None)
        about["damsm"] = stage.described(config, name, found.vocab.plain(), {})
        lines += told
        if len(towers["damsm"]["params"]) == 2:
            made.append(Made(name, towers["damsm"], about["damsm"]))
    if gan:
        name, part, discs = gan
        key = "clip" if part.kind == "galip_g" else "damsm"
        if "params" not in towers.get(key, {}) or key == "damsm" and "text" not in towers[key]["params"]:
            towers, about = frozen(config, name, key)
        tree, told = adopt.players(config, name, part, discs, {key: towers[key]}, {key: about[key]})
        made.append(Made(name, tree, stage.described(config, name, about[key]["vocab"], {key: about[key]})))
        lines += told
    return made, lines


def damsm(config: dict, found: Found, source: str, alone: bool) -> tuple[str, dict, list[str]]:
    """(stage, encoders that were found, lines about them). alone: no generator is there that needs one of them only.

    Raises UserError: no words, or only one of both encoders where both are needed.
    """
    text, image = found.one("text_encoder"), found.one("image_encoder")
    name = method_stage(config, "damsm", "DAMSM's encoders")
    if found.vocab is None:
        raise UserError(f"{source}: captions.pickle or vocab.json must lie beside the encoders: it tells their words' ids")
    if alone and not (text and image):
        raise UserError(f"{source} holds one of DAMSM's encoders, {'text' if text else 'image'}: put the other beside it")
    return name, *adopt.encoders(config, name, text, image, found.vocab)


def frozen(config: dict, name: str, needed: str) -> tuple[dict, dict]:
    """The encoders that a generator listens to, from the file that the config names. Raises UserError: it names none."""
    place = config[name]["frozen"][needed]
    if not place or place.startswith("stage:"):
        more = "text_encoder*.pth and captions.pickle" if needed == "damsm" else "the file of its CLIP"
        raise UserError(f"the generator of {name} listens to a text encoder: put {more} beside it, or give "
                        f"--config.{name}.frozen.{needed}=FILE")
    return stage.load_frozen(config, name, epath.Path("."))[:2]


def generator(config: dict, found: Found) -> tuple[str, Part, list[Part]] | None:
    """(stage, generator, discriminators) that were found. Raises UserError: of a GAN that the config does not train."""
    gens = [kind for kind in found.parts if kind in adopt.GENERATORS]
    discs = [kind for kind in found.parts if kind in adopt.DISCRIMINATORS]
    if len(gens) > 1:
        raise UserError(f"{' and '.join(found.parts[k][0].name for k in gens)} are generators of two GANs: convert one by one")
    for kind in (*gens, *discs):
        name = method_stage(config, kind.removesuffix("_g").removesuffix("_d"), f"{found.parts[kind][0].name}, "
                            f"{kinds.KINDS[kind][0]}")
    if not gens:
        if discs:
            raise UserError(f"{found.parts[discs[0]][0].name} is a discriminator: put its generator beside it")
        return None
    if discs and discs[0] not in ("attngan_d", "dmgan_d"):
        found.one(discs[0])
    return name, found.one(gens[0]), [part for kind in discs for part in found.parts[kind]]


def method_stage(config: dict, method: str, what: str) -> str:
    """The stage with that method: among those that are run, or of encoders before them. Raises UserError: there is none."""
    runs = [name for name in config["stages"] if config[name]["method"] == method]
    if not runs and method == "damsm":
        runs = [name for name in config if adopt.section(config, name).get("method") == method]
    if not runs:
        trained = ", ".join(config[name]["method"] for name in config["stages"])
        raise UserError(f"found {what}; this config is for {trained}: give one for {method}, such as "
                        f"--config=configs/cub.py:{method}")
    return runs[0]


def write(made: list[Made], vocab: Vocab | None, place: epath.Path) -> Iterator[str]:
    """Writes all of it. Raises UserError: more was made than one file can hold."""
    if place.suffix == ".json" and not made:
        vocab.save(place)
        yield f"{len(vocab)} words lie in {place}"
        return
    if place.suffix in (".safetensors", ".json"):
        names = [item.name for item in made] or ["a vocabulary"]
        if len(names) > 1 or not made or place.suffix == ".json":
            raise UserError(f"--to={place}: {' and '.join(names)} were found: name a folder"
                            f"{'' if made else ' or a .json file'}")
        weights.save(place, made[0].tree, made[0].about)
        yield f"{made[0].name} lies in {place}"
        return
    for item in made:
        weights.save(place / item.name / "weights.safetensors", item.tree, item.about)
        yield f"{item.name} lies in {place / item.name / 'weights.safetensors'}"
    if vocab is not None:
        vocab.save(place / "vocab.json")
        yield f"{len(vocab)} words lie in {place / 'vocab.json'}"


def advice(item: Made) -> Iterator[str]:
    """What the config says otherwise than the code that trained the weights."""
    said = flat(item.about.get("config", {}))
    for key, value in PUBLISHED.get(item.about["kind"], {}).items():
        if said.get(key) != value:
            yield f"the published code has {key}={value}: to repeat it, convert with --config.{key}={value}"
