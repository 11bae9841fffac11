"""A supervised classifier: the scorer of label and attribute accuracy, not a contrastive method."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from supcon_jax.core import Aux, Player, Task
from supcon_jax.views import image as views


def classifier(nets, tx, about, *, groups=(), flip=False, noise_weight=0.0) -> Task:
    """Cross entropy over the class, or over each group of a multi-hot label in which exactly one is set.

        L = sum_g  mean_i  -log softmax(logits_g)_{y_ig}

    nets: "image" -> (features [n, f], {group: logits [n, c_g]}).
    groups: ((name, classes), ...) that cut a multi-hot label [n, c] in order; () reads class ids, as group "label".
    noise_weight: standard deviation of noise on the pictures, so that the scorer does not live on single pixels.
    Returns a Task with the player "model" and the head "attributes" -> {group: logits}.
    """

    def targets(batch):
        label = batch["label"][:, 0]
        if not groups:
            return {"label": label}
        out, start = {}, 0
        for name, count in groups:
            out[name] = label[:, start : start + count].argmax(-1)
            start += count
        return out

    def init(key, batch):
        variables = nets["image"].init(key, views.signed(batch["image"][:, 0]), train=False)
        return {"params": {"model": variables["params"]}, "stats": {"model": variables.get("batch_stats", {})}}

    def loss(params, state, frozen, batch, key):
        pictures = views.signed(batch["image"][:, :1])
        pictures = views.flip(pictures, jax.random.fold_in(key, 1)) if flip else pictures
        pictures = pictures[:, 0] + noise_weight * jax.random.normal(jax.random.fold_in(key, 2), pictures[:, 0].shape)
        variables = {"params": params["model"], "batch_stats": state.stats["model"]}
        (_, logits), new = nets["image"].apply(variables, pictures, train=True, mutable=["batch_stats"])
        total, metrics = 0.0, {}
        for name, want in targets(batch).items():
            entropy = optax.softmax_cross_entropy_with_integer_labels(logits[name], want).mean()
            total = total + entropy
            metrics |= {name: entropy, f"{name}_right": (logits[name].argmax(-1) == want).mean(dtype=jnp.float32)}
        return total, Aux(metrics, new["batch_stats"], state.memory)

    def attributes(state, frozen, batch, key):
        variables = {"params": state.params["model"], "batch_stats": state.stats["model"]}
        return nets["image"].apply(variables, views.signed(batch["image"]), train=False)[1]

    return Task(init, (Player("model", loss, tx["model"]),), heads={"attributes": attributes})
