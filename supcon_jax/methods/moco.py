"""Momentum contrast: queries against keys of a slowly moving teacher, with a queue (v1, v2) or within the batch (v3)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from supcon_jax.core import Aux, Player, Task
from supcon_jax.losses import bank
from supcon_jax.losses.census import Watch
from supcon_jax.losses.contrast import info_nce
from supcon_jax.methods import towers
from supcon_jax.methods.towers import ENCODER, PREDICTION, PROJECTION
from supcon_jax.ops import queue as queues
from supcon_jax.ops.arrays import unit
from supcon_jax.ops.rows import Rows
from supcon_jax.ops.schedule import momentum_at

NETS = (ENCODER, PROJECTION)


def moco(
    nets,
    tx,
    about,
    *,
    recipe="moco_v2",
    change=(),
    size=224,
    norm="",
    temperature=0.2,
    queue=65536,
    momentum=0.999,
    shuffle=True,
) -> Task:
    """MoCo v1 and v2: a query finds the teacher's key of the other view among a queue of keys of earlier batches.

        L = 1/n sum_i  -log( exp(<q_i, k_i> / T) / (exp(<q_i, k_i> / T) + sum_{j in queue} exp(<q_i, k_j> / T)) )
        xi <- m xi + (1 - m) theta   (the teacher's parameters; its BatchNorm keeps averages of its own)

    He et al. 2020, arXiv 1911.05722, eq. 1 and 2; v2: Chen et al. 2020, arXiv 2003.04297 (head of two layers, recipe moco_v2,
    T = 0.2). Surveys file MoCo under memory banks; it is a queue: a bank holds one row for each record.

    nets: "image" and "project"; with `groups` in them BatchNorm is by groups of rows, which hides a picture's own key.
    recipe, change, size, norm: of the views, see views.recipes.
    queue: keys, a multiple of the batch. momentum: m. shuffle: the teacher sees the batch in another order, so that query and
        key of a picture share no BatchNorm group.
    Returns a Task with the player "model", the head "features" and in memory "teacher" and "queue".
    Raises ValueError: no queue, or one that is no multiple of the batch.
    Differs from: the authors' code, which fills the queue with random rows first; here what is not filled does not count.
    """
    if queue < 1:
        raise ValueError(f"queue={queue}: without one there are no negatives; use moco3, whose negatives are in the batch")

    def init(key, batch):
        x = pair(batch, key)[:, 0]
        params, stats = towers.begin(nets, key, x, NETS)
        z = jax.eval_shape(lambda: towers.run(nets, params, stats, x, NETS)[0][PROJECTION])
        empty = queues.init(queue, Rows(jnp.zeros(z.shape, jnp.float32)))
        memory = {"teacher": towers.teacher(params, stats, NETS), "queue": empty}
        return {"params": {"model": params}, "stats": {"model": stats}, "memory": memory}

    def pair(batch, key):
        return towers.views(batch, key, recipe=recipe, size=size, norm=norm, change=change)[0]

    def loss(params, state, frozen, batch, key):
        x = pair(batch, key)
        out, stats = towers.run(nets, params["model"], state.stats["model"], x[:, 0], NETS)
        teacher = state.memory["teacher"]
        k, seen = shuffled_codes(nets, teacher, x[:, 1], jax.random.fold_in(key, 1) if shuffle else None)
        q, k, old = unit(out[PROJECTION]), unit(k), state.memory["queue"]
        value = bank.among(Rows(q), k, queues.keys(old), scale=1 / temperature, sums=about.sums)
        memory = {**state.memory, "teacher": {**teacher, "stats": seen}, "queue": queues.enqueue(old, Rows(k))}
        return value, Aux(towers.health(out[ENCODER][:, None], q[:, None], k), stats, memory)

    def after(state):
        moved = towers.follow(state.memory["teacher"], state.params["model"], momentum)
        return state.replace(memory={**state.memory, "teacher": moved})

    head = towers.features(nets, size=size, recipe=recipe, norm=norm)
    return Task(init, (Player("model", loss, tx["model"], parts=NETS),), after, heads={"features": head})


def shuffled_codes(nets, teacher, x, key):
    """The teacher's codes of x [n, d] without a gradient, and its statistics. key: of another order of the rows to be
    encoded in, None keeps theirs."""
    order = None if key is None else jax.random.permutation(key, len(x))
    x = x if order is None else x[order]
    out, stats = towers.run(nets, teacher["params"], teacher["stats"], x, NETS)
    k = jax.lax.stop_gradient(out[PROJECTION])
    return (k if order is None else k[jnp.argsort(order)]), jax.lax.stop_gradient(stats)


def moco3(
    nets,
    tx,
    about,
    *,
    recipe="moco_v3",
    change=(),
    size=224,
    norm="",
    temperature=1.0,
    momentum=0.99,
) -> Task:
    """MoCo v3: both views are queries and keys, the keys are those of the batch, and a predictor follows the projection.

        L = ctr(q_1, k_2) + ctr(q_2, k_1),   ctr(q, k) = -2T/n sum_i log( exp(<q_i, k_i> / T) / sum_j exp(<q_i, k_j> / T) )
        m = 1 - (1 - m_0) (1 + cos(pi s / S)) / 2   at step s of S

    Chen, Xie and He 2021, arXiv 2104.02057, algorithm 1.

    nets: "image", "project", "predict"; q = predict(project(image(x))), k = project(image(x)) of the teacher.
    momentum: m_0. The others as for moco.
    Returns a Task with the player "model", the head "features" and in memory "teacher".
    """
    chain = (*NETS, PREDICTION)

    def init(key, batch):
        params, stats = towers.begin(nets, key, pair(batch, key)[:, 0], chain)
        memory = {"teacher": towers.teacher(params, stats, NETS)}
        return {"params": {"model": params}, "stats": {"model": stats}, "memory": memory}

    def pair(batch, key):
        return towers.views(batch, key, recipe=recipe, size=size, norm=norm, change=change)[0]

    def loss(params, state, frozen, batch, key):
        x, stats, teacher = pair(batch, key), state.stats["model"], state.memory["teacher"]
        seen, h, q, k = teacher["stats"], [], [], []
        for view in range(2):
            out, stats = towers.run(nets, params["model"], stats, x[:, view], chain)
            q.append(unit(out[PREDICTION]))
            h.append(out[ENCODER])
            code, seen = shuffled_codes(nets, {**teacher, "stats": seen}, x[:, view], None)
            k.append(unit(code))
        row, watch = jnp.arange(len(x), dtype=jnp.int32), Watch(about.sums)
        value = sum(
            info_nce(Rows(a, index=row), Rows(b, index=row), scale=1 / temperature, base=0.5, sums=watch)
            for a, b in ((q[0], k[1]), (q[1], k[0]))
        )
        memory = {**state.memory, "teacher": {**teacher, "stats": seen}}
        signs = towers.health(jnp.stack(h, axis=1), jnp.stack(q, axis=1))
        return value, Aux(watch.metrics("contrast") | signs, stats, memory)

    def after(state):
        m = momentum_at(state.step, about.steps, momentum)
        moved = towers.follow(state.memory["teacher"], state.params["model"], m)
        return state.replace(memory={**state.memory, "teacher": moved})

    head = towers.features(nets, size=size, recipe=recipe, norm=norm)
    return Task(init, (Player("model", loss, tx["model"], parts=chain),), after, heads={"features": head})
