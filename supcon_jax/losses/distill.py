"""Distillation between embeddings: a student's similarities follow a teacher's."""

import jax
import jax.numpy as jnp

from supcon_jax.losses.contrast import supcon
from supcon_jax.ops import rules
from supcon_jax.ops.arrays import wide
from supcon_jax.ops.rows import dense


def distilled(q, k, teacher_q, teacher_k, *, scale, teacher_scale, veto=None, sums=dense):
    """Cross entropy of the student's distribution over keys to the teacher's, mean over queries.

        L = mean_i  -sum_j p_ij log( exp(s_ij) / sum_a exp(s_ia) ),   p_ij = exp(t_ij) / sum_a exp(t_ia)
        s_ij = scale <q_i, k_j>,   t_ij = teacher_scale <q'_i, k'_j>

    Hinton et al. 2015, arXiv 1503.02531, on similarities as Fang et al. 2021, arXiv 2101.04731 (keys are a queue
    of the teacher's). CLIP's distillation is the mean of images over texts and of texts over images.

    q, k: the student's rows [n, d] and [m, d]. teacher_q, teacher_k: the teacher's embeddings of the same rows,
    [n, e] and [m, e]; nothing moves them. scale, teacher_scale: 1/temperature, f32[] or [n]. veto, sums: as for supcon.
    Returns f32[]. With a teacher of great scale, and the teacher's own row among the keys, it is InfoNCE.
    """
    acc = wide(teacher_q, teacher_k)
    teacher_q, teacher_k = (jax.lax.stop_gradient(a).astype(acc) for a in (teacher_q, teacher_k))
    given = {"weigh": rules.everyone, "veto": veto}
    lse = sums(q.replace(x=teacher_q), k.replace(x=teacher_k), scale=teacher_scale, **given).lse
    teacher_scale = jnp.asarray(teacher_scale, acc)
    logit = teacher_q * (teacher_scale[:, None] if teacher_scale.ndim else teacher_scale)
    # what the rule reads travels with the rows: log p_ij is a product of them
    q = q.replace(label=(q.label, jnp.concatenate([logit, -lse[:, None]], axis=1)))
    k = k.replace(label=(k.label, jnp.concatenate([teacher_k, jnp.ones_like(teacher_k[:, :1])], axis=1)))

    def follow(q, k):
        precision = jax.lax.Precision.HIGHEST
        return jnp.exp(jnp.einsum("ne,me->nm", q.label[1], k.label[1], precision=precision))

    def left_out(q, k):
        return veto(*(rows.replace(label=rows.label[0]) for rows in (q, k)))

    return supcon(q, k, scale=scale, weights=follow, veto=left_out if veto else None, sums=sums)
