"""Where codes lie on the sphere: close within a label and far from others, spread out, in as many directions as there are."""

import numpy as np

from supcon_jax.evals.clusters import grouped
from supcon_jax.evals.matching import codes
from supcon_jax.evals.protocol import Protocol, record
from supcon_jax.evals.r_precision import unit
from supcon_jax.evals.spectrum import alignment, rank, uniformity
from supcon_jax.evals.streams import reals

CHUNK = 512


def geometry(image_code, text_code, *, batches, limit=None, protocol=Protocol(), seed=0):  # noqa: B008  (frozen)
    """The geometry of the codes of real pictures (image_*), of their captions (text_*) and of both together (both_*).

    image_code: u8[b, h, w, 3] -> [b, d]; text_code: batch cut to branch 0 -> [b, d]; rows need not be unit.
    batches: real ones; limit: of records. protocol: network and weights name the encoders, and the origin.
    Returns {metric: {"value", "protocol", "line"}}:
    *_within, *_between: mean cosine of two rows that share a label, and of two that do not; *_separation: their
        difference. Of both: of a picture and the caption of another.
    *_alignment: mean squared distance of rows that belong together: of one label (2 - 2 within, for unit rows); of both:
        a picture and its own caption. *_uniformity: see spectrum.uniformity.
    *_nmi: of k-means clusters, as many as labels, with the labels; *_nmi_chance: with shuffled labels. Left out where rows
        have several labels.
    *_rank: see spectrum.rank, at most the smaller of rows and length of a code.
    Of both, the last three are of all rows as one set. Numbers that the rows cannot give (one label alone, each label once,
    no labels, fewer different rows than labels) are left out. Rows without a label count only where no label is asked for;
    pairs of equal captions count only where no caption is looked at.
    Raises ValueError: codes that are not finite, no pictures.
    """
    pairs, _, content = codes(image_code, text_code, reals(batches, limit))
    image, text, index = unit(pairs.image), unit(pairs.text), np.asarray(pairs.index)
    own = protocol.replace(real_number=len(image), real_content=content, seed=seed)
    twice = None if pairs.label is None else np.concatenate([pairs.label] * 2)
    sets = {
        "image": (image, cosines(image, image, pairs.label, (index,)), pairs.label),
        "text": (text, cosines(text, text, pairs.label, (index, pairs.same)), pairs.label),
        "both": (np.concatenate([image, text]), cosines(image, text, pairs.label, (index, pairs.same)), twice),
    }
    out = {}
    for kind, (rows, near, label) in sets.items():
        found, said = grouped(rows, label, seed)
        values = {key: found[key] for key in ("nmi", "nmi_chance") if key in found}
        values |= near | {"uniformity": uniformity(rows), "rank": rank(rows)}
        if "within" in near:
            values["alignment"] = 2 - 2 * near["within"]
        if kind == "both":
            values["alignment"] = alignment(image, text)
        values = {f"{kind}_{name}": value for name, value in values.items() if value is not None}
        out |= record(values, own.replace(subsets=said))
    return out


def cosines(a, b, label, alike):
    """Mean cosine of pairs (a_i, b_j) that share a label (within) and of those that do not (between); separation.

    a, b: unit rows [n, d]; label: i[n] (-1: none), [n, c] multi-hot or None; alike: arrays i[n], pairs that have an equal
    entry in any of them are left out. Returns the means that have pairs, by name.
    """
    if label is None:
        return {}
    label = np.asarray(label)
    has = label >= 0 if label.ndim == 1 else label.any(1)
    total, count = np.zeros(2), np.zeros(2)
    for start in range(0, len(a), CHUNK):
        rows = slice(start, start + CHUNK)
        s = a[rows] @ b.T
        share = label[rows, None] == label[None] if label.ndim == 1 else label[rows] @ label.T > 0
        live = has[rows, None] & has[None]
        for x in alike:
            live &= x[rows, None] != x[None]
        for which, mask in enumerate((live & share, live & ~share)):
            total[which] += s[mask].sum()
            count[which] += mask.sum()
    out = {name: float(x / n) for name, x, n in zip(("within", "between"), total, count, strict=True) if n}
    return out | ({"separation": out["within"] - out["between"]} if len(out) == 2 else {})
