"""One step and one more are two steps bit for bit, for each kind of state that methods of one modality keep; and a checkpoint
that one device wrote goes on on eight."""

import shutil

import jax
import numpy as np
import pytest

from gans import tiny
from methods import unimodal_world as w
from supcon_jax import shard
from supcon_jax.methods.probe import probed
from supcon_jax.train import loop
from supcon_jax.train.checkpoint import digest
from train.test_loop import run

KINDS = {
    "moco": {"shuffle": True}, "swav": {"queue_start": 1}, "pcl": {"start": 0, "every": 1}, "pirl": {}, "byol": {},
    "cmc": {"form": "nce"}, "moco3": {},
}  # fmt: skip


class Pictures:
    """Batches numbered from 1, as the loop reads them."""

    def __init__(self):
        self.at = 0

    def __next__(self):
        self.at += 1
        return w.pictures(self.at)

    def state(self):
        return {"position": self.at}

    def restore(self, state):
        self.at = state["position"]


def records():
    """Every record once, the last batch filled up."""
    images = np.random.default_rng(9).integers(0, 256, (24, 1, w.SIZE, w.SIZE, 3)).astype(np.uint8)
    for at in range(0, 24, w.N):
        index = np.arange(at, at + w.N)
        yield {"image": images[at : at + w.N], "index": np.where(index < w.RECORDS, index, -1).astype(np.int32)[:, None]}


def trained(folder, name, steps, devices=1):
    """The state after so many steps of a run in a folder, that goes on where it stood."""
    given = {"nets": w.vit(), "tx": w.adamw()} if name == "moco3" else {}  # a transformer, whose patches lie in its statistics
    task = probed(w.made(name, devices, **given, **KINDS[name]), tiny.keeping(0.5)["model"], w.CLASSES)
    more = {"mesh": shard.data_mesh(devices), "data": Pictures, "records": records, "images": w.N}
    return loop.train(run(folder, steps, task=task, **more))[0]


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.long if name == "moco3" else pytest.mark.slow)
                                  for name in KINDS])  # fmt: skip
def test_one_and_one_are_two_and_eight_devices_go_on_from_one(name, tmp_path):
    whole = trained(tmp_path / "one", name, 2)
    trained(tmp_path / "parts", name, 1)
    assert digest(trained(tmp_path / "parts", name, 2)) == digest(whole)
    shutil.copytree(tmp_path / "one", tmp_path / "eight")
    read = trained(tmp_path / "eight", name, 2, devices=8)  # and not gone on with
    assert digest(read) == digest(whole) and len(jax.tree.leaves(read.params)[0].sharding.device_set) == 8
    narrow, wide = (trained(tmp_path / folder, name, 4, devices) for folder, devices in (("one", 1), ("eight", 8)))
    assert int(wide.step) == int(narrow.step) == 4
    for part in ("params", "stats", "memory"):
        assert w.tiny.far(getattr(wide, part), getattr(narrow, part), 1.0) < 1e-5
        assert w.tiny.far(getattr(narrow, part), getattr(whole, part)) > 1e-4 or part == "memory" and name == "swav"
