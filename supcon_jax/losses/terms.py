"""The label term of a stage by name: what draws pictures and texts together beside the stage's own losses.

"supcon" is the default; the others are what it is compared with, on the same codes of the same global batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from supcon_jax.losses import contrast, match
from supcon_jax.losses.census import Watch
from supcon_jax.ops.arrays import masked_mean, merge, unit, wide
from supcon_jax.ops.rows import Rows, dense


class Seen(NamedTuple):
    """What a term sees of n rows of v branches, each a picture with its text; codes of any length.

    code: [n, v, d] of the pictures (of the fakes, in a GAN). sentence: [n, v, d]. label: i32[n, v] or [n, v, c]
    multi-hot, index: i32[n, v] record of each pair. For "xmc": regions [n, v, r, d], words [n, v, t, d], text_len
    i32[n, v], and in a GAN real [n, v, d], codes of the real pictures. For "label_head": logits [n, v, c].
    """

    code: jax.Array
    sentence: jax.Array
    label: jax.Array
    index: jax.Array
    regions: jax.Array | None = None
    words: jax.Array | None = None
    text_len: jax.Array | None = None
    real: jax.Array | None = None
    logits: jax.Array | None = None


@dataclass(frozen=True)
class How:
    """scale: 1/temperature. label_mode, inter, inner: see contrast.label_supcon. fakes: the pictures learn, the texts are
    constants (in a GAN); both learn if not. sums: the door."""

    scale: float
    label_mode: str
    inter: float
    inner: float
    fakes: bool
    sums: Callable


def label_term(seen, *, term="supcon", temperature, label_mode="single", inter=1.0, inner=1.0, fakes=False, sums=dense):
    """The label term `term`, a key of TERMS, without its weight; the arguments are those of How.

    Returns (f32[], metrics by name: "scl" is the value, and what the term's contrast tells of the batch).
    Raises ValueError: an unknown name, or codes that the term needs and that are not there.
    """
    if term not in TERMS:
        raise ValueError(f"term is {term!r}: choose one of {', '.join(TERMS)}")
    watch = Watch(sums, merge(seen.label))
    value, parts = TERMS[term](seen, How(1 / temperature, label_mode, inter, inner, fakes, watch))
    return value, {"scl": value, **parts, **watch.metrics("scl")}


def supcon(seen, how):
    """Label-guided contrast between and within pictures and texts of all branches, see contrast.label_supcon."""
    return contrast.label_supcon(
        unit(merge(seen.code)), unit(merge(seen.sentence)), merge(seen.label), index=merge(seen.index), scale=how.scale,
        inter=how.inter, inner=how.inner, label_mode=how.label_mode, text_inner=not how.fakes, sums=how.sums,
    )  # fmt: skip


def unicl(seen, how):
    """UniCL: pictures and texts that share labels attract, and nothing within a modality.

        L = (L(V->T) + L(T->V)) / 2,   L(A->C) as in contrast.label_supcon

    Yang et al. 2022, arXiv 2204.03610.

    Differs from: the paper's equation, the sum of both directions, twice this; and where there are two branches the
    pairs of both are one batch. label_mode takes it to multi-hot labels.
    """
    return contrast.label_supcon(
        unit(merge(seen.code)), unit(merge(seen.sentence)), merge(seen.label), index=merge(seen.index), scale=how.scale,
        inter=1.0, inner=0.0, label_mode=how.label_mode, sums=how.sums,
    )  # fmt: skip


def ntxent(seen, how):
    """NT-Xent of the two branches: each code finds that of the other branch of its row among all others, see contrast.ntxent.

    Ye et al. 2021, arXiv 2107.02423: of the sentences while encoders are pretrained, of the fakes' codes in a GAN, on two
    captions of one picture (data.partner = "same_image"; with another partner that one is the positive). No labels.
    """
    if seen.code.shape[1] < 2:
        raise ValueError("term 'ntxent' contrasts two branches, and there is one")
    name, codes = ("image_image", seen.code) if how.fakes else ("text_text", seen.sentence)
    value = contrast.ntxent(unit(codes), scale=how.scale, sums=how.sums)
    return value, {name: value}


WORDS = 5.0, 5.0  # sharpness of attention and words, as published


def xmc(seen, how):
    """InfoNCE of pictures with sentences, with words, and of fakes with the real pictures of their texts; all else negative.

        L = sum over the three of L(Q->K) + L(K->Q),   s_ij = scale cos(q_i, k_j), and with words
        s_ij = scale log sum_w exp(5 cos(e_jw, c_ijw)),   c_ijw = sum_r softmax_r(5 cos(e_jw, h_ir)) h_ir / |h_ir|

    Zhang et al. 2021, arXiv 2101.04702, with the constants of their code (temperature 0.1).

    No labels. Without fakes there is no third one. The real pictures' codes carry no gradient.
    Differs from: their code, which reads the discriminator's features (here the frozen encoders'), trains that on the
    same terms, contrasts fakes with real pictures by a second network too, and sees the batch of one device only.
    """
    if seen.regions is None or seen.words is None:
        raise ValueError("term 'xmc' reads regions and words, and there are none")
    code, among = unit(merge(seen.code)), {"scale": how.scale, "sums": how.sums}
    terms = {"sentence": sum(contrast.info_nce_both(Rows(code), Rows(unit(merge(seen.sentence))), **among))}
    regions, words = unit(merge(seen.regions)), unit(merge(seen.words))
    gammas = (*WORDS, how.scale)
    terms["word"] = sum(match.words(regions, words, merge(seen.text_len), gammas=gammas, compete=False, sums=how.sums))
    if seen.real is not None:
        real = jax.lax.stop_gradient(unit(merge(seen.real)))
        terms["real"] = sum(contrast.info_nce_both(Rows(code), Rows(real), **among))
    return sum(terms.values()), terms


def label_head(seen, how):
    """Cross entropy of the labels in a linear head on the pictures' codes, see label_entropy."""
    if seen.logits is None:
        raise ValueError("term 'label_head' reads logits, and there are none")
    value = label_entropy(merge(seen.logits), merge(seen.label))
    return value, {}


TERMS = {"supcon": supcon, "ntxent": ntxent, "unicl": unicl, "label_head": label_head, "xmc": xmc}


def label_entropy(logits, label):
    """Cross entropy of class ids by a softmax, or of multi-hot labels by a sigmoid for each class.

        L = mean_i -log softmax(logits_i)_{y_i},   or mean_i mean_l -log sigmoid(+-logits_il), + where l is one of i's labels

    logits: [n, c]. label: i32[n] (negative: unlabelled) or [n, c] multi-hot (all zero: unlabelled). Unlabelled rows drop out.
    Returns f32[].
    """
    logits = logits.astype(wide(logits))
    if label.ndim == 1:
        own = jnp.maximum(label, 0)[:, None]
        each = -jnp.take_along_axis(jax.nn.log_softmax(logits), own, axis=1)[:, 0]
        return masked_mean(each, label >= 0)
    each = jnp.mean(jax.nn.softplus(jnp.where(label > 0, -logits, logits)), axis=1)
    return masked_mean(each, jnp.any(label > 0, axis=1))
