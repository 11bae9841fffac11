"""Contrastive predictive coding: a context predicts what comes some steps later, in sequences or down a grid of patches."""

import jax
import jax.numpy as jnp
from jax.nn import logsumexp

from supcon_jax.losses.contrast import info_nce
from supcon_jax.ops.arrays import wide
from supcon_jax.ops.rows import Rows, dense

NEGATIVES = ("batch", "sequence", "both")


def cpc(z, c, w, *, skip=0, negatives="both", scale=1.0, sums=dense):
    """CPC: InfoNCE of the code k steps ahead among other codes, for each of K steps.

        L = sum_{k=s+1..s+K} mean_{b,t}  -log( exp f_k(z_{b,t+k}, c_{b,t}) / sum_{z' in X} exp f_k(z', c_{b,t}) )
        f_k(z, c) = scale z^T W_k c

    van den Oord et al. 2018, arXiv 1807.03748, eq. 3 and 4; on images Henaff et al. 2020, arXiv 1905.09272: rows of patches
    below are predicted from the context of a patch, column by column.

    z: codes of b sequences [b, t, d], or of grids of patches [b, h, w, d], whose rows are the steps. c: contexts [b, t, e]
    or [b, h, w, e], each of what lies up to its own step. w: W_k [K, d, e]. Not normalised.
    skip: s, the next steps that are not asked for: patches that overlap are told by the strip they share. s + K < t.
    negatives: what X holds beside the code itself:
        "batch": the codes at its place in all other examples.
        "sequence": all other codes of its own example.
        "both": all other codes of the batch.
    sums: the door, for "both".
    Returns f32[] (f64 for f64 codes), at most sum_k log |X| for a context that knows nothing.
    Raises ValueError: an unknown word, shapes that disagree, no step to predict.
    """
    if negatives not in NEGATIVES:
        raise ValueError(f"negatives is {negatives!r}: choose one of {', '.join(NEGATIVES)}")
    fit = z.ndim in (3, 4) and z.shape[:-1] == c.shape[:-1] and w.shape[1:] == (z.shape[-1], c.shape[-1])
    if not fit:
        raise ValueError(f"codes {z.shape}, contexts {c.shape} and weights {w.shape} disagree: see cpc")
    steps, length = len(w), z.shape[1]
    if not (skip >= 0 < steps and skip + steps < length):
        asked = f"{skip + steps} steps ahead, {skip} of them skipped"
        raise ValueError(f"{asked}, in sequences of {length}: ask for 1 to {length - 1}")
    if z.ndim == 3:
        z, c = z[:, :, None], c[:, :, None]
    loss = jnp.zeros((), wide(z, c))
    for k, matrix in enumerate(w, start=skip + 1):
        ahead = _product("bthe,de->bthd", c[:, : length - k], matrix) * jnp.asarray(scale, loss.dtype)
        loss = loss + _step(ahead.astype(z.dtype), z, k, negatives, sums)
    return loss


def _product(form, a, b):
    exact = {"precision": jax.lax.Precision.HIGHEST, "preferred_element_type": wide(a, b)}
    return jnp.einsum(form, a, b, **exact)


def _step(ahead, z, k, negatives, sums):
    """The loss of predictions [b, t - k, h, d] of what is k steps ahead."""
    b, t, h, d = z.shape
    if negatives == "both":
        place = jnp.arange(b * t * h, dtype=jnp.int32).reshape(b, t, h)
        q = Rows(ahead.reshape(-1, d), index=place[:, k:].reshape(-1))
        return info_nce(q, Rows(z.reshape(-1, d), index=place.reshape(-1)), scale=1.0, sums=sums)
    if negatives == "batch":
        s = _product("bthd,athd->btha", ahead, z[:, k:])
        own = jnp.einsum("bthb->bth", s)
    else:
        s = _product("bthd,bsgd->bthsg", ahead, z)
        i, j = jnp.arange(t - k)[:, None], jnp.arange(h)[None, :]
        own = s[:, i, j, i + k, j]
        s = s.reshape(b, t - k, h, t * h)
    return jnp.mean(logsumexp(s, axis=-1) - own)
