"""Contrast along a hierarchy of labels: each level attracts what shares its ancestors."""

import jax.numpy as jnp

from supcon_jax.losses.contrast import supcon, with_index
from supcon_jax.ops.rows import dense


def hierarchical(q, *, scale, kind="hmce", base=None, empty="zero", sums=dense):
    """Hierarchical multi-label contrastive loss (HMLC): SupCon level by level, from the finest labels to the coarsest.

        L = 1/c sum_{l=1}^{c-1} 2^{1/l} M_l,   L_l = SupCon with same label = the first c - l ids alike
        M_l = L_l ("hmc"),  M_l = max(L_l, M_{l-1}) ("hmce": no level costs less than a finer one);
        "hce" is "hmce" without the penalties 2^{1/l}.

    Once a level is done, only the first example of each of its groups goes on to the next one.
    Zhang et al. 2022, arXiv 2204.13207.

    q: rows of n unit vectors [n, d] with label i32[n, c], c >= 2 ids from coarse to fine (the last may name the
    example), record i32[n] where rows are views of the same example (every row its own if left out).
    scale: 1/temperature, f32[] or [n]. kind: "hmc", "hce" or "hmce". base, empty, sums: as for contrast.supcon.
    Returns f32[].
    Raises ValueError: an unknown kind, or labels that are no hierarchy of at least two levels.
    """
    if kind not in ("hmc", "hce", "hmce"):
        raise ValueError(f'kind is {kind!r}: say "hmc", "hce" or "hmce"')
    if q.label is None or q.label.ndim != 2 or q.label.shape[1] < 2:
        raise ValueError("hierarchical labels have the shape [n, c], c >= 2 ids from coarse to fine")
    n, levels = q.label.shape
    q = with_index(q)
    record = jnp.arange(n, dtype=jnp.int32) if q.record is None else q.record
    valid = jnp.ones(n, bool) if q.valid is None else q.valid.astype(bool)
    total, finer = 0.0, None
    for level in range(1, levels):
        group, first = _groups(q.label[:, : levels - level], valid)
        loss = supcon(q.replace(label=group, valid=valid), scale=scale, base=base, empty=empty, sums=sums)
        if kind != "hmc":
            loss = finer = loss if finer is None else jnp.maximum(loss, finer)
        total = total + (1.0 if kind == "hce" else 2 ** (1 / level)) * loss
        valid = valid & (record == record[first])
    return total / levels


def _groups(label, valid):
    """For each row, the number of its group of equal labels and the first valid row of that group, both i32[n]."""
    n = label.shape[0]
    # rows that are not valid form groups of their own, so that none of them is anybody's first
    marked = jnp.concatenate([label, ~valid[:, None]], axis=1, dtype=label.dtype)
    _, first, group = jnp.unique(marked, axis=0, size=n, return_index=True, return_inverse=True)
    return group.astype(jnp.int32), first[group]
