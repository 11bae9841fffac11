"""Losses without negatives that keep the columns of a batch of projections apart: Barlow Twins, VICReg."""

import jax.numpy as jnp
from jax.lax import Precision

from supcon_jax.ops.arrays import wide


def barlow(z1, z2, *, off=0.0051, eps=1e-5):
    """Barlow Twins: the cross-correlation of the two views' columns is drawn to the identity.

        L = sum_c (1 - C_cc)^2 + off sum_{c != e} C_ce^2,   C = N(z1)^T N(z2) / n
        N(z) = (z - mean(z)) / sqrt(var(z) + eps), each column over the batch, var divided by n

    Zbontar et al. 2021, arXiv 2103.03230, eq. 1 and 2; N is batch normalisation without weights, as in the authors' code.

    z1, z2: projections of the two views [n, d], not normalised. off: the paper's lambda.
    Returns f32[] (f64 for f64 rows), not divided by d.
    Raises ValueError: shapes disagree.
    """
    z1, z2 = _pair(z1, z2)
    c = jnp.einsum("nc,ne->ce", _columns(z1, eps), _columns(z2, eps), precision=Precision.HIGHEST) / len(z1)
    own = jnp.diagonal(c)
    return jnp.sum((1 - own) ** 2) + off * _off_diagonal(c)


def vicreg(z1, z2, *, invariance=25.0, variance=25.0, covariance=1.0, form="official", eps=1e-4):
    """VICReg: views alike, every column's deviation at least one, columns uncorrelated.

        L = invariance mean (z1 - z2)^2 + variance V + covariance (C(z1) + C(z2))
        V = v(z1) + v(z2) ("paper"), or half of that ("official"),   v(z) = mean_c relu(1 - sqrt(var_c(z) + eps))
        C(z) = 1/d sum_{c != e} cov(z)_ce^2

    Bardes et al. 2022, arXiv 2105.04906, eq. 1 to 6; var and cov are divided by n - 1, the first mean is over n and d.

    z1, z2: projections of the two views [n, d], not normalised, n >= 2. form: "official" (the authors' code, whose weights
    were trained with the half) or "paper".
    Returns f32[] (f64 for f64 rows).
    Raises ValueError: an unknown form, shapes that disagree, a single row.
    """
    if form not in ("official", "paper"):
        raise ValueError(f'form is {form!r}: say "official" or "paper"')
    z1, z2 = _pair(z1, z2)
    if len(z1) < 2:
        raise ValueError("vicreg takes variances over the batch: it needs two rows or more, not one")
    near = jnp.mean((z1 - z2) ** 2)
    spread, cross = (sum(parts) for parts in zip(*(_spread(z, eps) for z in (z1, z2)), strict=True))
    return invariance * near + variance * (spread / 2 if form == "official" else spread) + covariance * cross


def _pair(z1, z2):
    if z1.ndim != 2 or z1.shape != z2.shape:
        raise ValueError(f"two views of the same rows have one shape [n, d], not {z1.shape} and {z2.shape}")
    acc = wide(z1, z2)
    return z1.astype(acc), z2.astype(acc)


def _columns(z, eps):
    """Columns with mean zero and deviation one."""
    z = z - jnp.mean(z, axis=0, keepdims=True)
    return z / jnp.sqrt(jnp.mean(z * z, axis=0, keepdims=True) + eps)


def _spread(z, eps):
    """(v, C) of vicreg."""
    n, d = z.shape
    z = z - jnp.mean(z, axis=0, keepdims=True)
    cov = jnp.einsum("nc,ne->ce", z, z, precision=Precision.HIGHEST) / (n - 1)
    return jnp.mean(jnp.maximum(1 - jnp.sqrt(jnp.diagonal(cov) + eps), 0)), _off_diagonal(cov) / d


def _off_diagonal(c):
    """Sum of squares of what is not on the diagonal."""
    return jnp.sum(jnp.where(jnp.eye(len(c), dtype=bool), 0, c) ** 2)
