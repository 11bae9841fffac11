"""Distillation: a student follows a teacher's similarities to a set of keys, or the teacher's logits."""

import jax
import jax.numpy as jnp

from supcon_jax.losses.contrast import mean_over, out_form
from supcon_jax.ops import rules
from supcon_jax.ops.arrays import LOWEST, masked_mean, wide
from supcon_jax.ops.rows import Sums, dense, merge


def distilled(q, k, teacher_q, teacher_k, *, scale, teacher_scale, own=None, veto=None, sums=dense):
    """Cross entropy of the student's distribution over keys to the teacher's, mean over queries.

        L = mean_i  -sum_j p_ij log( exp(s_ij) / sum_a exp(s_ia) ),   p_ij = exp(t_ij) / sum_a exp(t_ia)
        s_ij = scale <q_i, k_j>,   t_ij = teacher_scale <q'_i, k'_j>

    Hinton et al. 2015, arXiv 1503.02531, on similarities as Fang et al. 2021, arXiv 2101.04731 (keys are a queue
    of the teacher's). CLIP's distillation is the mean of images over texts and of texts over images.

    q, k: the student's rows [n, d] and [m, d]. teacher_q, teacher_k: the teacher's embeddings of the same rows,
    [n, e] and [m, e]. scale, teacher_scale: 1/temperature, f32[] or [n]. Nothing moves the teacher's side.
    own: one more key for each query, [n, d], d = e, which no other query sees. SEED: k and teacher_k the queue, own the
    teacher's rows, teacher_q again. veto, sums: as for supcon.
    Returns f32[]. With a teacher of great scale, and the teacher's own row among the keys, it is InfoNCE.
    """
    acc = wide(teacher_q, teacher_k)
    teacher_q, teacher_k, teacher_scale = (
        jax.lax.stop_gradient(jnp.asarray(a)).astype(acc) for a in (teacher_q, teacher_k, teacher_scale)
    )
    given = {"weigh": rules.everyone, "veto": veto}
    lse = sums(q.replace(x=teacher_q), k.replace(x=teacher_k), scale=teacher_scale, **given).lse
    logit = teacher_q * (teacher_scale[:, None] if teacher_scale.ndim else teacher_scale)
    if own is not None:
        own = jax.lax.stop_gradient(own)
        mine = jnp.sum(logit * own.astype(acc), axis=1)
        lse = jnp.logaddexp(lse, mine)
    # what the rule reads travels with the rows: log p_ij is a product of them
    student, keys = q, k
    q = q.replace(label=(q.label, jnp.concatenate([logit, -lse[:, None]], axis=1)))
    k = k.replace(label=(k.label, jnp.concatenate([teacher_k, jnp.ones_like(teacher_k[:, :1])], axis=1)))

    def follow(q, k):
        precision = jax.lax.Precision.HIGHEST
        return jnp.exp(jnp.einsum("ne,me->nm", q.label[1], k.label[1], precision=precision))

    def left_out(q, k):
        return veto(*(rows.replace(label=rows.label[0]) for rows in (q, k)))

    s = sums(q, k, scale=scale, weigh=follow, veto=left_out if veto else None)
    if own is not None:
        s = merge(s, _one_key(student, own, jnp.exp(mine - lse), scale, wide(student.x, keys.x)))
    return mean_over(*out_form(s), student)


def _one_key(q, own, weight, scale, acc):
    """Sums over the one key that each query has for itself."""
    s = jnp.sum(q.x.astype(acc) * own.astype(acc), axis=1) * jnp.asarray(scale, acc)
    weight = weight.astype(acc) if q.valid is None else weight.astype(acc) * q.valid.astype(bool).astype(acc)
    one = jax.lax.stop_gradient(s)
    return Sums(s, weight * s, weight, jnp.ones_like(s), one, jnp.full_like(one, LOWEST))


def compress(q, k, teacher_q, teacher_k, *, scale, veto=None, sums=dense):
    """CompRess: Kullback-Leibler divergence of the student's distribution over keys from the teacher's.

        L = mean_i  sum_j p_ij log( p_ij / r_ij ),   p_ij = softmax_j scale <q'_i, k'_j>,  r_ij = softmax_j scale <q_i, k_j>

    Abbasi Koohpayegani et al. 2020, arXiv 2010.14713: `distilled` less the teacher's entropy, which no gradient
    reaches. With two queues each net has its own keys of the same examples; with one, both have the teacher's.

    q, k: the student's rows [n, d] and its keys [m, d]. teacher_q, teacher_k: [n, e] and [m, e]; with one queue d = e and
    teacher_k is k.x. scale: 1/temperature (the authors: 25), f32[] or [n]. veto, sums: as for supcon. Returns f32[], >= 0.
    """
    how = {"scale": scale, "teacher_scale": scale, "veto": veto, "sums": sums}
    taught = (q.replace(x=jax.lax.stop_gradient(teacher_q)), k.replace(x=jax.lax.stop_gradient(teacher_k)))
    entropy = jax.lax.stop_gradient(distilled(*taught, teacher_q, teacher_k, **how))
    return distilled(q, k, teacher_q, teacher_k, **how) - entropy


def soft_labels(student, teacher, *, temperature=1.0, valid=None):
    """Distillation of logits: cross entropy of the student's classes to the teacher's, both softened.

        L = mean_i  -sum_c softmax_c(t_i / T) log softmax_c(s_i / T)

    Chen et al. 2020, arXiv 2006.10029 (SimCLR v2), eq. 2; with labels the method's loss is (1 - a) cross entropy + a L.

    student, teacher: logits [n, c]; no gradient flows into the teacher. valid: bool [n]. Returns f32[] (f64 for f64 logits).
    Differs from: Hinton et al. 2015, arXiv 1503.02531, who multiply by T^2.
    """
    acc = wide(student, teacher)
    share = jax.nn.softmax(jax.lax.stop_gradient(teacher).astype(acc) / temperature, axis=-1)
    values = -jnp.sum(share * jax.nn.log_softmax(student.astype(acc) / temperature, axis=-1), axis=-1)
    return jnp.mean(values) if valid is None else masked_mean(values, valid)
