"""Prototypical contrast: momentum contrast of pictures, and of pictures with the clusters that the teacher's codes form."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from supcon_jax import shard
from supcon_jax.core import Aux, Player, Refresh, Task
from supcon_jax.losses import bank
from supcon_jax.losses.prototypes import Prototypes, concentration, draw, proto_nce
from supcon_jax.methods import towers
from supcon_jax.methods.moco import NETS, shuffled_codes
from supcon_jax.methods.towers import ENCODER, PROJECTION
from supcon_jax.ops import queue as queues
from supcon_jax.ops.arrays import unit
from supcon_jax.ops.kmeans import kmeans
from supcon_jax.ops.rows import Rows
from supcon_jax.views import recipes

PLUS = 1024  # clusters up to which the first centres are drawn far apart, one after the other


def pcl(
    nets,
    tx,
    about,
    *,
    recipe="moco_v2",
    change=(),
    size=224,
    norm="",
    temperature=0.2,
    queue=16384,
    momentum=0.999,
    shuffle=True,
    counts=(25000, 50000, 100000),
    negatives="code",
    drawn=16384,
    start=20,
    every=1,
    starts=5,
    rounds=20,
    weight=1.0,
) -> Task:
    """PCL: MoCo, and beside it each query finds the prototype of its picture's cluster.

        L = InfoNCE(q, k, queue) + weight 1/M sum_m -log( exp(<q, c_s>/phi_s) / sum_j exp(<q, c_j>/phi_j) )

    Li et al. 2021, arXiv 2005.04966, eq. 11. Before each period of so many epochs the teacher's codes of all training pictures,
    whole and in evaluation's form, are clustered anew (the E-step); phi: each cluster's concentration, T on average.

    nets, recipe, change, size, norm, temperature, queue, momentum, shuffle: as for methods.moco.moco.
    counts: prototypes of each clustering, fewer than records. negatives: "code" (those of the batch and `drawn` others, as the
        authors' code) or "paper" (all), see losses.prototypes. start: epochs of MoCo alone before the first clustering. every:
        epochs between clusterings. starts, rounds: of k-means. weight: of the second term.
    Returns a Task with the player "model", the head "features", a refresh, and in memory "teacher", "queue" and "clusters":
    for each clustering prototypes, their phi and the cluster of each record, by its index (-1: none).
    Raises ValueError: more prototypes than records.
    """
    if max(counts) > about.records:
        raise ValueError(f"counts={counts}: more clusters than the {about.records} records; use records / 50 to records / 10")

    def pair(batch, key):
        return towers.views(batch, key, recipe=recipe, size=size, norm=norm, change=change)[0]

    def init(key, batch):
        x = pair(batch, key)[:, 0]
        params, stats = towers.begin(nets, key, x, NETS)
        z = jax.eval_shape(lambda: towers.run(nets, params, stats, x, NETS)[0][PROJECTION])
        found = tuple(
            Prototypes(jnp.zeros((k, z.shape[1])), jnp.ones(k), jnp.full(about.records, -1, jnp.int32)) for k in counts
        )
        memory = {
            "teacher": towers.teacher(params, stats, NETS), "clusters": found,
            "queue": queues.init(queue, Rows(jnp.zeros(z.shape, jnp.float32))),
        }  # fmt: skip
        return {"params": {"model": params}, "stats": {"model": stats}, "memory": memory}

    def loss(params, state, frozen, batch, key):
        x, memory = pair(batch, key), state.memory
        out, stats = towers.run(nets, params["model"], state.stats["model"], x[:, 0], NETS)
        k, seen = shuffled_codes(nets, memory["teacher"], x[:, 1], jax.random.fold_in(key, 1) if shuffle else None)
        q, k, old = Rows(unit(out[PROJECTION])), unit(k), memory["queue"]
        pictures = bank.among(q, k, queues.keys(old), scale=1 / temperature, sums=about.sums)
        own = tuple(one.replace(cluster=one.cluster[batch["index"][:, 0]]) for one in memory["clusters"])
        some = None
        if negatives == "code":
            some = tuple(
                draw(jax.random.fold_in(key, 2 + m), one.cluster, len(one.centre), drawn) for m, one in enumerate(own)
            )
        groups = proto_nce(q, own, negatives=negatives, drawn=some, sums=about.sums)
        teacher = {**memory["teacher"], "stats": seen}
        signs = towers.health(out[ENCODER][:, None], q.x[:, None], k)
        metrics = signs | {"pictures": pictures, "prototypes": groups}
        memory = {**memory, "teacher": teacher, "queue": queues.enqueue(old, Rows(k))}
        return pictures + weight * groups, Aux(metrics, stats, memory)

    def after(state):
        moved = towers.follow(state.memory["teacher"], state.params["model"], momentum)
        return state.replace(memory={**state.memory, "teacher": moved})

    def refresh(state, frozen, batches):
        codes, known = all_codes(teacher_codes(nets, about.mesh, size, norm or recipes.own_norm(recipe)), state, batches,
                                 about.records)  # fmt: skip
        if known.sum() < max(counts):
            raise ValueError(f"counts={counts}: {max(counts)} clusters of {known.sum()} records that can be read; use fewer")
        codes, known = spread_out(codes, about.mesh), spread_out(known, about.mesh)
        how, found = {"starts": starts, "rounds": rounds, "temperature": temperature}, []
        for m, k in enumerate(counts):
            key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), m)
            found.append(cluster(codes, known, k, key, **how))
        return state.replace(memory={**state.memory, "clusters": tuple(found)})

    head = towers.features(nets, size=size, recipe=recipe, norm=norm)
    again = Refresh(every * about.epoch, start * about.epoch, refresh)
    return Task(init, (Player("model", loss, tx["model"], parts=NETS),), after, heads={"features": head}, refresh=again)


def spread_out(x, mesh):
    """The same array on all processes -> a global one, its rows cut over the devices where they can be."""
    even = len(x) % mesh.shape["data"] == 0
    return jax.device_put(x, NamedSharding(mesh, PartitionSpec("data") if even else PartitionSpec()))


def teacher_codes(nets, mesh, size, norm):
    """(teacher, u8[n, h, w, 3]) -> unit codes [n, d] of whole pictures, on every device."""

    def codes(teacher, images):
        x = recipes.plain(images, size=size, norm=norm)
        out, _ = towers.run(nets, teacher["params"], teacher["stats"], x, NETS, train=False)
        return unit(out[PROJECTION])

    return jax.jit(codes, out_shardings=NamedSharding(mesh, PartitionSpec()))


def all_codes(encode, state, batches, records):
    """(codes f32[records, d] by index, which are known bool[records]); a record that cannot be read is not."""
    codes, known = None, np.zeros(records, bool)
    for batch in batches:
        z = np.asarray(encode(state.memory["teacher"], batch["image"][:, 0]))
        index = np.asarray(jax.device_get(shard.whole(batch["index"])))[:, 0]
        if codes is None:
            codes = np.zeros((records, z.shape[1]), np.float32)
        codes[index[index >= 0]] = z[index >= 0]
        known[index[index >= 0]] = True
    return codes, known


def cluster(codes, known, k, key, *, starts, rounds, temperature):
    """One clustering of the known codes as Prototypes: unit centres, their concentrations, the cluster of each record."""
    found = kmeans(codes, k, key, starts=starts, rounds=rounds, first="plus" if k <= PLUS else "rows", valid=known)
    spread = concentration(found.square, found.cluster, k, temperature=temperature, valid=known)
    return Prototypes(unit(found.centre), spread, found.cluster)
