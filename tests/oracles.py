"""The definitions once more, slowly: float64 numpy, plain loops over rows and keys, one equation each.

Nothing here shares code or tricks with the library (no shifts, no masks inside sums): a disagreement means
that one is wrong.
"""

import math

import numpy as np


def row_sums(q, k, scale, w, out):
    """Row sums, straight from the definition: (lse, pos, wgt, cnt, top, rival) over the keys j with not out[i, j].

    A row without keys gives lse = top = -inf, one without negatives rival = -inf.
    """
    q, k = np.asarray(q, np.float64), np.asarray(k, np.float64)
    scale = np.broadcast_to(np.asarray(scale, np.float64), len(q))
    lse, pos, wgt, cnt, top, rival = (np.zeros(len(q)) for _ in range(6))
    for i in range(len(q)):
        exact, best, rival[i] = [], -math.inf, -math.inf
        for j in range(len(k)):
            if out[i, j]:
                continue
            s = scale[i] * sum(a * b for a, b in zip(q[i], k[j], strict=True))
            exact.append(s)
            best = max(best, s)
            if w[i, j] == 0:
                rival[i] = max(rival[i], s)
            pos[i] += w[i, j] * s
            wgt[i] += w[i, j]
            cnt[i] += w[i, j] > 0
        lse[i] = best + math.log(math.fsum(math.exp(s - best) for s in exact)) if exact else -math.inf
        top[i] = best
    return lse, pos, wgt, cnt, top, rival


# ---- weights w_ij, label sets as Python sets


def sets(label):
    return [set(np.flatnonzero(row).tolist()) for row in np.asarray(label)]


def matrix(a, b, of):
    return np.array([[float(of(x, y)) for y in b] for x in a])


def same_label(a, b):
    return matrix(a, b, lambda x, y: x == y and x >= 0)


def any_label(a, b):
    return matrix(sets(a), sets(b), lambda x, y: len(x & y) > 0)


def all_labels(a, b):
    return matrix(sets(a), sets(b), lambda x, y: x == y and len(x) > 0)


def jaccard(a, b, threshold=0.0):
    def value(x, y):
        j = len(x & y) / len(x | y) if x & y else 0.0
        return j if j >= threshold else 0.0

    return matrix(sets(a), sets(b), value)


def idf(a, b):
    """w_ij = sum over shared labels / sum over the union of log(N / n_l); N keys, n_l of them with label l."""
    keys = sets(b)
    weight = {}
    for label in range(np.asarray(b).shape[1]):
        n = sum(label in key for key in keys)
        weight[label] = math.log(len(keys) / n) if n else 0.0

    def value(x, y):
        union = sum(weight[one] for one in x | y)
        return sum(weight[one] for one in x & y) / union if union > 0 else 0.0

    return matrix(sets(a), keys, value)


# ---- contrast


def supcon_rows(q, k, w, scale, out, norm="weight"):
    """L_out of each anchor, arXiv 2004.11362 eq. 2: -1/norm_i sum_p w_ip log( e^{s_ip} / sum_a e^{s_ia} )
    (NaN: empty)."""
    q, k = np.asarray(q, np.float64), np.asarray(k, np.float64)
    scale = np.broadcast_to(np.asarray(scale, np.float64), len(q))
    values = np.full(len(q), np.nan)
    for i in range(len(q)):
        keys = [j for j in range(len(k)) if not out[i, j]]
        positives = [j for j in keys if w[i, j] > 0]
        if not positives:
            continue
        s = {j: scale[i] * float(q[i] @ k[j]) for j in keys}
        best = max(s.values())
        below = best + math.log(math.fsum(math.exp(s[a] - best) for a in keys))
        divisor = len(positives) if norm == "count" else sum(w[i, j] for j in positives)
        values[i] = -sum(w[i, p] * (s[p] - below) for p in positives) / divisor
    return values


def supcon(q, k, w, scale, out, empty="drop", base=None, norm="weight"):
    values = supcon_rows(q, k, w, scale, out, norm)
    if base is not None:
        values = values / (np.asarray(scale) * base)
    if empty == "zero":
        return float(np.nan_to_num(values).mean())
    return float(np.nanmean(values)) if np.isfinite(values).any() else 0.0


def mulsupcon(q, k, yq, yk, scale, out, weighted):
    """MulSupCon: a term per (anchor, label) with positives; plain: mean over terms; weighted: 1 / (|Y_i| n) each."""
    q, k = np.asarray(q, np.float64), np.asarray(k, np.float64)
    per_anchor = []
    for i in range(len(q)):
        keys = [j for j in range(len(k)) if not out[i, j]]
        below = math.log(sum(math.exp(scale * float(q[i] @ k[j])) for j in keys))
        terms = []
        for label in np.flatnonzero(yq[i]):
            positives = [j for j in keys if yk[j][label]]
            if positives:
                terms.append(-sum(scale * float(q[i] @ k[p]) - below for p in positives) / len(positives))
        if terms:
            per_anchor.append(terms)
    if weighted:
        return sum(sum(terms) / len(terms) for terms in per_anchor) / len(per_anchor)
    return sum(map(sum, per_anchor)) / sum(map(len, per_anchor))


