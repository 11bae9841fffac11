"""Stage 1 of GALIP: linear heads on a frozen CLIP, or its last blocks too, by matching and supervised contrast over labels."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from supcon_jax.config import UserError
from supcon_jax.core import Aux, Player, Task
from supcon_jax.losses import match, terms, vitals
from supcon_jax.losses.census import Watch
from supcon_jax.nets.classify import LabelHead
from supcon_jax.nets.clip import CLIP
from supcon_jax.nets.galip import preprocess
from supcon_jax.ops.arrays import merge, wide
from supcon_jax.views import image as views


def clip_heads(
    nets,
    tx,
    about,
    *,
    branches=2,
    scl=1.0,
    term="supcon",
    temperature=0.1,
    label_mode="single",
    inter=1.0,
    inner=1.0,
    gamma=10.0,
    class_mask=True,
    dim=256,
    blocks=0,
    clip_preproc="correct",
    flip=True,
) -> Task:
    """What DAMSM is to the other GANs: sentence matching on each branch plus label-guided contrast over both, on CLIP's codes.

        g = CLIP(picture) A,   f = CLIP(text) B,   L = sum_b [s0 + s1](branch b) + scl * L_SCL(g and f of all branches)

    A reading of arXiv 2412.03957, which asks for a contrastive stage before each GAN and does not say (publicly) what that
    is for GALIP, whose CLIP is frozen: the two heads A and B learn, CLIP does not. s0, s1: losses.match.sentences.

    A and B begin as one matrix with orthonormal columns, which keeps about as much of CLIP's likeness of pictures and texts
    as any so small. The blocks that learn are kept as offsets from CLIP's weights, from zero: Adam moves them as it would
    move the weights, and a decay pulls them to CLIP's.

    nets: "clip" (frozen["clip"]), with a vision transformer.
    branches: 1 or 2; how many of the batch's pairs are used.
    scl: weight of the label term; 0 leaves it out of the program. term: which one, a key of losses.terms.TERMS but "xmc":
        CLIP's words and regions lie in no common space.
    temperature, label_mode, inter, inner: of L_SCL, see losses.contrast.label_supcon.
    gamma: sharpness of the matching; class_mask: pairs that share a label are no negatives in it; of several labels by
        label_mode, see losses.match.mask.
    dim: length of the codes g and f.
    blocks: how many of the last blocks of both towers learn too; 0 for the heads alone.
    clip_preproc: "correct" or "compat", as the GAN behind it has (nets.galip.preprocess).
    flip: mirror images at random.
    Returns a Task with the player "model" and the heads "image" and "text". Raises UserError: term "xmc".
    """
    if scl and term == "xmc":
        raise UserError(
            "config.clip_heads.args.term='xmc' matches words with regions, which CLIP has in no common space: use supcon,"
            " unicl, ntxent or label_head"
        )
    tower = nets["clip"]

    def init(key, batch):
        start = jax.nn.initializers.orthogonal()(key, (tower.text.embed, dim), jnp.float32)
        params = {"heads": {"image": start, "text": jnp.copy(start)}}
        if scl and term == "label_head":
            head = LabelHead(about.classes).init(jax.random.fold_in(key, 1), jnp.zeros((1, dim)))
            params["label_head"] = head["params"]
        return {"params": {"model": params | ({"blocks": still(tower, blocks)} if blocks else {})}}

    def see(own, frozen, images):
        """Pictures [n, h, w, 3] in [-1, 1] -> tokens, codes [n, dim]."""
        tree = moved(frozen["clip"]["params"], own)["image"]
        tokens, code = tower.image.apply({"params": tree}, preprocess(images, tower.image.side, clip_preproc))
        return tokens, code.astype(wide(code)) @ own["heads"]["image"]

    def listen(own, frozen, text):
        """Texts [n, t] -> words, codes [n, dim]."""
        words, code = tower.text.apply({"params": moved(frozen["clip"]["params"], own)["text"]}, text)
        return words, code.astype(wide(code)) @ own["heads"]["text"]

    def loss(params, state, frozen, batch, key):
        own = params["model"]
        rows = {name: batch[name][:, :branches] for name in ("image", "text", "label", "index")}
        pictures = views.signed(rows["image"])
        pictures = views.flip(pictures, jax.random.fold_in(key, 1)) if flip else pictures
        code, sentence = see(own, frozen, merge(pictures))[1], listen(own, frozen, merge(rows["text"]))[1]
        code, sentence = (x.reshape(-1, branches, dim) for x in (code, sentence))
        total, metrics = matching(code, sentence, rows["label"], rows["index"])
        if scl:
            logits = LabelHead(about.classes).apply({"params": own["label_head"]}, code) if "label_head" in own else None
            value, parts = terms.label_term(
                terms.Seen(code, sentence, rows["label"], rows["index"], logits=logits), term=term, temperature=temperature,
                label_mode=label_mode, inter=inter, inner=inner, sums=about.sums,
            )  # fmt: skip
            total, metrics = total + scl * value, metrics | parts
        return total, Aux(metrics, {}, state.memory)

    def matching(code, sentence, label, index):
        total, metrics, watch = 0.0, vitals.spreads(index, image=code, text=sentence), Watch(about.sums)
        for b in range(branches):
            mask = match.mask(label[:, b], label_mode) if class_mask else {}
            s0, s1 = match.sentences(code[:, b], sentence[:, b], **mask, gamma=gamma, sums=watch.of(label[:, b]))
            total, metrics = total + s0 + s1, metrics | {f"s0_{b}": s0, f"s1_{b}": s1}
        return total, metrics | watch.metrics("sentences")

    def image(state, frozen, batch, key):
        return see(state.params["model"], frozen, views.signed(batch["image"]))

    def text(state, frozen, batch, key):
        return listen(state.params["model"], frozen, batch["text"])

    return Task(init, (Player("model", loss, tx["model"]),), heads={"image": image, "text": text})


def still(tower: CLIP, blocks: int) -> dict:
    """Offsets of zero for the last blocks of both towers, laid out as CLIP's parameters."""
    image = jnp.zeros((1, tower.image.side, tower.image.side, 3))
    shapes = jax.eval_shape(tower.init, jax.random.key(0), image, jnp.zeros((1, tower.text.length), jnp.int32))["params"]

    def last(tree, depth):
        names = [f"block{i}" for i in range(depth - blocks, depth)]
        return {name: jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), tree[name]) for name in names}

    trunk = last(shapes["image"]["trunk"], tower.image.depth)
    return {"image": {"trunk": trunk}, "text": last(shapes["text"], tower.text.depth)}


def moved(params: Mapping, own: Mapping) -> dict:
    """CLIP's parameters with the trained offsets, where there are some, added."""

    def add(tree, offsets):
        if not isinstance(tree, Mapping):
            return tree + offsets
        return {name: add(x, offsets[name]) if name in offsets else x for name, x in tree.items()}

    return add(params, own.get("blocks", {}))


def export(params: Mapping, clip: Mapping) -> dict:
    """CLIP as this stage leaves it, as a tower of its own: {"params", "heads": {"image" [d, dim], "text" [d, dim]}}."""
    return {"params": moved(clip["params"], params), "heads": params["heads"]}
