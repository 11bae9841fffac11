"""Running built stages: train one to its end, or evaluate its newest checkpoint."""

from __future__ import annotations

import json
import logging

from etils import epath

from supcon_jax.build import stage
from supcon_jax.train import loop

log = logging.getLogger("supcon_jax")


def train_stage(config: dict, name: str, workdir: epath.Path) -> dict[str, float]:
    """Trains a stage of a plain config from where it stands to its end; a finished one is only read.

    Returns the numbers of its last evaluation. Raises UserError: as the parts do.
    """
    said = stage.done(config, name, workdir)
    if said:
        log.info("%s: finished before (%d steps), skipped", name, said["steps"])
        return said["numbers"]
    built = stage.build(config, name, workdir)
    state, values = loop.train(built.run)
    built.finish(state, values)
    return values


def protocols(folder: epath.Path) -> dict[str, str]:
    """How each number of a stage was measured, a line each."""
    path = folder / "evals.json"
    return {name: record["line"] for name, record in json.loads(path.read_text()).items()} if path.exists() else {}


def evaluate_stage(config: dict, name: str, workdir: epath.Path) -> tuple[int, dict[str, float]]:
    """(step, numbers) of a stage's newest checkpoint."""
    built = stage.build(config, name, workdir)
    loop.settle(built.run)
    state, _, saved = loop.begin(built.run)
    saved.close()
    values = {}
    for evaluation in built.run.evals:
        values |= {f"{evaluation.name}/{key}": value for key, value in evaluation.fn(state).items()}
    return int(state.step), values
