"""SwAV: crops of a picture predict each other's assignment to prototypes, which a balanced clustering of the batch gives."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from supcon_jax.core import Aux, Player, Task
from supcon_jax.losses.swapped import CODED, swapped
from supcon_jax.methods import towers
from supcon_jax.methods.towers import ENCODER, PROJECTION
from supcon_jax.ops import queue as queues
from supcon_jax.ops.arrays import merge, unit
from supcon_jax.ops.rows import Rows

NETS = (ENCODER, PROJECTION)


def swav(
    nets,
    tx,
    about,
    *,
    recipe="swav",
    change=(),
    size=224,
    small=96,
    norm="",
    temperature=0.1,
    eps=0.05,
    rounds=3,
    prototypes=3000,
    queue=0,
    queue_start=0,
) -> Task:
    """SwAV: the codes of two crops are predicted from the other crops, the small ones too.

        L = mean_{u in {0, 1}} mean_{v != u} -sum_k q_uk log softmax_k( <z_v, c_k> / T ),   q: Sinkhorn of <z_u, c_k> / eps

    Caron et al. 2020, arXiv 2006.09882, eq. 2, with multi-crop of its section 3.3. Prototypes are set to unit length after each
    step. It works at small batches only with the queue, and much of its strength is multi-crop.

    nets: "image" and "project".
    recipe, change, size, small, norm: of the crops, see views.recipes; small: pixels of the small ones, if the recipe has any.
    eps, rounds: of the codes, see ops.sinkhorn. prototypes: their number. As published they stand still for the first epoch:
        optim.model.parts = {"prototypes": {"freeze": steps}}.
    queue: codes of so many earlier crops of each kind join the clustering, from step `queue_start` on and once it is full.
    Returns a Task with the player "model" and the head "features"; with a queue, it lies in memory.
    Raises ValueError: a queue that is no multiple of the batch.
    """

    def crops(batch, key):
        return towers.views(batch, key, recipe=recipe, size=size, small=small, norm=norm, change=change)

    def init(key, batch):
        x = crops(batch, key)[0][:, 0]
        params, stats = towers.begin(nets, key, x, NETS)
        z = jax.eval_shape(lambda: towers.run(nets, params, stats, x, NETS)[0][PROJECTION])
        params["prototypes"] = unit(jax.random.normal(jax.random.fold_in(key, 7), (prototypes, z.shape[1])))
        held = queues.init(queue, Rows(jnp.zeros((len(x), CODED, z.shape[1])))) if queue else None
        return {"params": {"model": params}, "stats": {"model": stats}, "memory": {"queue": held} if queue else {}}

    def encode(own, stats, groups):
        """(features of the full crops [n, 2, f], unit codes of all crops [n, v, d], statistics): a pass for each size."""
        codes = []
        for x in groups:
            out, stats = towers.run(nets, own, stats, merge(x), NETS)
            codes.append(unit(out[PROJECTION]).reshape(*x.shape[:2], -1))
            if len(codes) == 1:
                h = out[ENCODER].reshape(*x.shape[:2], -1)
        return h, jnp.concatenate(codes, axis=1), stats

    def loss(params, state, frozen, batch, key):
        own = params["model"]
        h, z, stats = encode(own, state.stats["model"], crops(batch, key))
        old, memory = None, state.memory
        if queue:
            old = queues.keys(memory["queue"])
            old = old.replace(valid=old.valid & (state.step >= queue_start))
            memory = {**memory, "queue": queues.enqueue(memory["queue"], Rows(z[:, :CODED]))}
        value = swapped(z, own["prototypes"], scale=1 / temperature, eps=eps, rounds=rounds, queue=old)
        metrics = towers.health(h, z[:, :CODED]) | {"prototypes_used": assigned(z[:, 0], own["prototypes"])}
        return value, Aux(metrics, stats, memory)

    def after(state):
        own = state.params["model"]
        own = {**own, "prototypes": unit(own["prototypes"])}
        return state.replace(params={**state.params, "model": own})

    head = towers.features(nets, size=size, recipe=recipe, norm=norm)
    return Task(init, (Player("model", loss, tx["model"], parts=(*NETS, "prototypes")),), after, heads={"features": head})


def assigned(z, prototypes):
    """How many prototypes are the nearest of some row of the batch, f32[]."""
    nearest = jnp.argmax(jax.lax.stop_gradient(z @ prototypes.T), axis=1)
    return jnp.zeros(len(prototypes)).at[nearest].set(1.0).sum()
