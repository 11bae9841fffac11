"""GALIP with two parameter-sharing branches and supervised contrast over labels, around one frozen CLIP."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from supcon_jax.config import UserError
from supcon_jax.core import Aux, Player, Task
from supcon_jax.gans import game
from supcon_jax.gans.branches import Branches
from supcon_jax.losses import adversarial, terms, vitals
from supcon_jax.nets.clip import CLIP, ImageTransformer
from supcon_jax.nets.galip import TAPS, preprocess
from supcon_jax.ops.arrays import cosine, merge
from supcon_jax.views import image as views


@dataclasses.dataclass(frozen=True, eq=False)
class Tower:
    """The frozen CLIP: how pictures and texts are read, and what the generator sends through it.

    net: clip.CLIP with a vision transformer; tree: frozen["clip"], with "heads" where a stage 1 has trained some
    (methods.clip_heads); rule: see nets.galip.preprocess.
    Raises ValueError: CLIP with a ResNet, or of too few blocks.
    """

    net: CLIP
    tree: dict
    rule: str

    def __post_init__(self):
        image = self.net.image
        if not isinstance(image, ImageTransformer) or image.depth <= max(TAPS):
            raise ValueError(f"GALIP reads a vision transformer of more than {max(TAPS)} blocks, such as ViT-B/32")

    def image(self, method, *args):
        return self.net.image.apply({"params": self.tree["params"]["image"]}, *args, method=method)

    def see(self, images):
        """Pictures [n, h, w, 3] in [-1, 1] -> patch tokens after the blocks TAPS [n, k, p, w], code [n, d]."""
        taps, code = self.image("features", preprocess(images, self.net.image.side, self.rule), TAPS)
        wide = jnp.promote_types(code.dtype, jnp.float32)
        return jnp.stack([tokens[:, 1:] for tokens in taps], axis=1), code.astype(wide)

    def through(self, patches, prompts):
        return self.image("through", patches, prompts)

    def listen(self, text):
        """Texts [n, v, t] -> words [n, v, t, w], sentences [n, v, d], not of unit length; no gradient goes back."""
        n, v, t = text.shape
        words, code = self.net.text.apply({"params": self.tree["params"]["text"]}, text.reshape(n * v, t))
        code = code.astype(jnp.promote_types(code.dtype, jnp.float32))
        return jax.lax.stop_gradient((words.reshape(n, v, t, -1), code.reshape(n, v, -1)))

    def joint(self, code, kind):
        """Codes [n, d] of kind "image" or "text" in the space of stage 1's heads, [n, e]; as they are without heads."""
        heads = self.tree.get("heads")
        return code if heads is None else code @ heads[kind]


