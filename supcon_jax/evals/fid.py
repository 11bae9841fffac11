"""Distances between two sets of features: Frechet, kernel (MMD), Inception score, precision/recall/density/coverage.

Everything here is numpy on the host in float64: the features come as float32 and are few, and a covariance summed in
float32 moves the Frechet distance in its third digit.
"""

import numpy as np

BLOCK = 1024  # rows compared with a whole set at once: memory of BLOCK x n, and a subset of KID is one block


def finite(name, x):
    """x as float64 [n, d]; ValueError naming how many rows hold a NaN or an infinity (a score never hides them)."""
    x = np.asarray(x, np.float64)
    bad = int(np.sum(~np.isfinite(x).all(tuple(range(1, x.ndim)))))
    if bad:
        raise ValueError(f"{name}: {bad} of {len(x)} rows are not finite")
    return x


def gaussian(features):
    """Mean and covariance of a set of features.

        mu = mean_i x_i,   S = sum_i (x_i - mu)(x_i - mu)^T / (n - 1)

    features: [n, d], n >= 2.
    Returns (f64[d], f64[d, d]).
    Raises ValueError: fewer than two rows, or rows that are not finite.
    """
    x = finite("features", features)
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"features: a covariance needs at least two rows of one axis, got shape {x.shape}")
    mu = x.mean(0)
    x = x - mu
    return mu, x.T @ x / (len(x) - 1)


def root(sigma):
    """A [d, r] with A A^T = sigma, r its numerical rank: eigenvalues below d * eps of the largest are rounding."""
    sigma = np.asarray(sigma, np.float64)
    value, vector = np.linalg.eigh((sigma + sigma.T) / 2)
    keep = value > max(value[-1], 0) * len(value) * np.finfo(np.float64).eps
    return vector[:, keep] * np.sqrt(value[keep])


def frechet(mu1, sigma1, mu2, sigma2):
    """Frechet distance between two Gaussians, the number behind FID.

        |mu1 - mu2|^2 + Tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2)

    Dowson and Landau 1982; Heusel et al. 2017, arXiv 1706.08500, eq. 6.

    mu1, mu2: [d]; sigma1, sigma2: [d, d] symmetric, of any rank.
    Returns float >= 0 (up to rounding).
    Raises ValueError: entries that are not finite.
    Differs from: pytorch-fid, which takes scipy's sqrtm of S1 S2 (not symmetric, complex where rank is lacking, then
    adds 1e-6 to the diagonal). With S = A A^T (eigh) the last trace is the sum of the singular values of A1^T A2: the
    same number, real, and without the square root of a rounding error.
    """
    mu1, mu2 = finite("mu1", [mu1])[0], finite("mu2", [mu2])[0]
    sigma1, sigma2 = finite("sigma1", sigma1), finite("sigma2", sigma2)
    cross = root(sigma1).T @ root(sigma2)
    shared = np.linalg.svd(cross, compute_uv=False).sum() if cross.size else 0.0
    return float(np.sum((mu1 - mu2) ** 2) + np.trace(sigma1) + np.trace(sigma2) - 2 * shared)


