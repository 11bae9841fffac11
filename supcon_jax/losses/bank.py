"""Contrast with rows that are kept: each query has one own key, and many others that all or some queries share.

A memory bank holds one row for each example of the data, written by index; a queue (ops.queue) holds the latest ones.
"""

import jax
import jax.numpy as jnp

from supcon_jax.ops import rows as rule
from supcon_jax.ops.arrays import LOWEST, average, masked_mean, unit, wide
from supcon_jax.ops.pairs import pairs
from supcon_jax.ops.rows import Rows, dense

NEGATIVES = ("shared", "per_anchor")
NCE_EPS = 1e-7


def among(q, own, others, *, scale, base=None, sums=dense):
    """InfoNCE of each query's own key among other keys, which are nobody's own: MoCo's loss, and a bank's.

        L = mean_i  -log( exp(s_i) / (exp(s_i) + sum_j exp(s_ij)) ),   s_i = scale <q_i, k_i>,  s_ij = scale <q_i, o_j>

    He et al. 2020, arXiv 1911.05722, eq. 1. The own keys of other queries are not summed over, so no n x n block is made.

    q: Rows of n unit queries. own: unit keys [n, d]. others: Rows of m unit keys (ops.queue.keys; those that are not valid
    are left out). scale: 1/temperature, f32[] or [n]. base: as for contrast.supcon. sums: the door.
    Returns f32[] (f64 for f64 rows). Gradients flow into whatever is not stopped: stop the keys of a teacher.
    """
    near = _own(q, own, scale)
    far = sums(q, others, scale=scale, weigh=_nobody).lse
    values = jnp.logaddexp(near, far.astype(near.dtype)) - near
    if base is not None:
        values = values / (jnp.asarray(scale, values.dtype) * base)
    return _mean(values, q)


def contrast(q, bank, index, drawn, *, scale, form="softmax", z=None, own="keep", sums=dense):
    """Each query finds the bank's row of its own example among rows drawn from the bank.

        softmax:  L = mean_i  -log( exp(s_i) / (exp(s_i) + sum_j exp(s_ij)) )
        nce:      L = mean_i  -log( P_i / (P_i + m/N + e) ) - sum_j log( (m/N) / (P_ij + m/N + e) ),   P = exp(s) / z

    s: scale times the product with a row of the bank; m rows drawn of N, e = 1e-7. Wu et al. 2018, arXiv 1805.01978, eq. 4
    to 8 (InstDisc); Tian et al. 2020, arXiv 1906.05849, whose method is the sum of two: each view's queries against the
    bank of the other view.

    q: Rows of n unit queries. bank: unit rows [N, d]; no gradient. index: i32[n], the queries' rows in it. drawn: i32[m]
    that all queries share (one product), or i32[n, m], each its own (as the authors' code): see `draw`. form: "softmax" or
    "nce". z: the constant of "nce", from `normaliser`. own: "keep" draws of the query's own row among the negatives, as the
    authors' code does, or "drop" them. sums: the door, for shared rows.
    Returns f32[] (f64 for f64 rows). Queries that are not valid drop out.
    Raises ValueError: an unknown word; "nce" without z, or z without "nce".
    """
    for name, word, words in (("form", form, ("softmax", "nce")), ("own", own, ("keep", "drop"))):
        if word not in words:
            raise ValueError(f'{name} is {word!r}: say "{words[0]}" or "{words[1]}"')
    if (z is None) == (form == "nce"):
        raise ValueError('z is the constant of form="nce", and of no other: see bank.normaliser')
    bank = jax.lax.stop_gradient(bank)
    near = _own(q, bank[index], scale)
    if form == "softmax":
        far = _others(q, bank, index, drawn, scale, own, sums).astype(near.dtype)
        return _mean(jnp.logaddexp(near, far) - near, q)
    noise = drawn.shape[-1] / len(bank)
    floor = noise + NCE_EPS
    bias = -jnp.log(jnp.asarray(z, near.dtype) * floor)  # P / floor = exp(s + bias)
    far, number = _others(q, bank, index, drawn, scale, own, sums, bias)
    here = jax.nn.softplus(-near - bias)  # -log( P / (P + floor) )
    return _mean(here + far - number * jnp.log(jnp.asarray(noise / floor, near.dtype)), q)


def normaliser(q, bank, index, drawn, *, scale):
    """The constant of the NCE form, from the first batch: z = N mean exp(s), the own row among those drawn; no gradient.

    Wu et al. 2018, arXiv 1805.01978, section 3.2. Arguments as for `contrast`. Returns f32[] (f64 for f64 rows).
    """
    near = _own(q, bank[index], scale)
    if drawn.ndim == 1:
        s = rule.logits(q, Rows(bank[drawn]), scale)
    else:
        s = _each(q, bank, drawn, scale)
    return jax.lax.stop_gradient(len(bank) * jnp.mean(jnp.exp(jnp.concatenate([near[:, None], s], axis=1))))


