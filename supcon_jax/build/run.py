"""Running built stages: train one to its end, or evaluate its newest checkpoint."""

from __future__ import annotations

import dataclasses
import json
import logging

from etils import epath

from supcon_jax import shard
from supcon_jax.build import adopt, exports, pretext, stage, start, weights
from supcon_jax.train import loop

log = logging.getLogger("supcon_jax")


def check(config: dict) -> None:
    """Whether what later stages of a plain config read of earlier ones will fit, before any is trained.

    Raises UserError: as pretext.agree does.
    """
    for name in config["stages"]:
        promised(config, name)


def promised(config: dict, name: str) -> dict | None:
    """What the weight file of a stage will say of its nets, None where that depends on files.

    Raises UserError: as pretext.agree does.
    """
    towers = {}
    for key, place in config[name].get("frozen", {}).items():
        if key not in pretext.FROM or not place and pretext.draws(config[name], key):
            continue
        before = place.removeprefix("stage:")
        if before == place or before not in config["stages"] or not (said := promised(config, before)):
            return None
        towers[key] = said
    pretext.agree(config, name, towers)
    return {"nets": stage.told_nets(config[name], towers), "config": config, "stage": name}


def train_stage(config: dict, name: str, workdir: epath.Path, source: str | None = None) -> dict[str, float]:
    """Trains a stage of a plain config from where it stands to its end; a finished one is only read.

    source: weights to begin with, see start.given.
    Returns the numbers of its last evaluation. Raises UserError: as the parts do.
    """
    said = stage.done(config, name, workdir)
    if said:
        log.info("%s: finished before (%d steps), skipped", name, said["steps"])
        return said["numbers"]
    begin = start.given(config, name, workdir, source)
    built = stage.build(config, name, workdir)
    state, values = loop.train(dataclasses.replace(built.run, start=begin) if begin else built.run)
    built.finish(state, values)
    return values


def protocols(folder: epath.Path) -> dict[str, str]:
    """How each number of a stage was measured, a line each."""
    path = folder / "evals.json"
    return {name: record["line"] for name, record in json.loads(path.read_text()).items()} if path.exists() else {}


def evaluate_stage(config: dict, name: str, workdir: epath.Path) -> tuple[int, dict[str, float]]:
    """(step, numbers) of a stage's newest checkpoint; of its weights, where they alone lie there."""
    if not (workdir / name / "checkpoints").is_dir():
        return evaluate_weights(config, name, workdir)
    built = stage.build(config, name, workdir)
    loop.settle(built.run)
    state, _, saved = loop.begin(built.run)
    saved.close()
    return int(state.step), measured(built, state)


def evaluate_weights(config: dict, name: str, workdir: epath.Path) -> tuple[int, dict[str, float]]:
    """`evaluate_stage` of a weight file; one that was converted counts as step 0."""
    method = config[name]["method"]
    tree, about, sha = weights.load(workdir / name / "weights.safetensors", exports.KINDS.get(method, method))
    config = pretext.unprobed(config, name)
    built = stage.build(
        config, name, workdir, towers=lambda config, name, workdir: adopt.towers(config, name, workdir, tree, about, sha)
    )
    done = workdir / name / "DONE"
    step = json.loads(done.read_text())["steps"] if done.exists() else 0
    state = adopt.restored(config, name, built.task, tree, step)
    return step, measured(built, shard.lay(state, built.run.mesh, built.run.split))


def measured(built: stage.Stage, state) -> dict[str, float]:
    values = {}
    for evaluation in built.run.evals:
        values |= {f"{evaluation.name}/{key}": value for key, value in evaluation.fn(state).items()}
    return values
