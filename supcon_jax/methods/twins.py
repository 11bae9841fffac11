"""Without negatives and without a teacher: Barlow Twins and VICReg keep the dimensions of a code apart instead of its rows."""

from __future__ import annotations

import jax.numpy as jnp

from supcon_jax.core import Aux, Player, Task
from supcon_jax.losses import decorrelate
from supcon_jax.methods import towers
from supcon_jax.methods.towers import ENCODER, PROJECTION

NETS = (ENCODER, PROJECTION)


def barlow(nets, tx, about, *, recipe="barlow", change=(), size=224, norm="", off=0.0051, factor=1.0) -> Task:
    """Barlow Twins: the correlation of the codes of two views, dimension by dimension, becomes the identity.

        L = factor (sum_a (1 - C_aa)^2 + off sum_{a != b} C_ab^2),   C: correlation of z_1 and z_2 over the batch

    Zbontar et al. 2021, arXiv 2103.03230, eq. 1 and 2.

    nets: "image" and "project", whose codes are long (8,192). recipe, change, size, norm: of the views, see views.recipes.
    off: weight off the diagonal, lambda. factor: of the whole loss; 0.1 in some recipes for small pictures.
    Returns a Task with the player "model" and the head "features".
    """

    def compare(z):
        return factor * decorrelate.barlow(z[0], z[1], off=off)

    return twins(nets, tx, compare, recipe=recipe, change=change, size=size, norm=norm)


def vicreg(
    nets, tx, about, *, recipe="vicreg", change=(), size=224, norm="", invariance=25.0, variance=25.0, covariance=1.0
) -> Task:
    """VICReg: codes of two views agree, each dimension varies, and no two of them together.

        L = invariance mean |z_1 - z_2|^2 + variance sum_v V(z_v) / 2 + covariance sum_v C(z_v)

    Bardes et al. 2022, arXiv 2105.04906, eq. 6, with the variances of the views averaged as in the authors' code.

    nets: "image" and "project" (8,192). recipe, change, size, norm: of the views, see views.recipes.
    Returns a Task with the player "model" and the head "features".
    """

    def compare(z):
        return decorrelate.vicreg(z[0], z[1], invariance=invariance, variance=variance, covariance=covariance)

    return twins(nets, tx, compare, recipe=recipe, change=change, size=size, norm=norm)


def twins(nets, tx, compare, *, recipe, change, size, norm) -> Task:
    """A task of one player that encodes two views, one after the other, and compares their codes [n, d]."""

    def pair(batch, key):
        return towers.views(batch, key, recipe=recipe, size=size, norm=norm, change=change)[0]

    def init(key, batch):
        params, stats = towers.begin(nets, key, pair(batch, key)[:, 0], NETS)
        return {"params": {"model": params}, "stats": {"model": stats}}

    def loss(params, state, frozen, batch, key):
        x, stats, h, z = pair(batch, key), state.stats["model"], [], []
        for view in range(2):
            out, stats = towers.run(nets, params["model"], stats, x[:, view], NETS)
            h.append(out[ENCODER])
            z.append(out[PROJECTION])
        return compare(z), Aux(towers.health(jnp.stack(h, axis=1), jnp.stack(z, axis=1)), stats, state.memory)

    head = towers.features(nets, size=size, recipe=recipe, norm=norm)
    return Task(init, (Player("model", loss, tx["model"], parts=NETS),), heads={"features": head})
