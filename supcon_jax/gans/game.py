"""What every text-to-image GAN here shares: branches, frozen encoders, matching and label terms, the averaged generator."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from supcon_jax.losses import match, terms, vitals
from supcon_jax.losses.census import Watch
from supcon_jax.nets.classify import LabelHead
from supcon_jax.ops.arrays import merge
from supcon_jax.views.image import signed


def encode_text(nets, frozen, text, text_len):
    """Codes of the frozen text encoder for texts [n, v, t]: words [n, v, t, d], sentence [n, v, d], valid [n, v, t]."""
    variables = {"params": frozen["damsm"]["params"]["text"]}
    n, v, t = text.shape
    words, sentence = nets["text"].apply(variables, text.reshape(n * v, t), text_len.reshape(n * v))
    valid = jnp.arange(t)[None, None] < text_len[..., None]
    words, sentence = jax.lax.stop_gradient((words, sentence))
    return words.reshape(n, v, t, -1), sentence.reshape(n, v, -1), valid


def encode_image(nets, frozen, images):
    """Codes of the frozen image encoder: images [n, h, w, 3] in [-1, 1] -> regions [n, r, d], code [n, d].

    An encoder that was pretrained on a frozen trunk lets no gradient through it; here the pictures need one, and the
    weights are an argument that nobody moves.
    """
    damsm = frozen["damsm"]
    variables = {"params": damsm["params"]["image"], "batch_stats": damsm["stats"]["image"]}
    return nets["image"].clone(frozen=False).apply(variables, images, train=False)


def noise(key, n, branches, z, cond, share, truncate=0.0):
    """Latent noise [n, v, z] and that of the conditioning augmentation [n, v, cond]; one draw for all branches if shared.

    truncate: the latent noise is `truncate` times a normal one cut at two deviations; 0 for a plain one.
    """
    k1, k2 = jax.random.split(key)
    rows = 1 if share else branches
    shape = n, rows, z
    latent = truncate * jax.random.truncated_normal(k1, -2, 2, shape) if truncate else jax.random.normal(k1, shape)
    draw = latent, jax.random.normal(k2, (n, rows, cond))
    return tuple(jnp.broadcast_to(x, (n, branches, x.shape[-1])) for x in draw)


def branch_codes(nets, frozen, images):
    """encode_image of pictures [n, v, h, w, 3]: regions [n, v, r, d], code [n, v, d]."""
    n, v = images.shape[:2]
    regions, code = encode_image(nets, frozen, images.reshape(n * v, *images.shape[2:]))
    return regions.reshape(n, v, *regions.shape[1:]), code.reshape(n, v, -1)


def matching_terms(nets, frozen, fakes, words, sentence, batch, about, options, *, disc=None, real=None):
    """DAMSM of the fakes of every branch and the label term over all of them.

    fakes: [n, v, h, w, 3]; words [n, v, t, d]; sentence [n, v, d]; batch: text_len, label and index [n, v, ...].
    options: damsm_weight, gammas, class_mask, group, scl, term, temperature, label_mode, inter, inner. For the terms that
    look at them: disc, the discriminator's parameters; real, () -> the real pictures [n, v, h, w, 3].
    Returns (f32[], metrics by name): damsm_weight * sum_b (w0 + w1 + s0 + s1) + scl * L_SCL. The texts are frozen,
    so their inner block, which would carry no gradient, is left out of L_SCL.
    """
    if not options["damsm_weight"] and not options["scl"]:
        return 0.0, {}
    v = fakes.shape[1]
    regions, code = branch_codes(nets, frozen, fakes)
    total, metrics, watch = 0.0, vitals.spreads(batch["index"][:, :v], fake=code), Watch(about.sums)
    for b in range(v if options["damsm_weight"] else 0):
        mask = match.mask(batch["label"][:, b], options["label_mode"]) if options["class_mask"] else {}
        w0, w1 = match.words(
            regions[:, b], words[:, b], batch["text_len"][:, b], **mask,
            gammas=options["gammas"], group=options["group"], lanes=about.mesh.size, sums=about.sums,
        )  # fmt: skip
        seen = watch.of(batch["label"][:, b])
        s0, s1 = match.sentences(code[:, b], sentence[:, b], **mask, gamma=options["gammas"][2], sums=seen)
        total = total + options["damsm_weight"] * (w0 + w1 + s0 + s1)
        metrics |= {f"{name}_{b}": value for name, value in zip(("w0", "w1", "s0", "s1"), (w0, w1, s0, s1))}
    metrics |= watch.metrics("sentences")
    if options["scl"]:
        label, index, text_len = (batch[name][:, :v] for name in ("label", "index", "text_len"))
        seen = terms.Seen(code, sentence, label, index, regions, words, text_len)
        term, parts = label_term(seen, disc, lambda: branch_codes(nets, frozen, real())[1], about, options)
        total, metrics = total + options["scl"] * term, metrics | parts
    return total, metrics


def label_term(seen, disc, real, about, options):
    """The label term of the fakes' codes and the texts of every branch, without its weight; see losses.terms.

    disc: the discriminator's parameters, which hold the head of "label_head". real: () -> codes of the real pictures
    [n, v, d], made for "xmc". options: term, temperature, label_mode, inter, inner.
    Returns (f32[], metrics by name).
    """
    if options["term"] == "xmc":
        seen = seen._replace(real=real())
    if options["term"] == "label_head":
        seen = seen._replace(logits=LabelHead(about.classes).apply({"params": disc["label_head"]}, seen.code))
    how = {name: options[name] for name in ("term", "temperature", "label_mode", "inter", "inner")}
    return terms.label_term(seen, fakes=True, sums=about.sums, **how)


def has_head(options) -> bool:
    """Whether the label term reads a linear head. It is the discriminator's: it learns on the frozen encoder's codes of
    real pictures what a label looks like, and the generator can only follow it."""
    return bool(options["scl"]) and options["term"] == "label_head"


def judges(disc):
    """The discriminator's parameters without those of the label head."""
    return {name: x for name, x in disc.items() if name != "label_head"}


