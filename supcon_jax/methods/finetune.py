"""Labels on a pretrained encoder: a linear classifier on fixed features, or all of the network fine-tuned."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from supcon_jax.core import Aux, Player, Task
from supcon_jax.methods import towers
from supcon_jax.methods.probe import logits
from supcon_jax.methods.towers import ENCODER
from supcon_jax.ops.arrays import masked_mean
from supcon_jax.views import recipes

HEAD = "classes"


def finetune(nets, tx, about, *, recipe="crop_flip", change=(), size=224, norm="", freeze=False, smoothing=0.0) -> Task:
    """Cross entropy of a linear classifier on an encoder's features.

        L = mean_i  -log softmax(W f(x_i) + b)_{y_i},   over pictures that have a label

    Second stage of supervised contrast (Khosla et al. 2020, arXiv 2004.11362, section 3), linear evaluation with augmented
    pictures, and fine-tuning on few labels (Chen et al. 2020, arXiv 2002.05709, appendix B.5, from the features).

    nets: "image", the encoder, with BatchNorm by its averages where it is fixed. frozen["encoder"]: its weights.
    recipe, change, size, norm: of the one view that is trained on, see views.recipes.
    freeze: the encoder stays as it is; else it begins as it is and learns with the classifier, which begins at zero.
    smoothing: share of each label spread over all classes.
    Returns a Task with the player "model" and the heads "features" and "classes".
    Raises ValueError: pictures of several labels.
    """

    def init(key, batch):
        params, stats = towers.begin(nets, key, view(batch, key), (ENCODER,))
        h = jax.eval_shape(lambda: encoded(params, stats, view(batch, key))[0])
        head = {"kernel": jnp.zeros((h.shape[1], about.classes)), "bias": jnp.zeros(about.classes)}
        own = {HEAD: head} if freeze else {ENCODER: params[ENCODER], HEAD: head}
        return {"params": {"model": own}, "stats": {"model": {} if freeze else stats}}

    def view(batch, key):
        return towers.views(batch, key, recipe=recipe, size=size, norm=norm, change=change)[0][:, 0]

    def encoded(params, stats, x, train=False):
        out, stats = towers.run(nets, params, stats, x, (ENCODER,), train=train)
        return towers.joined(out[ENCODER]), stats

    def weights(state, frozen):
        if freeze:
            return frozen["encoder"]["params"], frozen["encoder"].get("stats", {})  # files keep no empty ones
        return state.params["model"], state.stats["model"]

    def loss(params, state, frozen, batch, key):
        x, own = view(batch, key), params["model"]
        encoder, stats = weights(state.replace(params=params), frozen)
        h, stats = encoded(encoder, stats, x, train=not freeze)
        label = batch["label"][:, 0]
        if label.ndim != 1:
            raise ValueError("a classifier learns one label of each picture, and these have several")
        known, scores = label >= 0, logits(own[HEAD], h)
        wanted = optax.smooth_labels(jax.nn.one_hot(label, about.classes), smoothing)
        each = optax.softmax_cross_entropy(scores, wanted)
        right = masked_mean((scores.argmax(-1) == label).astype(jnp.float32), known)
        return masked_mean(each, known), Aux({"right_percent": 100 * right}, {} if freeze else stats, state.memory)

    def features(state, frozen, batch, key):
        x = recipes.plain(batch["image"], size=size, norm=norm or recipes.own_norm(recipe))
        h, _ = encoded(*weights(state, frozen), x)
        return {"h": h, "z": h}

    def classify(state, frozen, batch, key):
        return logits(state.params["model"][HEAD], features(state, frozen, batch, key)["h"])

    return Task(init, (Player("model", loss, tx["model"]),), heads={"features": features, "classes": classify})
