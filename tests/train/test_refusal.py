"""What is refused while a step is traced: our own lines end a run before it begins, JAX's stay errors with their traceback."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from supcon_jax import core, shard
from supcon_jax.config import UserError
from supcon_jax.methods import towers
from supcon_jax.nets.norm import BatchNorm
from supcon_jax.ops import queue
from supcon_jax.ops.rows import Rows
from supcon_jax.train import loop, refusal

KEEP = {"latest": 1, "best": 0, "metric": "", "mode": "min"}
X = np.ones((4, 2), np.float32)


class Data:
    """The same batch for ever."""

    def __next__(self):
        return {"x": X}

    def state(self):
        return {}

    def restore(self, state):
        pass


def task(value=lambda w, x: ((w[None] - x) ** 2).mean(), begin=lambda: None):
    """One vector that learns; value: of its loss; begin: what else init does."""

    def init(key, batch):
        begin()
        return {"params": {"model": {"w": jnp.zeros(2)}}}

    def loss(params, state, frozen, batch, key):
        return value(params["model"]["w"], batch["x"]), core.Aux({}, {}, state.memory)

    return core.Task(init, (core.Player("model", loss, optax.sgd(0.1)),))


def run(folder, made):
    return loop.Run(
        name="toy", folder=pathlib.Path(folder) / "toy", task=made, frozen={}, mesh=shard.data_mesh(1), seed=0, steps=2,
        data=Data, images=4, every={"log": 1, "save": 0, "sample": 0}, keep=KEEP, skip_limit=3, config={},
    )  # fmt: skip


def grouped(w, x):
    """BatchNorm of 4 rows in 3 groups, below a scan, a checkpoint and a vmap."""
    norm = functools.partial(BatchNorm(groups=3).init_with_output, jax.random.key(0), train=True)
    one = jax.checkpoint(lambda h: jax.vmap(lambda h: norm(h)[0])(h[None])[0].sum())
    return jax.lax.scan(lambda total, _: (total + one(x * w[None]), None), 0.0, None, length=2)[0]


OURS = {
    "init": ({"begin": lambda: queue.init(6, Rows(X))}, "config.toy: a queue of 6 rows takes no batches of 4"),
    "loss": ({"value": grouped}, "config.toy: BatchNorm: 4 rows cannot be shared by groups=3"),
}


@pytest.mark.parametrize("parts,said", OURS.values(), ids=OURS)
def test_what_our_code_refuses_is_told_before_anything_is_written(tmp_path, parts, said):
    with pytest.raises(UserError, match=f"^{said}") as caught:
        loop.train(run(tmp_path, task(**parts)))
    assert isinstance(caught.value.__cause__, ValueError)
    assert not list(tmp_path.iterdir())


THEIRS = {
    "jax": (lambda w, x: jnp.einsum("i,ijk->", w, x), ValueError),
    "broadcast": (lambda w, x: (w[None] + jnp.ones((1, 3)) + x).sum(), TypeError),
    "a test's": (lambda w, x: int("x"), ValueError),
}


@pytest.mark.parametrize("value,kind", THEIRS.values(), ids=THEIRS)
def test_what_others_raise_stays_an_error(tmp_path, value, kind):
    with pytest.raises(kind) as caught:
        loop.train(run(tmp_path, task(value)))
    assert not isinstance(caught.value, UserError)
    assert not list(tmp_path.iterdir())


def test_an_error_that_our_code_runs_into_is_not_ours():
    """The last frame is a line of this package, which does not say `raise`."""
    with pytest.raises(ValueError, match="dictionary") as caught, refusal.told("toy"):
        towers.views({"image": X[:, None]}, None, recipe="shapes", size=8, change=("gray",))
    assert not isinstance(caught.value, UserError)


def test_a_user_error_keeps_its_own_words():
    with pytest.raises(UserError, match="^config.seed: mine$"), refusal.told("toy"):
        raise UserError("config.seed: mine")


def test_a_step_is_traced_once(tmp_path):
    """What is traced before a run is what the run compiles."""
    traced = []
    made = task(lambda w, x: traced.append(x.shape) or ((w[None] - x) ** 2).mean())
    state, _ = loop.train(run(tmp_path, made))
    assert int(state.step) == 2 and traced == [(4, 2)]


def test_a_run_that_goes_on_is_not_rehearsed(tmp_path, monkeypatch):
    loop.train(run(tmp_path, task()))
    monkeypatch.setattr(loop, "rehearse", None)
    state, _ = loop.train(dataclasses.replace(run(tmp_path, task()), steps=3))
    assert int(state.step) == 3
