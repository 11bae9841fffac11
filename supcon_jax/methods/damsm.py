"""Image and text encoders pretrained by word and sentence matching, with supervised contrast over labels."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from supcon_jax.core import EMPTY, Aux, Player, Task
from supcon_jax.losses import match, terms, vitals
from supcon_jax.losses.census import Watch
from supcon_jax.nets.classify import LabelHead
from supcon_jax.ops.arrays import merge
from supcon_jax.ops.slices import sliced
from supcon_jax.views import image as views


def damsm(
    nets,
    tx,
    about,
    *,
    branches=2,
    scl=1.0,
    term="supcon",
    temperature=0.5,
    label_mode="single",
    inter=1.0,
    inner=1.0,
    gammas=(4.0, 5.0, 10.0),
    class_mask=True,
    group=48,
    flip=True,
    slices=1,
) -> Task:
    """DAMSM on each branch plus a label term over both, by default label-guided supervised contrast.

        L = sum_b [w0 + w1 + s0 + s1](branch b) + scl * L_SCL(images and texts of all branches)

    DAMSM: Xu et al. 2018, arXiv 1711.10485, section 3.2, as their code computes it (no 1/gamma2 root).
    L_SCL: in the spirit of arXiv 2412.03957 (whose exact form is not public): inter-modal and inner-modal SupCon, or what
    `term` names in its place.

    nets: "image" -> (regions [n, r, d], code [n, d]), "text" -> (words [n, t, d], sentence [n, d]). The trunk of one that says
        it is frozen is read from frozen["trunk"] (of the image) or frozen["text_trunk"].
    branches: 1 or 2; how many of the batch's pairs are used.
    scl: weight of the label term; 0 leaves it out of the program.
    term: which one, a key of losses.terms.TERMS. The linear head of "label_head" reads the images' codes and is trained
        with the encoders, but does not go on with them to the next stage.
    temperature, label_mode, inter, inner: of that term, see losses.contrast.label_supcon.
    gammas: attention, word and score sharpness.
    class_mask: pairs that share a label are no negatives of each other; of several labels by label_mode, see
        losses.match.mask.
    group: the words score compares texts and images within groups of this many rows.
    flip: mirror images at random.
    slices: the pairs are encoded in so many parts, each normalised by its own pictures, and once more for the gradient:
        the encoders take the memory of one part, the codes that of all, and the losses see the whole batch. See ops.slices.
    Returns a Task with the player "model" and the heads "image" and "text".
    """

    def init(key, batch):
        k1, k2 = jax.random.split(key)
        picture = views.signed(batch["image"][:, 0])
        image = nets["image"].init(k1, picture, train=False)
        text = nets["text"].init(k2, batch["text"][:, 0], batch["text_len"][:, 0], train=False)
        image, text = (split_trunk(tree, held(nets[name]))[0] for name, tree in (("image", image), ("text", text)))
        params = {"image": image["params"], "text": text["params"]}
        if scl and term == "label_head":
            head = LabelHead(about.classes).init(jax.random.fold_in(key, 3), jnp.zeros((1, nets["text"].width)))
            params["label_head"] = head["params"]
        return {"params": {"model": params}, "stats": {"model": {"image": image.get("batch_stats", {})}}}

    def encoder(own, frozen):
        """(rows of the batch, statistics of the image encoder, key) -> (codes of every pair [n, v, ...], statistics)."""

        def encode(rows, stats, key):
            dropout, mirror = jax.random.split(key)
            pictures = views.signed(rows["image"])
            pictures = views.flip(pictures, mirror) if flip else pictures
            variables = image_variables(own["image"], stats, frozen)
            image, new = nets["image"].apply(variables, merge(pictures), train=True, mutable=["batch_stats"])
            variables = text_variables(own["text"], frozen)
            text = nets["text"].apply(
                variables, merge(rows["text"]), merge(rows["text_len"]), train=True, rngs={"dropout": dropout}
            )
            codes = tuple(x.reshape(-1, branches, *x.shape[1:]) for x in (*image, *text))
            return codes, split_trunk(new, held(nets["image"]))[0].get("batch_stats", {})

        return encode

    def loss(params, state, frozen, batch, key):
        rows = {name: batch[name][:, :branches] for name in ("image", "text", "text_len")}
        stats, key = state.stats["model"]["image"], jax.random.fold_in(key, 1)
        codes, new = sliced(encoder(params["model"], frozen), rows, stats, key, slices=slices)
        with jax.numpy_dtype_promotion("standard"):
            total, metrics = matching(codes, batch)
            if scl:
                value, parts = terms.label_term(
                    seen(params["model"], codes, batch), term=term, temperature=temperature, inter=inter, inner=inner,
                    label_mode=label_mode, sums=about.sums,
                )  # fmt: skip
                total, metrics = total + scl * value, metrics | parts
        return total, Aux(metrics, {"image": new}, state.memory)

    def seen(own, codes, batch):
        regions, code, words, sentence = codes
        label, index, text_len = (batch[name][:, :branches] for name in ("label", "index", "text_len"))
        logits = LabelHead(about.classes).apply({"params": own["label_head"]}, code) if "label_head" in own else None
        return terms.Seen(code, sentence, label, index, regions, words, text_len, logits=logits)

    def matching(codes, batch):
        total, watch = 0.0, Watch(about.sums)
        metrics = vitals.spreads(batch["index"][:, :branches], image=codes[1], text=codes[3])
        for b in range(branches):
            mask = match.mask(batch["label"][:, b], label_mode) if class_mask else {}
            regions, code, words, sentence = (x[:, b] for x in codes)
            how = {"gammas": gammas, "group": group, "lanes": about.mesh.size, "sums": about.sums}
            w0, w1 = match.words(regions, words, batch["text_len"][:, b], **mask, **how)
            seen = watch.of(batch["label"][:, b])
            s0, s1 = match.sentences(code, sentence, **mask, gamma=gammas[2], sums=seen)
            total = total + w0 + w1 + s0 + s1
            metrics |= {f"{name}_{b}": value for name, value in zip(("w0", "w1", "s0", "s1"), (w0, w1, s0, s1))}
        return total, metrics | watch.metrics("sentences")

    return Task(init, (Player("model", loss, tx["model"], parts=("image", "text")),), heads=heads(nets))


def heads(nets):
    """"image" and "text" of trained encoders: what evaluation and the GAN stage read."""

    def image(state, frozen, batch, key):
        variables = image_variables(state.params["model"]["image"], state.stats["model"]["image"], frozen)
        return nets["image"].apply(variables, views.signed(batch["image"]), train=False)

    def text(state, frozen, batch, key):
        variables = text_variables(state.params["model"]["text"], frozen)
        return nets["text"].apply(variables, batch["text"], batch["text_len"])

    return {"image": image, "text": text}


def held(net) -> bool:
    """Whether a net's trunk is fixed; many have none."""
    return getattr(net, "frozen", False)


def image_variables(params, stats, frozen):
    """Variables of the image encoder."""
    return join_trunk({"params": params, "batch_stats": stats}, frozen.get("trunk"))


def text_variables(params, frozen):
    """Variables of the text encoder."""
    return join_trunk({"params": params}, frozen.get("text_trunk"))


def split_trunk(variables, frozen: bool):
    """Variables of an encoder without and with only its trunk; a trunk that trains stays where it is."""
    if not frozen:
        return variables, EMPTY
    own = {kind: {name: x for name, x in tree.items() if name != "trunk"} for kind, tree in variables.items()}
    return own, {kind: tree["trunk"] for kind, tree in variables.items() if "trunk" in tree}


def join_trunk(variables, trunk):
    """Variables of an encoder, its frozen trunk put back where there is one."""
    return variables | {kind: {**variables.get(kind, {}), "trunk": tree} for kind, tree in (trunk or {}).items()}
