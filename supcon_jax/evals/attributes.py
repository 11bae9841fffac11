"""Do pictures show what was asked for, attribute by attribute? For data whose latents are known."""

import numpy as np

from supcon_jax.evals.protocol import Protocol, record
from supcon_jax.evals.streams import Content, fakes, reals


def accuracies(logits, truth):
    """Accuracy of each attribute, in percent.

    logits: attribute -> [n, c]; truth: attribute -> i[n], -1 where it is not known or was not asked for.
    Returns {attribute: percent, ..., "all": percent of rows with every known attribute right}. An attribute that no
    row knows is left out, and so are from "all" the rows that know none.
    Raises ValueError: an attribute of the truth without logits, logits that are not finite.
    """
    right, asked = [], []
    out = {}
    for name, want in truth.items():
        if name not in logits:
            raise ValueError(f"attribute {name!r}: known, but the classifier gives only {sorted(logits)}")
        got, want = np.asarray(logits[name], np.float64), np.asarray(want)
        if got.shape[0] != len(want):
            raise ValueError(f"attribute {name!r}: {got.shape[0]} rows of logits for {len(want)} of truth")
        bad = int((~np.isfinite(got).all(1)).sum())
        if bad:
            raise ValueError(f"attribute {name!r}: logits of {bad} of {len(got)} rows are not finite")
        asked.append(want >= 0)
        right.append(got.argmax(1) == want)
        if asked[-1].any():
            out[name] = float(100 * right[-1][asked[-1]].mean())
    asked, right = np.array(asked), np.array(right)
    rows = asked.any(0)
    if not rows.any():
        raise ValueError("truth: no row knows any attribute")
    out["all"] = float(100 * (right | ~asked).all(0)[rows].mean())
    return out


def answers(classify, known, parts):
    """Logits and truths over all kept rows: (attribute -> [n, c], attribute -> i[n], bad rows, hash of the pictures)."""
    logits, truth, bad, content = {}, {name: [] for name in known}, 0, Content()
    for part in parts:
        content.add(part)
        for name, x in classify(part.images).items():
            logits.setdefault(name, []).append(np.asarray(x)[part.keep])
        index = part.batch["index"][:, 0][part.keep]
        for name, values in known.items():
            truth[name].append(np.asarray(values)[index])
        bad += part.bad
    if not logits:
        raise ValueError("no pictures to judge: the batches are empty")
    logits, truth = ({k: np.concatenate(v) for k, v in found.items()} for found in (logits, truth))
    return logits, truth, bad, str(content)


def attributes(
    classify,
    known,
    *,
    generate=None,
    caption_batches=None,
    real_batches=None,
    protocol=Protocol(),  # noqa: B008  (frozen)
    number=512,
    real_limit=None,
    seed=0,
):
    """Accuracy of each attribute of generated pictures, and of real ones (the classifier's ceiling).

    classify: u8[b, h, w, 3] -> {attribute: logits [b, c]}. known: attribute -> i[records], indexed by the batch's
    `index`; -1 where a caption does not say it. The other arguments are those of evals.matching.
    Returns {metric: {"value", "protocol", "line"}}: attribute_colour, ..., attribute_all of fakes in percent, the
    same of reals under real_*, and attribute_fakes_not_finite.
    Raises ValueError: as `accuracies`.
    """
    out = {}
    if generate is not None:
        logits, truth, bad, content = answers(classify, known, fakes(generate, caption_batches, number, seed))
        own = protocol.replace(real_number=0, real_origin="", fake_number=number, fake_content=content, seed=seed)
        out |= record({"attribute_fakes_not_finite": bad}, own)
        if bad == number:
            raise ValueError(f"all {number} generated pictures are not finite: nothing to measure")
        values = {f"attribute_{k}": v for k, v in accuracies(logits, truth).items()}
        out |= record(values, own.replace(fake_number=number - bad))
    if real_batches is not None:
        logits, truth, _, content = answers(classify, known, reals(real_batches, real_limit))
        values = {f"real_attribute_{k}": v for k, v in accuracies(logits, truth).items()}
        rows = len(next(iter(truth.values())))
        out |= record(values, protocol.replace(fake_number=0, fake_origin="", real_number=rows, real_content=content))
    return out
