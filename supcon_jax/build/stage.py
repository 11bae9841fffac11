"""One stage of a run: its nets, frozen towers, task, data and evaluations, ready for the loop."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable

import jax
import jax.numpy as jnp
from etils import epath

from supcon_jax import core, hosts, shard, storage
from supcon_jax.build import clip, evaluations, exports, pretext, trunks, weights
from supcon_jax.build.datasets import Data, mesh_of, open_data, plain_words, vocabulary
from supcon_jax.build.names import GENERATORS, call, counted, frozen, net, resolve
from supcon_jax.config import UserError, difference, digest
from supcon_jax.convert import tensors
from supcon_jax.gans import GANS
from supcon_jax.methods import METHODS, REFRESHED
from supcon_jax.ops.sharded import auto, gather, ring
from supcon_jax.train import checkpoint, loop, optim


@dataclasses.dataclass(frozen=True)
class Stage:
    """A built stage. run: what the loop trains. finish: (state, numbers) -> writes weights and the DONE file."""

    run: loop.Run
    data: Data
    task: core.Task
    frozen: dict
    finish: Callable


def depends(config: dict, name: str) -> dict:
    """The part of a plain config that a stage's result depends on."""
    data = {k: v for k, v in config["data"].items() if k not in ("threads", "bad_limit", "root", "test")}
    data["probe"] = {k: v for k, v in data["probe"].items() if k not in ("root", "test")}
    if data["middle"] == 1 or config[name]["method"] not in REFRESHED:
        del data["middle"]  # of evaluations alone; and runs from before it was there stay what they are
    keys = ("seed", "precision", "views")
    upstream = {f: w for f, w in config[name]["frozen"].items() if w.startswith("stage:")}
    before = {w[6:]: depends(config, w[6:]) for w in upstream.values() if w[6:] in config}
    return {k: config[k] for k in keys} | {"data": data, name: config[name]} | ({"before": before} if before else {})


def done(config: dict, name: str, workdir: epath.Path) -> dict | None:
    """What the DONE file of a finished stage says, or None if the stage is not finished.

    Raises UserError: it was finished with another config; the line says what differs.
    """
    path = workdir / name / "DONE"
    if not path.exists():
        return None
    said = json.loads(path.read_text())
    now = depends(config, name)
    if said["config"] != digest(now):
        lines = difference(json.loads((workdir / name / "config.json").read_text()), now)
        raise UserError(f"{workdir / name} is finished with another config ({'; '.join(lines[:5])}); use another --workdir")
    return said


