"""The real training step of every stage, compiled for a machine that is not here and never run."""

from __future__ import annotations

import collections
import functools
import json
import pathlib
import tempfile
import time
from collections.abc import Iterator

import jax
from etils import epath
from jax.sharding import NamedSharding, PartitionSpec

from supcon_jax import core, shard, storage
from supcon_jax.build import clip, cost, exports, pretext, program, stage, trunks, weights
from supcon_jax.build.datasets import open_data, plain_words
from supcon_jax.build.target import GIB, Target, find
from supcon_jax.config import UserError
from supcon_jax.data import blank
from supcon_jax.train import loop, refusal

MIB = 2**20


def stages(config: dict, topology: str, workdir: epath.Path | None) -> Iterator[str]:
    """Compiles the stages of a plain config; yields lines to print; writes what it found under workdir, if given.

    Raises UserError: an unknown topology or no compiler for it, a batch that cannot be split over it, and at the end if a
    stage takes more memory than there is.
    """
    target, found = find(topology), {}
    for name in config["stages"]:
        laid(config, name, target)  # a batch that cannot be split is told before anything takes minutes
    config, told = at_hand(config)
    yield from told
    for name in config["stages"]:
        found[name] = one(config, name, target)
        yield from shown(found[name])
    if workdir:
        yield f"written to {write(found, topology, workdir)}"
    if large := [f"{name} ({lack(said)})" for name, said in found.items() if not said["fits"]]:
        raise UserError(f"too large for {topology}: {', '.join(large)}; --fit finds the largest batch that is not")


def at_hand(config: dict) -> tuple[dict, list[str]]:
    """(the plain config to compile, lines about it): a data set that is not here is stood for by its published sizes.

    Raises UserError: `data.root` is given and not right, or nothing is known of a data set that is not here.
    """
    name, root = blank.known(config["data"]), config["data"]["root"]
    if root or not name:
        return config, []
    try:
        open_data(config, None)
    except UserError:
        data = config["data"] | {"name": "blank", "args": {"of": name}}
        sizes = blank.SIZES[name]
        counts = f"{sizes['records'].get(data['train'])} records, {sizes['classes']} classes"
        counts += f", {sizes['words']} words" if sizes["words"] else ""
        return config | {"data": data}, [f"{name} is not at hand: compiled for its published sizes ({counts})"]
    return config, []


def write(found: dict, topology: str, workdir: epath.Path) -> epath.Path:
    """What was found as JSON. Returns the file."""
    path = workdir / f"compile_{topology.replace(':', '_')}.json"
    storage.write(path, json.dumps(found, indent=1))
    return path


def one(config: dict, name: str, target: Target) -> dict:
    """Compiles the step of the stage `name` and tells what is known of it, ready for JSON; memory in bytes of a device.

    Raises UserError: as `stage.build` does, the batch cannot be split over the target, or values do not fit each other.
    """
    batch, mesh, calls = config[name]["batch"], laid(config, name, target), []
    sums = cost.Heard(stage.door(config, mesh, target.chip.memory // GIB * GIB), calls)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        built = stage.build(config, name, folder, evaluate=False, mesh=mesh, sums=sums, towers=frozen_shapes)
        example = batch_shapes(built, config[name])
    said = {"stage": name, "topology": target.name, "devices": mesh.size, "batch": batch, "run": False}
    said |= {"slices": config[name]["args"].get("slices", 1), "records": len(built.data.taught)}
    with refusal.told(name):
        state = jax.eval_shape(functools.partial(core.init_state, built.task), key_shape(), example)
        state, frozen = (shard.outline(tree, shard.shardings(tree, mesh, built.run.split)) for tree in (state, built.frozen))
        rows = NamedSharding(mesh, PartitionSpec("data"))
        example = shard.outline(example, dict.fromkeys(example, rows))
        step = loop.stepper(built.task, mesh, state).trace(state, frozen, example)
    said["flop"] = cost.products(step.jaxpr) / mesh.size
    said["gradients"] = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state.params))
    said["floor_seconds"] = cost.floor(said["flop"], said["gradients"], mesh.size, target.chip)
    said |= compiled(step.lower(), target)
    said["sums"] = [vars(call) for call in calls]
    said["modelled_seconds"] = cost.modelled(calls, mesh.size, target.chip, said["collectives"])
    return said


def laid(config: dict, name: str, target: Target) -> jax.sharding.Mesh:
    """The mesh that a stage's batch, or each slice of it, is split over. Raises UserError: it cannot be."""
    rows = stage.slice_of(config[name], name)
    try:
        return target.mesh(rows, config["mesh"]["data"])
    except UserError as error:
        slices = f" / args.slices = {rows}" if rows != config[name]["batch"] else ""
        raise UserError(f"config.{name}.batch={config[name]['batch']}{slices}: {error}") from None


