"""ImageNet trunks of image nets: frozen ones, and those that training begins with."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from supcon_jax import core, storage
from supcon_jax.build import inceptions
from supcon_jax.build.names import net
from supcon_jax.config import UserError
from supcon_jax.convert import tensors

INCEPTION_FILE = "torchvision's inception_v3_google weights (.pth or .safetensors)"


def load(config: dict, name: str, place: str) -> tuple[dict, str]:
    """The ImageNet trunk of the image encoder, converted from a file with torchvision's names."""
    if not place or not storage.place(place).is_file():
        raise UserError(
            f"{name}.nets.image.frozen=True needs {INCEPTION_FILE}: give --config.{name}.frozen.trunk=FILE"
            f"{f' ({place} is missing)' if place else ''}, or train the trunk with --config.{name}.nets.image.frozen=False"
        )
    return inceptions.loaded(storage.place(place), shapes(config, name)), tensors.sha256(place)


def begun(task: core.Task, config: dict, name: str) -> core.Task:
    """The task with the trunk of its image net as it stands in the file frozen.start, all of it free to learn."""
    place = config[name]["frozen"]["start"]
    if not storage.place(place).is_file():
        raise UserError(f"--config.{name}.frozen.start={place}: no such file; give {INCEPTION_FILE}, or leave it empty")
    trunk = inceptions.loaded(storage.place(place), shapes(config, name))

    def init(key, batch):
        made = task.init(key, batch)
        for kind, ours in (("params", "params"), ("batch_stats", "stats")):
            made[ours]["model"] = {**made[ours]["model"], "trunk": jax.tree.map(jnp.asarray, trunk[kind])}
        return made

    return dataclasses.replace(task, init=init)


def shapes(config: dict, name: str) -> dict:
    """The trunk's variables in shape only."""
    options = config[name]["nets"]["image"]
    more = {"classes": 2} if options["net"] == "inception_classifier" else {}
    encoder = net(options, f"{name}.nets.image", **more)
    shape = jax.ShapeDtypeStruct((1, 96, 96, 3), jnp.float32)
    like = jax.eval_shape(lambda key, x: encoder.init(key, x), jax.random.key(0), shape)
    return {kind: tree["trunk"] for kind, tree in like.items()}
