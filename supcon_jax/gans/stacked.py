"""AttnGAN and DM-GAN with two branches, which share their parameters, and supervised contrast over labels."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from supcon_jax.core import Aux, Player, Task
from supcon_jax.gans import game
from supcon_jax.gans.branches import Branches
from supcon_jax.losses import adversarial, vitals
from supcon_jax.ops.arrays import unit_rms
from supcon_jax.views import image as views


def stacked(
    nets,
    tx,
    about,
    *,
    branches=2,
    scl=0.2,
    term="supcon",
    temperature=0.5,
    label_mode="single",
    inter=1.0,
    inner=1.0,
    damsm_weight=5.0,
    gammas=(4.0, 5.0, 10.0),
    class_mask=True,
    group=48,
    kl_weight=1.0,
    z=100,
    cond_noise=1.0,
    text_norm=False,
    share_noise=False,
    ema=0.999,
    flip=True,
    shared=True,
) -> Task:
    """A generator of growing pictures that reads the words, and one discriminator for each size: AttnGAN, DM-GAN.

        L_D = sum_b sum_k [ 1/2 (real_u + real_c) + 1/3 (fake_u + fake_c + wrong_c) ]
        L_G = sum_b [ sum_k (u_k + c_k) + damsm_weight (w0 + w1 + s0 + s1) + kl_weight KL ] + scl * L_SCL(fakes, texts)

    Xu et al. 2018, arXiv 1711.10485, and Zhu et al. 2019, arXiv 1904.01310, with the losses of their codes, which are the
    same; what sets the two apart lies in the nets. L_SCL in the spirit of arXiv 2412.03957, or what `term`
    names in its place.

    nets: "gen" and "disc" (one module per scale), both from nets.attngan or nets.dmgan, and the frozen encoders "image"
        and "text" (frozen["damsm"]).
    branches: 1 or 2. BatchNorm works within a branch; its averages take the branches' mean (spectral norm, which sees no
        pictures, moves alike in both).
    shared: both branches have the same parameters, as published; False gives each a generator and discriminators of its
        own, twice the memory, and samples with those of branch 0. See branches.Branches.
    scl: weight of the label term on the last scale's fakes; 0 leaves it out of the program. term: which one, a key of
        losses.terms.TERMS; the linear head of "label_head" is D's, see game.has_head.
    class_mask: see methods.damsm.
    z: size of the latent noise. cond_noise: scale of the noise of the conditioning augmentation, 1 as published; short
        runs need less, for the condition begins a tenth as large as that noise and has to outgrow it first.
    text_norm: the codes that G and D read (not those that are matched) get unit root mean square; short pretraining
        leaves them a tenth as large, and both then overlook the text for long. False as published.
    share_noise: one draw for both branches.
    ema: decay of the averaged generator (parameters only), which sampling and scores use.
    Returns a Task: players "disc" and "gen", heads "generate", "image", "text".
    Differs from: the original codes, where D's BatchNorm averages also count the generator's pass (never read there), and
    where the vectors of D's spectral norm keep the step that they take in it.
    """
    lanes = Branches(branches, shared, about.mesh)
    cond = nets["gen"].cond
    sizes = nets["gen"].sizes
    options = {
        "damsm_weight": damsm_weight, "gammas": gammas, "class_mask": class_mask, "group": group, "scl": scl,
        "term": term, "temperature": temperature, "label_mode": label_mode, "inter": inter, "inner": inner,
    }  # fmt: skip

    def init(key, batch):
        n, t = batch["text"].shape[0], batch["text"].shape[-1]
        d = nets["text"].width
        sentence = jnp.zeros((n, d))
        kg, *kd = jax.random.split(key, 1 + len(sizes))
        read = jnp.zeros((n, z)), sentence, jnp.zeros((n, t, d)), jnp.ones((n, t), bool), jnp.zeros((n, cond))
        gen = lanes.init(lambda k: nets["gen"].init(k, *read, train=False), kg)
        disc = {
            f"d{s}": lanes.init(lambda k, s=s, net=net: net.init(k, jnp.zeros((n, s, s, 3)), sentence, train=False), k)
            for k, s, net in zip(kd, sizes, nets["disc"])
        }
        judges = game.with_head({name: x["params"] for name, x in disc.items()}, key, d, about, options)
        return {
            "params": {"gen": gen["params"], "disc": judges},
            "stats": {"gen": gen["batch_stats"], "disc": {name: x["batch_stats"] for name, x in disc.items()}},
            "memory": {"ema": jax.tree.map(jnp.copy, gen["params"])},
        }

    def read(frozen, batch, rows):
        """The texts of some branches: words and sentence for matching, the same as G and D read them, and valid."""
        text, text_len = (batch[name][:, rows] for name in ("text", "text_len"))
        words, sentence, valid = game.encode_text(nets, frozen, text, text_len)
        heard = (unit_rms(words), unit_rms(sentence)) if text_norm else (words, sentence)
        return words, sentence, heard, valid

    def play(params, state, frozen, batch, key):
        """The fakes of every branch, as both players see them, with what they were made from."""
        words, sentence, heard, valid = read(frozen, batch, slice(0, branches))
        latent, eps = game.noise(jax.random.fold_in(key, 1), words.shape[0], branches, z, cond, share_noise)
        eps = cond_noise * eps

        def branch(params, stats, *read):
            return nets["gen"].apply({"params": params, "batch_stats": stats}, *read, train=True, mutable=["batch_stats"])

        run = lanes.each(branch, (params["gen"], state.stats["gen"]), (1, 0))
        (images, mu, logvar, _), stats = run(latent, heard[1], heard[0], valid, eps)
        return images, mu, logvar, lanes.settled(stats["batch_stats"]), words, sentence, heard[1]

    def truth(batch, key):
        """The real pictures of every branch [n, v, h, w, 3], the same ones for both players."""
        real = views.signed(batch["image"][:, :branches])
        return views.flip(real, jax.random.fold_in(key, 2)) if flip else real

    def disc(params, state, frozen, batch, key):
        images, *_, sentence = play(params, state, frozen, batch, key)
        real = truth(batch, key)
        run = lanes.each(functools.partial(judge_pair, nets), (game.judges(params["disc"]), state.stats["disc"]), 0)
        values, stats, metrics = run(real, jax.lax.stop_gradient(images), sentence)
        total, metrics = values.sum(), {name: x.sum() for name, x in metrics.items()}
        blind = values.mean(0) / adversarial.BLIND
        metrics |= {f"d{s}/blindness": x for s, x in zip(sizes, blind)} | vitals.looks(images[-1], real)
        if game.has_head(options):
            code = game.branch_codes(nets, frozen, real)[1]
            value, parts = game.head_entropy(params["disc"], code, batch, about, options)
            total, metrics = total + value, metrics | parts
        return total, Aux(metrics, lanes.settled(stats), state.memory)

    def gen(params, state, frozen, batch, key):
        images, mu, logvar, stats, words, sentence, heard = play(params, state, frozen, batch, key)
        run = lanes.each(functools.partial(fool_all, nets), (game.judges(params["disc"]), state.stats["disc"]), 0)
        values, metrics = run(images, heard)
        metrics = {name: x.sum() for name, x in metrics.items()}
        kl = sum(adversarial.kl(mu[:, b], logvar[:, b]) for b in range(branches))
        match, parts = game.matching_terms(
            nets, frozen, images[-1], words, sentence, batch, about, options,
            disc=params["disc"], real=lambda: truth(batch, key),
        )  # fmt: skip
        total = values.sum() + kl_weight * kl + match
        return total, Aux(metrics | {"kl": kl, **parts}, stats, state.memory)

    def generate(state, frozen, batch, key):
        _, _, (words, sentence), valid = read(frozen, batch, None)
        latent, eps = game.noise(key, words.shape[0], 1, z, cond, False)
        eps = cond_noise * eps
        images, *_ = nets["gen"].apply(
            lanes.first(game.generator_variables(state)), latent[:, 0], sentence[:, 0], words[:, 0], valid[:, 0],
            eps[:, 0], train=False,
        )  # fmt: skip
        return images[-1]

    players = (Player("disc", disc, tx["disc"], parts=tuple(f"d{s}" for s in sizes)), Player("gen", gen, tx["gen"]))
    heads = {"generate": generate, **game.code_heads(nets)}
    return Task(init, players, after=lambda state: game.averaged(state, ema), heads=heads)


def judge_pair(nets, params, stats, real, fakes, sentence):
    """The discriminators' loss on one branch: real [n, h, w, 3], fakes one per scale, sentence [n, d].

    Returns (f32[scales], statistics after it, metrics by name).
    """
    values, new, metrics = [], {}, {}
    for net, fake, truth in zip(nets["disc"], fakes, views.pyramid(real, [x.shape[1] for x in fakes])):
        name = f"d{fake.shape[1]}"
        own = {"params": params[name], "batch_stats": stats[name]}

        def run(method, *args, net=net, own=own):
            out, changed = net.apply(own, *args, method=method, mutable=["batch_stats"])
            own |= changed
            return out

        h_real, h_fake = run("code", truth, True), run("code", fake, True)
        value, parts = adversarial.discriminator(
            real_cond=run("cond", h_real, sentence, True),
            fake_cond=run("cond", h_fake, sentence, True),
            wrong_cond=run("cond", h_real[:-1], sentence[1:], True),
            real=net.apply(own, h_real, method="uncond"),
            fake=net.apply(own, h_fake, method="uncond"),
        )
        new[name] = own["batch_stats"]
        values.append(value)
        metrics |= {f"{name}/{key}": x for key, x in parts.items()}
    return jnp.stack(values), new, metrics


def fool_all(nets, params, stats, fakes, sentence):
    """The generator's adversarial loss on one branch against the discriminators of all scales."""
    total, metrics = 0.0, {}
    for net, fake in zip(nets["disc"], fakes):
        name = f"d{fake.shape[1]}"
        own = {"params": params[name], "batch_stats": stats[name]}
        (_, cond, uncond), _ = net.apply(own, fake, sentence, True, mutable=["batch_stats"])
        value, parts = adversarial.generator(fake_cond=cond, fake=uncond)
        total = total + value
        metrics |= {f"{name}/{key}": x for key, x in parts.items()}
    return total, metrics
