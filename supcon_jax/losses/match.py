"""Matching by parts: images and captions by regions and words (DAMSM), token sets by their best tokens."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from supcon_jax.losses.contrast import info_nce, info_nce_both, with_index
from supcon_jax.ops.arrays import LOWEST, cosine, unit, wide
from supcon_jax.ops.rows import Rows, all_labels, any_label, dense, other, same_label_other
from supcon_jax.ops.scores import MaxSim, by


def attend(regions, words, valid, gamma, compete=True):
    """Attention of the words of one caption over the regions of one image.

        a_wr = softmax_w <e_w, h_r>,   alpha_wr = softmax_r( gamma a_wr ),   context_w = sum_r alpha_wr h_r

    Xu et al. 2018, arXiv 1711.10485, section 3.2.

    regions: [r, d]. words: [t, d]. valid: bool[t], False for padding, which takes no share of any region.
    compete: False leaves the softmax over the words out, a_wr = <e_w, h_r>: each word attends for itself.
    Returns (context [t, d], alpha [t, r]); rows of padding hold no meaning.
    """
    acc = wide(regions, words)
    exact = {"precision": jax.lax.Precision.HIGHEST, "preferred_element_type": acc}
    share = jnp.einsum("td,rd->tr", words, regions, **exact)
    if compete:
        share = jax.nn.softmax(jnp.where(valid[:, None], share, LOWEST), axis=0)
    alpha = jax.nn.softmax(gamma * share, axis=1)
    return jnp.einsum("tr,rd->td", alpha, regions.astype(acc), **exact), alpha


@dataclass(frozen=True)
class WordScore:
    """How well the words of a caption find themselves in an image, a score for ops.scores.

        R_ij = log sum_w exp( words cos(e_jw, context_ijw) ),   context of `attend` with gamma = attention

    Xu et al. 2018, arXiv 1711.10485, without the power 1/gamma_2, as in the authors' code.

    q.x: [n, r, d] regions. k.x: [m, t, d] words. k.mask: bool [m, t]. Returns [n, m].
    compete: see `attend`.
    """

    attention: float
    words: float
    compete: bool = True

    def __call__(self, q, k):
        def score(regions, words, valid):
            context, _ = attend(regions, words, valid, self.attention, self.compete)
            return jax.nn.logsumexp(jnp.where(valid, self.words * cosine(words, context), LOWEST))

        of_image = jax.vmap(score, (None, 0, 0))
        return jax.vmap(of_image, (0, None, None))(q.x, k.x, k.mask)


any_label_other, all_labels_other = other(any_label), other(all_labels)


def mask(label, label_mode="single"):
    """DAMSM's class mask as arguments of `words` and `sentences`: who shares a label is neither negative nor positive.

    label: i32[n] class ids, negative for unlabelled: pairs of one class share. Or [n, c] multi-hot: by `label_mode`, a
    key of contrast.LABEL_MODES, pairs with the same labels ("all"), nobody ("single", which does not read them: as the
    published code has it on COCO), or else pairs with any label in common, which are those of positive weight.
    Returns {"label", "veto"}, or {} where nobody shares.
    Differs from: the weights of "idf", which are zero for a label that the whole batch carries.
    """
    if label.ndim == 1:
        return {"label": label, "veto": same_label_other}
    if label_mode == "single":
        return {}
    return {"label": label, "veto": all_labels_other if label_mode == "all" else any_label_other}


def words(
    regions, words, text_len, label=None, *, gammas=(4.0, 5.0, 10.0), group=None, lanes=None, attention=False, index=None,
    veto=same_label_other, compete=True, sums=dense,
):  # fmt: skip
    """Word-level DAMSM: cross entropy of every image's own caption among all captions, and the other way round.

        R_ij = log sum_w exp( gamma_2 cos(e_jw, context_ijw) ),   loss_0 = CE over j of gamma_3 R_ij, loss_1 over i

    Xu et al. 2018, arXiv 1711.10485, section 3.2. Pairs of the same label are left out of both, except the pair itself.

    regions: [n, r, d] region features of n images. words: [n, t, d] word features of their captions.
    text_len: i32[n] number of words, at least 1 (a caption of no word is read as its first position).
    label: i32[n] class ids, negative for unlabelled; or None: every pair is its own class. veto: the rule for pairs that
    are left out, for other labels than class ids, see `mask`. compete: see `attend`.
    gammas: (attention, words, loss), numbers. group: the scores are made in groups of at most that many rows in a row,
    the largest divisor of n, each whole on its device; the loss is the mean over groups. One group of all n rows if
    left out. lanes: so many groups are scored at once, and once more for the gradient, so that no more of them lie in
    memory: the number of devices that share the rows. All groups if left out, or if lanes does not divide their number.
    attention: return the own pairs' maps too. index: i32[n] identity of the pairs, their position if left out.
    sums: the door through which all n rows meet where they are one group: in tiles of n' x m' pairs, with n' m' t r
    numbers at a time. rows.dense holds n n t r of them.
    Returns (loss_0, loss_1), each f32[]; with attention (loss_0, loss_1, alpha [n, t, r]).
    Raises ValueError: shapes disagree.
    Differs from: the paper (no power 1/gamma_2 there in the authors' code, nor here).
    """
    n, t = words.shape[:2]
    if regions.shape[0] != n or regions.shape[-1] != words.shape[-1] or text_len.shape != (n,):
        raise ValueError(f"regions {regions.shape}, words {words.shape} and text_len {text_len.shape} do not fit")
    label = jnp.full(n, -1, jnp.int32) if label is None else label
    valid = jnp.arange(t, dtype=jnp.int32)[None, :] < jnp.maximum(text_len.astype(jnp.int32), 1)[:, None]
    q = with_index(Rows(regions, label, index))
    k = q.replace(x=words, mask=valid)
    score, size = WordScore(*gammas[:2], compete), _group(n, group)

    def losses(q, k, sums=dense):
        return info_nce_both(q, k, scale=gammas[2], veto=veto, sums=by(sums, score))

    if size == n:  # no axis of groups, with which XLA's CPU products take three times as long
        found = losses(q, k, sums)
    else:
        found = _over_groups(losses, (q, k), n // size, lanes)
    if not attention:
        return found
    return *found, jax.vmap(lambda *pair: attend(*pair, gammas[0], compete)[1])(regions, words, valid)


def _over_groups(losses, rows, groups, lanes):
    """The means of both losses over so many groups of rows, `lanes` of them at once."""
    lanes = groups if lanes is None or groups % lanes else lanes

    def cut(a):  # lane by lane, as devices hold the rows
        return a.reshape(lanes, groups // lanes, -1, *a.shape[1:]).swapaxes(0, 1)

    def one(part):
        if lanes > 1:
            return jax.vmap(losses)(*part)
        return losses(*jax.tree.map(lambda a: a[0], part))  # an axis of one makes XLA's CPU products three times slower

    parts = jax.tree.map(cut, rows)
    if groups == lanes:
        return tuple(jnp.mean(loss) for loss in one(jax.tree.map(lambda a: a[0], parts)))
    return tuple(jnp.mean(loss) for loss in jax.lax.map(jax.checkpoint(one), parts))


def _group(n, group):
    """The largest divisor of n that is not above `group`."""
    return n if group is None else max(size for size in range(1, min(n, max(group, 1)) + 1) if n % size == 0)


def late_interaction(q, k, *, scale, mean=False, veto=None, sums=dense):
    """InfoNCE of token sets: cross entropy of each query's own key, by the best match of each of the query's tokens.

        L = mean_i  log sum_j exp(s_ij) - s_ii,   s_ij = scale sum_t max_u <q_it, k_ju>

    Khattab and Zaharia 2020, arXiv 2004.12832 (ColBERT: queries among passages); with mean, 1/|q_i| of the sum, one
    direction of Yao et al. 2021, arXiv 2111.07783 (FILIP), whose loss is the mean of (images, texts) and (texts, images).

    q: rows x [n, t, d] of unit tokens, mask bool [n, t] (all tokens if left out), index (position if left out).
    k: rows x [m, u, d], as q. scale: 1/temperature, f32[] or [n]. veto: pairs left out of the denominator.
    sums: the door. Returns f32[]; queries without an own key drop out.
    """
    return info_nce(q, k, scale=scale, veto=veto, sums=by(sums, MaxSim(mean)))


def sentences(code, sentence, label=None, *, gamma=10.0, index=None, veto=same_label_other, sums=dense):
    """Sentence-level DAMSM: as `words`, with the cosine of the image code and the sentence for a score.

        loss_0 = mean_i CE over j of gamma cos(g_i, f_j), loss_1 over i

    Xu et al. 2018, arXiv 1711.10485, section 3.2, with sentences in the place of words.

    code, sentence: [n, d] of n images and their captions, any length. label, veto: as in `words`.
    gamma: the loss's gamma_3. index: i32[n] identity of the pairs, their position if left out. sums: the door.
    Returns (loss_0, loss_1), each f32[].
    """
    label = jnp.full(code.shape[0], -1, jnp.int32) if label is None else label
    q = with_index(Rows(unit(code, eps=1e-8), label, index))
    k = q.replace(x=unit(sentence, eps=1e-8))
    return info_nce_both(q, k, scale=gamma, veto=veto, sums=sums)
