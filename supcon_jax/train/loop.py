"""The one training loop: resume, step, watch, evaluate, save."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import json
import logging
import signal
import time
from collections.abc import Callable, Iterable

import jax
import numpy as np
from etils import epath
from jax.sharding import NamedSharding, PartitionSpec

from supcon_jax import core, hosts, shard, storage
from supcon_jax.config import UserError, difference, digest
from supcon_jax.nets.init import on_host
from supcon_jax.train import checkpoint, hooks, refusal

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
    records: makes one pass over the training set in record order, for the task's refresh; None: it has none.
    split: parameters and optimiser state of so many bytes or more are cut over the devices, None: none.
    start: first state, as drawn -> the one to begin with, where that is another.
    """

    name: str
    folder: epath.Path
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
    records: Callable[[], Iterable] | None = None
    split: float | None = None
    start: Callable[[core.State], core.State] | None = None


def train(run: Run) -> tuple[core.State, dict[str, float]]:
    """Trains a stage from its newest checkpoint, or from the start, to its last step, and evaluates it.

    Returns the last state and the numbers of its evaluations.
    The same command after a kill gives the same bits as an unbroken run on the same devices.
    Several processes make every step together; the first of them writes metrics and pictures, all of them checkpoints.
    Raises UserError: the folder holds a run of another config, or values of the config do not fit each other, which is told
    before anything is written, or too many updates in a row were refused, or processes would make other steps than the first.
    """
    step = None if (run.folder / "config.json").exists() else rehearse(run)
    settle(run)
    stop = Stop()
    state, data, saved = begin(run)
    start = int(state.step)
    hosts.agree({"step to start from": str(start), "last step": str(run.steps), "place in the data": str(data.state())})
    writer = hooks.Writer(run.folder, start) if hosts.chief() else hooks.Silent()
    trace = hooks.Trace(run.folder / "profile", run.every.get("profile"))
    with contextlib.closing(writer), contextlib.closing(trace):
        state, measured = advance(run, state, data, saved, writer, trace, stop, step)
    stop.end()
    return state, measured


def rehearse(run: Run):
    """The training step of a run that begins, traced for its shapes and not run. The run compiles what is traced here.

    Raises UserError: values of the config do not fit each other.
    """
    batch = example(run)
    with refusal.told(run.name):
        state = jax.eval_shape(functools.partial(core.init_state, run.task), jax.random.key(run.seed), batch)
        state, frozen = (shard.outline(tree, shard.shardings(tree, run.mesh, run.split)) for tree in (state, run.frozen))
        step = stepper(run.task, run.mesh, state)
        rows = NamedSharding(run.mesh, PartitionSpec("data"))
        step.trace(state, frozen, shard.outline(batch, dict.fromkeys(batch, rows)))
    return step


def example(run: Run) -> dict:
    """One batch of the global shape."""
    return {name: np.concatenate([x] * jax.process_count()) for name, x in next(run.data()).items()}


def advance(run: Run, state, data, saved, writer, trace, stop, step=None) -> tuple[core.State, dict[str, float]]:
    """Makes the steps that are left. step: as `rehearse` gave it. Raises SystemExit: told to stop, and saved."""
    start = int(state.step)
    progress = hooks.Progress(run.name, run.steps, run.images, start)
    step = step or stepper(run.task, run.mesh, state)
    frozen = shard.lay(run.frozen, run.mesh, run.split)
    late, measured = None, {}
    for at in range(start + 1, run.steps + 1):
        if renewed(run.task.refresh, at - 1):
            late = report(run, writer, progress, late, None)
            writer.send()
            saved.save(state, data.state())
            saved.settle()  # a refresh may take long
            state = renew(run, state, frozen, at - 1)
        began = time.monotonic()
        batch = shard.place(next(data), run.mesh)
        progress.waited += time.monotonic() - began
        trace.before(at, state)
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
        stopping = stop.now(at)
        if due(at, run.every["save"], run.steps) or stopping:
            late = report(run, writer, progress, late, None)  # what a checkpoint covers is written down before it
            writer.send()
            saved.save(state, data.state(), measured)
        if stopping:
            saved.close()
            stop.end()
            raise SystemExit(f"{run.name}: stopped at step {at}, saved; the same command goes on from here")
    saved.close()
    if start == run.steps:  # everything was trained before the stop: only the numbers are missing
        measured = watch(run, writer, state, start)
    return state, measured


def renewed(refresh: core.Refresh | None, at: int) -> bool:
    """Whether the task's refresh runs before step `at`, counted from 0."""
    return refresh is not None and at >= refresh.start and at % refresh.every == 0


