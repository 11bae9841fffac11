"""The loop on a toy task: resume bit for bit, late metrics, stops, refusals, evaluations and samples."""

import json
import logging
import os
import pathlib
import signal
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from supcon_jax import core, shard
from supcon_jax.config import UserError
from supcon_jax.train import loop
from supcon_jax.train.checkpoint import digest

KEEP = {"latest": 2, "best": 0, "metric": "", "mode": "min"}


class Data:
    """Batches numbered from 1; `on` may do something when one is fetched."""

    def __init__(self, on=None, poison=()):
        self.at, self.on, self.poison = 0, on or {}, poison

    def __next__(self):
        self.at += 1
        self.on.get(self.at, lambda: None)()
        x = np.random.default_rng(self.at).standard_normal((4, 2)).astype(np.float32)
        return {"x": np.full_like(x, np.nan) if self.at in self.poison else x}

    def state(self):
        return {"position": self.at}

    def restore(self, state):
        self.at = state["position"]


def toy():
    """Noise from the step's key, a batch, momentum and a moving average: everything that a resume must bring back."""

    def init(key, batch):
        w = jax.random.normal(key, (2,))
        return {"params": {"model": {"w": w}}, "stats": {"model": {}}, "memory": {"ema": jnp.copy(w)}}

    def loss(params, state, frozen, batch, key):
        noise = jax.random.normal(key, (4, 2))
        value = ((batch["x"] + 0.1 * noise - params["model"]["w"][None]) ** 2).mean()
        return value, core.Aux({"number": state.step.astype(jnp.float32) + 1}, {}, state.memory)

    def after(state):
        return state.replace(memory={"ema": 0.9 * state.memory["ema"] + 0.1 * state.params["model"]["w"]})

    return core.Task(init, (core.Player("model", loss, optax.adam(0.1)),), after=after)


def run(folder, steps=6, data=None, **more):
    options = {
        "name": "toy", "folder": pathlib.Path(folder), "task": toy(), "frozen": {}, "mesh": shard.data_mesh(1), "seed": 3,
        "steps": steps, "data": data or Data, "images": 4, "every": {"log": 1, "save": 2, "sample": 0}, "keep": KEEP,
        "skip_limit": 3, "config": {"lr": 0.1}, **more,
    }  # fmt: skip
    return loop.Run(**options)


