"""The stacked GANs' training step once more, from the formulas: one branch, no label term, one net after the other.

Xu et al. 2018, arXiv 1711.10485, in the order of the published training loop: the fakes are made once; every
discriminator in turn takes its own step on them; then the generator takes its step against the updated discriminators;
then the average of the generator follows. Nothing here comes from the library but the networks' forward passes: the
cross entropies, the matching loss, Adam and the moving average are written out.
"""

import jax
import jax.numpy as jnp


def cross_entropy(logits, real):
    """-mean log p (real) or -mean log (1 - p), p = sigmoid(logits), by log sigmoid(x) = min(x, 0) - log(1 + e^-|x|)."""
    signed = logits if real else -logits
    return -(jnp.minimum(signed, 0) - jnp.log1p(jnp.exp(-jnp.abs(signed)))).mean()


def pair_entropy(score, label):
    """Cross entropies of the diagonal of score [n, n] along its rows and columns; others of the same class are left out."""
    n = len(score)
    terms = [0.0, 0.0]
    for side, s in enumerate((score, score.T)):
        for i in range(n):
            keep = (jnp.arange(n) == i) | (label != label[i])
            terms[side] += jnp.log(jnp.sum(jnp.where(keep, jnp.exp(s[i] - s[i].max()), 0))) + s[i].max() - s[i, i]
    return terms[0] / n, terms[1] / n


def length(x):
    return jnp.sqrt((x**2).sum(-1))


def word_scores(regions, words, text_len, gammas):
    """R_ij = log sum_w exp(gamma_2 cos(e_jw, c_ijw)) of image i and caption j, caption by caption over its own words.

    regions [n, r, d], words [n, t, d]; text_len: list of n integers. The context c attends to the regions with
    softmax_r(gamma_1 softmax_w(<e_w, h_r>)).
    """
    columns = []
    for caption, count in zip(words, text_len, strict=True):
        e = caption[:count]
        share = jnp.einsum("wd,ird->iwr", e, regions)
        share = jnp.exp(share - share.max(1, keepdims=True))
        share = share / share.sum(1, keepdims=True)
        alpha = jnp.exp(gammas[0] * share)
        context = jnp.einsum("iwr,ird->iwd", alpha / alpha.sum(2, keepdims=True), regions)
        cosine = (e[None] * context).sum(-1) / (length(e)[None] * length(context))
        columns.append(jnp.log(jnp.exp(gammas[1] * cosine).sum(1)))
    return jnp.stack(columns, 1)


def damsm(regions, code, words, sentence, text_len, label, gammas):
    """(w0, w1, s0, s1)."""
    cosine = jnp.einsum("id,jd->ij", code, sentence) / (length(code)[:, None] * length(sentence)[None])
    matched = pair_entropy(gammas[2] * word_scores(regions, words, text_len, gammas), label)
    return *matched, *pair_entropy(gammas[2] * cosine, label)


def adam(params, grads, moments, count, rate, b1, b2=0.999, eps=1e-8):
    """Kingma and Ba 2015, arXiv 1412.6980, algorithm 1. count: from 1. Returns (params, moments)."""
    first = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, moments[0], grads)
    second = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, moments[1], grads)

    def moved(p, m, v):
        return p - rate * (m / (1 - b1**count)) / (jnp.sqrt(v / (1 - b2**count)) + eps)

    return jax.tree.map(moved, params, first, second), (first, second)


def zeros(params):
    """Adam's moments before the first step."""
    return tuple(jax.tree.map(jnp.zeros_like, params) for _ in range(2))


def step(nets, state, count, real, fixed, noise, *, rate, b1=0.5, weight=5.0, gammas=(4.0, 5.0, 10.0), decay=0.999):
    """One step.

    state: {"gen", "ema", "disc": {name: ...}, each parameters; "gen_stats", "disc_stats": their statistics;
    "moments": {"gen", name: ...}}. count: number of the step, from 1. real: pictures in [-1, 1] by discriminator.
    fixed: words, sentence, valid, text_len (a list), label, and image (pictures -> regions, code). noise: (z, eps).
    Returns (state, {"disc": sum of the discriminators' losses, "gen": the generator's loss}).
    """
    sentence, label = fixed["sentence"], fixed["label"]
    modules = {f"d{net.size}": net for net in nets["disc"]}  # smallest first

    def paint(params):
        variables = {"params": params, "batch_stats": state["gen_stats"]}
        z, eps = noise
        (images, mu, logvar, _), new = nets["gen"].apply(
            variables, z, sentence, fixed["words"], fixed["valid"], eps, train=True, mutable=["batch_stats"]
        )
        return dict(zip(modules, images, strict=True)), mu, logvar, new["batch_stats"]

    fakes = paint(state["gen"])[0]
    state = dict(state, disc=dict(state["disc"]), disc_stats=dict(state["disc_stats"]), moments=dict(state["moments"]))
    losses = {"disc": 0.0}

    for name, net in modules.items():

        def loss(params, net=net, name=name):
            stats = state["disc_stats"][name]

            def run(method, *args):
                nonlocal stats
                out, new = net.apply(
                    {"params": params, "batch_stats": stats}, *args, train=True, method=method, mutable=["batch_stats"]
                )
                stats = new["batch_stats"]
                return out

            real_code, fake_code = run("code", real[name]), run("code", fakes[name])
            real_cond = cross_entropy(run("cond", real_code, sentence), True)
            fake_cond = cross_entropy(run("cond", fake_code, sentence), False)
            wrong = cross_entropy(run("cond", real_code[:-1], sentence[1:]), False)
            alone = {"params": params, "batch_stats": stats}
            real_alone = cross_entropy(net.apply(alone, real_code, method="uncond"), True)
            fake_alone = cross_entropy(net.apply(alone, fake_code, method="uncond"), False)
            return (real_alone + real_cond) / 2 + (fake_alone + fake_cond + wrong) / 3, stats

        (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(state["disc"][name])
        new = adam(state["disc"][name], grads, state["moments"][name], count, rate, b1)
        state["disc"][name], state["moments"][name] = new
        state["disc_stats"][name] = stats
        losses["disc"] += value

    def loss(params):
        images, mu, logvar, stats = paint(params)
        total = 0.0
        for name, net in modules.items():
            variables = {"params": state["disc"][name], "batch_stats": state["disc_stats"][name]}
            (_, cond, alone), _ = net.apply(variables, images[name], sentence, train=True, mutable=["batch_stats"])
            total += cross_entropy(cond, True) + cross_entropy(alone, True)
        regions, code = fixed["image"](images[name])  # the largest
        matched = damsm(regions, code, fixed["words"], sentence, fixed["text_len"], label, gammas)
        divergence = 0.5 * (mu**2 + jnp.exp(logvar) - 1 - logvar).mean()
        return total + weight * sum(matched) + divergence, stats

    (losses["gen"], state["gen_stats"]), grads = jax.value_and_grad(loss, has_aux=True)(state["gen"])
    state["gen"], state["moments"]["gen"] = adam(state["gen"], grads, state["moments"]["gen"], count, rate, b1)
    state["ema"] = jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, state["ema"], state["gen"])
    return state, losses
