"""What stages of picture encoders have beside their method: trained encoders below, an online probe, weights to hand on."""

from __future__ import annotations

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp

from supcon_jax import core
from supcon_jax.build.names import net
from supcon_jax.config import UserError
from supcon_jax.methods import ENCODERS, finetune, student, towers
from supcon_jax.methods.probe import NAME as PROBE
from supcon_jax.methods.probe import probed
from supcon_jax.nets import heads
from supcon_jax.ops.arrays import unit
from supcon_jax.train import optim
from supcon_jax.views import recipes

KIND = "encoder"  # what a weight file of these stages holds
FROM = {"encoder": "", "teacher": "teacher/"}  # key in config.STAGE.frozen -> prefix of its nets' names in the task
KINDS = {**dict.fromkeys(ENCODERS, KIND), "finetune": KIND}
CLASSIFIERS = ("finetune", "distil")  # methods whose weights hold a classifier


def below(towers: dict) -> dict:
    """The options of the nets of trained encoders that a stage works with, by the names that its task calls them.

    towers: what their weight files say.
    """
    return {
        prefix + name: options
        for key, prefix in FROM.items()
        for name, options in towers.get(key, {}).get("nets", {}).items()
    }


def needed(key: str, name: str, method: str) -> str:
    """What is said where no encoder was given."""
    what, first = ("classifier", "simclr,finetune") if method == "distil" else ("encoder", "simclr")
    return (
        f"{name} needs a trained {what}: name a method before it (--config=configs/image.py:{first},{name}), or give its"
        f" weights.safetensors with --config.{name}.frozen.{key}=FILE"
    )


def agree(config: dict, name: str, towers: dict) -> None:
    """Whether a stage and the trained encoders that it works with fit each other. towers: what their weight files say.

    Raises UserError: a student of an encoder without codes, or with codes of another length; an encoder that gives no answers;
    more layers than its projection has.
    """
    section, told = config[name], towers.get("teacher", {})
    above, size = told.get("nets", {}), section["args"].get("size", 0)
    if section["method"] == "finetune" and "encoder" in towers:
        try:
            left(section, towers["encoder"]["nets"])
        except ValueError as error:
            raise UserError(f"config.{name}.args.{error}") from None
    if section["method"] == "distil" and "config" in told and told["config"][told["stage"]]["method"] not in CLASSIFIERS:
        raise UserError(
            f"config.{name}.frozen.teacher: {told['stage']} learned no classes; train a classifier on it first, as"
            f" --config=configs/image.py:simclr,finetune,{name}"
        )
    if section["method"] == "student" and above:
        if "project" not in above:
            raise UserError(f"config.{name}.frozen.teacher: a student follows codes, and this encoder has no projection")
        if section["args"]["kind"] != "seed":
            return
        own = {key: fitted(options, key, section, towers) for key, options in section["nets"].items()}
        mine, theirs = length(own, size, f"{name}.nets"), length(above, size, f"{name}.frozen")
        if mine != theirs:
            key = f"config.{name}.nets.project"
            said = f"{key}.dim={own['project']['dim']}" if "dim" in own["project"] else key
            raise UserError(f"{said} gives codes of {mine} numbers, the teacher's have {theirs}: use dim=0 for as many")


def fitted(options: dict, key: str, section: dict, towers: dict) -> dict:
    """Options of the net `key`: of a student's projection that names no length, with that of its teacher's codes."""
    if key != "project" or options.get("dim") != 0 or "teacher" not in towers:
        return options
    return options | {"dim": length(towers["teacher"]["nets"], section["args"]["size"], f"{section['method']}.frozen")}


def length(nets: dict, size: int, where: str) -> int:
    """How many numbers a picture's code has, after the projection. nets: options by name; where: they stand in the config."""
    return counted(json.dumps({name: nets[name] for name in student.NETS}, sort_keys=True), size, where)


@functools.cache
def counted(told: str, size: int, where: str) -> int:
    nets = {name: net(options, f"{where}.{name}") for name, options in json.loads(told).items()}
    return jax.eval_shape(lambda: student.codes(nets, jnp.zeros((2, size, size, 3)))).shape[1]


def left(section: dict, nets: dict) -> dict:
    """Those nets of an encoder that a classifier on it reads, as its own weight file tells them.

    Raises ValueError: more layers than the projection has.
    """
    layers, out = section["args"].get("layers", 0), {"image": nets["image"]}
    if not layers:
        return out
    head = finetune.kept("project" in nets and net(nets["project"], "nets.project"), layers)
    fields = ("widths", "norm", "last", "biases", "start", "groups", "kept")
    return {**out, "project": {"net": "mlp", **{key: getattr(head, key) for key in fields}}}


