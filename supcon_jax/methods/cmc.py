"""Contrast with memory banks: CMC between the channels of a picture, PIRL between a picture and its shuffled patches."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp

from supcon_jax.core import Aux, Player, Task
from supcon_jax.losses import bank as banks
from supcon_jax.methods import towers
from supcon_jax.methods.towers import ENCODER, PROJECTION
from supcon_jax.ops.arrays import merge, unit
from supcon_jax.ops.rows import Rows
from supcon_jax.views import jigsaw

NETS = (ENCODER, PROJECTION)
GRAPHS = ("core", "full")


def cmc(
    nets,
    tx,
    about,
    *,
    recipe="cmc",
    change=(),
    size=224,
    norm="",
    temperature=0.07,
    form="nce",
    graph="full",
    drawn=16384,
    negatives="shared",
    momentum=0.5,
) -> Task:
    """CMC: lightness and colour of one picture find each other among rows that a memory bank keeps of the other one.

        L = sum over pairs (a, b) of the graph  l(z_a, bank_b) + l(z_b, bank_a);   bank_b <- unit(m bank_b + (1 - m) z_b)

    Tian et al. 2019, arXiv 1906.05849, eq. 6 to 8. "core": pairs with the first kind of channels alone; "full": all pairs.
    With two kinds both are the same.

    nets: "image": Lab pictures f32[n, h, w, 3] -> features of each kind of channels, a tuple; "project": tuple -> tuple.
    recipe, change, size, norm: of the one view of each picture, see views.recipes; those of recipe cmc are in Lab.
    form: of the loss, "nce" (with a constant from the first batch) or "softmax"; temperature, drawn (negatives from the bank),
        negatives ("shared" by the batch, or "per_anchor" as the authors' code), momentum: see losses.bank.
    Returns a Task with the player "model", the head "features" and in memory "banks" [records, d] and "z", their constants.
    Raises ValueError: unknown words.
    """
    if graph not in GRAPHS:
        raise ValueError(f"graph={graph!r}: use core or full")

    def view(batch, key):
        x = towers.views(batch, key, recipe=recipe, size=size, norm=norm, change=change)[0]
        if batch["image"].shape[1] == 1:
            return x[:, 0]
        return jnp.concatenate([x[:, 0, ..., :1], x[:, 1, ..., 1:]], axis=-1)  # one's lightness, the other's colour

    def init(key, batch):
        params, stats = towers.begin(nets, key, view(batch, key), NETS)
        z = jax.eval_shape(lambda: towers.run(nets, params, stats, view(batch, key), NETS)[0][PROJECTION])
        keys = jax.random.split(jax.random.fold_in(key, 5), len(z))
        kept = tuple(banks.start(k, about.records, x.shape[1]) for k, x in zip(keys, z, strict=True))
        memory = {"banks": kept, "z": jnp.zeros(len(z))}
        return {"params": {"model": params}, "stats": {"model": stats}, "memory": memory}

    def loss(params, state, frozen, batch, key):
        out, stats = towers.run(nets, params["model"], state.stats["model"], view(batch, key), NETS)
        z, index, memory = [unit(x) for x in out[PROJECTION]], batch["index"][:, 0], state.memory
        some = banks.draw(jax.random.fold_in(key, 1), about.records, len(index), drawn, negatives)
        constants, value = list(memory["z"]), 0.0
        for a, b in pairs(len(z), graph):
            for q, k in ((a, b), (b, a)):
                rows, how = Rows(z[q]), {"scale": 1 / temperature}
                if form == "nce":
                    first = banks.normaliser(rows, memory["banks"][k], index, some, **how)
                    constants[k] = how["z"] = jnp.where(constants[k] > 0, constants[k], first)
                value = value + banks.contrast(rows, memory["banks"][k], index, some, form=form, sums=about.sums, **how)
        kept = tuple(
            banks.update(old, index, x, momentum=momentum) for old, x in zip(memory["banks"], z, strict=True)
        )
        memory = {**memory, "banks": kept, "z": jax.lax.stop_gradient(jnp.stack(constants))}
        return value, Aux(towers.health(out[ENCODER][0][:, None], z[0][:, None], z[1]), stats, memory)

    head = towers.features(nets, size=size, recipe=recipe, norm=norm)
    return Task(init, (Player("model", loss, tx["model"], parts=NETS),), heads={"features": head})


def pairs(kinds: int, graph: str):
    """Pairs of kinds of channels that are contrasted."""
    every = itertools.combinations(range(kinds), 2)
    return [(a, b) for a, b in every if graph == "full" or a == 0]


def pirl(
    nets,
    tx,
    about,
    *,
    recipe="moco_v1",
    change=(),
    size=224,
    patch=64,
    norm="",
    temperature=0.07,
    lam=0.5,
    drawn=32000,
    negatives="shared",
    momentum=0.5,
) -> Task:
    """PIRL: a picture and its nine patches in another order both find the picture's row in a memory bank.

        L = lam h(m_i, v'_i) + (1 - lam) h(m_i, v_i),   bank <- unit(m bank + (1 - m) v)

    Misra and van der Maaten 2020, arXiv 1912.01991, eq. 5. What is learned is that the order of patches does not matter.

    nets: "image", "project" (of pictures) and "patches": features of nine patches [n, 9, f] -> f32[n, d].
    recipe, change, size, norm: of the picture's view. patch: pixels of each patch, cut at random out of its cell.
    temperature, drawn, negatives, momentum: of the bank, see losses.bank. lam: weight of the shuffled picture.
    Returns a Task with the player "model", the head "features" and in memory "bank" [records, d].
    """

    def view(batch, key):
        return towers.views(batch, key, recipe=recipe, size=size, norm=norm, change=change)[0]

    def init(key, batch):
        x = view(batch, key)
        params, stats = towers.begin(nets, key, x[:, 0], NETS)
        out = jax.eval_shape(lambda: towers.run(nets, params, stats, x[:, 0], NETS)[0])
        h = jnp.zeros((len(x), 9, out[ENCODER].shape[1]))
        variables = nets["patches"].init(jax.random.fold_in(key, 9), h, train=False)
        params["patches"], stats["patches"] = variables["params"], variables.get("batch_stats", {})
        kept = banks.start(jax.random.fold_in(key, 5), about.records, out[PROJECTION].shape[1])
        return {"params": {"model": params}, "stats": {"model": stats}, "memory": {"bank": kept}}

    def loss(params, state, frozen, batch, key):
        own, x, index = params["model"], view(batch, key), batch["index"][:, 0]
        out, stats = towers.run(nets, own, state.stats["model"], x[:, 0], NETS)
        pieces, _ = jigsaw.jigsaw(x[:, 1], jax.random.fold_in(key, 3), size=patch)
        seen, stats = towers.run(nets, own, stats, merge(pieces), (ENCODER,))
        h = seen[ENCODER].reshape(*pieces.shape[:2], -1)
        changed, stats = towers.run(nets, own, stats, h, ("patches",))
        some = banks.draw(jax.random.fold_in(key, 1), about.records, len(index), drawn, negatives)
        image, other = unit(out[PROJECTION]), unit(changed["patches"])
        value = banks.pirl(
            Rows(image), Rows(other), state.memory["bank"], index, some, scale=1 / temperature, lam=lam, sums=about.sums,
        )  # fmt: skip
        memory = {**state.memory, "bank": banks.update(state.memory["bank"], index, image, momentum=momentum)}
        return value, Aux(towers.health(out[ENCODER][:, None], image[:, None], other), stats, memory)

    head = towers.features(nets, size=size, recipe=recipe, norm=norm)
    return Task(init, (Player("model", loss, tx["model"], parts=(*NETS, "patches")),), heads={"features": head})
