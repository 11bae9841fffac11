"""Contrastive losses that read row sums: InfoNCE, NT-Xent, supervised contrast, label-guided image-text contrast."""

import jax
import jax.numpy as jnp

from supcon_jax.ops import rows as rule
from supcon_jax.ops.arrays import masked_mean, wide
from supcon_jax.ops.rows import Rows, dense


def supcon(
    q,
    k=None,
    *,
    scale,
    empty="drop",
    base=None,
    weights=rule.same_label,
    norm="weight",
    veto=None,
    mean="anchors",
    sums=dense,
):
    """Supervised contrastive loss, mean over positives outside the log (L_out).

        L = mean_i  -1/norm_i sum_j w_ij log( exp(s_ij) / sum_{a != i} exp(s_ia) ),   s_ij = scale <q_i, k_j>

    Khosla et al. 2020, arXiv 2004.11362, eq. 2 (w = same label, norm = number of positives).

    q: rows of n unit vectors [n, d] f32/bf16 with what the rule reads: labels [n] i32 or [n, c] multi-hot, index.
    k: rows of m keys; the queries themselves, each without itself, if left out.
    scale: 1/temperature, f32[] or [n].
    empty: rows without a positive: "drop" (neither in sum nor in mean) or "zero" (in the mean, as the authors' code).
    base: temperature T0; the loss is scaled by T/T0 as the authors' code does (T0 = 0.07; other codes by T: 1, or by 2 T:
    0.5); no scaling if left out.
    weights: the rule for w_ij, from the two rows' labels and ids; same label if left out.
    norm: "weight" (sum of w_ij), "count" (number of positives, as the public Jaccard variants do) or an array [n].
    veto: the rule for pairs left out of numerator and denominator; same_index if k is left out.
    mean: over "anchors", or over "terms": anchors weighed by their sum of w_ij (MulSupCon's plain mean, no
    empty terms).
    sums: which door computes the sums: rows.dense, sharded.gather(mesh), ...
    Returns f32[] (f64 for f64 rows); 0 where no row has a positive.
    Raises ValueError: an unknown word, or rows without the labels or ids that are needed.
    Differs from: optax.losses.ntxent (other positives left out of the denominator).
    """
    values, has = supcon_rows(q, k, scale=scale, base=base, weights=weights, norm=norm, veto=veto, mean=mean, sums=sums)
    return mean_over(values, has, q, empty, mean)


def supcon_both(
    q, k, *, scale, empty="drop", base=None, weights=rule.same_label, norm="weight", veto=None, mean="anchors", sums=dense
):
    """supcon of the queries over the keys and of the keys over the queries, read from one visit of each pair.

    Arguments as for supcon; scale: f32[], or [n] for n queries and n keys alike. norm: a word.
    Returns (f32[], f32[]): supcon(q, k, ...) and supcon(k, q, ...).
    """
    _check_labels(q, weights)
    found = rule.both(sums, q, k, scale=scale, weigh=weights, veto=veto)
    read = [out_form(s, norm=norm, mean=mean, factor=over_base(scale, base)) for s in found]
    return tuple(mean_over(*one, anchors, empty, mean) for one, anchors in zip(read, (q, k), strict=True))


def mean_over(values, has, anchors, empty="drop", mean="anchors"):
    """The mean of anchors' losses [n] with their weights in it [n], as `empty` and `mean` of supcon say."""
    _one_of("empty", empty, ("drop", "zero"))
    _one_of("mean", mean, ("anchors", "terms"))
    if empty == "drop" or mean == "terms":
        return masked_mean(values, has)
    return masked_mean(values, jnp.ones_like(has) if anchors.valid is None else anchors.valid.astype(bool))


def _one_of(name, word, words):
    if word not in words:
        raise ValueError(f'{name} is {word!r}: say "{words[0]}" or "{words[1]}"')


def _check_labels(q, weights):
    if weights is rule.same_label and q.label is None:
        raise ValueError("the rows carry no labels: give Rows(x, label=...) or another rule for the positives")


def over_base(scale, base):
    """T/T0, or None where the loss is not scaled."""
    return None if base is None else 1 / (jnp.asarray(scale) * base)


