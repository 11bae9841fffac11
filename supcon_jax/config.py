"""Configs: the shared base, the tiny sizes, the word after the colon, and every check; the only door to ml_collections."""

from __future__ import annotations

import ast
import fnmatch
import functools
import hashlib
import importlib.util
import json
import math
import pathlib
from collections.abc import Mapping

from ml_collections import ConfigDict, FieldReference

from supcon_jax.fits import misfits
from supcon_jax.ranges import RANGES


class UserError(ValueError):
    """A mistake the user can mend: one line that names the file or key and the fix; the program ends with code 2."""


def base() -> ConfigDict:
    """What every config starts from. `scl`, `term`, `batch` and `views.flip` are references that the stages follow."""
    return ConfigDict(
        {
            "seed": 0,
            "batch": 32,
            "precision": "f32",
            "scl": 1.0,
            "term": "supcon",
            "stages": (),
            "data": {
                "name": "",
                "root": "",
                "train": "train",
                "test": "test",
                "size": 32,
                "words": 18,
                "text": True,
                "partner": "same_label",
                "crop": "resize_crop",
                "middle": 1.0,
                "threads": 2,
                "bad_limit": 0.001,
                "shuffle_pairs": False,
                "labels_from": "set",
                "clusters": 64,
                "similar": 0.6,
                "label_noise": 0.0,
                "label_noise_kind": "symmetric",
                "label_map": (),
                "label_missing": 0.0,
                "label_share": 1.0,
                "only_labelled": False,
                "args": {},
                "probe": {"name": "", "root": "", "train": "train", "test": "test", "args": {}},
            },
            "views": {"flip": True},
            "evals": {},
            "every": {"log": 50, "save": 500, "sample": 500, "profile": ()},
            "keep": {"latest": 2, "best": 1, "metric": "", "mode": "min"},
            "mesh": {"data": "auto", "door": "auto", "params": "replicate", "params_mib": 4.0},
            "eval_batch": 64,
            "networks": {
                "effnet_lite0": "", "fid_inception": "", "torchvision_inception": "", "keras_inception": "",
                "cub_ours": "",
                "clip": "", "clip_act": "quick_gelu", "clip_vocab": "",
            },
            "cache": "",
            "skip_limit": 20,
        }
    )


def stage(config: ConfigDict, **recipe) -> dict:
    """One stage's part of a config: its method, steps, args, nets, optimisers and frozen towers.

    Batch and size follow the shared ones unless the recipe gives its own. References are one-way: a value set for one
    stage changes neither the shared one nor the other stages.
    """
    shared = {"batch": config.get_oneway_ref("batch"), "size": config.data.get_oneway_ref("size"), "frozen": {}}
    return {**shared, **recipe}


TRUNKS = {"trunk": "", "text_trunk": "", "clip_act": "quick_gelu", "clip_vocab": ""}  # `frozen` of a stage of encoders


def pretrained(config: ConfigDict, size: int) -> dict:
    """Presets that put pretrained networks in the place of stage 1's encoders; codes stay as long as the config has them.

    effnet, resnet: pictures, by EfficientNet-Lite0 or ResNet-50; minilm: captions, by MiniLM; clip: both, by CLIP. All fixed,
    under linear layers that learn. Given after the words that set sizes. size: of the pictures that the first two see.
    """
    nets, name = config.damsm.nets, "damsm"
    dim, width = nets.image.get_oneway_ref("dim"), nets.text.get_oneway_ref("width")
    fixed = {"frozen": True}
    text = {"net": "bert", "width": dim, **fixed}
    image = {"dim": width, "size": size, **fixed}
    return {
        "effnet": {name: {"nets": {"=image": {"net": "effnet_lite0", **image}}}},
        "resnet": {name: {"nets": {"=image": {"net": "resnet", "depth": 50, **image}}}},
        "minilm": {"data": {"words": 32}, name: {"nets": {"=text": text}}},
        "clip": {
            "data": {"words": 32},
            name: {"nets": {"=image": {"net": "clip_image", "dim": width, **fixed}, "=text": {**text, "net": "clip_text"}}},
        },
    }  # fmt: skip


