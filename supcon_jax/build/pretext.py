"""What stages of picture encoders have beside their method: trained encoders below, an online probe, weights to hand on."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from supcon_jax import core
from supcon_jax.config import UserError
from supcon_jax.methods import ENCODERS, towers
from supcon_jax.methods.probe import NAME as PROBE
from supcon_jax.methods.probe import probed
from supcon_jax.ops.arrays import unit
from supcon_jax.train import optim
from supcon_jax.views import recipes

KIND = "encoder"  # what a weight file of these stages holds
FROM = {"encoder": "", "teacher": "teacher/"}  # key in config.STAGE.frozen -> prefix of its nets' names in the task
KINDS = {**dict.fromkeys(ENCODERS, KIND), "finetune": KIND}


def below(towers: dict) -> dict:
    """The options of the nets of trained encoders that a stage works with, by the names that its task calls them.

    towers: what their weight files say.
    """
    return {
        prefix + name: options
        for key, prefix in FROM.items()
        for name, options in towers.get(key, {}).get("nets", {}).items()
    }


def needed(key: str, name: str) -> str:
    """What is said where no encoder was given."""
    return (
        f"{name} needs a trained encoder: name a method before it (--config=configs/image.py:simclr,{name}), or give its"
        f" weights.safetensors with --config.{name}.frozen.{key}=FILE"
    )


def seen(config: dict, name: str, towers: dict) -> dict:
    """The config with a stage's pictures normalised as its trained encoder learned to see them, where it names no norm.

    towers: what the weight files say. A recipe of views brings a normalisation of its own, and the one that a classifier is
    trained with is seldom the one that its encoder was trained with.
    """
    norms = [towers[key]["norm"] for key in FROM if towers.get(key, {}).get("norm")]
    args = config[name]["args"]
    if not norms or args.get("norm"):
        return config
    return config | {name: config[name] | {"args": args | {"norm": norms[0]}}}


def norm_of(config: dict, name: str, towers: dict) -> str:
    """How a stage's pictures are normalised, for its weight file."""
    args = seen(config, name, towers)[name]["args"]
    return args["norm"] or recipes.own_norm(args["recipe"]) if "recipe" in args else ""


def draws(section: dict, key: str) -> bool:
    """Whether a stage that was given no encoder begins with drawn weights: it has a net of its own, and learns it."""
    return key == "encoder" and "image" in section["nets"] and not section["args"].get("freeze", True)


def with_probe(task: core.Task, config: dict, name: str, data, about: core.About) -> core.Task:
    """The task with the online probe that config.STAGE.optim.probe asks for.

    Raises UserError: the records have no labels to learn.
    """
    options = config[name]["optim"].get(PROBE)
    if options is None:
        return task
    of = data.probe or data
    if of.train.labels is None or not of.classes:
        had = f"{of.train.name} has none"
        raise UserError(f"config.{name}.optim.probe learns labels, and {had}: name a labelled set in config.data.probe")
    tx = optim.optimiser(options, steps=about.steps, epoch=about.epoch, batch=config[name]["batch"])
    return probed(task, tx, of.classes)


def started(task: core.Task, config: dict, name: str, towers: dict) -> tuple[core.Task, dict]:
    """(task, towers): an encoder that learns on is no tower any more, but where the task's parameters begin."""
    if "encoder" not in towers or config[name]["args"].get("freeze", True):
        return task, towers
    tower = towers["encoder"]

    def init(key, batch):
        made = task.init(key, batch)
        begin = {kind: jax.tree.map(given, part(tower, kind)) for kind in ("params", "stats")}
        return {
            **made,
            "params": {**made["params"], "model": {**made["params"]["model"], "image": begin["params"]}},
            "stats": {**made["stats"], "model": {**made["stats"]["model"], "image": begin["stats"]}},
        }

    return dataclasses.replace(task, init=init), {key: tree for key, tree in towers.items() if key != "encoder"}


def given(leaf):
    """A tower's leaf as an array; zeros where it is there in shape only, to compile without running."""
    return jnp.zeros(leaf.shape, leaf.dtype) if isinstance(leaf, jax.ShapeDtypeStruct) else jnp.asarray(leaf)


def export(state, towers):
    """The encoder with its heads, so that the file stands alone."""
    params, stats = dict(state.params["model"]), dict(state.stats["model"])
    if "image" not in params and "encoder" in towers:  # a classifier on an encoder that stood still
        params["image"], stats["image"] = (part(towers["encoder"], kind) for kind in ("params", "stats"))
    return {"params": params, "stats": stats}


def part(tower: dict, kind: str) -> dict:
    """The encoder's "params" or "stats" in a tower; a file keeps none that are empty."""
    return tower.get(kind, {}).get("image", {})


def encoded(module, tree: dict, about: dict, images):
    """Unit features f32[n, f] of pictures u8[n, h, w, 3] of any size, seen as they were when the encoder learned: `about`."""
    args = about["config"][about["stage"]]["args"]
    x = recipes.plain(images, size=args["size"], norm=about["norm"])
    variables = {"params": part(tree, "params"), "batch_stats": part(tree, "stats")}
    return unit(towers.joined(module.apply(variables, x, train=False)))