def supcon_rows(
    q, k=None, *, scale, base=None, weights=rule.same_label, norm="weight", veto=None, mean="anchors", sums=dense
):
    """The supervised contrastive loss of each anchor: arguments as supcon. Returns (loss [n], weight in the mean [n]).

    The weight is 1 where the anchor has a positive ("anchors") or sum_j w_ij ("terms"); without a positive both are 0.
    """
    _check_labels(q, weights)
    if k is None:
        q = with_index(q)
        k, veto = q, veto or rule.same_index
    weigh, q, k = rule.ready(weights, q, k, veto)
    s = sums(q, k, scale=scale, weigh=weigh, veto=veto)
    return out_form(s, norm=norm, mean=mean, factor=over_base(scale, base))


def out_form(s, *, norm="weight", mean="anchors", factor=None):
    """Reads L_out from row sums: (wgt lse - pos) / norm for each row, and the row's weight in the mean, each [n]."""
    _one_of("mean", mean, ("anchors", "terms"))
    if isinstance(norm, str):
        if norm not in ("weight", "count"):
            raise ValueError(f'norm is {norm!r}: say "weight", "count" or give an array [n]')
        norm = s.wgt if norm == "weight" else s.cnt
    has = s.wgt > 0
    values = (s.wgt * jnp.where(has, s.lse, 0) - s.pos) / jnp.where(has, norm, 1).astype(s.wgt.dtype)
    values = jnp.where(has, values, 0)
    if factor is not None:
        values = values * factor.astype(values.dtype)
    return values, s.wgt if mean == "terms" else has.astype(values.dtype)


def info_nce(q, k, *, scale, base=None, veto=None, sums=dense):
    """InfoNCE: cross entropy of each query's own key among all keys, mean over queries.

        L = mean_i  log sum_j exp(s_ij) - s_ii,   s_ij = scale <q_i, k_j>

    van den Oord et al. 2018, arXiv 1807.03748, eq. 4. CLIP's loss is the mean of the two of info_nce_both.

    q, k: rows [n, d] and [m, d]; own pairs have the same `index` (their position if left out). scale: f32[] or [n].
    base: as for supcon. veto: pairs left out of the denominator. sums: the door.
    Returns f32[]; queries without an own key drop out.
    """
    return supcon(with_index(q), with_index(k), scale=scale, base=base, weights=rule.same_index, veto=veto, sums=sums)


def info_nce_both(q, k, *, scale, base=None, veto=None, sums=dense):
    """InfoNCE of the queries among the keys and of the keys among the queries, read from one visit of each pair.

        CLIP's loss = (L(Q->K) + L(K->Q)) / 2,   Radford et al. 2021, arXiv 2103.00020, figure 3

    Arguments as for info_nce. Returns (f32[], f32[]).
    """
    q, k = with_index(q), with_index(k)
    return supcon_both(q, k, scale=scale, base=base, weights=rule.same_index, veto=veto, sums=sums)