def pirl(image, changed, bank, index, drawn, *, scale, lam=0.5, form="softmax", z=None, own="keep", sums=dense):
    """PIRL: the representation of an image and that of its transformed version are both drawn to the bank's row.

        L = lam h(m_i, v_i') + (1 - lam) h(m_i, v_i),   h: `contrast`

    Misra & van der Maaten 2020, arXiv 1912.01991, eq. 5; lam = 0 is InstDisc's loss on the images alone.

    image, changed: Rows of n unit rows, v and v' (the jigsaw's or the rotation's). lam: 0 to 1. Others as for `contrast`.
    The bank is then moved towards `image`. Returns f32[].
    Raises ValueError: lam outside [0, 1].
    """
    if not 0 <= lam <= 1:
        raise ValueError(f"lam is {lam}: a share, 0 to 1")
    how = {"scale": scale, "form": form, "z": z, "own": own, "sums": sums}
    parts = [(lam, changed), (1 - lam, image)]
    return sum(weight * contrast(q, bank, index, drawn, **how) for weight, q in parts if weight)


def start(key, size, d):
    """A bank before the first batch: f32[size, d], entries uniform in +-sqrt(3/d), so that rows have length 1 on average."""
    return jax.random.uniform(key, (size, d), jnp.float32, -1, 1) * (3 / d) ** 0.5


def draw(key, size, n, number, negatives="shared"):
    """Rows of the bank as negatives, each with equal chance, with repeats and own rows among them: i32[number] for all
    queries ("shared"), or i32[n, number] ("per_anchor", as the authors' code). Raises ValueError: an unknown word."""
    if negatives not in NEGATIVES:
        raise ValueError(f'negatives is {negatives!r}: say "shared" or "per_anchor"')
    shape = (number,) if negatives == "shared" else (n, number)
    return jax.random.randint(key, shape, 0, size, jnp.int32)


def update(bank, index, x, *, momentum=0.5, valid=None):
    """The bank with the rows of this batch moved towards x and made unit again: unit(momentum m_i + (1 - momentum) x_i).

    bank: [N, d]. index: i32[n]. x: [n, d]; no gradient. valid: bool [n], rows that count. An example that a batch holds
    twice is moved once, by its first row, whatever the devices. Returns [N, d].
    """
    live = jnp.ones(len(index), bool) if valid is None else valid.astype(bool)
    place = jnp.where(live, index, -1)
    row = jnp.arange(len(index))
    again = jnp.any((place[:, None] == place[None, :]) & (row[:, None] > row[None, :]), axis=1)
    new = unit(average(bank[index], jax.lax.stop_gradient(x).astype(bank.dtype), momentum))
    return bank.at[jnp.where(live & ~again, index, len(bank))].set(new, mode="drop")


# ---- the parts of both forms


def _nobody(q, k):
    """w = 0."""
    return jnp.zeros((q.x.shape[0], k.x.shape[0]), bool)


def _own(q, own, scale):
    """scale <q_i, k_i>, [n]."""
    acc = wide(q.x, own)
    return jnp.sum(q.x.astype(acc) * own.astype(acc), axis=1) * jnp.asarray(scale, acc)


def _each(q, bank, drawn, scale):
    """Logits [n, m] of each query with its own draw."""
    acc = wide(q.x, bank)
    exact = {"precision": jax.lax.Precision.HIGHEST, "preferred_element_type": acc}
    scale = jnp.asarray(scale, acc)
    return jnp.einsum("nd,nmd->nm", q.x, bank[drawn].astype(q.x.dtype), **exact) * (scale[:, None] if scale.ndim else scale)


def _others(q, bank, index, drawn, scale, own, sums, bias=None):
    """log sum_j exp s_ij [n]; with a bias (sum_j log(1 + exp(s_ij + bias)) [n], how many [n])."""
    if drawn.ndim == 1:
        q, k = q.replace(index=index), Rows(bank[drawn].astype(q.x.dtype), index=drawn)
        veto = rule.same_index if own == "drop" else None
        if bias is None:
            return sums(q, k, scale=scale, weigh=_nobody, veto=veto).lse
        kept = pairs(sums, q, k, scale=scale, bias=bias, weigh=_nobody, veto=veto)
        number = jnp.full(len(index), len(drawn)) - (jnp.sum(drawn[None, :] == index[:, None], axis=1) if veto else 0)
        return kept.soft, number.astype(kept.soft.dtype)
    s = _each(q, bank, drawn, scale)
    live = jnp.ones(drawn.shape, bool) if own == "keep" else drawn != index[:, None]
    if bias is None:
        return jnp.where(jnp.any(live, 1), jax.nn.logsumexp(jnp.where(live, s, LOWEST), axis=1), LOWEST)
    return jnp.sum(jnp.where(live, jax.nn.softplus(s + bias), 0), axis=1), jnp.sum(live, axis=1).astype(s.dtype)


def _mean(values, q):
    return jnp.mean(values) if q.valid is None else masked_mean(values, q.valid)