def denominators(q, k, w, scale, out):
    """For each row: (logits of its positives, logits of all other keys)."""
    scale = np.broadcast_to(np.asarray(scale, np.float64), len(q))
    for i in range(len(q)):
        s = {j: scale[i] * float(q[i] @ k[j]) for j in range(len(k)) if not out[i, j]}
        yield [s[j] for j in s if w[i, j] > 0], [s[j] for j in s if w[i, j] == 0]


def decoupled(q, k, w, scale, out, sigma=None):
    """arXiv 2110.06848, and with sigma its weights 2 - exp(c_i / sigma) / mean_a exp(c_a / sigma)."""
    split = [(near, far) for near, far in denominators(q, k, w, scale, out) if near and far]
    own = [sum(near) / len(near) for near, _ in split]
    share = [1.0] * len(own)
    if sigma is not None:
        e = [math.exp(s / scale / sigma) for s in own]
        share = [2 - one / (sum(e) / len(e)) for one in e]
    terms = [math.log(sum(math.exp(s) for s in far)) - v * s for (_, far), v, s in zip(split, share, own, strict=True)]
    return sum(terms) / len(terms)


def debiased(q, k, w, scale, out, prior, beta):
    """arXiv 2007.00224; beta: sum of negatives reweighted by importance, arXiv 2010.04592."""
    terms = []
    for near, far in denominators(q, k, w, scale, out):
        if not near or not far:
            continue
        own = math.exp(sum(near) / len(near))
        importance = [math.exp(beta * s) for s in far]
        reweighted = sum(i * math.exp(s) for i, s in zip(importance, far, strict=True)) / (sum(importance) / len(far))
        g = max((reweighted - prior * len(far) * own) / (1 - prior), len(far) * math.exp(-scale))
        terms.append(-math.log(own / (own + g)))
    return sum(terms) / len(terms)


def supcon_in(q, k, w, scale, out):
    """arXiv 2004.11362, mean inside."""
    terms = []
    for near, far in denominators(q, k, w, scale, out):
        if near:
            inside = sum(math.exp(s) for s in near) / len(near)
            terms.append(-math.log(inside / sum(math.exp(s) for s in near + far)))
    return sum(terms) / len(terms)


def one_positive(q, k, w, scale, out, mean):
    """-log of each positive's share among itself and the negatives; mean over anchors of means, or over all terms."""
    anchors = []
    for near, far in denominators(q, k, w, scale, out):
        if near and far:
            below = sum(math.exp(s) for s in far)
            anchors.append([-math.log(math.exp(s) / (math.exp(s) + below)) for s in near])
    if mean == "terms":
        return sum(map(sum, anchors)) / sum(map(len, anchors))
    return sum(sum(terms) / len(terms) for terms in anchors) / len(anchors)


def siglip(q, k, w, scale, bias, out):
    """arXiv 2303.15343."""
    total = 0.0
    for i in range(len(q)):
        for j in range(len(k)):
            if not out[i, j]:
                s = scale * float(q[i] @ k[j]) + bias
                total += math.log(1 + math.exp(-s if w[i, j] else s))
    return total / len(q)


def hierarchical(x, label, record, scale, kind):
    """arXiv 2204.13207: SupCon over ever shorter prefixes of the labels, then one example of each prefix goes on."""
    rows, total, worst = list(range(len(x))), 0.0, -math.inf
    levels = len(label[0])
    for level in range(1, levels):
        prefix = [tuple(label[i][: levels - level]) for i in rows]
        z = np.array([x[i] for i in rows])
        w = np.array([[float(a == b) for b in prefix] for a in prefix])
        loss = supcon(z, z, w, scale, np.eye(len(rows), dtype=bool), empty="zero")
        worst = max(worst, loss)
        total += (1 if kind == "hce" else 2 ** (1 / level)) * (loss if kind == "hmc" else worst)
        leader = {}
        for i, one in zip(rows, prefix, strict=True):
            leader.setdefault(one, record[i])
        rows = [i for i, one in zip(rows, prefix, strict=True) if leader[one] == record[i]]
    return total / levels


def info_nce(q, k, scale):
    """arXiv 1807.03748 eq. 4: mean over i of -log( e^{s_ii} / sum_j e^{s_ij} )."""
    total = 0.0
    for i in range(len(q)):
        total -= math.log(math.exp(scale * float(q[i] @ k[i])) / sum(math.exp(scale * float(q[i] @ key)) for key in k))
    return total / len(q)


def ntxent(a, b, scale):
    """arXiv 2002.05709 eq. 1 over both orders of every pair, all other 2n - 1 rows in the denominator."""
    z = np.concatenate([a, b]).astype(np.float64)
    n, total = len(a), 0.0
    for i in range(2 * n):
        below = sum(math.exp(scale * float(z[i] @ z[j])) for j in range(2 * n) if j != i)
        total -= math.log(math.exp(scale * float(z[i] @ z[(i + n) % (2 * n)])) / below)
    return total / (2 * n)


def label_supcon(image, text, w_inter, w_inner, scale):
    """L_inter = (V->T + T->V)/2 with the own caption among the keys, L_inner = (V->V + T->T)/2 without itself."""
    n = len(image)
    nothing, self_ = np.zeros((n, n), bool), np.eye(n, dtype=bool)
    inter = [supcon(a, c, w_inter, scale, nothing) for a, c in ((image, text), (text, image))]
    inner = [supcon(a, a, w_inner, scale, self_) for a in (image, text)]
    return sum(inter) / 2, sum(inner) / 2