def ntxent(views, *, scale, base=None, valid=None, mean="anchors", sums=dense):
    """NT-Xent: each view finds the other view of its example among all other views of the batch.

        L = mean_i  log sum_{a != i} exp(s_ia) - s_{i p(i)}

    Chen et al. 2020, arXiv 2002.05709, eq. 1. With more than two views, the mean over the other views (L_out).

    views: unit rows [n, v, d] of n examples, v >= 2 views. scale: 1/temperature, f32[] or [n v]. valid: [n] or None.
    base: as for supcon. mean: over "anchors", all views alike, or over "examples": an example's views are summed, which
    makes the loss v times as large (the authors' code). sums: the door.
    Returns f32[].
    Raises ValueError: an unknown word.
    """
    _one_of("mean", mean, ("anchors", "examples"))
    n, v, d = views.shape
    row = jnp.arange(n * v, dtype=jnp.int32)
    valid = None if valid is None else jnp.repeat(valid, v)
    q = Rows(views.reshape(n * v, d), label=row // v, index=row, valid=valid)
    return supcon(q, scale=scale, base=base, sums=sums) * (v if mean == "examples" else 1)


def with_index(rows):
    """The rows with their position as identity, unless they already have one."""
    if rows.index is not None:
        return rows
    return rows.replace(index=jnp.arange(rows.x.shape[0], dtype=jnp.int32))


# label_mode -> (rule for w_ij, what the mean runs over)
LABEL_MODES = {
    "single": (rule.same_label, "anchors"),
    "any": (rule.any_label, "anchors"),
    "all": (rule.all_labels, "anchors"),
    "jaccard": (rule.jaccard(), "anchors"),
    "idf": (rule.idf(), "anchors"),
    "mulsupcon": (rule.mulsupcon, "terms"),
    "mulsupcon_weighted": (rule.mulsupcon, "anchors"),
}


def label_supcon(
    image,
    text,
    label=None,
    *,
    scale,
    index=None,
    valid=None,
    inter=1.0,
    inner=1.0,
    label_mode="single",
    text_inner=True,
    stop_text=False,
    sums=dense,
):
    """Label-guided contrast between and within images and texts: all that share labels attract.

        L_inter = (L(V->T) + L(T->V)) / 2,   L_inner = (L(V->V) + L(T->T)) / 2,   total = inter L_inter + inner L_inner

    L(A->C) is L_out (Khosla et al. 2020, arXiv 2004.11362, eq. 2) with weights w_ij from the labels. A
    reconstruction of
    the loss of arXiv 2412.03957 from its abstract: the paper does not give the denominators in public.
    A row leaves only itself out, and only within its modality; the caption of an image counts as a positive. Rows
    without a label have the views of their own example as positives, and drop out of a block where there are none.

    image, text: unit rows [n, d] of all branches (row = example * branches + branch); row i of both is a pair.
    label: i32[n] class ids (-1: unlabelled), or [n, c] multi-hot (all zero: unlabelled); all unlabelled if left out.
    scale: 1/temperature, f32[] or [n]. index: i32[n] example of each row; every row its own if left out. valid: [n].
    inter, inner: weights of the two terms; a block with weight 0 is not computed.
    label_mode: a key of LABEL_MODES, or a rule.
    text_inner: False leaves L(T->T) out, where the text side is frozen and the block has no gradient; L_inner is then
    L(V->V) / 2. stop_text: no gradient into the texts.
    Returns (total f32[], {"inter", "inner", "image_text", "text_image", "image_image", "text_text"}: those computed).
    Raises ValueError: unknown label_mode, or labels of the wrong shape for it.
    """
    weights, mean = _mode(label_mode, label)
    row = jnp.arange(image.shape[0], dtype=jnp.int32)
    if label is None:
        label = jnp.full(row.shape, -1, jnp.int32)
    v = Rows(image, label, row, valid, row if index is None else index)
    t = v.replace(x=jax.lax.stop_gradient(text) if stop_text else text)

    how = {"scale": scale, "weights": rule.own_or(weights), "mean": mean, "sums": sums}

    terms = {}
    total = jnp.zeros((), wide(image, text))
    if inter:
        terms["image_text"], terms["text_image"] = supcon_both(v, t, **how)
        terms["inter"] = (terms["image_text"] + terms["text_image"]) / 2
        total = total + inter * terms["inter"]
    if inner:
        terms["image_image"] = supcon(v, v, veto=rule.same_index, **how)
        if text_inner:
            terms["text_text"] = supcon(t, t, veto=rule.same_index, **how)
        terms["inner"] = (terms["image_image"] + terms.get("text_text", 0)) / 2
        total = total + inner * terms["inner"]
    return total, terms


def _mode(label_mode, label):
    """The rule and the mean of a label mode, after a check that the labels have the shape that it reads."""
    if callable(label_mode) or isinstance(label_mode, rule.Counted):
        return label_mode, "anchors"
    if label_mode not in LABEL_MODES:
        raise ValueError(f"label_mode is {label_mode!r}: choose one of {', '.join(LABEL_MODES)}")
    if label is None:
        return LABEL_MODES["single"]
    wanted = 1 if label_mode == "single" else 2
    if label.ndim != wanted:
        shape = "class ids [n]" if wanted == 1 else "multi-hot labels [n, c]"
        raise ValueError(f"label_mode {label_mode!r} reads {shape}, the labels have shape {label.shape}")
    return LABEL_MODES[label_mode]
