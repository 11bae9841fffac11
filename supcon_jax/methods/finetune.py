"""Labels on a pretrained encoder: a linear classifier on fixed features, or all of the network fine-tuned."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from supcon_jax.core import Aux, Player, Task
from supcon_jax.methods import towers
from supcon_jax.methods.probe import logits
from supcon_jax.methods.towers import ENCODER, PROJECTION
from supcon_jax.nets.heads import Mlp
from supcon_jax.ops.arrays import masked_mean
from supcon_jax.views import recipes

HEAD = "classes"


def finetune(
    nets, tx, about, *, recipe="crop_flip", change=(), size=224, norm="", freeze=False, layers=0, smoothing=0.0
) -> Task:
    """Cross entropy of a linear classifier on an encoder's features, or on the first layers of its projection.

        L = mean_i  -log softmax(W f(x_i) + b)_{y_i},   over pictures that have a label

    Second stage of supervised contrast (Khosla et al. 2020, arXiv 2004.11362, section 3), linear evaluation with augmented
    pictures, and fine-tuning on few labels (Chen et al. 2020, arXiv 2002.05709, appendix B.5, from the features; arXiv
    2006.10029, SimCLR v2, section 2, from the first layer of the projection).

    nets: "image", the encoder, with BatchNorm by its averages where it is fixed, and with `layers` its "project".
        frozen["encoder"]: their weights.
    recipe, change, size, norm: of the one view that is trained on, see views.recipes.
    freeze: the encoder stays as it is; else it begins as it is and learns with the classifier, which begins at zero.
    layers: of the projection, that are kept under the classifier and are as fixed as the encoder; 1 in SimCLR v2.
    smoothing: share of each label spread over all classes.
    Returns a Task with the player "model" and the heads "features" (z: what the classifier reads) and "classes".
    Raises ValueError: more layers than the projection has; pictures of several labels.
    """
    names = (ENCODER, PROJECTION) if layers else (ENCODER,)
    nets = {**nets, PROJECTION: kept(nets.get(PROJECTION), layers)} if layers else nets

    def init(key, batch):
        params, stats = towers.begin(nets, key, view(batch, key), names)
        z = jax.eval_shape(lambda: encoded(params, stats, view(batch, key))[1])
        own = {HEAD: blank(z, about.classes)} if freeze else {**params, HEAD: blank(z, about.classes)}
        return {"params": {"model": own}, "stats": {"model": {} if freeze else stats}}

    def view(batch, key):
        return towers.views(batch, key, recipe=recipe, size=size, norm=norm, change=change)[0][:, 0]

    def encoded(params, stats, x, train=False):
        out, stats = towers.run(nets, params, stats, x, names, train=train)
        return towers.joined(out[ENCODER]), towers.joined(out[names[-1]]), stats

    def weights(state, frozen):
        if freeze:
            return frozen["encoder"]["params"], frozen["encoder"].get("stats", {})  # files keep no empty ones
        return state.params["model"], state.stats["model"]

    def loss(params, state, frozen, batch, key):
        x, own = view(batch, key), params["model"]
        encoder, stats = weights(state.replace(params=params), frozen)
        _, z, stats = encoded(encoder, stats, x, train=not freeze)
        value, right = entropy(logits(own[HEAD], z), batch["label"][:, 0], smoothing)
        return value, Aux({"right_percent": right}, {} if freeze else stats, state.memory)

    def features(state, frozen, batch, key):
        x = recipes.plain(batch["image"], size=size, norm=norm or recipes.own_norm(recipe))
        h, z, _ = encoded(*weights(state, frozen), x)
        return {"h": h, "z": z}

    def classify(state, frozen, batch, key):
        return logits(state.params["model"][HEAD], features(state, frozen, batch, key)["z"])

    return Task(init, (Player("model", loss, tx["model"]),), heads={"features": features, "classes": classify})


def kept(head, layers: int) -> Mlp:
    """The first layers of a projection head alone. Raises ValueError: it has not as many, or is no stack of layers."""
    have = len(head.widths[: head.kept]) if isinstance(head, Mlp) else 0
    if layers > have:
        raise ValueError(f"layers={layers}, and the encoder's projection has {have} that can be kept: use at most as many")
    return head.clone(kept=layers)


def blank(z, classes: int) -> dict:
    """A linear classifier that has learned nothing. z: features [n, f] in shape."""
    return {"kernel": jnp.zeros((z.shape[1], classes)), "bias": jnp.zeros(classes)}


def entropy(scores, label, smoothing: float = 0.0):
    """(mean cross entropy over pictures that have a label, percent of them that are right). scores: [n, c]; label: i32[n].

    Raises ValueError: several labels of each picture.
    """
    if label.ndim != 1:
        raise ValueError("a classifier learns one label of each picture, and these have several")
    known = label >= 0
    wanted = optax.smooth_labels(jax.nn.one_hot(label, scores.shape[1]), smoothing)
    right = masked_mean((scores.argmax(-1) == label).astype(jnp.float32), known)
    return masked_mean(optax.softmax_cross_entropy(scores, wanted), known), 100 * right
