"""Without negatives: BYOL, whose target is a teacher, and SimSiam, whose target is the network itself without a gradient."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from supcon_jax.core import Aux, Player, Task
from supcon_jax.losses import predict
from supcon_jax.methods import towers
from supcon_jax.methods.towers import ENCODER, PREDICTION, PROJECTION
from supcon_jax.ops.arrays import cosine
from supcon_jax.ops.schedule import momentum_at

NETS = (ENCODER, PROJECTION)
CHAIN = (*NETS, PREDICTION)


def byol(nets, tx, about, *, recipe="byol", change=(), size=224, norm="", momentum=0.996) -> Task:
    """BYOL: the prediction of one view meets the teacher's projection of the other, both ways.

        L = d(p_1, z'_2) + d(p_2, z'_1),   d(p, z) = 2 - 2 <p, z> / (|p| |z|)
        xi <- tau xi + (1 - tau) theta,   tau = 1 - (1 - tau_0) (1 + cos(pi s / S)) / 2   after step s of S

    Grill et al. 2020, arXiv 2006.07733, eq. 2. What keeps it from collapse is the predictor together with the moving teacher;
    where no gradient flows alone does not explain it.

    nets: "image", "project", "predict". recipe, change, size, norm: of the views, see views.recipes. momentum: tau_0.
    Returns a Task with the player "model", the head "features" (of the student) and in memory "teacher", which normalises by
    its own batches.
    Differs from: the authors' code, which draws the teacher's first weights apart from the student's.
    """

    def init(key, batch):
        params, stats = towers.begin(nets, key, pair(batch, key)[:, 0], CHAIN)
        return {
            "params": {"model": params}, "stats": {"model": stats}, "memory": {"teacher": towers.teacher(params, stats, NETS)}
        }  # fmt: skip

    def pair(batch, key):
        return towers.views(batch, key, recipe=recipe, size=size, norm=norm, change=change)[0]

    def loss(params, state, frozen, batch, key):
        x, teacher = pair(batch, key), state.memory["teacher"]
        stats, seen, h, p, own, z = state.stats["model"], teacher["stats"], [], [], [], []
        for view in range(2):
            out, stats = towers.run(nets, params["model"], stats, x[:, view], CHAIN)
            target, seen = towers.run(nets, teacher["params"], seen, x[:, view], NETS)
            h.append(out[ENCODER])
            p.append(out[PREDICTION])
            own.append(out[PROJECTION])
            z.append(jax.lax.stop_gradient(target[PROJECTION]))
        value = predict.byol(p[0], z[1]) + predict.byol(p[1], z[0])
        memory = {**state.memory, "teacher": {**teacher, "stats": jax.lax.stop_gradient(seen)}}
        return value, Aux(towers.health(jnp.stack(h, axis=1), jnp.stack(own, axis=1)), stats, memory)

    def after(state):
        tau = momentum_at(state.step, about.steps, momentum)
        moved = towers.follow(state.memory["teacher"], state.params["model"], tau)
        return state.replace(memory={**state.memory, "teacher": moved})

    head = towers.features(nets, size=size, recipe=recipe, norm=norm)
    return Task(init, (Player("model", loss, tx["model"], parts=CHAIN),), after, heads={"features": head})


def simsiam(nets, tx, about, *, recipe="simsiam", change=(), size=224, norm="", stop=True) -> Task:
    """SimSiam: the prediction of one view meets the projection of the other, which carries no gradient, both ways.

        L = D(p_1, stop(z_2)) / 2 + D(p_2, stop(z_1)) / 2,   D(p, z) = - <p, z> / (|p| |z|),   p = predict(z)

    Chen and He 2021, arXiv 2011.10566, eq. 3. The gradient is stopped at the projection that is compared with, not on the
    branch of the predictor as some surveys have it: that would leave the predictor untrained.

    nets: "image", "project", "predict". recipe, change, size, norm: of the views, see views.recipes.
    stop: False lets the gradient through on both sides, under which the codes collapse.
    Returns a Task with the player "model" and the head "features".
    """
    against = predict.simsiam if stop else lambda p, z: -jnp.mean(cosine(p, z))

    def init(key, batch):
        params, stats = towers.begin(nets, key, pair(batch, key)[:, 0], CHAIN)
        return {"params": {"model": params}, "stats": {"model": stats}}

    def pair(batch, key):
        return towers.views(batch, key, recipe=recipe, size=size, norm=norm, change=change)[0]

    def loss(params, state, frozen, batch, key):
        x, stats, h, p, z = pair(batch, key), state.stats["model"], [], [], []
        for view in range(2):
            out, stats = towers.run(nets, params["model"], stats, x[:, view], CHAIN)
            h.append(out[ENCODER])
            p.append(out[PREDICTION])
            z.append(out[PROJECTION])
        value = (against(p[0], z[1]) + against(p[1], z[0])) / 2
        return value, Aux(towers.health(jnp.stack(h, axis=1), jnp.stack(z, axis=1)), stats, state.memory)

    head = towers.features(nets, size=size, recipe=recipe, norm=norm)
    return Task(init, (Player("model", loss, tx["model"], parts=CHAIN),), heads={"features": head})
