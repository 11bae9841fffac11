"""What methods of views share: an encoder with its heads one after another, its teacher, and what evaluation reads of it."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from supcon_jax.losses import vitals
from supcon_jax.ops.arrays import average
from supcon_jax.views import recipes

ENCODER, PROJECTION, PREDICTION = "image", "project", "predict"


def begin(nets, key, x, names):
    """Initial (params, stats) of the nets `names`, each on what the one before it gives. x: a batch of pictures."""
    params, stats = {}, {}
    for i, name in enumerate(names):
        variables = nets[name].init(jax.random.fold_in(key, i), x, train=False)
        params[name], stats[name] = variables.get("params", {}), variables.get("batch_stats", {})
        x = jax.eval_shape(lambda v, x, name=name: nets[name].apply(v, x, train=False), variables, x)
        x = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), x)
    return params, stats


def run(nets, params, stats, x, names, *, train=True):
    """The nets `names` one after another.

    Returns ({name: what it gives}, stats): with `train` by the batch's own statistics, and the averages as they then stand.
    """
    out, stats = {}, dict(stats)
    for name in names:
        variables = {"params": params.get(name, {}), "batch_stats": stats.get(name, {})}  # files keep no empty ones
        if train:
            x, new = nets[name].apply(variables, x, train=True, mutable=["batch_stats"])
            stats[name] = new.get("batch_stats", {})
        else:
            x = nets[name].apply(variables, x, train=False)
        out[name] = x
    return out, stats


def views(batch, key, *, recipe, size, norm="", change=(), small=0, more=0):
    """The views of a batch's pictures as the recipe draws them, one array f32[n, v, s, s, 3] for each resolution. more: so many
    further ones of full size.

    Where a row of the batch holds two pictures (data.partner), every second view is one of the second picture: views that
    attract are then of two pictures of one class, or, with labels that mean nothing, of any two.
    """
    draw = functools.partial(
        recipes.crops, key=key, recipe=recipe, size=size, small=small, norm=norm, change=dict(change), more=more
    )
    first = draw(batch["image"][:, 0])
    if batch["image"].shape[1] == 1:
        return first
    return tuple(a.at[:, 1::2].set(b[:, 1::2]) for a, b in zip(first, draw(batch["image"][:, 1]), strict=True))


def teacher(params, stats, names):
    """A copy of some nets that the optimiser does not move: {"params", "stats"}. A copy, as an alias cannot be donated."""
    return jax.tree.map(jnp.array, {kind: {name: tree[name] for name in names} for kind, tree in
                                    (("params", params), ("stats", stats))})  # fmt: skip


def follow(teacher, params, momentum):
    """The teacher a step nearer to the student.

        xi <- m xi + (1 - m) theta

    He et al. 2020, arXiv 1911.05722, eq. 2. Parameters alone: the teacher's BatchNorm keeps its own averages.
    """
    student = {name: params[name] for name in teacher["params"]}
    return {**teacher, "params": average(teacher["params"], student, momentum)}


def health(h, z, positive=None):
    """Signs of collapse for the log: those of the codes z [n, v, d], see losses.vitals.health, and in how many directions the
    features h [n, v, f] vary. positive: another network's codes of the same rows [n, d]."""
    return vitals.health(z, positive) | {"feature_participation": vitals.health(h)["participation"]}


def joined(x):
    """One row for each picture [n, f]: codes of several networks, of lightness and of colour say, side by side, and of a grid
    of patches [n, rows, columns, f] the mean."""
    if isinstance(x, tuple):
        return jnp.concatenate([joined(part) for part in x], axis=-1)
    return x.mean((1, 2)) if x.ndim == 4 else x


def features(nets, *, size, recipe, norm="", names=(ENCODER, PROJECTION), of=None):
    """The head "features" of a method: {"h": the encoder's f32[n, f], "z": the projection's f32[n, d]} of whole pictures.

    of: state -> (params, stats) of the nets, those of the owner "model" if left out.
    """
    of = of or (lambda state: (state.params["model"], state.stats["model"]))

    def head(state, frozen, batch, key):
        x = recipes.plain(batch["image"], size=size, norm=norm or recipes.own_norm(recipe))
        out, _ = run(nets, *of(state), x, names, train=False)
        return {"h": joined(out[names[0]]), "z": joined(out[names[-1]])}

    return head
