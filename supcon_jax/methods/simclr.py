"""SimCLR and supervised contrast: views of one picture, or of one class, attract; all others of the batch repel."""

from __future__ import annotations

import functools

import jax.numpy as jnp

from supcon_jax.core import Aux, Player, Task
from supcon_jax.losses import negatives as variants
from supcon_jax.losses.census import Watch
from supcon_jax.losses.contrast import LABEL_MODES
from supcon_jax.losses.contrast import supcon as supervised
from supcon_jax.methods import towers
from supcon_jax.methods.towers import ENCODER, PROJECTION
from supcon_jax.ops import rows as rule
from supcon_jax.ops.arrays import merge, unit
from supcon_jax.ops.cap import capped
from supcon_jax.ops.rows import Rows
from supcon_jax.ops.similar import cancelled
from supcon_jax.ops.slices import sliced

NETS = (ENCODER, PROJECTION)


def simclr(
    nets,
    tx,
    about,
    *,
    recipe="simclr",
    change=(),
    size=224,
    norm="",
    temperature=0.1,
    negatives="all",
    sigma=0.5,
    prior=0.1,
    beta=1.0,
    most=10,
    threshold=0.7,
    mean="anchors",
    slices=1,
) -> Task:
    """SimCLR: each view finds the other view of its picture among all views of the global batch.

        L = 1/2n sum_i  -log( exp(s_ip) / sum_{a != i} exp(s_ia) ),   s = <z_i, z_j> / T,  z unit

    Chen et al. 2020, arXiv 2002.05709, eq. 1; v2 (arXiv 2006.10029) is the same with a head of three layers and wider nets.

    nets: "image": pictures -> f32[n, f]; "project": f32[n, f] -> f32[n, d].
    recipe, change, size, norm: of the views, see views.recipes; size in pixels.
    negatives: what the denominator holds beside the positive. "all"; "decoupled" (the negatives alone, Yeh et al. 2022,
        arXiv 2110.06848) and "weighted", the same with positives weighed by sigma; "debiased" (Chuang et al. 2020, arXiv
        2007.00224) by the prior, the share of false negatives, and "hard" (Robinson et al. 2021, arXiv 2010.04592) with
        beta too; "hardened", weighed by exp(beta cos); "eliminated" and "attracted" (Huynh et al. 2020, arXiv 2011.11765): the
        `most` views nearest to the picture's own, above the cosine `threshold`, are left out or count as positives.
    mean: over "anchors", or over "examples" as the authors' code, twice as large.
    slices: the pictures are encoded in so many parts, see ops.slices; BatchNorm is then of one part.
    Returns a Task with the player "model" and the head "features".
    Raises ValueError: unknown words.
    Differs from: Huynh et al., whose false negatives are looked for by further views of each picture and by a teacher, among
        keys of earlier batches too: that is methods.fnc. Here the batch's own two views vote, by the network itself.
    """
    if negatives not in NEGATIVES:
        raise ValueError(f"negatives={negatives!r}: use one of {', '.join(NEGATIVES)}")
    factor = {"anchors": 1.0, "examples": 2.0}
    if mean not in factor:
        raise ValueError(f"mean={mean!r}: use anchors or examples")
    options = {"sigma": sigma, "prior": prior, "beta": beta, "most": most, "threshold": threshold}

    def contrast(z, batch, sums):
        n, v, d = z.shape
        row = jnp.arange(n * v, dtype=jnp.int32)
        q = Rows(z.reshape(n * v, d), label=row // v, index=row, record=row // v)
        return factor[mean] * NEGATIVES[negatives](q, scale=1 / temperature, sums=sums, **options)

    return contrastive(nets, tx, about, contrast, recipe=recipe, change=change, size=size, norm=norm, slices=slices)


def supcon(
    nets,
    tx,
    about,
    *,
    recipe="supcon_cifar",
    change=(),
    size=32,
    norm="",
    temperature=0.1,
    base=None,
    inside=False,
    label_mode="single",
    positives=-1,
    slices=1,
) -> Task:
    """Supervised contrast: all views of a class attract, those of other classes repel. A linear stage follows it.

        L = 1/2n sum_i  -1/|P(i)| sum_{p in P(i)} log( exp(s_ip) / sum_{a != i} exp(s_ia) ),   s = <z_i, z_j> / T,  z unit

    Khosla et al. 2020, arXiv 2004.11362, eq. 2. A picture without a label has its other view as its positive, as SimCLR.

    base: temperature T0 of the authors' code, whose loss is T/T0 times as large (0.07); 1 multiplies by T; None: plain.
    inside: the mean over positives inside the logarithm (eq. 3), which the authors find worse.
    label_mode: of several labels, a key of losses.contrast.LABEL_MODES.
    positives: most other pictures of the class that count, -1 for all: with wrong labels fewer do less harm.
    Other arguments and what it returns as for simclr.
    Raises ValueError: an unknown label_mode; a cap on positives, or `inside`, with several labels.
    """
    if label_mode not in LABEL_MODES:
        raise ValueError(f"label_mode={label_mode!r}: use one of {', '.join(LABEL_MODES)}")
    if label_mode != "single" and (positives >= 0 or inside):
        raise ValueError(f"label_mode={label_mode!r}: positives and inside are for single labels; leave them out")

    def contrast(z, batch, sums):
        n, v, d = z.shape
        row = jnp.arange(n * v, dtype=jnp.int32)
        label = jnp.repeat(batch["label"][:, 0], v, axis=0)
        q = Rows(z.reshape(n * v, d), label=label, index=row, record=row // v)
        if positives >= 0:
            q, rules = capped(q, positives)
        else:
            weigh, _ = LABEL_MODES[label_mode]
            rules = {"weights": rule.own_or(weigh), "veto": rule.same_index}
        how = {"scale": 1 / temperature, "base": base, "sums": sums, **rules}
        if inside:
            return variants.supcon_in(q, **how)
        return supervised(q, q, mean=LABEL_MODES[label_mode][1], **how)

    return contrastive(nets, tx, about, contrast, recipe=recipe, change=change, size=size, norm=norm, slices=slices)


def contrastive(nets, tx, about, contrast, *, recipe, change, size, norm, slices) -> Task:
    """A task of one player: encode two views of each picture at once, contrast their unit codes.

    contrast: (z [n, v, d], batch, sums) -> f32[].
    """

    def seen(batch, key):
        (x,) = towers.views(batch, key, recipe=recipe, size=size, norm=norm, change=change)
        return x

    def init(key, batch):
        params, stats = towers.begin(nets, key, merge(seen(batch, key)), NETS)
        return {"params": {"model": params}, "stats": {"model": stats}}

    def encode(own):
        def one(x, stats, key):
            out, stats = towers.run(nets, own, stats, merge(x), NETS)
            return tuple(out[name].reshape(*x.shape[:2], -1) for name in NETS), stats

        return one

    def loss(params, state, frozen, batch, key):
        (h, z), stats = sliced(encode(params["model"]), seen(batch, key), state.stats["model"], key, slices=slices)
        watch = Watch(about.sums, jnp.repeat(batch["label"][:, 0], z.shape[1], axis=0))
        value = contrast(unit(z), batch, watch)
        return value, Aux(watch.metrics("contrast") | towers.health(h, z), stats, state.memory)

    head = towers.features(nets, size=size, recipe=recipe, norm=norm)
    return Task(init, (Player("model", loss, tx["model"], parts=NETS),), heads={"features": head})


def _all(q, *, scale, sums, **_):
    return supervised(q, scale=scale, sums=sums)


def _decoupled(q, *, scale, sums, sigma=None, **_):
    return variants.decoupled(q, scale=scale, sigma=sigma, sums=sums)


def _debiased(q, *, scale, sums, prior, beta=0.0, **_):
    return variants.debiased(q, scale=scale, prior=prior, beta=beta, sums=sums)


def _hardened(q, *, scale, sums, beta, **_):
    return variants.hardened(q, scale=scale, alpha=beta, sums=sums)


def _cancelled(q, *, scale, sums, most, threshold, attract=False, **_):
    rows, rules = cancelled(q, most=most, threshold=threshold, attract=attract)
    return supervised(rows, scale=scale, sums=sums, **rules)


NEGATIVES = {
    "all": _all,
    "decoupled": lambda q, **how: _decoupled(q, **{**how, "sigma": None}),
    "weighted": _decoupled,
    "debiased": lambda q, **how: _debiased(q, **{**how, "beta": 0.0}),
    "hard": _debiased,
    "hardened": _hardened,
    "eliminated": _cancelled,
    "attracted": functools.partial(_cancelled, attract=True),
}
