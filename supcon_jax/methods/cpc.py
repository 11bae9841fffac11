"""Contrastive predictive coding: a context predicts the codes to come, of patches further down a picture or of later sound."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from supcon_jax.core import Aux, Player, Task
from supcon_jax.losses import predictive
from supcon_jax.methods import towers
from supcon_jax.methods.towers import ENCODER

CONTEXT = "context"
NETS = (ENCODER, CONTEXT)


def cpc(
    nets,
    tx,
    about,
    *,
    recipe="cpc",
    change=(),
    size=256,
    norm="",
    ahead=5,
    skip=0,
    negatives="both",
    temperature=1.0,
) -> Task:
    """CPC on pictures: from the patches above, those up to `ahead` rows further down are told from all others.

        L = sum_{k=s+1..K} mean -log( exp(z_{r+k}^T W_k c_r) / sum_{z'} exp(z'^T W_k c_r) )

    van den Oord et al. 2018, arXiv 1807.03748, eq. 4 and section 3.2; with layer norms in the place of BatchNorm, which tells
    patches of a picture from others, as Henaff et al. 2020, arXiv 1905.09272.

    nets: "image": pictures -> a grid of patches f32[n, rows, columns, f]; "context": grid -> grid, each place knowing what lies
        above it alone.
    recipe, change, size, norm: of the one view of each picture, see views.recipes.
    ahead: K, fewer than rows. skip: s, rows next to the context that are not predicted; with patches that overlap their
        neighbours, 1 keeps the strip they share from being all that is learnt.
    negatives: "batch", "sequence" or "both", see losses.predictive. temperature: divides the logits, of which those of drawn
        networks are of the order of sqrt(f): 10 brings them near one, and short runs learn nothing without it.
    Returns a Task with the player "model" and the head "features", whose h is the mean over the patches.
    Raises ValueError: no row left to predict.
    """
    if not 0 <= skip < ahead:
        raise ValueError(f"skip={skip} leaves none of ahead={ahead} rows to predict: use a smaller one")

    def view(batch, key):
        x = towers.views(batch, key, recipe=recipe, size=size, norm=norm, change=change)[0]
        if batch["image"].shape[1] == 1:
            return x[:, 0]
        above = (jnp.arange(size) < size // 2)[None, :, None, None]
        return jnp.where(above, x[:, 0], x[:, 1])  # the upper half of one, the lower of the other

    def init(key, batch):
        params, stats = towers.begin(nets, key, view(batch, key), NETS)
        out = jax.eval_shape(lambda: towers.run(nets, params, stats, view(batch, key), NETS)[0])
        params["ahead"] = weights(jax.random.fold_in(key, 11), ahead - skip, out[ENCODER].shape[-1], out[CONTEXT].shape[-1])
        return {"params": {"model": params}, "stats": {"model": stats}}

    def loss(params, state, frozen, batch, key):
        own = params["model"]
        out, stats = towers.run(nets, own, state.stats["model"], view(batch, key), NETS)
        z, c = out[ENCODER], out[CONTEXT]
        value = predictive.cpc(z, c, own["ahead"], skip=skip, negatives=negatives, scale=1 / temperature, sums=about.sums)
        signs = towers.health(z.mean((1, 2))[:, None], c.mean((1, 2))[:, None])
        return value, Aux(signs, stats, state.memory)

    head = towers.features(nets, size=size, recipe=recipe, norm=norm, names=NETS)
    return Task(init, (Player("model", loss, tx["model"], parts=(*NETS, "ahead")),), heads={"features": head})


def cpc_audio(nets, tx, about, *, samples=20480, ahead=12, negatives="both", temperature=1.0) -> Task:
    """CPC on raw sound: from the codes so far, those of up to `ahead` steps later are told from all others.

    The loss of `cpc` along time; van den Oord et al. 2018, arXiv 1807.03748, section 3.1.

    nets: "audio": waves f32[n, samples] -> (codes f32[n, t, f], contexts f32[n, t, c]). batch: "audio" f32[n, longer].
    samples: length of the window that is cut at random out of each wave. The others as for cpc.
    Returns a Task with the player "model" and the head "features": h the mean of the contexts, z of the codes.
    Raises ValueError: waves shorter than the window.
    """

    def window(batch, key):
        wave = batch["audio"]
        n, length = wave.shape
        if length < samples:
            raise ValueError(f"samples={samples}, but the waves have {length}: use fewer")
        start = jax.random.randint(key, (n,), 0, length - samples + 1)
        return jax.vmap(lambda x, at: jax.lax.dynamic_slice(x, (at,), (samples,)))(wave, start)

    def init(key, batch):
        variables = nets["audio"].init(key, window(batch, key), train=False)
        z, c = jax.eval_shape(lambda: nets["audio"].apply(variables, window(batch, key), train=False))
        own = {"audio": variables["params"], "ahead": weights(jax.random.fold_in(key, 11), ahead, z.shape[-1], c.shape[-1])}
        return {"params": {"model": own}, "stats": {"model": {"audio": variables.get("batch_stats", {})}}}

    def loss(params, state, frozen, batch, key):
        own = params["model"]
        variables = {"params": own["audio"], "batch_stats": state.stats["model"]["audio"]}
        (z, c), new = nets["audio"].apply(variables, window(batch, key), train=True, mutable=["batch_stats"])
        value = predictive.cpc(z, c, own["ahead"], negatives=negatives, scale=1 / temperature, sums=about.sums)
        signs = towers.health(c.mean(1)[:, None], z.mean(1)[:, None])
        return value, Aux(signs, {"audio": new.get("batch_stats", {})}, state.memory)

    def features(state, frozen, batch, key):
        variables = {"params": state.params["model"]["audio"], "batch_stats": state.stats["model"]["audio"]}
        z, c = nets["audio"].apply(variables, batch["audio"], train=False)
        return {"h": c.mean(1), "z": z.mean(1)}

    return Task(init, (Player("model", loss, tx["model"], parts=("audio", "ahead")),), heads={"features": features})


def weights(key, steps: int, d: int, e: int):
    """W_k of each step, f32[steps, d, e], drawn so that predictions are as long as contexts."""
    return jax.random.normal(key, (steps, d, e)) * e**-0.5
