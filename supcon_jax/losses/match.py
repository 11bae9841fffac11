"""Matching of images and captions by words and regions (DAMSM)."""

import jax
import jax.numpy as jnp

from supcon_jax.losses.contrast import info_nce_both, with_index
from supcon_jax.ops.arrays import LOWEST, cosine, unit, wide
from supcon_jax.ops.rows import Rows, dense, same_label_other


def attend(regions, words, valid, gamma):
    """Attention of the words of one caption over the regions of one image.

        a_wr = softmax_w <e_w, h_r>,   alpha_wr = softmax_r( gamma a_wr ),   context_w = sum_r alpha_wr h_r

    Xu et al. 2018, arXiv 1711.10485, eqs. 7-9.

    regions: [r, d]. words: [t, d]. valid: bool[t], False for padding, which takes no share of any region.
    Returns (context [t, d], alpha [t, r]); rows of padding hold no meaning.
    """
    acc = wide(regions, words)
    exact = {"precision": jax.lax.Precision.HIGHEST, "preferred_element_type": acc}
    share = jnp.einsum("td,rd->tr", words, regions, **exact)
    share = jax.nn.softmax(jnp.where(valid[:, None], share, LOWEST), axis=0)
    alpha = jax.nn.softmax(gamma * share, axis=1)
    return jnp.einsum("tr,rd->td", alpha, regions.astype(acc), **exact), alpha


def words(regions, words, text_len, label=None, *, gammas=(4.0, 5.0, 10.0), group=None, attention=False):
    """Word-level DAMSM: cross entropy of every image's own caption among all captions, and the other way round.

        R_ij = log sum_w exp( gamma_2 cos(e_jw, context_ijw) ),   loss_0 = CE over j of gamma_3 R_ij, loss_1 over i

    Xu et al. 2018, arXiv 1711.10485, eqs. 7-12. Pairs of the same label are left out of both, except the pair itself.

    regions: [n, r, d] region features of n images. words: [n, t, d] word features of their captions.
    text_len: i32[n] number of words, at least 1 (a caption of no word is read as its first position).
    label: i32[n] class ids, negative for unlabelled; or None: every pair is its own class.
    gammas: (attention, words, loss). group: the n x n scores are made in groups of at most that many rows in a row, the
    largest divisor of n; the loss is the mean over groups. attention: return the own pairs' maps too.
    Returns (loss_0, loss_1), each f32[]; with attention (loss_0, loss_1, alpha [n, t, r]).
    Raises ValueError: shapes disagree.
    Differs from: the paper's eq. 10 (no power 1/gamma_2 there in the authors' code, nor here).
    """
    n, t = words.shape[:2]
    if regions.shape[0] != n or regions.shape[-1] != words.shape[-1] or text_len.shape != (n,):
        raise ValueError(f"regions {regions.shape}, words {words.shape} and text_len {text_len.shape} do not fit")
    label = jnp.full(n, -1, jnp.int32) if label is None else label
    valid = jnp.arange(t, dtype=jnp.int32)[None, :] < jnp.maximum(text_len.astype(jnp.int32), 1)[:, None]
    size = _group(n, group)
    if size == n:  # no axis of groups, with which XLA's CPU products take three times as long
        loss0, loss1, alpha = _group_words(regions, words, valid, label, gammas)
        return (loss0, loss1, alpha) if attention else (loss0, loss1)
    parts = jax.tree.map(lambda a: a.reshape(n // size, size, *a.shape[1:]), (regions, words, valid, label))
    loss0, loss1, alpha = jax.vmap(lambda *part: _group_words(*part, gammas))(*parts)
    losses = jnp.mean(loss0), jnp.mean(loss1)
    return (*losses, alpha.reshape(n, *alpha.shape[2:])) if attention else losses


def _group(n, group):
    """The largest divisor of n that is not above `group`."""
    return n if group is None else max(size for size in range(1, min(n, max(group, 1)) + 1) if n % size == 0)


def _group_words(regions, words, valid, label, gammas):
    """One group: losses over its own n x n pairs and the attention of its own pairs."""
    gamma1, gamma2, gamma3 = gammas

    def score(regions, words, valid):
        context, alpha = attend(regions, words, valid, gamma1)
        match = gamma2 * cosine(words, context)
        return jax.nn.logsumexp(jnp.where(valid, match, LOWEST)), alpha

    of_image = jax.vmap(score, (None, 0, 0))
    r, alpha = jax.vmap(of_image, (0, None, None))(regions, words, valid)
    own = jnp.eye(label.shape[0], dtype=bool)
    alike = (label[:, None] == label[None, :]) & (label >= 0)[:, None] & ~own
    logits = jnp.where(alike, LOWEST, gamma3 * r)
    pair = jnp.diagonal(logits)
    loss0 = jnp.mean(jax.nn.logsumexp(logits, axis=1) - pair)
    loss1 = jnp.mean(jax.nn.logsumexp(logits, axis=0) - pair)
    return loss0, loss1, jnp.einsum("iitr->itr", alpha)


def sentences(code, sentence, label=None, *, gamma=10.0, index=None, sums=dense):
    """Sentence-level DAMSM: as `words`, with the cosine of the image code and the sentence for a score.

        loss_0 = mean_i CE over j of gamma cos(g_i, f_j), loss_1 over i

    Xu et al. 2018, arXiv 1711.10485, eqs. 11-13.

    code, sentence: [n, d] of n images and their captions, any length. label: i32[n] or None, as in `words`.
    gamma: the loss's gamma_3. index: i32[n] identity of the pairs, their position if left out. sums: the door.
    Returns (loss_0, loss_1), each f32[].
    """
    label = jnp.full(code.shape[0], -1, jnp.int32) if label is None else label
    q = with_index(Rows(unit(code, eps=1e-8), label, index))
    k = q.replace(x=unit(sentence, eps=1e-8))
    return info_nce_both(q, k, scale=gamma, veto=same_label_other, sums=sums)
