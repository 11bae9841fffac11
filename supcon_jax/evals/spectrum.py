"""How much of the space codes use: collapse, rank and evenness of one set of rows, and how near views of one picture stay."""

import numpy as np

from supcon_jax.evals.fid import finite
from supcon_jax.evals.protocol import Protocol, record
from supcon_jax.evals.r_precision import unit

CHUNK = 512
WITHIN = 1e-4  # of LiDAR: added to the diagonal of the covariance within classes, as published


def alignment(x, y, a=2.0):
    """How far rows that belong together stand from each other; lower is nearer.

        A = mean_i |x_i - y_i|^a,   2 - 2 cos for unit rows and a = 2

    Wang & Isola 2020, arXiv 2005.10242, eq. 2. x, y: [n, d], unit rows by the caller. Returns a float.
    """
    return float(np.mean(np.linalg.norm(x - y, axis=-1) ** a))


def uniformity(x, t=2.0):
    """How evenly unit rows cover the sphere; lower is more even, 0 where all are one.

        U = log mean_{i < j} exp(-t |x_i - x_j|^2)

    Wang & Isola 2020, arXiv 2005.10242. x: [n, d]. Returns a float, None for a single row.
    """
    n = len(x)
    if n < 2:
        return None
    square, total = (x * x).sum(1), 0.0
    for start in range(0, n, CHUNK):
        rows = slice(start, start + CHUNK)
        apart = np.maximum(square[rows, None] + square[None] - 2 * x[rows] @ x.T, 0)
        apart[np.arange(len(apart)), np.arange(start, start + len(apart))] = np.inf  # a row and itself
        total += np.exp(-t * apart).sum()
    return float(np.log(max(total, np.finfo(np.float64).tiny) / (n * (n - 1))))


def deviation(x):
    """How far unit rows spread, as a share of what they could: near 1 spread out, 0 where all are one (collapse).

        sqrt(d) mean_j std_i(x_ij),   std over n - 1

    Chen & He 2021, arXiv 2011.10566, section 4.1, where the healthy value of the mean is near 1 / sqrt(d).
    x: [n, d] unit rows. Returns a float, None for a single row.
    """
    return float(np.sqrt(x.shape[1]) * x.std(0, ddof=1).mean()) if len(x) > 1 else None


def entropy_rank(weight, epsilon=0.0):
    """exp of the entropy of weights made to sum to one, each raised by epsilon then; None where all are zero."""
    if not np.any(weight > 0):
        return None
    p = np.maximum(weight, 0) / weight.sum() + epsilon
    p = p[p > 0]
    return float(np.exp(-(p * np.log(p)).sum()))


def rank(x, epsilon=0.0):
    """Effective number of directions that rows use, RankMe.

        exp( -sum_k p_k log p_k ),   p_k = sigma_k / sum_l sigma_l + epsilon,   sigma: singular values, not centred

    Garrido et al. 2023, arXiv 2210.02885, eq. 1. x: [n, d]; rows of one method's runs may be compared, and 25,600 suffice.
    Returns a float in 1 .. min(n, d), None where all rows are zero.
    Differs from: the paper, whose epsilon is 1e-7 (here 0, and 0 log 0 = 0).
    """
    return entropy_rank(np.linalg.svd(x, compute_uv=False), epsilon)


def variances(x):
    """Eigenvalues f64[d] of the covariance of rows [n, d], largest last; rounding below zero is zero."""
    centred = x - x.mean(0)
    return np.maximum(np.linalg.eigvalsh(centred.T @ centred / max(len(x) - 1, 1)), 0)


def effective_rank(x):
    """exp of the entropy of the covariance's eigenvalues, as shares of their sum: 1 .. d; None where rows do not differ.

    Roy & Vetterli 2007, on the covariance. x: [n, d]. Returns a float.
    """
    return entropy_rank(significant(x))


def participation(x):
    """Number of directions that rows vary in: 1 .. d; None where rows do not differ.

        PR = (sum_k l_k)^2 / sum_k l_k^2,   l: eigenvalues of the covariance

    x: [n, d]. Returns a float.
    """
    l = significant(x)
    return float(l.sum() ** 2 / (l * l).sum()) if l.any() else None


def significant(x):
    """`variances`, all zero where they are no more than rounding of the rows' own size."""
    l = variances(x)
    return l if l.sum() > 1e-20 * max(float((x * x).sum(1).mean()), 1e-300) else np.zeros_like(l)


def lidar(x, within=WITHIN):
    """Directions in which pictures differ more than their own views do, LiDAR.

        exp( -sum_k p_k log p_k ),   p = eigenvalues of S_w^-1/2 S_b S_w^-1/2 as shares,
        S_b = cov_i(mean_v x_iv),   S_w = mean_iv (x_iv - mean_v x_iv)(...)^T + within I

    Thilak et al. 2023, arXiv 2312.04000, eqs. 1 to 4 (there 1,000 pictures of 50 views each).

    x: [n, v, d], v >= 2 views of n >= 2 pictures. Returns a float in 1 .. d; None where pictures do not differ.
    Differs from: the paper, which adds 1e-7 to each p_k.
    """
    x = finite("views", x)
    n, v, d = x.shape
    if n < 2 or v < 2:
        raise ValueError(f"views: {n} pictures of {v} views each: LiDAR needs two of both")
    mean = x.mean(1)
    apart = (x - mean[:, None]).reshape(n * v, d)
    centred = mean - mean.mean(0)
    value, vector = np.linalg.eigh(apart.T @ apart / (n * v) + within * np.eye(d))
    rows = centred @ (vector / np.sqrt(value)) / np.sqrt(n - 1)
    return entropy_rank(np.maximum(np.linalg.eigvalsh(rows.T @ rows), 0))


def spectrum(x, views=None, *, protocol=Protocol(), name="spectrum"):  # noqa: B008  (frozen)
    """Collapse, rank and evenness of features, each with its protocol.

    x: [n, f] features; views: [m, v, f] of random views of the same or other pictures, or None.
    Returns {metric: {"value", "protocol", "line"}}: NAME_std (see `deviation`), NAME_uniformity of unit rows; NAME_rank,
    NAME_effective_rank, NAME_participation of the rows as they are; with views NAME_alignment of the first two views' unit
    rows and NAME_lidar of all. Numbers that the rows cannot give are left out.
    Raises ValueError: rows that are not finite.
    """
    x = finite("features", x)
    sphere = unit(x)
    values = {
        "std": deviation(sphere), "uniformity": uniformity(sphere), "rank": rank(x), "effective_rank": effective_rank(x),
        "participation": participation(x),
    }  # fmt: skip
    own = protocol.replace(real_number=len(x), settings=f"{x.shape[1]} dimensions")
    out = kept(values, own, name)
    if views is not None:
        first, second = (unit(finite("views", views[:, i])) for i in (0, 1))
        values = {"alignment": alignment(first, second), "lidar": lidar(views)}
        said = f"{views.shape[1]} views of each picture, {own.settings}"
        out |= kept(values, own.replace(real_number=len(views), settings=said), name)
    return out


def kept(values, protocol, name):
    return record({f"{name}_{key}": value for key, value in values.items() if value is not None}, protocol)
