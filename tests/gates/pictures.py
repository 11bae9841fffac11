"""What the learning gates of picture encoders share: a small run of one method, its twin, and the probe that judges both.

A twin is the same run on pairs that mean nothing: its views are of any two pictures (data.partner and data.label_noise),
so that all it can learn is what pictures look like at large.
"""

import functools

import jax
import numpy as np

from supcon_jax import config, core, shard
from supcon_jax.build import stage
from supcon_jax.build.datasets import open_data
from supcon_jax.evals import linear, streams
from supcon_jax.nets.init import on_host
from supcon_jax.ops.rows import dense
from supcon_jax.train import loop

TWIN = {"data.partner": "same_label", "data.label_noise": 1.0}
BATCH = 64


def optimised():
    """While a module's gates run, programs are compiled as for users: they train in the tests' own process."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def settings(preset, steps, more):
    """The plain config of a preset at the gate's sizes. more: config keys of the method's own stage under "own."."""
    made = config.load(f"configs/image.py:{preset}")
    name = made.stages[0]
    own = {f"{name}.{key[4:]}" if key.startswith("own.") else key: value for key, value in more.items()}
    given = {"batch": BATCH, f"{name}.steps": steps, f"{name}.optim.model.lr": 3e-3, f"{name}.optim.model.warmup": 20, **own}
    return config.plain(config.override(made, {key: str(value) for key, value in given.items()})), name


def score(preset, steps, more=None, seed=0):
    """Percent of the test split that a linear classifier on the encoder's features names right: (before, after)."""
    plain, name = settings(preset, steps, {"seed": seed, **(more or {})})
    data = open_data(plain, None)
    section = plain[name]
    about = core.About(len(data.train), data.classes, None, steps, len(data.train) // BATCH, dense, shard.data_mesh(1))
    task = stage.make_task(plain, name, stage.build_nets(plain, name, data, {}), about)
    given = data.training(BATCH, section["size"])
    state = on_host(lambda key, batch: core.init_state(task, key, batch), jax.random.key(seed), next(given))
    before = probe(task, state, data, section["size"])
    step = jax.jit(functools.partial(core.step, task), donate_argnums=0)
    for at in range(steps):
        if loop.renewed(task.refresh, at):
            state = task.refresh.fn(state, {}, data.in_order(BATCH, section["size"]))
        state, metrics = step(state, {}, next(given))
    given.close()
    assert metrics["skipped"] == 0
    return before, probe(task, state, data, section["size"])


def probe(task, state, data, size):
    head = jax.jit(task.heads["features"])

    def features(split):
        h, label = [], []
        for part in streams.reals(data.stream(split, 500, size)):
            h.append(np.asarray(head(state, {}, {"image": part.images}, jax.random.key(0))["h"])[part.keep])
            label.append(part.batch["label"][:, 0][part.keep])
        return np.concatenate(h), np.concatenate(label)

    train, test = features("train"), features("test")
    return linear.linear(*train, *test, classes=data.classes, preset="simclr")["linear_top1"]["value"]


def judge(method, steps, more, *, least, most, lead):
    """Whether a method learns digits and its twin does not: percent right, and by how much more than the drawn encoder."""
    before, after = score(f"{method},mnist5k", steps, more)
    _, twin = score(f"{method},mnist5k", steps, {**more, **TWIN})
    print(f"{method}: drawn {before:.1f}, trained {after:.1f}, twin {twin:.1f}")
    assert after >= least and after >= before + lead
    assert twin <= most and twin <= after - 4