def classes(config: dict, name: str, towers: dict, have: int) -> int:
    """How many classes a stage tells apart: as its data have, a student of answers on data without as its teacher.

    towers: their weights. Raises UserError: the teacher has no classifier, or one of another number of classes.
    """
    if config[name]["method"] != "distil":
        return have
    tower = towers["teacher"]["params"]
    if "classes" not in tower:
        raise UserError(f"config.{name}.frozen.teacher: these weights hold no classifier; give those of finetune or linear")
    theirs = tower["classes"]["bias"].shape[0]
    if have not in (0, theirs):
        raise UserError(f"{name}: the teacher tells {theirs} classes apart, and config.data.name={config['data']['name']!r} has"
                        f" {have}: use the set that it learned from, or one without labels")  # fmt: skip
    return theirs


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


def has_probe(section: dict) -> bool:
    """Whether a stage trains an online probe."""
    return PROBE in section["optim"]


def with_probe(task: core.Task, config: dict, name: str, data, about: core.About) -> core.Task:
    """The task with the online probe that config.STAGE.optim.probe asks for.

    Raises UserError: the records have no labels to learn.
    """
    options = config[name]["optim"].get(PROBE)
    if options is None:
        return task
    of = data.probe or data
    if not of.train.labelled or not of.classes:
        had = f"{of.train.name}/{of.train.split} has none"
        raise UserError(f"config.{name}.optim.probe learns labels, and {had}: name a labelled set in config.data.probe")
    tx = optim.optimiser(options, steps=about.steps, epoch=about.epoch, batch=config[name]["batch"])
    return probed(task, tx, of.classes)


def unprobed(config: dict, name: str) -> dict:
    """The config without a stage's online probe, of which weight files hold nothing."""
    optim = {player: options for player, options in config[name].get("optim", {}).items() if player != PROBE}
    return config | {name: config[name] | {"optim": optim}}


def learned(section: dict, tree: dict) -> dict:
    """The part of a weight file that the stage itself has learned: all, but of a classifier on a fixed encoder that alone."""
    fixed = section["method"] == "finetune" and section["args"]["freeze"]
    return {"params": {finetune.HEAD: tree["params"][finetune.HEAD]}} if fixed else tree


def started(task: core.Task, config: dict, name: str, towers: dict) -> tuple[core.Task, dict]:
    """(task, towers) with as much of the encoder as the stage reads: one that learns on is no tower any more, but where the
    task's parameters begin."""
    if "encoder" not in towers:
        return task, towers
    args = config[name]["args"]
    tower = {kind: parts(towers["encoder"], kind, args.get("layers", 0)) for kind in ("params", "stats")}
    if args.get("freeze", True):
        return task, {**towers, "encoder": tower}

    def init(key, batch):
        made = task.init(key, batch)
        begin = {kind: jax.tree.map(given, tower[kind]) for kind in tower}
        return {**made, **{kind: {**made[kind], "model": {**made[kind]["model"], **begin[kind]}} for kind in begin}}

    return dataclasses.replace(task, init=init), {key: tree for key, tree in towers.items() if key != "encoder"}


def given(leaf):
    """A tower's leaf as an array; zeros where it is there in shape only, to compile without running."""
    return jnp.zeros(leaf.shape, leaf.dtype) if isinstance(leaf, jax.ShapeDtypeStruct) else jnp.asarray(leaf)


def export(state, towers):
    """The encoder with its heads, so that the file stands alone."""
    params, stats = dict(state.params["model"]), dict(state.stats["model"])
    if "image" not in params and "encoder" in towers:  # a classifier on an encoder that stood still
        tower = towers["encoder"]
        params |= tower["params"]
        stats |= {name: tower.get("stats", {}).get(name, {}) for name in tower["params"]}
    return {"params": params, "stats": stats}


def part(tower: dict, kind: str) -> dict:
    """The encoder's "params" or "stats" in a tower; a file keeps none that are empty."""
    return tower.get(kind, {}).get("image", {})


def parts(tower: dict, kind: str, layers: int) -> dict:
    """The same with so many layers of the projection, by net."""
    head = {"project": heads.first(tower.get(kind, {}).get("project", {}), layers)} if layers else {}
    return {"image": part(tower, kind), **head}


def encoded(module, tree: dict, about: dict, images):
    """Unit features f32[n, f] of pictures u8[n, h, w, 3] of any size, seen as they were when the encoder learned: `about`."""
    args = about["config"][about["stage"]]["args"]
    x = recipes.plain(images, size=args["size"], norm=about["norm"])
    variables = {"params": part(tree, "params"), "batch_stats": part(tree, "stats")}
    return unit(towers.joined(module.apply(variables, x, train=False)))
