"""The loop with its folder in a store: the same bits, metrics, pictures and traces, after a stop and after a kill."""

import dataclasses
import json
import os
import signal

import pytest
from PIL import Image

from gcs import store  # noqa: F401  (a fixture)
from supcon_jax import storage
from supcon_jax.config import UserError
from supcon_jax.train import loop
from supcon_jax.train.checkpoint import digest
from train.test_loop import Data, run

FOLDER = "gs://mine/w/toy"
RARE = {"log": 1, "save": 100, "sample": 0}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The digest of an unbroken run on this machine."""
    return digest(loop.train(run(tmp_path_factory.mktemp("whole")))[0])


def remote(folder=FOLDER, **more):
    return dataclasses.replace(run("unused", **more), folder=storage.place(folder))


def logged(store):  # noqa: F811
    return [json.loads(line)["step"] for line in store.files["mine"]["w/toy/metrics.jsonl"].decode().splitlines()]


def steps(store):  # noqa: F811
    return sorted({name.split("/")[1] for name in store.under("w/toy") if name.startswith("checkpoints/")} & set("123456"))


def test_a_run_leaves_all_its_files_in_the_store(store, whole):  # noqa: F811
    picture = lambda state: Image.new("RGB", (4, 4), (int(state.step), 0, 0))  # noqa: E731
    every = {"log": 1, "save": 2, "sample": 6, "profile": (2, 4)}
    state, _ = loop.train(remote(picture=picture, every=every))
    assert digest(state) == whole and logged(store) == list(range(1, 7)) and steps(store) == ["4", "6"]
    files = store.under("w/toy")
    assert json.loads(files["config.json"]) == {"lr": 0.1} and files["samples/0000006.png"].startswith(b"\x89PNG")
    assert any(name.startswith("tensorboard/events") and data for name, data in files.items())
    assert any(name.startswith("profile/plugins/profile/") and name.endswith(".xplane.pb") for name in files)
    assert not os.path.exists("gs:") and not any(name.endswith(".part") for name in files)
    assert store.uploads.count("w/toy/metrics.jsonl") == 3  # at each save, not at each line


def test_a_signal_saves_and_the_same_command_goes_on(store, whole):  # noqa: F811
    stop = lambda: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
    with pytest.raises(SystemExit, match="toy: stopped at step 3, saved"):
        loop.train(remote(data=lambda: Data({3: stop}), every=RARE))
    assert steps(store) == ["3"] and logged(store) == [1, 2, 3]
    state, _ = loop.train(remote())
    assert digest(state) == whole and logged(store) == list(range(1, 7))


def test_a_kill_loses_no_line_that_a_checkpoint_covers(store, whole, monkeypatch):  # noqa: F811
    """Nothing is sent from the kill on, as if the machine were gone; then the same command, on another one."""

    with monkeypatch.context() as gone, pytest.raises(KeyboardInterrupt):

        def die():
            gone.setattr(storage.Mirror, "send", lambda mirror: None)
            raise KeyboardInterrupt

        loop.train(remote(data=lambda: Data({6: die})))
    assert 4 in logged(store)
    state, _ = loop.train(remote())
    assert digest(state) == whole and logged(store) == list(range(1, 7))


def test_another_config_and_a_closed_door_are_refused(store):  # noqa: F811
    loop.train(remote(steps=1))
    with pytest.raises(UserError, match=r"gs://mine/w/toy was trained with another config \(lr: 0.1 -> 0.2\)"):
        loop.settle(remote(config={"lr": 0.2}))
    with pytest.raises(UserError, match="gs://readonly/toy/config.json: the store refuses it"):
        loop.train(remote("gs://readonly/toy"))
