"""The one training loop: resume, step, watch, evaluate, save."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import pathlib
import signal
import time
from collections.abc import Callable

import jax

from supcon_jax import core, shard
from supcon_jax.config import UserError, difference
from supcon_jax.nets.init import on_host
from supcon_jax.train import checkpoint, hooks

log = logging.getLogger("supcon_jax")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Numbers of a state: every so many steps (0: only at the end). fn: state -> {name: value}."""

    name: str
    every: int
    fn: Callable[[core.State], dict[str, float]]


@dataclasses.dataclass(frozen=True)
class Run:
    """One stage, built and ready: everything the loop needs and nothing of what it trains.

    data: makes the iterator of host batches, with state() and restore(). images: pictures in one step, for the rates.
    picture: state -> PIL picture of samples, or None. config: the plain config that the stage depends on.
    """

    name: str
    folder: pathlib.Path
    task: core.Task
    frozen: core.Frozen
    data: Callable[[], object]
    mesh: jax.sharding.Mesh
    seed: int
    steps: int
    images: int
    every: dict
    keep: dict
    skip_limit: int
    config: dict
    evals: tuple[Evaluation, ...] = ()
    picture: Callable | None = None


def train(run: Run) -> tuple[core.State, dict[str, float]]:
    """Trains a stage from its newest checkpoint, or from the start, to its last step, and evaluates it.

    Returns the last state and the numbers of its evaluations.
    The same command after a kill gives the same bits as an unbroken run on the same devices.
    Raises UserError: the folder holds a run of another config, or too many updates in a row were refused.
    """
    settle(run)
    stop = Stop()
    state, data, saved = begin(run)
    start = int(state.step)
    writer = hooks.Writer(run.folder, start)
    progress = hooks.Progress(run.name, run.steps, run.images, start)
    step = compiled_step(run.task)
    frozen = shard.replicate(run.frozen, run.mesh)
    late, measured, profiling = None, {}, tuple(run.every.get("profile", ()))
    for at in range(start + 1, run.steps + 1):
        began = time.monotonic()
        batch = shard.place(next(data), run.mesh)
        progress.waited += time.monotonic() - began
        trace(run, profiling, at)
        state, metrics = step(state, frozen, batch)
        if at == start + 1:
            jax.block_until_ready(metrics)
            progress.rates(at)
            log.info("%s: step %d reached, %.1f s with compilation", run.name, at, time.monotonic() - began)
        if due(at, run.every["log"], run.steps):
            late = report(run, writer, progress, late, (at, metrics))
        if at == run.steps:
            late = report(run, writer, progress, late, None)
        measured = watch(run, writer, state, at)
        if due(at, run.every["save"], run.steps) or stop.asked:
            late = report(run, writer, progress, late, None)  # what a checkpoint covers is written down before it
            saved.save(state, data.state(), measured)
        if stop.asked:
            saved.close()
            writer.close()
            stop.end()
            raise SystemExit(f"{run.name}: stopped at step {at}, saved; the same command goes on from here")
    saved.close()
    if start == run.steps:  # everything was trained before the stop: only the numbers are missing
        measured = watch(run, writer, state, start)
    writer.close()
    stop.end()
    return state, measured


def compiled_step(task: core.Task):
    """The training step as it is compiled: (state, frozen, batch) -> (state, metrics); the old state is given up."""
    return jax.jit(functools.partial(core.step, task), donate_argnums=0)


def settle(run: Run) -> None:
    """Writes the stage's config beside its checkpoints, or compares with the one that lies there."""
    run.folder.mkdir(parents=True, exist_ok=True)
    path = run.folder / "config.json"
    if path.exists():
        lines = difference(json.loads(path.read_text()), run.config)
        if lines:
            shown = "; ".join(lines[:5]) + (f"; and {len(lines) - 5} more" if len(lines) > 5 else "")
            raise UserError(f"{run.folder} was trained with another config ({shown}); use another --workdir")
    else:
        part = path.with_suffix(".part")  # a kill leaves the whole file or none
        part.write_text(json.dumps(run.config, indent=1, sort_keys=True))
        part.replace(path)


def begin(run: Run):
    """The state to start from, the data iterator standing where it belongs, and the checkpoints."""
    data = run.data()
    example = next(run.data())
    key = jax.random.key(run.seed)
    state = on_host(lambda key, batch: core.init_state(run.task, key, batch), key, example)
    state = shard.replicate(state, run.mesh)
    saved = checkpoint.Checkpoints(run.folder / "checkpoints", **run.keep)
    found = saved.restore(state)
    if found is not None:
        state, position = found
        data.restore(position)
        log.info("%s: resumed at step %d", run.name, int(state.step))
    return state, data, saved


def due(at: int, every: int, last: int) -> bool:
    """Whether something that happens every so many steps (0: only at the end) happens now."""
    return at == last or bool(every) and at % every == 0


def report(run, writer, progress, late, now):
    """Fetches the metrics of one log period ago, so that the devices never wait for the host; returns the new ones."""
    if late is None:
        return now
    at, metrics = late
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    if values["skipped_in_a_row"] >= run.skip_limit:
        raise UserError(
            f"{run.name}: {int(values['skipped_in_a_row'])} updates in a row were not finite at step {at};"
            " lower the learning rate or look at the data"
        )
    values |= progress.rates(at)
    writer.scalars(at, values)
    progress.line(at, values)
    return now


def watch(run, writer, state, at) -> dict[str, float]:
    """Samples and evaluations that are due after step `at`; returns the numbers measured."""
    if run.picture and due(at, run.every["sample"], run.steps):
        picture = run.picture(state)
        folder = run.folder / "samples"
        folder.mkdir(exist_ok=True)
        picture.save(folder / f"{at:07d}.png")
        if writer:
            writer.picture(at, "samples", picture)
    values = {}
    for evaluation in run.evals:
        if due(at, evaluation.every, run.steps):
            began = time.monotonic()
            found = {f"{evaluation.name}/{name}": value for name, value in evaluation.fn(state).items()}
            log.info("%s: evaluation %s took %.1f s", run.name, evaluation.name, time.monotonic() - began)
            values |= found
    if values and writer:
        writer.scalars(at, values)
    return values


def trace(run, profiling, at) -> None:
    """Writes a profiler trace of the steps [a, b) to the stage's folder."""
    if profiling and at == profiling[0]:
        jax.profiler.start_trace(str(run.folder / "profile"))
    if profiling and at == profiling[1]:
        jax.profiler.stop_trace()


class Stop:
    """SIGTERM or SIGINT once: finish the step, save, end. A second one ends at once."""

    def __init__(self):
        self.asked, self.before = False, {}
        for kind in (signal.SIGTERM, signal.SIGINT):
            try:
                self.before[kind] = signal.signal(kind, self.ask)
            except ValueError:  # not the main thread (notebooks, tests): signals stay as they are
                return

    def ask(self, number, frame):
        signal.signal(number, signal.SIG_DFL)
        self.asked = True

    def end(self):
        """Signals mean again what they meant before: between two stages nothing waits for them."""
        for kind, handler in self.before.items():
            signal.signal(kind, handler)
