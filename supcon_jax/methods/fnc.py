"""False-negative cancellation: a teacher's codes of many views tell which pictures are no negatives of each other."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from supcon_jax.core import Aux, Player, Task
from supcon_jax.losses.census import Watch
from supcon_jax.losses.contrast import mean_over, out_form
from supcon_jax.methods import towers
from supcon_jax.methods.towers import ENCODER, PROJECTION
from supcon_jax.ops import queue as queues
from supcon_jax.ops import similar
from supcon_jax.ops.arrays import LOWEST, merge, unit
from supcon_jax.ops.rows import Rows
from supcon_jax.ops.rows import merge as merged

NETS = (ENCODER, PROJECTION)


def fnc(
    nets,
    tx,
    about,
    *,
    recipe="simclr",
    change=(),
    size=224,
    norm="",
    temperature=0.1,
    support=8,
    queue=0,
    momentum=0.999,
    most=10,
    threshold=0.7,
    attract=True,
) -> Task:
    """Contrast of V views of each picture with the teacher's codes of them, without the keys that look like false negatives.

        L = 1/nV sum_iv  log sum_{j != iv} exp(s_ivj) - 1/(V - 1 + |F(i)|) sum_{j in P(iv) or F(i)} s_ivj,   s = <z_iv, k_j> / T
        score_ij = max_v <k_iv, k_j>,   F(i): the `most` keys j of other pictures of greatest score, those above the threshold

    Huynh et al. 2020, arXiv 2011.11765, eq. 3 to 5. P(iv): the keys of the other views of the picture. Eliminated instead of
    attracted, F(i) is in neither sum, and the mean is over P(iv) alone.

    nets: "image": pictures -> f32[n, f]; "project": f32[n, f] -> f32[n, d]. recipe, change, size, norm: of the views, see
        views.recipes.
    support: further views of each picture, drawn as the first one is; V = 2 + support. All are anchors.
    queue: keys of earlier batches, a multiple of the batch, 0 for none: of the latest views, beside those of this batch.
    momentum: the teacher's, xi <- m xi + (1 - m) theta. most: 1 or more. threshold: a cosine.
    attract: false negatives count as positives; else they are left out.
    Returns a Task with the player "model", the head "features" and in memory "teacher" and, if there is one, "queue".
    Raises ValueError: a queue that is no multiple of the batch, or more to find than there are keys.
    Differs from: the authors' code, whose loss is twice as large, and whose teacher also averages BatchNorm's statistics.
    """

    def views(batch, key):
        return towers.views(batch, key, recipe=recipe, size=size, norm=norm, change=change, more=support)[0]

    def init(key, batch):
        x = views(batch, key)[:, 0]
        params, stats = towers.begin(nets, key, x, NETS)
        memory = {"teacher": towers.teacher(params, stats, NETS)}
        if queue:
            z = jax.eval_shape(lambda: towers.run(nets, params, stats, x, NETS)[0][PROJECTION])
            memory["queue"] = queues.init(queue, Rows(jnp.zeros(z.shape, jnp.float32)))
        return {"params": {"model": params}, "stats": {"model": stats}, "memory": memory}

    def loss(params, state, frozen, batch, key):
        x, teacher, memory = views(batch, key), state.memory["teacher"], state.memory
        n, v = x.shape[:2]
        out, stats = towers.run(nets, params["model"], state.stats["model"], merge(x), NETS)
        target, seen = towers.run(nets, teacher["params"], teacher["stats"], merge(x), NETS)
        z, k = unit(out[PROJECTION]), jax.lax.stop_gradient(unit(target[PROJECTION]))
        row = jnp.arange(n * v, dtype=jnp.int32)
        keys = [Rows(k, index=row, record=row // v)]
        if queue:
            old = queues.keys(memory["queue"])
            index = n * v + jnp.arange(queue, dtype=jnp.int32)
            keys.append(old.replace(index=index, record=jnp.full(queue, -1, jnp.int32)))  # of no picture of this batch
            memory = {**memory, "queue": latest(memory["queue"], k.reshape(n, v, -1))}
        found = false_negatives(k.reshape(n, v, -1), keys, most, threshold)
        q, rules = Rows(z, label=jnp.repeat(found, v, axis=0), index=row, record=row // v), similar.cancelling(attract)
        watch = Watch(about.sums, jnp.repeat(batch["label"][:, 0], v, axis=0))
        sums = watch(q, keys[0], scale=1 / temperature, weigh=rules["weights"], veto=rules["veto"])
        for more in keys[1:]:
            sums = merged(sums, about.sums(q, more, scale=1 / temperature, weigh=rules["weights"], veto=rules["veto"]))
        value = mean_over(*out_form(sums), q)
        told = watch.metrics("contrast") | {"found": jnp.mean(jnp.sum(found >= 0, axis=1).astype(jnp.float32))}
        told |= towers.health(out[ENCODER].reshape(n, v, -1), z.reshape(n, v, -1))
        memory = {**memory, "teacher": {**teacher, "stats": jax.lax.stop_gradient(seen)}}
        return value, Aux(told, stats, memory)

    def after(state):
        moved = towers.follow(state.memory["teacher"], state.params["model"], momentum)
        return state.replace(memory={**state.memory, "teacher": moved})

    head = towers.features(nets, size=size, recipe=recipe, norm=norm)
    return Task(init, (Player("model", loss, tx["model"], parts=NETS),), after, heads={"features": head})


def false_negatives(support, keys, most, threshold):
    """F(i) as ids of keys, i32[n, most], -1 for none. support: [n, V, d], the first of the keys; keys: list of Rows."""
    own = jnp.arange(len(support), dtype=jnp.int32)[:, None]
    scores = []
    for k in keys:
        score = jnp.where(k.record[None, :] == own, LOWEST, similar.closest(support, k.x))
        scores.append(score if k.valid is None else jnp.where(k.valid[None, :], score, LOWEST))
    score = jnp.concatenate(scores, axis=1)
    if not 1 <= most <= score.shape[1]:
        raise ValueError(f"most={most}: there are {score.shape[1]} keys; use 1 to as many")
    return similar.nearest(score, jnp.concatenate([k.index for k in keys]), most, threshold)


def latest(queue, k):
    """The queue with the keys of this batch [n, V, d] in place of the oldest: a slot for each view, as many as it has."""
    slots = queue.rows.valid.shape[0]
    for view in range(max(0, k.shape[1] - slots), k.shape[1]):
        queue = queues.enqueue(queue, Rows(k[:, view].astype(jnp.float32)))
    return queue
