"""R-precision: is a picture closer to the caption it was made from than to 99 others?

With captions of OTHER classes as candidates the number rises when captions of one class are merely pulled together;
with candidates WITHIN the class it falls then. The two are read side by side.
"""

import numpy as np

from supcon_jax.evals.fid import finite
from supcon_jax.evals.retrieval import TIE


def candidates(label, index, *, rule="other", count=99, seed=0, same=None):
    """Draw the candidate captions of every picture, the true one first.

    label: i32[n] (-1 is unlabelled), f32[n, c] multi-hot, or None for all unlabelled; index: i[n], which picture of
    the data set a caption describes; caption i is the true one of picture i.
    rule: "other": captions without any shared label (of other pictures where there are no labels);
          "within": captions of other pictures of the same class (multi-label: exactly the same labels).
    count: candidates beside the true one; fewer where there are not as many.
    same: i[n], equal numbers for equal captions: a candidate that says the same is no distractor and left out.
    Returns i32[n, 1 + count], -1 where there is no candidate. Same seed, same answer.
    """
    index = np.asarray(index)
    n = len(index)
    label = np.full(n, -1) if label is None else np.asarray(label)
    same = np.arange(n) if same is None else np.asarray(same)
    if rule not in ("other", "within"):
        raise ValueError(f"rule: {rule!r} is neither other nor within")
    if len(label) != n or len(same) != n:
        raise ValueError(f"label, index, same: lengths {len(label)}, {n}, {len(same)} disagree")
    rng = np.random.default_rng(seed)
    chosen = np.full((n, 1 + count), -1, np.int32)
    for i in range(n):
        free = (index != index[i]) & (same != same[i])
        if label.ndim == 2:
            match = (label == label[i]).all(1) & label[i].any() if rule == "within" else (label @ label[i]) == 0
        elif rule == "within":
            match = (label == label[i]) & (label[i] >= 0)
        else:
            match = (label != label[i]) | (label[i] < 0)
        pool = np.flatnonzero(free & match)
        drawn = rng.choice(pool, min(count, len(pool)), replace=False)
        chosen[i, 0] = i
        chosen[i, 1 : 1 + len(drawn)] = drawn
    return chosen


def unit(x):
    """Rows divided by their length (all-zero rows stay zero), float64."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-30)


def r_precision(image_codes, text_codes, candidate, chunk=256):
    """Top-1 hits of the true caption among its candidates by cosine; a tie is a miss.

        hit_i = [ cos(image_i, text_true) > max_j cos(image_i, text_j) ]

    Xu et al. 2018 (AttnGAN), arXiv 1711.10485, section 4.

    image_codes: [n, d]; text_codes: [m, d]; candidate: i[n, 1 + count] rows of text_codes, the true one first, -1 none.
    Returns bool[n]. Rows without a single wrong candidate are hits by nature: leave them out (see `usable`).
    """
    image, text = unit(finite("image_codes", image_codes)), unit(finite("text_codes", text_codes))
    candidate = np.asarray(candidate)
    hits = np.zeros(len(image), bool)
    for start in range(0, len(image), chunk):
        part = slice(start, start + chunk)
        s = np.einsum("nd,nkd->nk", image[part], text[candidate[part]])
        wrong = np.where(candidate[part, 1:] >= 0, s[:, 1:], -np.inf)
        hits[part] = s[:, 0] > wrong.max(1, initial=-np.inf) + TIE
    return hits


def usable(candidate):
    """bool[n]: rows with at least one wrong candidate."""
    return (np.asarray(candidate)[:, 1:] >= 0).any(1)


def chance(candidate):
    """Expected hits of random codes, in percent: mean of 1 / (number of candidates) over usable rows."""
    number = (np.asarray(candidate)[usable(candidate)] >= 0).sum(1)
    return float(100 * np.mean(1 / number)) if len(number) else float("nan")


def folds(hits, number=10):
    """Mean and population standard deviation, in percent, over consecutive folds (sizes differ by one at most).

    Differs from: AttnGAN and DM-GAN evaluation code (their slices drop the last picture of each fold).
    """
    hits = np.asarray(hits, np.float64)
    if not 1 <= number <= len(hits):
        raise ValueError(f"folds: {number} folds of {len(hits)} rows")
    means = [100 * part.mean() for part in np.array_split(hits, number)]
    return float(np.mean(means)), float(np.std(means))
