"""Whether pictures say what their captions say: R-precision of fakes and reals, retrieval on reals."""

import hashlib

import numpy as np

from supcon_jax.evals.fid import finite
from supcon_jax.evals.protocol import Protocol, record
from supcon_jax.evals.r_precision import candidates, chance, folds, r_precision, unit, usable
from supcon_jax.evals.retrieval import recalls
from supcon_jax.evals.streams import column, fakes, labelled, reals


def codes(image_code, text_code, parts):
    """Codes of pictures and of their captions: (image [n, d], text [n, d], label or None, index [n], same [n], bad).

    same: equal numbers for captions of equal tokens.
    """
    image, text, kept, bad = [], [], [], 0
    for part in parts:
        image.append(np.asarray(image_code(part.images), np.float64)[part.keep])
        text.append(np.asarray(text_code(part.batch), np.float64)[part.keep])
        small = {k: part.batch[k] for k in ("text", "text_len", "label", "index") if k in part.batch}
        kept.append(part._replace(images=None, batch=small))  # the pictures themselves may be too many to hold
        bad += part.bad
    if not kept:
        raise ValueError("no pictures to match: the batches are empty")
    tokens = column(kept, "text")
    ends = column(kept, "text_len")
    words = [hashlib.sha256(row[:end].tobytes()).hexdigest() for row, end in zip(tokens, ends, strict=True)]
    same = np.unique(words, return_inverse=True)[1]
    image, text = finite("image codes", np.concatenate(image)), finite("text codes", np.concatenate(text))
    return image, text, labelled(column(kept, "label")), column(kept, "index"), same, bad


def precisions(image, text, label, index, same, protocol, *, prefix, count, number, seed):
    """R-precision among captions of other classes, and within the class, each with what chance would give."""
    out = {}
    for name, rule in (("r_precision", "other"), ("r_within", "within")):
        if rule == "within" and label is None:
            continue
        drawn = candidates(label, index, rule=rule, count=count, seed=seed, same=same)
        rows = usable(drawn)
        if not rows.any():
            continue
        hits = r_precision(image, text, drawn)[rows]
        parts = min(number, len(hits))
        mean, spread = folds(hits, parts)
        values = {name: mean, f"{name}_std": spread, f"{name}_chance": chance(drawn)}
        said = f"{rule}: {np.mean((drawn[rows, 1:] >= 0).sum(1)):.4g} of {count} wrong captions on average"
        own = protocol.replace(splits=f"{parts} folds", subsets=said, seed=seed)
        which = "fake_number" if prefix == "" else "real_number"
        out |= record({prefix + k: v for k, v in values.items()}, own.replace(**{which: len(hits)}))
    return out


def matching(
    image_code,
    text_code,
    *,
    generate=None,
    caption_batches=None,
    real_batches=None,
    protocol=Protocol(),  # noqa: B008  (frozen)
    number=512,
    real_limit=None,
    count=99,
    parts=10,
    seed=0,
):
    """R-precision of generated and of real pictures, and retrieval among real ones.

    image_code: u8[b, h, w, 3] -> [b, d]; text_code: batch cut to branch 0 -> [b, d]; rows need not be unit.
    generate, caption_batches: as in evals.generation; left out: no numbers of fakes. real_batches: left out: none of
    reals. protocol: network and weights name the encoder, and origins. number: of fakes; real_limit: of reals.
    count: wrong captions; parts: folds.
    Returns {metric: {"value", "protocol", "line"}} in percent: r_precision, r_within, their _std (over folds) and
    _chance; the same of reals under real_*; retrieval as real_i2t_r1 ... real_t2i_mean (one caption an image, ties
    against). With the encoder that trained the generator these numbers flatter it; r_within falls where captions of
    one class were merely pulled together.
    Raises ValueError: codes that are not finite, captions that end too early, no finite fakes.
    """
    out = {}
    if generate is not None:
        stream = fakes(generate, caption_batches, number, seed)
        image, text, label, index, same, bad = codes(image_code, text_code, stream)
        own = protocol.replace(real_number=0, real_origin="")
        out |= record({"matching_fakes_not_finite": bad}, own.replace(fake_number=number, seed=seed))
        if not len(image):
            raise ValueError(f"{bad} of {number} generated pictures are not finite: nothing to measure")
        out |= precisions(image, text, label, index, same, own, prefix="", count=count, number=parts, seed=seed)
    if real_batches is not None:
        image, text, label, index, same, _ = codes(image_code, text_code, reals(real_batches, real_limit))
        own = protocol.replace(fake_number=0, fake_origin="")
        out |= precisions(image, text, label, index, same, own, prefix="real_", count=count, number=parts, seed=seed)
        found = {f"real_{k}": v for k, v in recalls(unit(image), unit(text)).items()}
        out |= record(found, own.replace(real_number=len(image), subsets="1 caption per image"))
    return out