def compiled(lowered, target: Target) -> dict:
    """Compiles and tells {"fits", "needs", "has", "memory", "collectives", "compile_seconds"}."""
    began = time.monotonic()
    said = {"fits": True, "needs": 0, "has": target.chip.memory, "memory": {}, "collectives": {}}
    try:
        done = lowered.compile(compiler_options=target.options)
    except jax.errors.JaxRuntimeError as error:
        sizes = program.too_large(str(error))
        if sizes is None:
            said = str(error).splitlines()[0][:300]
            raise UserError(f"the compiler of {target.name} failed, for another reason than memory: {said}") from error
        said |= {"fits": False, "needs": sizes[0], "has": sizes[1]}
    else:
        said |= {"memory": program.memory(done), "collectives": program.collectives(done.as_text())}
        said["needs"] = said["memory"]["peak"]
        said["fits"] = said["needs"] <= said["has"]
    return said | {"compile_seconds": round(time.monotonic() - began, 1)}


def key_shape():
    return jax.eval_shape(lambda: jax.random.key(0))


def batch_shapes(built: stage.Stage, section: dict) -> dict:
    """One training batch in shape: two real records, as if there were as many as the batch takes."""
    example = next(built.data.training(2, section["size"], probed=pretext.has_probe(section)))
    return {name: jax.ShapeDtypeStruct((section["batch"], *x.shape[1:]), x.dtype) for name, x in example.items()}


def frozen_shapes(config: dict, name: str, workdir: epath.Path) -> tuple[dict, dict, dict]:
    """What stage.load_frozen gives, in shape only: towers of stages that were not trained yet, of files if they are given.

    Raises UserError: a file that is not there, or no stage to take the tower from.
    """
    trees, about = {}, {}
    for key, place in config[name]["frozen"].items():
        upstream = place[6:] if place.startswith("stage:") else key
        if key.startswith("clip_") or key == "start":
            continue
        if key == "clip" and not place.startswith("stage:"):
            trees[key], about[key] = clip.load(config, name)[:2] if place else clip.shapes()
            continue
        if key in trunks.OF:
            if found := trunks.drawn(config, name, key):
                tree, about[key] = found
                trees |= {key: tree} if trunks.fixed(config, name, key) else {}
        elif not place and pretext.draws(config[name], key):
            continue
        elif place and not place.startswith("stage:"):
            trees[key], about[key], _ = weights.load(place, pretext.KIND if key in pretext.FROM else key)
        elif upstream in config:
            trees[key], about[key] = exported(config, upstream, workdir)
        else:
            raise UserError(f"{name} needs pretrained encoders: give a weight file with --config.{name}.frozen.{key}=FILE")
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), trees), about, {}


def exported(config: dict, name: str, workdir: epath.Path) -> tuple[dict, dict]:
    """(weights in shape, what their file says) that a stage would leave for later ones."""
    built = stage.build(config, name, workdir, evaluate=False, towers=frozen_shapes)
    example = batch_shapes(built, config[name])
    with refusal.told(name):
        state = jax.eval_shape(functools.partial(core.init_state, built.task), key_shape(), example)
    tree = jax.eval_shape(exports.EXPORTS[config[name]["method"]], state, built.frozen)
    towers = frozen_shapes(config, name, workdir)[1]
    return tree, {"nets": stage.told_nets(config[name], towers), "vocab": plain_words(built.data.vocab)}


def shown(said: dict) -> Iterator[str]:
    """What `one` found, as lines."""
    slices = f" in {said['slices']} slices" if said["slices"] > 1 else ""
    how = f"batch {said['batch']}{slices} over {said['devices']} devices"
    yield f"{said['stage']} on {said['topology']}, {how}: compiled in {said['compile_seconds']:.0f} s, not run"
    if not said["memory"]:
        yield f"  does not fit: {lack(said)}"
        return
    sizes = ", ".join(f"{name} {size(count)}" for name, count in said["memory"].items())
    yield f"  memory of a device: {sizes}; {'' if said['fits'] else 'does not fit: '}{lack(said)}"
    counts = [f"{kind} {sum(c.values())} ({c['asynchronous']} asynchronous)" for kind, c in said["collectives"].items()]
    yield f"  collectives: {', '.join(counts) or 'none'}"
    alike = collections.Counter((c["n"], c["m"], c["d"], c["door"], c["why"]) for c in said["sums"])
    for (n, m, d, door, why), times in alike.items():
        yield f"  sums of {n} x {m}, {d} numbers each{f', {times} times' if times > 1 else ''}: {door} ({why})"
    floor = {key: f"{1e3 * value:.3g} ms" for key, value in said["floor_seconds"].items()}
    flop = f"{said['flop'] / 1e12:.3g} TFLOP" if said["flop"] >= 1e11 else f"{said['flop'] / 1e9:.3g} GFLOP"
    products = f"{flop} of products a device, {floor['products']} at the chip's peak"
    yield f"  modelled, not measured: {products}; {size(said['gradients'])} of gradients, {floor['links']} on its links"
    if said["sums"]:
        time = {key: 1e3 * value for key, value in said["modelled_seconds"].items()}
        parts = f"compute {time['compute']:.3g}, links {time['links']:.3g}"
        yield f"  modelled, not measured: {time['all']:.3g} ms a step for the sums alone ({parts})"


def lack(said: dict) -> str:
    return f"needs {size(said['needs'])} of {size(said['has'])} per device"


def size(count: int) -> str:
    return f"{count / GIB:.2f} GiB" if count >= GIB else f"{count / MIB:.1f} MiB"
