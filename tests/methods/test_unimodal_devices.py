"""Every method of one modality on one device and on eight: the same steps."""

import jax
import numpy as np
import pytest

from gans import tiny
from methods import unimodal_world as w
from methods.test_finetune import projected
from methods.test_student import judge, tower
from supcon_jax import shard
from supcon_jax.build import pretext
from supcon_jax.methods import ENCODERS
from supcon_jax.methods.probe import probed
from supcon_jax.methods.simclr import NEGATIVES
from supcon_jax.train import loop

CASES = {
    "simclr": {"slices": 1}, "simclr sliced": {"slices": 2}, "simclr eliminated": {"negatives": "eliminated", "most": 3},
    "simclr attracted": {"negatives": "attracted", "most": 3, "threshold": 0.2},
    **{f"simclr {name}": {"negatives": name} for name in ("weighted", "hard", "decoupled", "hardened")},
    "simclr debiased": {"negatives": "debiased", "prior": 0.02},  # with 0.1 some rows near the bound, where rounding grows
    "fnc": {"temperature": 0.5}, "fnc eliminated": {"attract": False, "queue": 0},
    "supcon": {}, "supcon capped": {"positives": 1}, "moco": {}, "moco3": {}, "moco3 vit": {}, "byol": {},
    "simsiam": {}, "swav": {"queue_start": 1}, "pcl": {"start": 0}, "cmc": {"form": "nce", "negatives": "per_anchor"},
    "pirl": {}, "cpc": {}, "cpc_audio": {}, "barlow": {}, "vicreg": {}, "student seed": {},
    "student compress": {"kind": "compress", "temperature": 0.3}, "finetune linear": {"freeze": True}, "finetune": {},
    "finetune projected": {"layers": 1}, "distil": {"alpha": 0.5, "temperature": 0.5},
}  # fmt: skip
# by hand: those whose path another case takes too
LONG = ("simclr decoupled", "simclr debiased", "simclr hardened", "simclr weighted", "simclr attracted", "fnc eliminated",
        "supcon capped", "moco3 vit")  # fmt: skip
GROUPS = {"moco": 2, "simclr sliced": 2}
STEPS, B = 5, 16


def task_of(case, devices):
    """(task, frozen towers) with an online probe beside it, if it learns from pictures."""
    name = case.split()[0]
    if name == "cpc_audio":
        return w.sounding(devices, tiny.keeping(0.02)["model"]), {}
    nets = w.nets_of(name, groups=GROUPS[case]) if case in GROUPS else w.vit() if case == "moco3 vit" else None
    tx = w.adamw() if case == "moco3 vit" else tiny.keeping(0.02)["model"]
    more = {"queue": 2 * B} if name in ("fnc", "moco", "swav", "pcl", "student") else {}
    if "drawn" in w.OPTIONS[name]:
        more["drawn"] = 8
    task = w.made(name, devices, nets=nets, tx=tx, **{**more, **CASES[case]})
    if name == "finetune":
        given = projected(w.nets_of(name)["project"])
        return pretext.started(task, {"x": {"args": {"freeze": False, **CASES[case]}}}, "x", given)
    if name == "distil":
        return task, judge()[1]
    return probed(task, tiny.keeping(0.5)["model"], w.CLASSES), tower() if name == "student" else {}


def batch_of(case, seed=0):
    return w.waves(seed, B) if case == "cpc_audio" else w.pictures(seed, n=B)


def end(case, devices):
    """State and metrics after five steps on so many devices, with a refresh before the third where there is one."""
    task, frozen = task_of(case, devices)
    mesh = shard.data_mesh(devices)
    state = shard.lay(w.begin(task, batch_of(case)), mesh)
    step, frozen = loop.stepper(task, mesh, state), shard.lay(frozen, mesh)
    for at in range(STEPS):
        if task.refresh and at == 2:
            kept = jax.tree.map(lambda leaf: leaf.sharding, state)
            state = jax.device_put(task.refresh.fn(state, frozen, records(mesh)), kept)
        state, metrics = step(state, frozen, shard.place(batch_of(case, at), mesh))
    return jax.device_get(state), jax.device_get(metrics)


def records(mesh):
    images = np.random.default_rng(9).integers(0, 256, (2 * B, 1, w.SIZE, w.SIZE, 3)).astype(np.uint8)
    index = np.where(np.arange(2 * B) < w.RECORDS, np.arange(2 * B), -1).astype(np.int32)[:, None]
    for at in (0, B):
        yield shard.place({"image": images[at : at + B], "index": index[at : at + B]}, mesh)


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.long if case in LONG else pytest.mark.slow) for case in CASES]
)
def test_training_does_not_depend_on_the_devices(case):
    (one, told), (eight, said) = end(case, 1), end(case, 8)
    for part in ("params", "stats", "memory"):
        got, want = (jax.tree_util.tree_leaves_with_path(getattr(state, part)) for state in (eight, one))
        assert len(got) == len(want)
        for (path, a), (_, b) in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5, err_msg=f"{part}{jax.tree_util.keystr(path)}")
    assert set(told) == set(said) and int(one.skipped[0]) == 0
    for name, value in told.items():
        np.testing.assert_allclose(said[name], value, rtol=1e-4, atol=1e-4, err_msg=name)
    begun = w.begin(task_of(case, 1)[0], batch_of(case))
    assert w.tiny.far(one.params, begun.params) > 1e-3  # something was learned


def test_every_method_is_here():
    """A new encoder of pictures or sound is missed here until it has a case."""
    assert {case.split()[0] for case in CASES} == {*ENCODERS, "finetune"}
    assert {f"simclr {name}" for name in NEGATIVES if name != "all"} <= set(CASES)