def renew(run: Run, state, frozen, at: int):
    """The state after the task's refresh, laid out as before. Raises ValueError: it has other leaves or shapes."""
    began = time.monotonic()
    new = run.task.refresh.fn(state, frozen, (shard.place(batch, run.mesh) for batch in run.records()))
    kinds = [jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in (state, new)]
    if kinds[0] != kinds[1]:
        raise ValueError(f"{run.name}: the refresh before step {at} gave a state of other shapes")
    log.info("%s: refresh before step %d took %.1f s", run.name, at, time.monotonic() - began)
    return shard.lay(new, run.mesh, run.split)


def stepper(task: core.Task, mesh: jax.sharding.Mesh, state):
    """The training step as it is compiled: (state, frozen, batch) -> (state, metrics). The state it gives takes the place
    of the one it is given, leaf by leaf. state: arrays or their shapes, with where they lie."""
    out = jax.tree.map(lambda leaf: leaf.sharding, state), NamedSharding(mesh, PartitionSpec())
    return jax.jit(functools.partial(core.step, task), donate_argnums=0, out_shardings=out)


def settle(run: Run) -> None:
    """Writes the stage's config beside its checkpoints, or compares with the one that lies there."""
    path = run.folder / "config.json"
    hosts.agree({"config": digest(run.config)})
    found = path.exists()
    hosts.wait("the config was looked for")
    if found:
        lines = difference(json.loads(path.read_text()), run.config)
        if lines:
            shown = "; ".join(lines[:5]) + (f"; and {len(lines) - 5} more" if len(lines) > 5 else "")
            raise UserError(f"{run.folder} was trained with another config ({shown}); use another --workdir")
    elif hosts.chief():
        storage.write(path, json.dumps(run.config, indent=1, sort_keys=True))
    hosts.wait("the config lies there")
    if not path.exists():
        raise UserError(f"{run.folder}: what process 0 writes is not seen here; --workdir must lie on storage that all share")


def begin(run: Run):
    """The state to start from, the data iterator standing where it belongs, and the checkpoints."""
    data, key = run.data(), jax.random.key(run.seed)
    drawn = on_host(lambda key, batch: core.init_state(run.task, key, batch), key, example(run))
    state = shard.lay(drawn, run.mesh, run.split)
    saved = checkpoint.Checkpoints(run.folder / "checkpoints", **run.keep)
    found = saved.restore(state)
    if found is not None:
        state, position = found
        data.restore(position)
        log.info("%s: resumed at step %d", run.name, int(state.step))
    elif run.start:
        state = shard.lay(run.start(drawn), run.mesh, run.split)
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
    writer.scalars(at, values | {"warnings": progress.line(at, values)})
    return now


def watch(run, writer, state, at) -> dict[str, float]:
    """Samples and evaluations that are due after step `at`; returns the numbers measured."""
    if run.picture and due(at, run.every["sample"], run.steps):
        picture = run.picture(state)
        if hosts.chief():
            buffer = io.BytesIO()
            picture.save(buffer, format="PNG")
            storage.write(run.folder / "samples" / f"{at:07d}.png", buffer.getvalue())
        writer.picture(at, "samples", picture)
    values = {}
    for evaluation in run.evals:
        if due(at, evaluation.every, run.steps):
            began = time.monotonic()
            found = {f"{evaluation.name}/{name}": value for name, value in evaluation.fn(state).items()}
            log.info("%s: evaluation %s took %.1f s", run.name, evaluation.name, time.monotonic() - began)
            values |= found
    if values:
        writer.scalars(at, values)
    return values


class Stop:
    """SIGTERM or SIGINT once: finish the step, save, end. A second one ends at once.

    Among several processes SIGTERM is left to jax, which finds a step that all of them can still reach.
    """

    def __init__(self):
        self.asked, self.before = False, {}
        for kind in () if hosts.several() else (signal.SIGTERM, signal.SIGINT):
            try:
                self.before[kind] = signal.signal(kind, self.ask)
            except ValueError:  # not the main thread (notebooks, tests): signals stay as they are
                return

    def ask(self, number, frame):
        signal.signal(number, signal.SIG_DFL)
        self.asked = True

    def now(self, at):
        """Whether the run stops after step `at`."""
        return self.asked or hosts.preempted(at)

    def end(self):
        """Signals mean again what they meant before: between two stages nothing waits for them."""
        for kind, handler in self.before.items():
            signal.signal(kind, handler)
