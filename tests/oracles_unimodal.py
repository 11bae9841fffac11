"""Losses of one modality once more, slowly: float64 numpy, plain loops, one equation each (see oracles.py)."""

import math

import numpy as np


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def cos(a, b):
    return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))


def among(value, others):
    """-log of the share of one logit among itself and others."""
    return -math.log(math.exp(value) / (math.exp(value) + sum(math.exp(o) for o in others)))


def byol(p, z):
    """arXiv 2006.07733, eq. 2: unit rows, squared distance."""
    total = 0.0
    for a, b in zip(p, z, strict=True):
        a, b = a / math.sqrt(dot(a, a)), b / math.sqrt(dot(b, b))
        total += sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / len(p)
    return total


def simsiam(p, z):
    """arXiv 2011.10566, eq. 1."""
    return -sum(cos(a, b) for a, b in zip(p, z, strict=True)) / len(p)


def moments(column, less=0):
    mean = sum(column) / len(column)
    return mean, sum((x - mean) ** 2 for x in column) / (len(column) - less)


def barlow(z1, z2, off, eps):
    """arXiv 2103.03230, eq. 1 and 2."""
    n, d = z1.shape
    total = 0.0
    for c in range(d):
        for e in range(d):
            (m1, v1), (m2, v2) = moments(z1[:, c]), moments(z2[:, e])
            s = sum((z1[i, c] - m1) * (z2[i, e] - m2) for i in range(n)) / n / math.sqrt((v1 + eps) * (v2 + eps))
            total += (1 - s) ** 2 if c == e else off * s**2
    return total


def vicreg(z1, z2, weights, halves, eps):
    """arXiv 2105.04906, eq. 1 to 6."""
    n, d = z1.shape
    near = sum((z1[i, c] - z2[i, c]) ** 2 for i in range(n) for c in range(d)) / (n * d)
    spread = cross = 0.0
    for z in (z1, z2):
        for c in range(d):
            mean, var = moments(z[:, c], 1)
            spread += max(0.0, 1 - math.sqrt(var + eps)) / d
            for e in range(d):
                if e != c:
                    other = moments(z[:, e])[0]
                    cross += (sum((z[i, c] - mean) * (z[i, e] - other) for i in range(n)) / (n - 1)) ** 2 / d
    return weights[0] * near + weights[1] * spread / (2 if halves else 1) + weights[2] * cross


def sinkhorn(scores, eps, rounds):
    """arXiv 2006.09882, section 3.2, as its algorithm goes: no logarithms, with the factors that drop out."""
    n, k = scores.shape
    q = [[math.exp(scores[i, j] / eps) for i in range(n)] for j in range(k)]
    whole = sum(map(sum, q))
    q = [[x / whole for x in row] for row in q]
    for _ in range(rounds):
        q = [[x / sum(row) / k for x in row] for row in q]
        column = [sum(q[j][i] for j in range(k)) for i in range(n)]
        q = [[x / column[i] / n for i, x in enumerate(row)] for row in q]
    return np.array(q).T * n


def swapped(z, centre, scale, eps, rounds, queue=None):
    """arXiv 2006.09882, eq. 2 over crops; queue: [m, 2, d] rows that are scored beside the batch."""
    n, v, _ = z.shape
    total = 0.0
    for u in (0, 1):
        x = z[:, u] if queue is None else np.concatenate([z[:, u], queue[:, u]])
        codes = sinkhorn(np.array([[dot(a, c) for c in centre] for a in x]), eps, rounds)
        for other in range(v):
            for i in range(n if other != u else 0):
                s = [scale * dot(z[i, other], c) for c in centre]
                whole = math.log(sum(map(math.exp, s)))
                total -= sum(codes[i, k] * (s[k] - whole) for k in range(len(centre))) / (2 * (v - 1) * n)
    return total


def proto_nce(q, clusterings, negatives, drawn):
    """arXiv 2005.04966: the prototype part. clusterings: (centre, phi, cluster of each row)."""
    total = 0.0
    for m, (centre, phi, cluster) in enumerate(clusterings):
        for i, row in enumerate(q):
            s = [dot(row, c) / t for c, t in zip(centre, phi, strict=True)]
            if negatives == "paper":
                others = [s[j] for j in range(len(s)) if j != cluster[i]]
            else:
                others = [s[cluster[a]] for a in range(len(q)) if a != i] + [s[j] for j in drawn[m]]
            total += among(s[cluster[i]], others) / len(q) / len(clusterings)
    return total


