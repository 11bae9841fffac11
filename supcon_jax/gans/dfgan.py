"""DF-GAN with two branches, which share their parameters, and supervised contrast over labels."""

from __future__ import annotations

import jax.numpy as jnp

from supcon_jax.core import Aux, Player, Task
from supcon_jax.gans.onestage import OneStage


def dfgan(
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
    damsm_weight=0.0,
    gammas=(4.0, 5.0, 10.0),
    class_mask=True,
    group=48,
    magp_weight=2.0,
    magp_power=6.0,
    z=100,
    text_norm=False,
    share_noise=False,
    truncate=0.88,
    ema=0.0,
    flip=True,
    shared=True,
) -> Task:
    """DF-GAN: one generator and one discriminator of one size, hinge losses, a matching-aware gradient penalty.

        L_D = sum_b [ H(real | s, 1) + 1/2 (H(fake | s, -1) + H(real | wrong s, -1)) + magp_weight E |grad|^magp_power ]
        L_G = sum_b [ -D(fake | s) + damsm_weight (w0 + w1 + s0 + s1) ] + scl * L_SCL(fakes, texts)

    Tao et al. 2022, arXiv 2008.05865, with the constants of their code; L_SCL in the spirit of arXiv
    2412.03957, or what `term` names in its place. Wrong pairs are each sentence with the real picture of the next row.

    nets: "gen", "disc" (a tuple of one module), and the frozen encoders "image" and "text" (frozen["damsm"]).
    branches: 1 or 2.
    shared: both branches have the same parameters, as published; False gives each a generator and a discriminator of its
        own, twice the memory, and samples with the generator of branch 0. See branches.Branches.
    scl: weight of the label term on the fakes; 0 leaves it out of the program. term: which one, a key of
        losses.terms.TERMS; the linear head of "label_head" is D's, see game.has_head. damsm_weight: 0 as published.
        class_mask: see methods.damsm.
    magp_weight, magp_power: of the penalty on real pictures and sentences (losses.adversarial.matching_penalty); a
        weight of 0 leaves it out.
    z: size of the latent noise. truncate: when sampling, that many times a normal draw cut at two deviations, as the
        published code samples; 0 for a plain one, as in training.
    text_norm: the sentence that G and D read (not the one that is matched) gets unit root mean square. False as published.
    share_noise: one draw for both branches.
    ema: decay of the averaged generator, which sampling and scores use; 0 as published: it is the live one.
    Returns a Task: players "disc" and "gen", heads "generate", "image", "text".
    """
    options = {
        "damsm_weight": damsm_weight, "gammas": gammas, "class_mask": class_mask, "group": group, "scl": scl,
        "term": term, "temperature": temperature, "label_mode": label_mode, "inter": inter, "inner": inner,
    }  # fmt: skip
    game = OneStage(nets, about, next_picture, branches, z, text_norm, share_noise, flip, shared, options)

    def disc(params, state, frozen, batch, key):
        fakes, _, _, _, heard = game.play(params, state, frozen, batch, key)
        if magp_weight:
            penalty, logits, h, _ = game.flat(params, state, frozen, batch, key, magp_weight, magp_power)
            more = {"penalty": penalty}
        else:
            (logits, h), penalty, more = game.judge(params, game.real(batch, key), heard), 0.0, {}
        total, parts = game.tell(params, frozen, batch, key, logits=logits, h=h, fakes=fakes, heard=heard)
        return total + penalty, Aux(parts | more, state.stats["disc"], state.memory)

    players = (Player("disc", disc, tx["disc"]), Player("gen", game.gen, tx["gen"]))
    return game.task(players, ema, truncate)


def next_picture(features, sentence):
    """Each sentence with the features of the next row, the last with those of the first."""
    return jnp.roll(features, -1, axis=0), sentence