def choose(config: ConfigDict, word: str, presets: Mapping[str, Mapping]) -> ConfigDict:
    """Applies the words after the colon, comma separated, in order; a word may name a stage: then only that one runs.

    Raises UserError: a word that is neither a preset nor a stage.
    """
    for name in filter(None, (word or "").split(",")):
        if name in presets:
            update(config, presets[name])
        elif name in config.stages:
            config.stages = (name,)
        else:
            known = sorted({*presets, *config.stages})
            raise UserError(f"config word {name!r} is not known; use one of: {', '.join(known)}")
    return config.lock()


def update(config: ConfigDict, changes: Mapping) -> None:
    """Nested update; a whole section is replaced when given under "=key" (presets that drop an evaluation)."""
    for key, value in changes.items():
        if key.startswith("="):
            config[key[1:]] = ConfigDict(value) if isinstance(value, Mapping) else value
        elif isinstance(value, Mapping) and key in config and isinstance(config[key], ConfigDict):
            update(config[key], value)
        else:
            config[key] = value


def check(config: ConfigDict, first: Mapping | tuple = ()) -> None:
    """Every value against its range, those of the keys in `first` before all others: what follows them is only wrong
    because they are. Raises UserError naming the key, the value and what it may be.
    """
    values = flat(config)
    for key in sorted(values, key=lambda key: key not in first):
        value = values[key]
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                raise UserError(f"config.{key}={value}: must be a finite number")
        if row := rule(key):
            kinds, good, what = row
            fits = isinstance(value, kinds) and (not isinstance(value, bool) or bool in kinds)
            if not fits or not good(value):
                raise UserError(f"config.{key}={value!r}: must be {what}")
    if not config.stages:
        raise UserError("config.stages=(): must be names of stages, at least one")
    for name in config.stages:
        if name not in config:
            raise UserError(f"config.stages names {name!r}, but there is no such stage in the config")
        args = config[name].get("args", {})
        if args.get("scl") and args.get("term") == "ntxent" and args.branches < 2:
            raise UserError(f"config.{name}.args.term='ntxent' contrasts two branches: set config.{name}.args.branches=2")
        if args.get("guidance", 1) != 1 and not args.drop:
            raise UserError(f"config.{name}.args.guidance={args.guidance} needs config.{name}.args.drop > 0, such as 0.1")
        for line in misfits(name, config[name]):
            raise UserError(line)
    traced, steps = config.every.profile, {name: config[name].get("steps", 0) for name in config.stages}
    if traced and traced[1] > max(steps.values()) + 1:
        there = ", ".join(f"{name} has {count}" for name, count in steps.items())
        raise UserError(f"config.every.profile={traced}: must be within the steps of a stage; {there}")


@functools.cache  # hundreds of keys against a hundred patterns, for every config of a study
def rule(key: str) -> tuple | None:
    """(types, range check, what to do) of the first row of RANGES that a key matches, or None."""
    for pattern, types, good, what in RANGES:
        if fnmatch.fnmatchcase(key, pattern):
            return types if isinstance(types, tuple) else (types,), good, what
    return None


def flat(config: Mapping, prefix: str = "") -> dict:
    """{"data.size": 32, ...}"""
    out = {}
    for key in sorted(config.keys()):
        value = config[key]
        if isinstance(value, Mapping | ConfigDict):
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = value.get() if isinstance(value, FieldReference) else value
    return out


def plain(config) -> dict:
    """Nested dicts, lists and numbers, ready for JSON; references are resolved."""
    return json.loads(config.to_json_best_effort() if isinstance(config, ConfigDict) else json.dumps(config))


