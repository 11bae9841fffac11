"""DF-GAN's and SSA-GAN's training step once more, from the formulas: one branch, no label term.

Tao et al. 2022, arXiv 2008.05865, and Liao et al. 2022, arXiv 2104.00567, in the order of the published training loops.
Nothing here comes from the library but the networks' forward passes: hinge, penalty and Adam are written out.
"""

import jax
import jax.numpy as jnp

from gans.plain_stacked import adam, damsm


def below(margin):
    """mean max(0, margin)."""
    return jnp.where(margin > 0, margin, 0).mean()


def steepness(judge, images, sentence):
    """2 mean_i |(d f_i / d x_i, d f_i / d s_i)|^6, a row at a time."""

    def one(x, s):
        gx, gs = jax.grad(lambda x, s: judge(x[None], s[None])[0], (0, 1))(x, s)
        return (jnp.sum(gx**2) + jnp.sum(gs**2)) ** 3

    return 2 * sum(one(x, s) for x, s in zip(images, sentence, strict=True)) / len(images)


def step(kind, nets, state, fixed, z, *, rate, weight, gammas):
    """One step. kind: "dfgan" or "ssagan".

    state: {"gen", "disc": parameters; "stats": G's BatchNorm averages; "moments", "count": of Adam, by player}.
    fixed: real pictures, words, sentence, text_len (a list), label, and image (pictures -> regions, code). z: noise.
    Returns (state, losses by player).
    """
    real, sentence, net = fixed["real"], fixed["sentence"], nets["disc"][0]
    state = dict(state, moments=dict(state["moments"]), count=dict(state["count"]))

    def judge(params, images, sentence):
        return net.apply({"params": params}, images, sentence)[1]

    def paint(params):
        variables = {"params": params, "batch_stats": state["stats"]}
        (images, *_), new = nets["gen"].apply(variables, z, sentence, train=True, mutable=["batch_stats"])
        return images[0], new.get("batch_stats", {})

    def descend(player, loss):
        (value, more), grads = jax.value_and_grad(loss, has_aux=True)(state[player])
        state["count"][player] += 1
        state[player], state["moments"][player] = adam(
            state[player], grads, state["moments"][player], state["count"][player], rate, 0.0, 0.9
        )
        return value, more

    fakes = paint(state["gen"])[0]

    def hinge(params):
        h = net.apply({"params": params}, real, sentence)[0]
        if kind == "dfgan":
            others = jnp.concatenate([h[1:], h[:1]]), sentence
        else:
            others = h[:-1], sentence[1:]
        wrong = net.apply({"params": params}, *others, method="cond")
        value = below(1 - judge(params, real, sentence))
        return value + below(1 + judge(params, fakes, sentence)) / 2 + below(1 + wrong) / 2

    def flat(params):
        return steepness(lambda x, s: judge(params, x, s), real, sentence)

    losses = {}
    if kind == "dfgan":
        losses["disc"], _ = descend("disc", lambda params: (hinge(params) + flat(params), 0))
    else:
        losses["disc"], _ = descend("disc", lambda params: (hinge(params), 0))
        losses["penalty"], _ = descend("disc", lambda params: (flat(params), 0))

    def fool(params):
        images, stats = paint(params)
        regions, code = fixed["image"](images)
        matched = damsm(regions, code, fixed["words"], sentence, fixed["text_len"], fixed["label"], gammas)
        return weight * sum(matched) - judge(state["disc"], images, sentence).mean(), stats

    losses["gen"], state["stats"] = descend("gen", fool)
    return state, losses