def build(config: dict, name: str, workdir: epath.Path, evaluate: bool = True, *, mesh=None, sums=None, towers=None) -> Stage:
    """Builds the stage `name` of a plain config.

    workdir: holds the folders of all stages. evaluate: with its evaluations and sample pictures.
    mesh, sums, towers: of another machine, its door, and what stands for `load_frozen`, to compile without running.
    Raises UserError: a bad name or argument, missing pretrained weights, unusable data.
    """
    section, folder = config[name], workdir / name
    load = towers or load_frozen
    towers, about_towers, hashes = load(config, name, workdir)
    told = [about["vocab"] for about in about_towers.values() if about.get("vocab")]
    data = open_data(told_labels(config, name), workdir, vocabulary(told[0]) if told else None)
    nets = build_nets(config, name, data, about_towers)
    batch, steps = section["batch"], section["steps"]
    mesh = mesh or mesh_of(slice_of(section, name), config["mesh"]["data"])
    sums = sums or door(config, mesh)
    epoch = max(1, len(data.taught) // batch)
    classes = pretext.classes(config, name, towers, data.classes)
    about = core.About(len(data.taught), classes, data.vocab, steps, epoch, sums, mesh)
    task = make_task(pretext.seen(config, name, about_towers), name, nets, about)
    task = trunks.begun(task, config, name) if load is load_frozen else task
    task, towers = pretext.started(task, config, name, towers)
    task = pretext.with_probe(task, config, name, data, about)
    for one in dict.fromkeys((name, *config["stages"])):  # labels are alike in all stages: told before the first one trains
        check_labels(config[one]["args"], data, one, config[one]["method"])
    measure = evaluations.Context(config, name, folder, task, towers, hashes, data, mesh)
    run = loop.Run(
        name=name, folder=folder, task=task, frozen=towers, mesh=mesh, seed=config["seed"], steps=steps,
        data=lambda: data.training(batch, section["size"], probed=pretext.has_probe(section)),
        images=batch * section["args"].get("branches", 1),
        every=config["every"], keep=config["keep"], skip_limit=config["skip_limit"], config=depends(config, name),
        evals=evaluations.build(measure) if evaluate else (),
        picture=evaluations.sampler(measure) if evaluate and "generate" in task.heads else None,
        records=(lambda: data.in_order(batch, section["size"])) if task.refresh else None,
        split=config["mesh"]["params_mib"] * 2**20 if config["mesh"]["params"] == "fsdp" else None,
    )  # fmt: skip
    finish = functools.partial(
        write_done, config=config, name=name, folder=folder, data=data, towers=towers, about=about_towers
    )
    return Stage(run, data, task, towers, finish)


def told_labels(config: dict, name: str) -> dict:
    """The config as the stage `name` reads its data: config.STAGE.data says which split, and which labels it is told."""
    return {**config, "data": {**config["data"], **config[name].get("data", {})}}


def make_task(config: dict, name: str, nets: dict, about: core.About) -> core.Task:
    """The task of the stage `name` from its nets. Raises UserError: a bad name or argument."""
    section = config[name]
    sizes = {"steps": about.steps, "epoch": about.epoch, "batch": section["batch"]}
    own = {player: o for player, o in section["optim"].items() if player != pretext.PROBE}
    tx = {player: optim.optimiser(o, **sizes) for player, o in own.items()}
    function = resolve({**METHODS, **GANS}, section["method"], f"config.{name}.method")
    args = {key: frozen(value) for key, value in section["args"].items()}
    try:
        return call(function, f"{name}.args", nets, tx, about, **args)
    except UserError:
        raise
    except ValueError as error:  # values that may stand alone and not together
        raise UserError(f"config.{name}.args: {error}") from None


def door(config: dict, mesh: jax.sharding.Mesh, memory: int | None = None):
    """The door of the contrastive sums that the config asks for. memory: bytes of a device, if it cannot be asked."""
    kind = config["mesh"]["door"]
    return auto(mesh, memory=memory) if kind == "auto" else {"gather": gather, "ring": ring}[kind](mesh)


def build_nets(config: dict, name: str, data: Data, towers: dict) -> dict:
    """The stage's own nets, and those of its frozen encoders as their weight file describes them.

    Raises UserError: a bad name or argument; a net that reads text where the data have none.
    """
    section, precision, words = config[name], config["precision"], 0 if data.vocab is None else len(data.vocab)
    pretext.agree(config, name, towers)
    nets = {}
    for kind in ("damsm", "clip"):
        for key, options in towers.get(kind, {}).get("nets", {}).items():
            nets[key] = net(options, f"{name}.frozen.{kind}", precision, **counted(options, words))
    if "clip" in nets:
        clip.check(config, name, nets["clip"], towers["clip"])
    for key, options in own_nets(section, towers).items():
        if key == "disc" and "clip" in nets:
            nets[key] = (net(options, f"{name}.nets.disc", precision),)
            continue
        if key == "disc":
            sizes = section["nets"]["gen"]["sizes"]
            nets[key] = tuple(net(options, f"{name}.nets.disc", precision, size=size) for size in sizes)
            continue
        more = counted(options, words)
        more = {"classes": data.classes} if options["net"] == "inception_classifier" else more
        nets[key] = net(options, f"{name}.nets.{key}", precision, **more)
    for key, options in pretext.below(towers).items():  # a trained encoder takes the place of one that would be drawn
        nets[key] = net(options, f"{name}.frozen", precision)
    if data.vocab is None and nets.keys() & {"text", "clip"}:
        raise UserError(
            f"{name} reads captions, and the data have none: config.data.name={config['data']['name']!r} must be a set with "
            "captions, and config.data.text=True"
        )
    return nets


def own_nets(section: dict, towers: dict) -> dict:
    """The options of a stage's own nets, by key, with what follows from its frozen towers."""
    fitted = clip.fitted if "clip" in towers else trunks.fitted
    return {key: pretext.fitted(fitted(options, key, towers), key, section, towers) for key, options in section["nets"].items()}


def told_nets(section: dict, towers: dict) -> dict:
    """The options of all nets in a stage's weight file: its own, of a GAN's the generator, and its frozen encoders'."""
    own = own_nets(section, towers)
    own = {"gen": own["gen"]} if section["method"] in GENERATORS else own
    nets = {**own, **next((about["nets"] for key, about in towers.items() if "nets" in about and key != "teacher"), {})}
    return pretext.left(section, nets) if section["method"] == "finetune" else nets


def load_frozen(config: dict, name: str, workdir: epath.Path) -> tuple[dict, dict, dict]:
    """The frozen towers of a stage: (trees, what their files say of themselves, sha256), by name.

    Raises UserError: a tower that is needed and not there; the line says which file to give.
    """
    trees, about, hashes = {}, {}, {}
    for key, place in config[name]["frozen"].items():
        if key.startswith("clip_") or key == "start":  # how a foreign CLIP is read, where a trunk begins
            continue
        if key == "clip" and not place.startswith("stage:"):
            trees[key], about[key], hashes[key] = clip.load(config, name)
            continue
        if key in trunks.OF:
            if found := trunks.load(config, name, key):
                tree, about[key], hashes[key] = found
                trees |= {key: tree} if trunks.fixed(config, name, key) else {}
            continue
        if not place:
            if pretext.draws(config[name], key):
                continue
            if key in pretext.FROM:
                raise UserError(pretext.needed(key, name, config[name]["method"]))
            raise UserError(
                f"{name} needs pretrained encoders: run the damsm stage first, or give its weights.safetensors"
                f" with --config.{name}.frozen.{key}=FILE"
            )
        path = workdir / place[6:] / "weights.safetensors" if place.startswith("stage:") else storage.place(place)
        trees[key], about[key], hashes[key] = weights.load(path, pretext.KIND if key in pretext.FROM else key)
    return jax.tree.map(jnp.asarray, trees), about, hashes


def slice_of(section: dict, name: str) -> int:
    """Rows that are encoded at once, which are what the devices share. Raises UserError: slices would be of two sizes."""
    batch, slices = section["batch"], section["args"].get("slices", 1)
    if batch % slices:
        near = [k for k in range(1, batch + 1) if batch % k == 0]
        near = sorted(sorted(near, key=lambda k: abs(k - slices))[:2])
        raise UserError(
            f"config.{name}.args.slices={slices} does not divide config.{name}.batch={batch}; use {' or '.join(map(str, near))}"
        )
    return batch // slices


def check_labels(args: dict, data: Data, name: str, method: str = "") -> None:
    """Whether the labels are what the label term, supervised contrast or a classifier of one label reads."""
    mode, labels, term = args.get("label_mode"), data.taught.labels, args.get("term", "supcon")
    always = mode is not None and "scl" not in args  # supervised contrast alone, without a weight that could drop it
    if "groups" in args and data.taught.classes != data.train.classes:
        raise UserError(f"config.data.labels_from={data.options['labels_from']}: {name} learns the set's own classes; use set")
    if method == "finetune" and labels is not None and labels.ndim == 2:
        several = "the records have several labels each"
        raise UserError(f"config.{name} learns one label of each picture, but {several}; give other data in config.data")
    if mode is None or not args.get("scl", always):
        return
    if always and labels is None and mode != "single":
        raise UserError(f"config.{name}.args.label_mode={mode!r}, but the records have no labels; use single")
    if term == "label_head" and labels is None:
        raise UserError(f"config.{name}.args.term='label_head' reads labels, and the records have none; use ntxent or xmc")
    if labels is None or term not in ("supcon", "unicl"):
        return
    if (mode == "single") != (labels.ndim == 1):
        have, use = ("one label", "single") if labels.ndim == 1 else ("several labels", "any, all, jaccard, idf or mulsupcon")
        raise UserError(f"config.{name}.args.label_mode={mode!r}, but the records have {have} each; use {use}")


def write_done(state, values, *, config, name, folder, data, towers, about) -> None:
    """Writes the stage's weights for later stages and for sampling, then the DONE file that lets a rerun skip it.

    All processes give their part of the weights, the first one writes them, and all go on when they lie there.
    """
    said = described(config, name, plain_words(data.vocab), about)
    if config[name]["method"] == "classifier":
        said["classes"] = list(data.taught.classes)
    tree, bits = shard.whole(exports.EXPORTS[config[name]["method"]](state, towers)), checkpoint.digest(state)
    if hosts.chief():
        weights.save(folder / "weights.safetensors", tree, said)
        write_record(state, values, bits, config=config, name=name, folder=folder)
    hosts.wait(f"{name} is finished")


def described(config: dict, name: str, vocab: list | dict | None, towers: dict) -> dict:
    """What a stage's weight file says of itself: config, vocabulary, and the nets to make again.

    vocab: as plain lists and dicts, None of a stage that reads no text. towers: what the files of its frozen towers say, by
    name.
    """
    section = config[name]
    kind = exports.KINDS.get(section["method"], section["method"])
    norm = {"norm": pretext.norm_of(config, name, towers)} if kind == pretext.KIND else {}
    nets = told_nets(section, towers)
    return {"kind": kind, "vocab": vocab, "config": known(config), "stage": name, "nets": nets, **norm}


def known(config: dict) -> dict:
    """The plain config as weight files keep it: what the weights are, not where they were made."""
    kept = {key: value for key, value in config.items() if key not in ("cache", "networks")}
    return kept | {"data": config["data"] | {"root": "", "probe": config["data"]["probe"] | {"root": ""}}}


def write_record(state, values, bits: str, *, config, name, folder) -> None:
    """The DONE file of a stage whose weights are written."""
    record = {
        "config": digest(depends(config, name)),
        "steps": int(state.step),
        "skipped": int(state.skipped[0]),
        "digest": bits,
        "weights": tensors.sha256(folder / "weights.safetensors"),
        "numbers": values,
    }
    storage.write(folder / "DONE", json.dumps(record, indent=1, sort_keys=True))