def concentration(x, centre, cluster, temperature, smooth=10.0, clip=(10, 90)):
    """arXiv 2005.04966, with the authors' rules for small clusters and clipping."""
    d = []
    for k in range(len(centre)):
        apart = [math.sqrt(dot(row - centre[k], row - centre[k])) for row, c in zip(x, cluster, strict=True) if c == k]
        d.append(sum(apart) / len(apart) / math.log(len(apart) + smooth) if len(apart) > 1 else None)
    largest = max(one for one in d if one is not None)
    d = [largest if one is None else one for one in d]
    low, high = np.percentile(d, clip)
    d = [min(max(one, low), high) for one in d]
    return np.array([temperature * one * len(d) / sum(d) for one in d])


def bank(q, rows, index, drawn, scale, form, z=None, keep=True):
    """Contrast of rows with a bank. drawn: [n, m] or [m]. nce: arXiv 1805.01978, eq. 4 to 8."""
    total = 0.0
    for i, row in enumerate(q):
        picks = drawn if drawn.ndim == 1 else drawn[i]
        own = scale * dot(row, rows[index[i]])
        others = [scale * dot(row, rows[j]) for j in picks if keep or j != index[i]]
        if form == "softmax":
            total += among(own, others) / len(q)
            continue
        noise = len(picks) / len(rows)
        p = math.exp(own) / z
        total -= math.log(p / (p + noise + 1e-7)) / len(q)
        total -= sum(math.log(noise / (math.exp(s) / z + noise + 1e-7)) for s in others) / len(q)
    return total


def cpc(z, c, w, negatives, scale, skip=0):
    """arXiv 1807.03748, eq. 3 and 4, on grids [b, t, h, d]; the candidates by name."""
    b, t, h, _ = z.shape
    total = 0.0
    for k in range(skip + 1, skip + len(w) + 1):
        terms = []
        for i in range(b):
            for s in range(t - k):
                for j in range(h):
                    ahead = [scale * dot(row, c[i, s, j]) for row in w[k - skip - 1]]
                    here = (i, s + k, j)
                    if negatives == "batch":
                        places = [(a, s + k, j) for a in range(b)]
                    elif negatives == "sequence":
                        places = [(i, a, e) for a in range(t) for e in range(h)]
                    else:
                        places = [(a, e, g) for a in range(b) for e in range(t) for g in range(h)]
                    others = [dot(ahead, z[p]) for p in places if p != here]
                    terms.append(among(dot(ahead, z[here]), others))
        total += sum(terms) / len(terms)
    return total


def nearest(x, support, record, most, threshold):
    """bool[n, n]: the false negatives of arXiv 2011.11765. support: [n, s, d], or None for the views in the batch."""
    n = len(x)
    found = np.zeros((n, n), bool)
    for i in range(n):
        seen = support[i] if support is not None else [x[a] for a in range(n) if record[a] == record[i]]
        score = {j: max(dot(s, x[j]) for s in seen) for j in range(n) if record[j] != record[i]}
        for j in sorted(score, key=lambda j: -score[j])[:most]:
            found[i, j] = score[j] > threshold
    return found


def hardened(x, y, w, scale, out, alpha):
    """Logits of negatives raised by alpha times their cosine."""
    values = []
    for i in range(len(x)):
        far = [dot(x[i], y[j]) for j in range(len(y)) if not out[i, j] and w[i, j] == 0]
        near = [dot(x[i], y[j]) for j in range(len(y)) if not out[i, j] and w[i, j] > 0]
        if near:
            lse = math.log(sum(math.exp(scale * c) for c in near) + sum(math.exp((scale + alpha) * c) for c in far))
            values.append(lse - scale * sum(near) / len(near))
    return sum(values) / len(values)


def softmax(x):
    x = [math.exp(value - max(x)) for value in x]
    return [value / sum(x) for value in x]


def distilled(s, t, kl=False):
    """Cross entropy of softmax rows of student logits to those of a teacher, or the divergence."""
    total = 0.0
    for a, b in zip(s, t, strict=True):
        for r, p in zip(softmax(a), softmax(b), strict=True):
            total -= p * (math.log(r) - (math.log(p) if kl else 0)) / len(s)
    return total


def answered(student, teacher, label, alpha, temperature):
    """arXiv 2006.10029, eq. 2 and 3, each term a mean over the pictures that it reads; label -1: none."""
    rows = list(zip(student, teacher, label, strict=True))
    known = [-math.log(math.exp(s[y]) / sum(map(math.exp, s))) for s, _, y in rows if y >= 0]
    total = (1 - alpha) * sum(known) / max(len(known), 1)
    for s, t, _ in rows:
        below, above = (sum(math.exp(x / temperature) for x in logits) for logits in (s, t))
        for a, b in zip(s, t, strict=True):
            total -= alpha / len(rows) * math.exp(b / temperature) / above * (a / temperature - math.log(below))
    return total
