"""The definitions of matching by parts and of the players' losses once more, slowly, as in `oracles`."""

import math

import numpy as np

from oracles import same_label

# ---- matching


def softmax(x):
    e = [math.exp(v - max(x)) for v in x]
    return np.array(e) / sum(e)


def cosine(a, b):
    return float(a @ b) / max(float(np.sqrt(a @ a) * np.sqrt(b @ b)), 1e-8)


def attend(regions, words, gamma):
    """arXiv 1711.10485 eqs. 7-9 for the valid words of one caption: (context [t, d], alpha [t, r])."""
    share = np.array([softmax([float(e @ h) for e in words]) for h in regions]).T
    alpha = np.array([softmax(gamma * row) for row in share])
    return np.array([sum(a * h for a, h in zip(row, regions, strict=True)) for row in alpha]), alpha


def matching(score, label, gamma):
    """Cross entropies of the own pair along rows and columns; same label and another pair: left out of both.

    label: ids, or a matrix of who shares one, or None.
    """
    n = len(score)
    share = np.zeros((n, n)) if label is None else same_label(label, label) if np.ndim(label) == 1 else label
    keep = [[j for j in range(n) if j == i or not share[i][j]] for i in range(n)]
    rows = [math.log(sum(math.exp(gamma * (score[i][j] - score[i][i])) for j in keep[i])) for i in range(n)]
    columns = [math.log(sum(math.exp(gamma * (score[j][i] - score[i][i])) for j in keep[i])) for i in range(n)]
    return sum(rows) / n, sum(columns) / n


def words(regions, words, text_len, label, gammas):
    """arXiv 1711.10485 eqs. 10-12 as the authors' code has them: R_ij = log sum_w e^{gamma_2 cos(e_jw, c_ijw)}."""
    n = len(regions)
    score = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            caption = np.asarray(words[j][: text_len[j]], np.float64)
            context, _ = attend(np.asarray(regions[i], np.float64), caption, gammas[0])
            score[i, j] = math.log(
                sum(math.exp(gammas[1] * cosine(e, c)) for e, c in zip(caption, context, strict=True))
            )
    return matching(score, label, gammas[2])


def xmc_words(regions, words, text_len, scale):
    """arXiv 2101.04702 with the constants of its code: each word of unit length attends to unit regions for itself."""
    n = len(regions)
    score = np.zeros((n, n))
    for i in range(n):
        places = [h / np.sqrt(h @ h) for h in np.asarray(regions[i], np.float64)]
        for j in range(n):
            terms = []
            for word in np.asarray(words[j][: text_len[j]], np.float64):
                word = word / np.sqrt(word @ word)
                alpha = softmax([5 * float(word @ h) for h in places])
                terms.append(math.exp(5 * cosine(word, sum(a * h for a, h in zip(alpha, places, strict=True)))))
            score[i, j] = math.log(sum(terms))
    return sum(matching(score, None, scale))


def label_entropy(logits, label):
    """Softmax over class ids, or a yes or no for each class of multi-hot labels, over labelled rows."""
    terms = []
    for s, y in zip(logits, label, strict=True):
        if np.ndim(y) == 0 and y >= 0:
            terms.append(math.log(sum(math.exp(v) for v in s)) - s[y])
        elif np.ndim(y) and any(y):
            terms.append(sum(math.log(1 + math.exp(-v if one else v)) for v, one in zip(s, y, strict=True)) / len(y))
    return sum(terms) / len(terms)


def late_interaction(q, k, scale, mean):
    """arXiv 2004.12832: cross entropy of sum_t max_u <q_it, k_ju>; arXiv 2111.07783: of the mean over t. Lists of [t, d]."""
    total = 0.0
    for i, one in enumerate(q):
        s = [scale * sum(max(float(a @ b) for b in other) for a in one) / (len(one) if mean else 1) for other in k]
        total += math.log(sum(math.exp(v - s[i]) for v in s))
    return total / len(q)


def sentences(code, sentence, label, gamma):
    code, sentence = np.asarray(code, np.float64), np.asarray(sentence, np.float64)
    return matching([[cosine(g, f) for f in sentence] for g in code], label, gamma)


# ---- adversarial


def kl(mu, logvar):
    """arXiv 1612.03242 eq. 2, mean over entries."""
    terms = [1 + v - m * m - math.exp(v) for m, v in zip(np.ravel(mu), np.ravel(logvar), strict=True)]
    return -0.5 * sum(terms) / len(terms)


def bce(logits, real):
    p = [1 / (1 + math.exp(-x)) for x in np.ravel(logits)]
    return -sum(math.log(v if real else 1 - v) for v in p) / len(p)


def discriminator(real_cond, fake_cond, wrong_cond, real=None, fake=None):
    """arXiv 1711.10485 eq. 6 with mismatched pairs, weights as in the authors' code."""
    bad = bce(fake_cond, False) + bce(wrong_cond, False)
    if real is None:
        return bce(real_cond, True) + bad / 2
    return (bce(real, True) + bce(real_cond, True)) / 2 + (bce(fake, False) + bad) / 3


def hinge(logits, real):
    values = [max(0.0, 1 - x if real else 1 + x) for x in np.ravel(logits)]
    return sum(values) / len(values)