def with_head(disc, key, width, about, options):
    """The discriminator's new parameters, and with them the label head's where there is one; width: of the codes."""
    if not has_head(options):
        return disc
    head = LabelHead(about.classes).init(jax.random.fold_in(key, 3), jnp.zeros((1, width)))
    return {**disc, "label_head": head["params"]}


def head_entropy(disc, code, batch, about, options):
    """What the discriminator's loss has in addition where there is a label head: scl * its entropy on real codes.

    code: [n, v, d], which get no gradient. Returns (f32[], metrics by name).
    """
    logits = LabelHead(about.classes).apply({"params": disc["label_head"]}, jax.lax.stop_gradient(code))
    value = terms.label_entropy(merge(logits), merge(batch["label"][:, : code.shape[1]]))
    return options["scl"] * value, {"label": value}


def averaged(state, decay):
    """The state with its averaged generator moved: ema <- decay * ema + (1 - decay) * gen, parameters only.

    BatchNorm averages stay the live ones, as in the original codes.
    """
    ema = jax.tree.map(lambda e, p: e * decay + p * (1 - decay), state.memory["ema"], state.params["gen"])
    return state.replace(memory={**state.memory, "ema": ema})


def generator_variables(state):
    """The averaged generator with the live BatchNorm averages: what sampling uses."""
    return {"params": state.memory["ema"], "batch_stats": state.stats["gen"]}


def code_heads(nets):
    """The frozen encoders as heads "image" and "text"; both take a batch without a branch axis."""

    def image(state, frozen, batch, key):
        return encode_image(nets, frozen, signed(batch["image"]))

    def text(state, frozen, batch, key):
        words, sentence, _ = encode_text(nets, frozen, batch["text"][:, None], batch["text_len"][:, None])
        return words[:, 0], sentence[:, 0]

    return {"image": image, "text": text}
