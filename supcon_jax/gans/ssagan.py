"""SSA-GAN with two branches, which share their parameters, and supervised contrast over labels."""

from __future__ import annotations

from supcon_jax.core import Aux, Player, Task
from supcon_jax.gans.onestage import OneStage


def ssagan(
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
    damsm_weight=0.05,
    gammas=(5.0, 5.0, 10.0),
    class_mask=True,
    group=48,
    magp_weight=2.0,
    magp_power=6.0,
    z=100,
    text_norm=False,
    share_noise=False,
    ema=0.0,
    flip=True,
    shared=True,
) -> Task:
    """SSA-GAN: a generator with semantic-spatial batch norm, a discriminator that takes two steps in each training step.

        L_D = sum_b [ H(real | s, 1) + 1/2 (H(fake | s, -1) + H(real | wrong s, -1)) ]
        L_P = sum_b magp_weight E |grad|^magp_power, a step of D of its own after that on L_D
        L_G = sum_b [ -D(fake | s) + damsm_weight (w0 + w1 + s0 + s1) ] + scl * L_SCL(fakes, texts)

    Liao et al. 2022, arXiv 2104.00567, with the constants of their code; L_SCL in the spirit of arXiv 2412.03957, or
    what `term` names in its place. Wrong pairs are real pictures [:-1] with sentences [1:].

    Both steps of D share one optimiser and its moments: a schedule counts two steps of "disc" in each training step, so
    that one which ends with the stage has ended at its half.

    nets: "gen", "disc" (a tuple of one module), and the frozen encoders "image" and "text" (frozen["damsm"]).
    branches: 1 or 2. G's batch norms work within a branch; their averages take the mean.
    shared: both branches have the same parameters, as published; False gives each a generator and a discriminator of its
        own, twice the memory, and samples with the generator of branch 0. See branches.Branches.
    scl: weight of the label term on the fakes; 0 leaves it out of the program. term: which one, a key of
        losses.terms.TERMS; the linear head of "label_head" is D's, see game.has_head. class_mask: see methods.damsm.
    magp_weight, magp_power: of the penalty on real pictures and sentences (losses.adversarial.matching_penalty); a
        weight of 0 leaves its step out.
    z: size of the latent noise.
    text_norm: the sentence that G and D read (not the one that is matched) gets unit root mean square. False as published.
    share_noise: one draw for both branches.
    ema: decay of the averaged generator, which sampling and scores use; 0 as published: it is the live one.
    Returns a Task: players "disc", "penalty" (which owns "disc" too) and "gen", heads "generate", "image", "text".
    """
    options = {
        "damsm_weight": damsm_weight, "gammas": gammas, "class_mask": class_mask, "group": group, "scl": scl,
        "term": term, "temperature": temperature, "label_mode": label_mode, "inter": inter, "inner": inner,
    }  # fmt: skip
    game = OneStage(nets, about, next_sentence, branches, z, text_norm, share_noise, flip, shared, options)

    def disc(params, state, frozen, batch, key):
        fakes, _, _, _, heard = game.play(params, state, frozen, batch, key)
        logits, h = game.judge(params, game.real(batch, key), heard)
        total, parts = game.tell(params, frozen, batch, key, logits=logits, h=h, fakes=fakes, heard=heard)
        return total, Aux(parts, state.stats["disc"], state.memory)

    def penalty(params, state, frozen, batch, key):
        value, *_ = game.flat(params, state, frozen, batch, key, magp_weight, magp_power)
        return value, Aux({}, state.stats["disc"], state.memory)

    players = [Player("disc", disc, tx["disc"])]
    players += [Player("penalty", penalty, tx["disc"], owns="disc")] if magp_weight else []
    return game.task((*players, Player("gen", game.gen, tx["gen"])), ema)


def next_sentence(features, sentence):
    """Each row's features but the last with the next row's sentence."""
    return features[:-1], sentence[1:]