def inception_score(logits, splits, permutation=None):
    """Inception score: how sure and how varied a classifier's answers are.

        IS = exp( mean_i KL( p(y|x_i) || mean_j p(y|x_j) ) ), for each split by itself

    Salimans et al. 2016, arXiv 1606.03498, section 4.

    logits: [n, c]; splits: number of splits, split i holds rows i*n//splits .. (i+1)*n//splits - 1;
    permutation: i[n], order of the rows before splitting.
    Returns (mean, population standard deviation) over the splits.
    Raises ValueError: fewer rows than splits, or rows that are not finite.
    """
    x = finite("logits", logits)
    n = len(x)
    if not 1 <= splits <= n:
        raise ValueError(f"splits: {splits} splits of {n} rows; take 1 to {n}")
    if permutation is not None:
        x = x[np.asarray(permutation)]
    x = x - x.max(1, keepdims=True)
    logp = x - np.log(np.exp(x).sum(1, keepdims=True))
    scores = []
    for i in range(splits):
        part = logp[i * n // splits : (i + 1) * n // splits]
        top = part.max(0)  # log of the mean probability without underflow of rare classes
        marginal = top + np.log(np.exp(part - top).mean(0))
        scores.append(np.exp((np.exp(part) * (part - marginal)).sum(1).mean()))
    return float(np.mean(scores)), float(np.std(scores))


def mmd2(x, y, kind="unbiased", *, block=BLOCK):
    """Squared maximum mean discrepancy with the kernel k(a, b) = (a.b / d + 1)^3.

        unbiased     sum_{i!=j} k(x_i, x_j) / (n(n-1)) + sum_{i!=j} k(y_i, y_j) / (m(m-1)) - 2 mean k(x, y)
        biased       mean k(x, x) + mean k(y, y) - 2 mean k(x, y), diagonals included
        u_statistic  as unbiased, and the pairs (x_i, y_i) left out of the last term too (n = m)

    Binkowski et al. 2018, arXiv 1801.01401, eq. 4; Gretton et al. 2012, eqs. 3 and 5.

    x: [n, d]; y: [m, d]; block: rows of the kernel held at once. Returns float; the unbiased ones may be negative.
    """
    x, y = finite("x", x), finite("y", y)
    n, m = len(x), len(y)
    (xx, own_x), (yy, own_y), (xy, own) = (kernel_sums(*pair, block) for pair in ((x, x), (y, y), (x, y)))
    if kind == "biased":
        return float(xx / n**2 + yy / m**2 - 2 * (xy / (n * m)))
    inner = (xx - own_x) / (n * (n - 1)) + (yy - own_y) / (m * (m - 1))
    if kind == "unbiased":
        return float(inner - 2 * (xy / (n * m)))
    if kind == "u_statistic":
        if n != m:
            raise ValueError(f"u_statistic: needs as many rows in x as in y, got {n} and {m}")
        return float(inner - 2 * (xy - own) / (n * (n - 1)))
    raise ValueError(f"kind: {kind!r} is none of unbiased, biased, u_statistic")


def kernel_sums(a, b, block):
    """Sums of the kernel of `mmd2` over all pairs of rows, and over the pairs (a_i, b_i)."""
    whole, own = 0.0, 0.0
    for start in range(0, len(a), block):
        k = a[start : start + block] @ b.T
        k /= a.shape[1]
        k += 1
        k **= 3
        whole, own = whole + k.sum(), own + np.trace(k, offset=start)
    return whole, own


def kid(f1, f2, *, subsets=100, size=1000, seed=0, rows=None):
    """Kernel Inception distance: mean of the unbiased MMD^2 over random subsets (Binkowski et al. 2018, section 4).

    f1: [n, d]; f2: [m, d]; subsets: how many; size: rows drawn from each set without replacement, at most n and m;
    rows: (i[subsets, size], i[subsets, size]) of given subsets, instead of drawing them with `seed`.
    Returns (mean, population standard deviation) over the subsets.
    Raises ValueError: size above a set's size or below 2.
    """
    f1, f2 = finite("f1", f1), finite("f2", f2)
    if rows is None:
        if not 2 <= size <= min(len(f1), len(f2)):
            raise ValueError(f"size: subsets of {size} out of {len(f1)} and {len(f2)} rows; take 2 to the smaller")
        rng = np.random.default_rng(seed)
        rows = [[rng.choice(len(f), size, replace=False) for _ in range(subsets)] for f in (f1, f2)]
    values = [mmd2(f1[i], f2[j]) for i, j in zip(*rows, strict=True)]
    return float(np.mean(values)), float(np.std(values))


def distances(a, b, block=BLOCK):
    """Euclidean distances of the rows of a to all rows of b, `block` rows of a at a time.

    Rows equal up to rounding are exactly 0 apart, so that ties stay ties.
    a: [n, d]; b: [m, d]. Yields (slice of a's rows, f64[r, m]) with r <= block; the caller may write into it.
    """
    aa, bb = squares(a, block), squares(b, block)
    for start in range(0, len(a), block):
        rows = slice(start, start + block)
        whole = aa[rows, None] + bb[None]
        d2 = 2 * a[rows] @ b.T
        np.subtract(whole, d2, out=d2)
        whole *= 1e-13
        d2[d2 < whole] = 0
        del whole
        yield rows, np.sqrt(d2, out=d2)


def squares(x, block):
    """Squared lengths of rows, f64[n]."""
    return np.concatenate([(part * part).sum(1) for part in (x[i : i + block] for i in range(0, len(x), block))])


def radii(x, k, block=BLOCK):
    """Distance of each row to its k-th nearest other row of the same set, f64[n]."""
    out = np.empty(len(x))
    for rows, apart in distances(x, x, block):
        apart.partition(k, axis=1)
        out[rows] = apart[:, k]
    return out


def prdc(real, fake, k=3, *, block=BLOCK):
    """Precision, recall, density, coverage on balls that reach to the k-th neighbour inside the own set.

        precision  share of fakes inside the ball of some real      recall    share of reals inside that of some fake
        density    mean over fakes of (balls of reals around it)/k  coverage  share of reals with a fake in their ball

    Kynkaanniemi et al. 2019, arXiv 1904.06991, eqs. 1 and 2; Naeem et al. 2020, arXiv 2002.09797, section 3.

    real: [n, d]; fake: [m, d]; k: neighbours, the point itself not counted; 1 <= k < n, m. Balls are open.
    block: rows compared with a whole set at once: memory is of block x max(n, m), not of n x m.
    Returns dict of four floats. Raises ValueError: k out of range, rows that are not finite.
    """
    real, fake = finite("real", real), finite("fake", fake)
    if not 1 <= k < min(len(real), len(fake)):
        raise ValueError(f"k: {k} neighbours in sets of {len(real)} and {len(fake)}; take 1 to the smaller less one")
    real_radius, fake_radius = radii(real, k, block), radii(fake, k, block)
    balls, recalled, covered = np.zeros(len(fake), np.int64), 0, 0
    for rows, apart in distances(real, fake, block):
        own = real_radius[rows]
        balls += (apart < own[:, None]).sum(0)
        recalled += (apart < fake_radius[None]).any(1).sum()
        covered += (apart.min(1) < own).sum()
    return {
        "precision": float((balls > 0).mean()),
        "recall": float(recalled / len(real)),
        "density": float(balls.mean() / k),
        "coverage": float(covered / len(real)),
    }
