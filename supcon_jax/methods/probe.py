"""An online linear probe: one more player that learns labels from an encoder's features and sends nothing back."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import optax

from supcon_jax.core import Aux, Player, Task
from supcon_jax.ops.arrays import masked_mean

NAME = "probe"


def probed(task: Task, tx, classes: int, *, on: str = "h") -> Task:
    """The task with a linear classifier that is trained beside it, on features that carry no gradient.

        L = mean_i  -log softmax(W stop(h_i) + b)_{y_i};   several labels: mean over classes of the sigmoid's cross entropy

    It moves first in each step and sees the encoder as the step finds it, in evaluation's form, on whole pictures: those of
    the batch, or of another labelled set where the batch carries "probe_image" and "probe_label". Pictures without a label do
    not count. Its numbers say how training goes; those to be reported are an offline probe's.

    task: with the head "features". tx: the probe's optimiser. classes: of its labels. on: "h", the encoder, or "z".
    Returns the task with the player "probe" and the head "classes": logits [n, classes] of u8[n, h, w, 3].
    Raises ValueError: the task has no features.
    """
    if "features" not in task.heads:
        raise ValueError("a probe reads the head features, which this task does not have")
    seen = task.heads["features"]

    def images(batch):
        return batch.get("probe_image", batch["image"])[:, 0]

    def init(key, batch):
        made = task.init(key, batch)
        like = jax.eval_shape(
            lambda made: seen(_state(made), {}, {"image": images(batch)}, key)[on], {k: made.get(k, {}) for k in KEPT}
        )
        empty = {"kernel": jnp.zeros((like.shape[1], classes)), "bias": jnp.zeros(classes)}
        return {**made, "params": {**made["params"], NAME: empty}}

    def loss(params, state, frozen, batch, key):
        h = jax.lax.stop_gradient(seen(state, frozen, {"image": images(batch)}, key)[on])
        label = batch.get("probe_label", batch["label"])[:, 0]
        scores = logits(params[NAME], h)
        if label.ndim == 2:
            each = optax.sigmoid_binary_cross_entropy(scores, label).mean(1)
            return masked_mean(each, label.any(1)), Aux({}, state.stats[NAME], state.memory)
        known = label >= 0
        each = optax.softmax_cross_entropy_with_integer_labels(scores, jnp.maximum(label, 0))
        right = masked_mean((scores.argmax(-1) == label).astype(jnp.float32), known)
        return masked_mean(each, known), Aux({"right_percent": 100 * right}, state.stats[NAME], state.memory)

    def classify(state, frozen, batch, key):
        return logits(state.params[NAME], seen(state, frozen, batch, key)[on])

    players = (Player(NAME, loss, tx), *task.players)
    return dataclasses.replace(task, init=init, players=players, heads={**task.heads, "classes": classify})


KEPT = ("params", "stats", "memory")


def logits(own, h):
    """Scores [n, classes] of features [n, f], exact whatever the hardware's default."""
    return jnp.matmul(h, own["kernel"], precision="highest") + own["bias"][None]


@dataclasses.dataclass
class _Seen:
    params: dict
    stats: dict
    memory: dict


def _state(made):
    """What a head reads of a state that is just being drawn."""
    return _Seen(*(made[name] for name in KEPT))