def digest(tree: Mapping) -> str:
    """A short hash of a plain config."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]


def difference(old: Mapping, new: Mapping) -> list[str]:
    """Lines "key: old -> new" for all that differs between two plain configs."""
    a, b = flat(old), flat(new)
    return [f"{key}: {a.get(key)!r} -> {b.get(key)!r}" for key in sorted({*a, *b}) if a.get(key) != b.get(key)]


def find(path: str) -> pathlib.Path:
    """A config file: as given, or the shipped one of that name, so that configs/cub.py works outside the clone.

    Raises UserError: neither is there; the line lists the shipped ones.
    """
    here = pathlib.Path(path)
    if here.is_file():
        return here
    package = pathlib.Path(__file__).parent
    shipped = [folder for folder in (package / "configs", package.parent / "configs") if folder.is_dir()]
    for folder in shipped:
        inside = folder / pathlib.Path(*here.parts[1:] if here.parts[:1] == ("configs",) else here.parts)
        if inside.is_file():
            return inside
    names = sorted({f"configs/{file.name}" for folder in shipped for file in folder.glob("*.py") if file.stem[0] != "_"})
    raise UserError(f"no config file {path}; shipped ones: {', '.join(names)}")


def load(path: str) -> ConfigDict:
    """"configs/cub.py:attngan,tiny" -> its checked config. Raises UserError as `find` and `choose` do."""
    file, _, word = path.partition(":")
    file = find(file)
    if file.suffix != ".py":
        raise UserError(f"{file} is no config: a Python file with get_config(word) is; copy a shipped one")
    config = executed(file).get_config(word)
    check(config)
    return config


def executed(file: pathlib.Path):
    """The module that a config file is."""
    spec = importlib.util.spec_from_file_location(f"supcon_jax_config_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def shared(name: str):
    """A shipped file of tables that a config, or a user's copy of it, reads: shared("_image_recipes")."""
    return executed(find(f"configs/{name}.py"))


def below_empty(config: ConfigDict, key: str) -> bool:
    """Whether a key lies in an empty section `args`, where nothing says what its function takes: data.probe.args.builder."""
    node, path = config, key.split(".")[:-1]
    for part in path:
        node = node.get(part) if isinstance(node, ConfigDict) else None
    return path[-1:] == ["args"] and isinstance(node, ConfigDict) and not len(node)


def literal(text: str):
    """A value as Python writes it, or the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def put(config: ConfigDict, key: str, value) -> None:
    """Sets a key, to a value of another type (mesh.data, a word or a number) or one that is new (below an empty `args`) too."""
    *path, leaf = key.split(".")
    node = config
    for part in path:
        node = node[part]
    with node.unlocked(), node.ignore_type():
        node[leaf] = value


def override(config: ConfigDict, settings: Mapping[str, str]) -> ConfigDict:
    """Command-line values on a config: {"damsm.args.scl": "0"}, parsed to the type that stands there.

    Raises UserError: an unknown key (with the nearest known one) or a value of the wrong type.
    """
    import difflib

    known = flat(config)
    free = {key for key in settings if key not in known and below_empty(config, key)}
    for key, text in settings.items():
        if key in free:
            put(config, key, literal(text))
            continue
        if key not in known:
            near = difflib.get_close_matches(key, known, 1) or difflib.get_close_matches(
                key.split(".")[-1], [k.split(".")[-1] for k in known], 1
            )
            hint = f"; did you mean config.{near[0]}?" if near else ""
            raise UserError(f"config.{key} is not a key of this config{hint}")
        old = known[key]
        value = text if isinstance(old, str) else literal(text.capitalize() if isinstance(old, bool) else text)
        if isinstance(old, str) and key == "mesh.data" and text.isdigit():
            value = int(text)
        if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if isinstance(old, tuple) and not isinstance(value, tuple):
            value = tuple(value) if isinstance(value, list) else (value,)
        if type(value) is not type(old) and key != "mesh.data":
            raise UserError(f"config.{key}={text}: must be of type {type(old).__name__}, as {old!r}")
        put(config, key, value)
    check(config, settings)
    return config
