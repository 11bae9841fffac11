"""What the one-stage GANs share: one generator and one discriminator of one size, hinge losses, two branches.

Their discriminator has no batch norm, so that it sees the branches as one batch; the generator's batch norms, where it
has some, work within a branch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from supcon_jax.core import About, Aux, Task
from supcon_jax.gans import game
from supcon_jax.gans.branches import Branches
from supcon_jax.losses import adversarial, vitals
from supcon_jax.ops.arrays import merge, unit_rms
from supcon_jax.views import image as views


@dataclasses.dataclass(frozen=True, eq=False)
class OneStage:
    """The parts that the players of a one-stage GAN are made of.

    nets, about: as the task gets them. wrong: (features [n, ...], sentences [n, ...]) -> pairs of them that do not belong
    together. options: those of `game.matching_terms`. The rest: arguments of the tasks.
    """

    nets: dict
    about: About
    wrong: Callable
    branches: int
    z: int
    text_norm: bool
    share_noise: bool
    flip: bool
    shared: bool
    options: dict

    @property
    def disc(self):
        return self.nets["disc"][0]

    @property
    def lanes(self):
        return Branches(self.branches, self.shared, self.about.mesh)

    def init(self, key, batch):
        n, size = batch["text"].shape[0], self.nets["gen"].sizes[-1]
        sentence, kg, kd = jnp.zeros((n, self.nets["text"].width)), *jax.random.split(key)
        gen = self.lanes.init(lambda k: self.nets["gen"].init(k, jnp.zeros((n, self.z)), sentence), kg)
        disc = self.lanes.init(lambda k: self.disc.init(k, jnp.zeros((n, size, size, 3)), sentence), kd)
        judge = game.with_head(disc["params"], key, self.nets["text"].width, self.about, self.options)
        return {
            "params": {"gen": gen["params"], "disc": judge},
            "stats": {"gen": gen.get("batch_stats", {})},
            "memory": {"ema": jax.tree.map(jnp.copy, gen["params"])},
        }

    def read(self, frozen, batch, rows):
        """The texts of some branches, or of a batch without that axis (None): words and sentence for matching, and the
        sentence as G and D read it."""
        words, sentence, _ = game.encode_text(self.nets, frozen, batch["text"][:, rows], batch["text_len"][:, rows])
        return words, sentence, unit_rms(sentence) if self.text_norm else sentence

    def real(self, batch, key):
        """The real pictures of every branch [n, v, h, w, 3], the same ones for all players of a step."""
        images = views.signed(batch["image"][:, : self.branches])
        return views.flip(images, jax.random.fold_in(key, 2)) if self.flip else images

    def play(self, params, state, frozen, batch, key):
        """(fakes of every branch [n, v, h, w, 3], statistics after them, words, sentence, sentence as it is read)."""
        words, sentence, heard = self.read(frozen, batch, slice(0, self.branches))
        n, k = len(sentence), jax.random.fold_in(key, 1)
        latent, _ = game.noise(k, n, self.branches, self.z, 0, self.share_noise)

        def branch(params, stats, latent, heard):
            variables = {"params": params, "batch_stats": stats}
            (images, *_), stats = self.nets["gen"].apply(variables, latent, heard, train=True, mutable=["batch_stats"])
            return images[-1], stats.get("batch_stats", {})

        fakes, stats = self.lanes.each(branch, (params["gen"], state.stats["gen"]), (1, 0))(latent, heard)
        return fakes, self.lanes.settled(stats), words, sentence, heard

    def apply(self, disc, params, *rows, **how):
        """The discriminator on rows [n * v, ...] of every branch, all at once, or those of each branch by its own one."""
        return self.lanes.rows(lambda own, *x: disc.apply({"params": own}, *x, **how), game.judges(params["disc"]))(*rows)

    def judge(self, params, images, heard):
        """Logits of pairs [n, v, ...] and features [n, v, 4, 4, f], the logits as one row."""
        h, logits = self.apply(self.disc, params, merge(images), merge(heard))
        return logits, h.reshape(*images.shape[:2], *h.shape[1:])

    def flat(self, params, state, frozen, batch, key, weight, power):
        """The matching-aware penalty, summed over branches, with what the discriminator made of the real pairs.

        In float32, whatever the compute type: a sixth power of a gradient does not forgive. Returns (penalty, logits,
        features [n, v, 4, 4, f], sentence as it is read).
        """
        disc, heard = self.disc.clone(dtype=None), self.read(frozen, batch, slice(0, self.branches))[2]

        def judge(images, heard):
            h, logits = self.apply(disc, params, images, heard)
            return logits, h

        rows = merge(self.real(batch, key)), merge(heard)
        penalty, logits, h = adversarial.matching_penalty(judge, *rows, weight=weight, power=power)
        return self.branches * penalty, logits, h.reshape(*heard.shape[:2], *h.shape[1:]), heard

    def tell(self, params, frozen, batch, key, *, logits, h, fakes, heard):
        """The hinge loss of the discriminator, summed over branches, with that of the label head; and their parts.

        logits, h: of the real pairs; fakes [n, v, ...], heard [n, v, d].
        """
        features, sentence = self.wrong(h, heard)
        wrong = self.apply(self.disc, params, merge(features), merge(sentence), method="cond")
        fake, _ = self.judge(params, jax.lax.stop_gradient(fakes), heard)
        total, parts = adversarial.hinge_discriminator(logits, fake, wrong)
        seen = {"blindness": total / adversarial.HINGE_BLIND} | vitals.looks(fakes, self.real(batch, key))
        total, parts = self.branches * total, {name: self.branches * part for name, part in parts.items()} | seen
        if game.has_head(self.options):
            code = game.branch_codes(self.nets, frozen, self.real(batch, key))[1]
            value, more = game.head_entropy(params["disc"], code, batch, self.about, self.options)
            total, parts = total + value, parts | more
        return total, parts

    def gen(self, params, state, frozen, batch, key):
        """The generator's loss: what the discriminator thinks of the fakes, matching and label terms."""
        fakes, stats, words, sentence, heard = self.play(params, state, frozen, batch, key)
        logits, _ = self.judge(params, fakes, heard)
        fool = -self.branches * logits.mean()
        match, parts = game.matching_terms(
            self.nets, frozen, fakes, words, sentence, batch, self.about, self.options,
            disc=params["disc"], real=lambda: self.real(batch, key),
        )  # fmt: skip
        return fool + match, Aux({"fake_cond": fool, **parts}, stats, state.memory)

    def task(self, players, ema: float, truncate: float = 0.0) -> Task:
        """The task of these players. ema: decay of the averaged generator. truncate: of the noise when sampling."""

        def generate(state, frozen, batch, key):
            heard = self.read(frozen, batch, None)[2][:, 0]
            latent, _ = game.noise(key, len(heard), 1, self.z, 0, False, truncate)
            variables = self.lanes.first(game.generator_variables(state))
            images, *_ = self.nets["gen"].apply(variables, latent[:, 0], heard, train=False)
            return images[-1]

        heads = {"generate": generate, **game.code_heads(self.nets)}
        return Task(self.init, players, after=lambda state: game.averaged(state, ema), heads=heads)
