"""Whether pictures say what their captions say: R-precision of fakes and reals, retrieval on reals."""

from typing import NamedTuple

import numpy as np

from supcon_jax.evals.fid import finite
from supcon_jax.evals.protocol import Protocol, record
from supcon_jax.evals.r_precision import candidates, chance, folds, r_precision, unit, usable
from supcon_jax.evals.retrieval import recalls
from supcon_jax.evals.streams import Content, alike, column, fakes, labelled, reals


class Codes(NamedTuple):
    """Pairs of a picture and its caption. image, text: f64[n, d]; label: [n, ...] or None; index: i[n];
    same: equal numbers for equal captions, see streams.alike."""

    image: np.ndarray
    text: np.ndarray
    label: np.ndarray | None
    index: np.ndarray
    same: np.ndarray


def codes(image_code, text_code, parts):
    """Codes of pictures and of their captions: (Codes, rows that are not finite, hash of the pictures)."""
    image, text, kept, bad, content = [], [], [], 0, Content()
    for part in parts:
        content.add(part)
        image.append(np.asarray(image_code(part.images), np.float64)[part.keep])
        text.append(np.asarray(text_code(part.batch), np.float64)[part.keep])
        small = {k: part.batch[k] for k in ("text", "text_len", "caption", "label", "index") if k in part.batch}
        kept.append(part._replace(images=None, batch=small))  # the pictures themselves may be too many to hold
        bad += part.bad
    if not kept:
        raise ValueError("no pictures to match: the batches are empty")
    image, text = finite("image codes", np.concatenate(image)), finite("text codes", np.concatenate(text))
    found = Codes(image, text, labelled(column(kept, "label")), column(kept, "index"), alike(kept))
    return found, bad, str(content)


def cosine(pairs: Codes) -> float:
    """Mean cosine of a picture and its own caption, -1 to 1; not times 2.5 or 100, as some print it."""
    return float(np.mean(np.sum(unit(pairs.image) * unit(pairs.text), axis=1)))


def precisions(pairs: Codes, protocol, *, name, count, number, seed):
    """R-precision among captions of other classes, and within the class, each with what chance would give.

    name: "{}" with what stands around each metric's name.
    """
    image, text, label, index, same = pairs
    out, which = {}, "fake_number" if protocol.fake_number else "real_number"
    for kind, rule in (("r_precision", "other"), ("r_within", "within")):
        if rule == "within" and label is None:
            continue
        drawn = candidates(label, index, rule=rule, count=count, seed=seed, same=same)
        rows = usable(drawn)
        if not rows.any():
            continue
        hits = r_precision(image, text, drawn)[rows]
        parts = min(number, len(hits))
        mean, spread = folds(hits, parts)
        values = {kind: mean, f"{kind}_std": spread, f"{kind}_chance": chance(drawn)}
        said = f"{rule}: {np.mean((drawn[rows, 1:] >= 0).sum(1)):.4g} of {count} wrong captions on average"
        own = protocol.replace(splits=f"{parts} folds", subsets=said, seed=seed)
        out |= record({name.format(k): v for k, v in values.items()}, own.replace(**{which: len(hits)}))
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
    name="",
    score="",
):
    """R-precision of generated and of real pictures, and retrieval among real ones.

    image_code: u8[b, h, w, 3] -> [b, d]; text_code: batch cut to branch 0 -> [b, d]; rows need not be unit.
    generate, caption_batches: as in evals.generation; left out: no numbers of fakes. real_batches: left out: none of
    reals. protocol: network and weights name the encoder, and origins. number: of fakes; real_limit: of reals.
    count: wrong captions; parts: folds. name: of the encoder, where it is not the stage's own: ends the metrics' names.
    score: name under which the mean cosine of pictures and their captions is told ("clip_score"), if it is.
    Returns {metric: {"value", "protocol", "line"}} in percent: r_precision, r_within, their _std (over folds) and
    _chance; the same of reals under real_*; retrieval as real_i2t_r1 ... real_t2i_mean (one caption an image, ties
    against). With the encoder that trained the generator these numbers flatter it; r_within falls where captions of
    one class were merely pulled together.
    Raises ValueError: codes that are not finite, captions that end too early, no finite fakes.
    """
    out, end = {}, f"_{name}" if name else ""
    drawing = {"count": count, "number": parts, "seed": seed}
    if generate is not None:
        pairs, bad, content = codes(image_code, text_code, fakes(generate, caption_batches, number, seed))
        own = protocol.replace(real_number=0, real_origin="", fake_number=number, fake_content=content)
        out |= record({f"matching_fakes_not_finite{end}": bad}, own.replace(seed=seed))
        if not len(pairs.image):
            raise ValueError(f"{bad} of {number} generated pictures are not finite: nothing to measure")
        out |= precisions(pairs, own, name="{}" + end, **drawing)
        if score:
            out |= record({score: cosine(pairs)}, own.replace(fake_number=len(pairs.image), seed=seed))
    if real_batches is not None:
        pairs, _, content = codes(image_code, text_code, reals(real_batches, real_limit))
        own = protocol.replace(fake_number=0, fake_origin="", real_number=len(pairs.image), real_content=content)
        out |= precisions(pairs, own, name="real_{}" + end, **drawing)
        found = {f"real_{k}{end}": v for k, v in recalls(unit(pairs.image), unit(pairs.text)).items()}
        out |= record(found, own.replace(subsets="1 caption per image"))
        if score:
            out |= record({f"real_{score}": cosine(pairs)}, own)
    return out