def galip(
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
    sim_weight=4.0,
    magp_weight=2.0,
    magp_power=6.0,
    clip_preproc="correct",
    z=100,
    share_noise=False,
    shared=True,
    ema=0.0,
    flip=True,
) -> Task:
    """GALIP: generator and discriminator around one frozen CLIP, hinge losses, penalty on CLIP's features.

        L_D = sum_b [ H(real | s, 1) + 1/2 (H(fake | s, -1) + H(real | wrong s, -1)) + magp_weight E |grad|^magp_power ]
        L_G = sum_b [ -D(fake | s) - sim_weight E cos(CLIP(fake), s) ] + scl * L_SCL(A CLIP(fakes), B texts)

    Tao et al. 2023, arXiv 2301.12959, with the constants of their code; L_SCL in the spirit of arXiv 2412.03957, or
    what `term` names in its place. A and B: the heads of stage 1 (methods.clip_heads), if frozen["clip"] has some; else
    the identity. Only L_SCL reads CLIP through them: the published terms, what the run tells of the fakes' codes and the
    heads of this task do not, so that scl = 0 is the published GAN with heads and without. Wrong pairs are each real picture
    with the sentence of the next row.

    nets: "gen", "disc" (a tuple of one module), and "clip" (frozen["clip"]).
    branches: 1 or 2.
    scl: weight of the label term on the fakes; 0 leaves it out of the program. term: which one, a key of
        losses.terms.TERMS but "xmc": CLIP's words and regions lie in no common space; the linear head of "label_head" is
        D's, see game.has_head.
    sim_weight: of the fakes' likeness to their texts; magp_weight, magp_power: of the penalty on CLIP's features of real
        pictures and on the sentence; a weight of 0 leaves it out.
    clip_preproc: "correct", or "compat" as the published code and its weights expect (nets.galip.preprocess).
    z: size of the latent noise; share_noise: one draw for both branches.
    shared: both branches have the same parameters; False gives each a generator and a discriminator of its own, see
        branches.Branches. CLIP is the same for both.
    ema: decay of the averaged generator, which sampling and scores use; 0 as published: it is the live one.
    Returns a Task: players "disc" and "gen", heads "generate", "image", "text".
    Raises ValueError: a CLIP that this cannot read (see Tower). Raises UserError: term "xmc".
    """
    if scl and term == "xmc":
        raise UserError(
            "config.galip.args.term='xmc' matches words with regions, which CLIP has in no common space: use supcon,"
            " unicl, ntxent or label_head"
        )
    net, judge_net = nets["gen"], nets["disc"][0]
    options = {"scl": scl, "term": term, "temperature": temperature, "label_mode": label_mode, "inter": inter, "inner": inner}

    lanes = Branches(branches, shared, about.mesh)

    def tower(frozen):
        return Tower(nets["clip"], frozen["clip"], clip_preproc)

    def judged(params, module=judge_net, **how):
        """The discriminator on rows of all branches."""
        return lanes.rows(lambda own, *rows: module.apply({"params": own}, *rows, **how), game.judges(params["disc"]))

    def init(key, batch):
        n, kg, kd = len(batch["text"]), *jax.random.split(key)
        image, sentence = nets["clip"].image, jnp.zeros((n, nets["clip"].text.embed))
        gen = lanes.init(lambda k: net.init(k, jnp.zeros((n, z)), sentence, lambda patches, prompts: patches), kg)
        patches = (image.side // image.patch) ** 2
        disc = lanes.init(lambda k: judge_net.init(k, jnp.zeros((n, len(TAPS), patches, image.width)), sentence), kd)
        judge = game.with_head(disc["params"], key, nets["clip"].text.embed, about, options)
        return {
            "params": {"gen": gen["params"], "disc": judge},
            "stats": {"gen": {}},
            "memory": {"ema": jax.tree.map(jnp.copy, gen["params"])},
        }

    def play(params, clip, batch, key):
        """(fakes [n * v, h, w, 3], sentences [n, v, d]), the same ones for all players of a step."""
        sentence = clip.listen(batch["text"][:, :branches])[1]
        latent, _ = game.noise(jax.random.fold_in(key, 1), len(sentence), branches, z, 0, share_noise)
        draw = lanes.rows(lambda own, z, s: net.apply({"params": own}, z, s, clip.through)[0][0], params["gen"])
        return draw(merge(latent), merge(sentence)), sentence

    def disc(params, state, frozen, batch, key):
        clip = tower(frozen)
        fakes, sentence = play(params, clip, batch, key)
        real = views.signed(batch["image"][:, :branches])
        real = views.flip(real, jax.random.fold_in(key, 2)) if flip else real
        taps, code = jax.lax.stop_gradient(clip.see(merge(real)))
        s = merge(sentence)

        def judge(taps, s, module=judge_net):
            h, logits = judged(params, module)(taps, s)
            return logits, h

        penalty, more = 0.0, {}
        if magp_weight:  # in float32, whatever the compute type: a sixth power of a gradient does not forgive
            flat = judge_net.clone(dtype=None)
            wide = taps.astype(jnp.promote_types(taps.dtype, jnp.float32))
            penalty, logits, h = adversarial.matching_penalty(
                lambda *a: judge(*a, flat), wide, s, weight=magp_weight, power=magp_power
            )
            more = {"penalty": branches * penalty}
        else:
            logits, h = judge(taps, s)
        fake, _ = judge(clip.see(jax.lax.stop_gradient(fakes))[0], s)
        wrong = judged(params, method="cond")(h, merge(jnp.roll(sentence, -1, axis=0)))
        total, parts = adversarial.hinge_discriminator(logits, fake, wrong)
        more |= {"blindness": total / adversarial.HINGE_BLIND} | vitals.looks(fakes.reshape(real.shape), real)
        total, metrics = branches * (total + penalty), {name: branches * part for name, part in parts.items()} | more
        if game.has_head(options):
            value, label = game.head_entropy(params["disc"], code.reshape(sentence.shape), batch, about, options)
            total, metrics = total + value, metrics | label
        return total, Aux(metrics, {}, state.memory)

    def gen(params, state, frozen, batch, key):
        clip = tower(frozen)
        fakes, sentence = play(params, clip, batch, key)
        (taps, code), s = clip.see(fakes), merge(sentence)
        fool = -branches * judged(params)(taps, s)[1].mean()
        alike = branches * cosine(code, s).mean()
        total, metrics = fool - sim_weight * alike, {"fake_cond": fool, "similarity": alike / branches}
        metrics |= vitals.spreads(batch["index"][:, :branches], fake=code.reshape(*sentence.shape[:2], -1))
        if scl:
            rows = code, s
            if term != "label_head":  # D's head reads CLIP as D does
                rows = clip.joint(code, "image"), clip.joint(s, "text")
            rows = (x.reshape(*sentence.shape[:2], -1) for x in rows)
            seen = terms.Seen(*rows, *(batch[x][:, :branches] for x in ("label", "index")))
            value, parts = game.label_term(seen, params["disc"], None, about, options)
            total, metrics = total + scl * value, metrics | parts
        return total, Aux(metrics, {}, state.memory)

    def generate(state, frozen, batch, key):
        clip = tower(frozen)
        sentence = clip.listen(batch["text"][:, None])[1]
        latent, _ = game.noise(key, len(sentence), 1, z, 0, False)
        params = lanes.first(game.generator_variables(state)["params"])
        ((image,),) = net.apply({"params": params}, latent[:, 0], sentence[:, 0], clip.through)
        return jnp.clip(image, -1, 1)

    def image(state, frozen, batch, key):
        taps, code = tower(frozen).see(views.signed(batch["image"]))
        return taps[:, -1], code

    def text(state, frozen, batch, key):
        words, sentence = tower(frozen).listen(batch["text"][:, None])
        return words[:, 0], sentence[:, 0]

    players = (Player("disc", disc, tx["disc"]), Player("gen", gen, tx["gen"]))
    heads = {"generate": generate, "image": image, "text": text}
    return Task(init, players, after=lambda state: game.averaged(state, ema), heads=heads)