def logged(folder):
    return [json.loads(line) for line in (pathlib.Path(folder) / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The unbroken run: its folder, last state and digest."""
    folder = tmp_path_factory.mktemp("whole")
    state, _ = loop.train(run(folder))
    return folder, state, digest(state)


def test_a_run_ends_at_its_last_step_with_metrics_of_every_period(whole):
    folder, state, _ = whole
    assert state.step == 6
    assert [(line["step"], line["model/number"]) for line in logged(folder)] == [(s, s) for s in range(1, 7)]
    known = {"images_per_s", "input_wait_share", "skipped", "warnings", "model/loss", "model/grad_norm"}
    assert known <= set(logged(folder)[0])
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["4", "6"]


def test_metrics_come_one_period_late_but_all_of_them(tmp_path):
    loop.train(run(tmp_path, steps=7, every={"log": 3, "save": 0, "sample": 0}))
    assert [(line["step"], line["model/number"]) for line in logged(tmp_path)] == [(3, 3), (6, 6), (7, 7)]


@pytest.mark.parametrize("cut", (2, 4))
def test_some_steps_then_the_rest_are_the_same_bits_as_an_unbroken_run(tmp_path, whole, cut):
    """A run killed after the save of step `cut`: its checkpoints and metrics up to then, then the same command."""

    def die():
        until = time.monotonic() + 60  # the thread that writes the checkpoint outlives what stands for a kill here
        while not (tmp_path / "checkpoints" / str(cut)).exists() and time.monotonic() < until:
            time.sleep(0.01)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.train(run(tmp_path, data=lambda: Data({cut + 2: die})))
    state, _ = loop.train(run(tmp_path))
    assert digest(state) == whole[2]
    for mine, theirs in zip(logged(tmp_path), logged(whole[0]), strict=True):
        assert (mine["step"], mine["model/loss"]) == (theirs["step"], theirs["model/loss"])


def test_a_damaged_newest_checkpoint_costs_steps_but_no_bits(tmp_path, whole, caplog):
    loop.train(run(tmp_path))
    for path in (tmp_path / "checkpoints" / "6" / "state").rglob("*"):
        if path.is_file() and path.stat().st_size > 64:
            path.write_bytes(path.read_bytes()[:-7])
    with caplog.at_level(logging.INFO, "supcon_jax"):
        state, _ = loop.train(run(tmp_path))
    said = caplog.text
    assert "checkpoint 6" in said and "resumed at step 4" in said
    assert digest(state) == whole[2]
    assert [line["step"] for line in logged(tmp_path)] == list(range(1, 7))


@pytest.mark.parametrize("kind", (signal.SIGTERM, signal.SIGINT))
def test_a_signal_saves_and_the_same_command_goes_on(tmp_path, whole, kind):
    before = signal.getsignal(kind)
    stop = lambda: os.kill(os.getpid(), kind)  # noqa: E731
    with pytest.raises(SystemExit, match="toy: stopped at step 3, saved; the same command goes on"):
        loop.train(run(tmp_path, data=lambda: Data({3: stop}), every={"log": 1, "save": 100, "sample": 0}))
    assert signal.getsignal(kind) == before
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["3"]
    assert [line["step"] for line in logged(tmp_path)] == [1, 2, 3]  # also the late one
    state, _ = loop.train(run(tmp_path))
    assert digest(state) == whole[2]
    assert [line["step"] for line in logged(tmp_path)] == list(range(1, 7))
    assert signal.getsignal(kind) == before  # between two stages nobody waits for a signal


def test_a_run_in_a_thread_leaves_signals_alone(tmp_path):
    found = []
    thread = threading.Thread(target=lambda: found.append(loop.train(run(tmp_path, steps=1))[0].step))
    thread.start()
    thread.join(120)
    assert found == [1]


def test_too_many_refused_updates_stop_the_run_in_one_line(tmp_path):
    with pytest.raises(UserError) as caught:
        loop.train(run(tmp_path, steps=20, data=lambda: Data(poison=range(4, 100))))
    said = str(caught.value)
    assert "toy: 3 updates in a row were not finite at step 6" in said and "\n" not in said


def test_a_few_refused_updates_are_survived(tmp_path):
    state, _ = loop.train(run(tmp_path, steps=8, data=lambda: Data(poison=(2, 3, 5, 6))))
    assert state.skipped.tolist() == [4, 0] and state.step == 8
    assert np.isfinite(state.params["model"]["w"]).all()
    assert [line["model/loss"] == "nan" for line in logged(tmp_path)] == [False, True, True, False, True, True, False, False]


def test_another_config_in_the_same_folder_is_refused_with_the_difference(tmp_path):
    loop.train(run(tmp_path, steps=1, config={"lr": 0.1, "data": {"size": 32}}))
    with pytest.raises(UserError, match=r"another config \(data.size: 32 -> 64; lr: 0.1 -> 0.2\); use another --workdir"):
        loop.settle(run(tmp_path, config={"lr": 0.2, "data": {"size": 64}}))
    many = {f"k{i}": i for i in range(9)}
    with pytest.raises(UserError, match="and 5 more"):
        loop.settle(run(tmp_path, config={"lr": 0.1, **many}))


def test_evaluations_run_when_they_are_due_and_their_numbers_are_written(tmp_path):
    seen = []

    def measure(name):
        return lambda state: seen.append((name, int(state.step))) or {"x": float(state.step)}

    evals = (loop.Evaluation("often", 2, measure("often")), loop.Evaluation("end", 0, measure("end")))
    _, numbers = loop.train(run(tmp_path, steps=5, evals=evals))
    assert seen == [("often", 2), ("often", 4), ("often", 5), ("end", 5)]
    assert numbers == {"often/x": 5.0, "end/x": 5.0}
    found = [(line["step"], line["often/x"], line.get("end/x")) for line in logged(tmp_path) if "often/x" in line]
    assert found == [(2, 2.0, None), (4, 4.0, None), (5, 5.0, 5.0)]


def test_a_trained_stage_that_lacks_its_numbers_is_only_evaluated(tmp_path):
    """Killed after the last save and before the end: no step is made again."""
    loop.train(run(tmp_path, steps=2))

    def none():
        data = Data()
        data.on = {at: lambda: pytest.fail("a step was made") for at in range(2, 9)}
        return data

    evals = (loop.Evaluation("end", 0, lambda state: {"x": float(state.step)}),)
    state, numbers = loop.train(run(tmp_path, steps=2, evals=evals, data=none))
    assert state.step == 2 and numbers == {"end/x": 2.0}


def test_samples_are_drawn_when_they_are_due(tmp_path):
    picture = lambda state: Image.new("RGB", (4, 4), (int(state.step), 0, 0))  # noqa: E731
    loop.train(run(tmp_path, steps=5, picture=picture, every={"log": 1, "save": 0, "sample": 2}))
    names = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert names == ["0000002.png", "0000004.png", "0000005.png"]
    assert Image.open(tmp_path / "samples" / names[0]).getpixel((0, 0)) == (2, 0, 0)


def test_the_best_checkpoint_is_the_one_with_the_best_number(tmp_path):
    keep = {"latest": 1, "best": 1, "metric": "end/x", "mode": "min"}
    evals = (loop.Evaluation("end", 1, lambda state: {"x": abs(int(state.step) - 2)}),)
    loop.train(run(tmp_path, steps=5, evals=evals, keep=keep, every={"log": 1, "save": 1, "sample": 0}))
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["2", "5"]


@pytest.mark.parametrize(
    "at,every,last,expected", [(2, 2, 9, True), (3, 2, 9, False), (9, 2, 9, True), (9, 0, 9, True), (8, 0, 9, False)]
)
def test_due(at, every, last, expected):
    assert loop.due(at, every, last) is expected


@pytest.mark.parametrize("span,expected", [((2, 3), [2]), ((1, 3), [1, 2]), ((4, 5), [4]), ((5, 9), None), ((), None)])
def test_a_profile_of_the_steps_asked_for_is_written(tmp_path, span, expected, monkeypatch):
    """Those of the run, up to its end; nothing where it ends before them."""
    running, traced, ended = [], [], []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: running.append(folder))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: ended.append(running.pop()))
    before = loop.hooks.Trace.before

    def seen(trace, at, state):
        before(trace, at, state)
        traced.extend([at] * len(running))

    monkeypatch.setattr(loop.hooks.Trace, "before", seen)
    loop.train(run(tmp_path, steps=4, every={"log": 1, "save": 0, "sample": 0, "profile": span}))
    assert traced == (expected or []) and not running and ended == [str(tmp_path / "profile")] * bool(expected)


@pytest.mark.slow
def test_a_run_that_stops_and_resumes_within_a_profile(tmp_path):
    """The first part is traced, for real; the second one goes on without."""
    every = {"log": 1, "save": 100, "sample": 0, "profile": (2, 5)}
    stop = lambda: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
    with pytest.raises(SystemExit):
        loop.train(run(tmp_path, data=lambda: Data({3: stop}), every=every))
    (folder,) = (tmp_path / "profile" / "plugins" / "profile").iterdir()
    assert any(path.name.endswith(".xplane.pb") and path.stat().st_size for path in folder.iterdir())
    assert loop.train(run(tmp_path, every=every))[0].step == 6
    assert list((tmp_path / "profile" / "plugins" / "profile").iterdir()) == [folder]
