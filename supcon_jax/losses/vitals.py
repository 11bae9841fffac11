"""Figures that show a collapse while it happens, from arrays that a step has anyway; train.alarms reads them."""

import math

import jax
import jax.numpy as jnp

from supcon_jax.ops.arrays import unit, wide

GRID = 8  # places along each side that pictures are compared on
ROWS = 256  # rows of the global batch that pairs of rows are looked at among
EDGE = 0.99  # of [-1, 1]: from here on a value counts as saturated


def looks(fakes, real):
    """How fakes compare with the real pictures of the same step, f32[] each:

    diversity: spread of the fakes over the batch, as a share of the real ones'; 0 where all fakes are alike.

        sqrt( mean_p var_i(fake_ip) / mean_p var_i(real_ip) ),   p: places of a coarse grid, channels and branches

    saturated_percent, real_saturated_percent: values that stand at either end.

    fakes, real: [n, v, h, w, 3] in [-1, 1]. The grid keeps what devices tell each other small, and noise out of the spread.
    """
    fakes, real = jax.lax.stop_gradient((fakes, real))
    own, theirs = variance(fakes), variance(real)
    out = {
        "diversity": jnp.sqrt(own / jnp.where(theirs > 0, theirs, 1)),
        "saturated_percent": 100 * jnp.mean(jnp.abs(fakes) >= EDGE, dtype=wide(fakes)),
        "real_saturated_percent": 100 * jnp.mean(jnp.abs(real) >= EDGE, dtype=wide(real)),
    }
    return {name: x.astype(jnp.float32) for name, x in out.items()}


def variance(images):
    """Mean variance over the rows of pictures [n, v, h, w, 3], each seen on a coarse grid."""
    n, v, h, w, c = images.shape
    rows, columns = math.gcd(h, GRID), math.gcd(w, GRID)
    x = images.astype(wide(images)).reshape(n, v, rows, h // rows, columns, w // columns, c).mean((3, 5))
    return jnp.mean(jnp.square(x - x.mean(0, keepdims=True)))


def spread(codes):
    """How far unit codes stand from each other: 1 spread out, 0 where all are one.

        sqrt( 1 - |mean_i u_i|^2 ) = sqrt(d) * (root mean square over dimensions of their standard deviation)

    The mean cosine of two of them is 1 - spread^2. codes: [..., d], made unit here. Returns f32[].
    """
    u = unit(jax.lax.stop_gradient(codes).astype(wide(codes))).reshape(-1, codes.shape[-1])
    return jnp.sqrt(jnp.mean(jnp.sum(jnp.square(u - u.mean(0, keepdims=True)), axis=1))).astype(jnp.float32)


def pair_distance(codes, index):
    """How far the two branches' codes of a row stand from each other, as a share of how far any two codes do.

        sqrt( mean_i |u_i0 - u_i1|^2 / mean_jk |u_j - u_k|^2 ),   i: rows whose branches show different records

    Branches share a label: near 0 a whole class is one point, whatever its captions say; 1 where labels play no role.

    codes: [n, 2, d], made unit here; index: i32[n, 2]. Returns f32[], 1 where no row has two records.
    """
    u = unit(jax.lax.stop_gradient(codes).astype(wide(codes)))
    other = (index[:, 0] != index[:, 1]).astype(u.dtype)
    apart = jnp.sum(other * jnp.sum(jnp.square(u[:, 0] - u[:, 1]), axis=1)) / jnp.maximum(other.sum(), 1)
    any_two = 2 * jnp.mean(jnp.sum(jnp.square(u - u.mean((0, 1), keepdims=True)), axis=2))
    share = jnp.sqrt(apart / jnp.where(any_two > 0, any_two, 1))
    return jnp.where(other.sum() > 0, share, 1).astype(jnp.float32)


def spreads(index, **codes):
    """`spread` of each, as NAME_spread; of two branches [n, 2, d] also `pair_distance`, as NAME_pair_distance.

    index: i32[n, v], the branches' records.
    """
    out = {f"{name}_spread": spread(x) for name, x in codes.items()}
    return out | {f"{name}_pair_distance": pair_distance(x, index) for name, x in codes.items() if x.shape[1] == 2}


def health(codes, positive=None):
    """Signs of collapse in a step's codes, f32[] each, for train.alarms:

    std: sqrt(d) mean_j std_i(u_ij), near 1 where codes spread out, 0 where all are one (Chen & He 2021, arXiv 2011.10566).
    participation: directions that codes vary in, 1 .. d: tr(C)^2 / tr(C^2) of their covariance C, where tr(C^2) is the sum
    of its squares (no eigenvalues), taken on the smaller of C and the rows' own products. 0 where all codes are one.
    positive_cosine: mean cosine of two views of one row; of the first views with `positive`, if that is given.
    alignment: mean squared distance of the same two (Wang & Isola 2020, arXiv 2005.10242, eq. 2): 0 where they are one.
    uniformity: of the first views of the first ROWS rows, see `uniformity`.
    negative_cosine: mean cosine of two views of different rows, from sums alone:

        ( |sum_iv u_iv|^2 - sum_i |sum_v u_iv|^2 ) / (n (n - 1) v^2)

    codes: [n, v, d], made unit here; positive: [n, d] (another network's codes of the same rows), or None. A figure that
    needs two rows or two views is left out where there is one.
    """
    u = unit(jax.lax.stop_gradient(codes).astype(wide(codes)))
    n, v, d = u.shape
    flat = u.reshape(n * v, d)
    centred = flat - flat.mean(0, keepdims=True)
    small = centred.T @ centred if d <= n * v else centred @ centred.T
    trace, square = jnp.sum(jnp.square(centred)), jnp.sum(jnp.square(small))
    varies = trace > 1e-6 * n * v  # below that it is rounding
    out = {"participation": jnp.where(varies, trace**2 / jnp.where(varies, square, 1), 0)}
    if n * v > 1:
        out["std"] = d**0.5 * jnp.mean(jnp.sqrt(jnp.sum(jnp.square(centred), axis=0) / (n * v - 1)))
    own = jnp.sum(jnp.square(u.sum(1)), axis=1)
    if positive is not None:
        other = unit(jax.lax.stop_gradient(positive).astype(u.dtype))
        out["positive_cosine"] = jnp.mean(jnp.sum(u[:, 0] * other, axis=1))
        out["alignment"] = jnp.mean(jnp.sum(jnp.square(u[:, 0] - other), axis=1))
    elif v > 1:
        lengths = jnp.sum(jnp.square(u), axis=(1, 2))  # v, but for rows of zeros
        out["positive_cosine"] = jnp.mean(own - lengths) / (v * (v - 1))
        apart = jnp.sum(jnp.square(u - u.mean(1, keepdims=True)), axis=(1, 2))
        out["alignment"] = 2 * jnp.mean(apart) / (v - 1)  # sum_ab |u_a - u_b|^2 = 2 v sum_a |u_a - mean|^2
    if n > 1:
        out["negative_cosine"] = (jnp.sum(jnp.square(u.sum((0, 1)))) - jnp.sum(own)) / (n * (n - 1) * v * v)
        out["uniformity"] = uniformity(u[:ROWS, 0])
    return {name: x.astype(jnp.float32) for name, x in out.items()}


def uniformity(u, t=2.0):
    """How evenly unit rows cover the sphere: 0 where all are one, about -2t where they lie anyhow in many dimensions.

        U = log mean_{i < j} exp(-t |u_i - u_j|^2)

    Wang & Isola 2020, arXiv 2005.10242, eq. 3; evals.spectrum has it for whole splits. u: [n, d], n > 1. Returns f32[].
    """
    n = len(u)
    square = jnp.sum(jnp.square(u), axis=1)
    product = jnp.matmul(u, u.T, precision=jax.lax.Precision.HIGHEST)
    apart = jnp.maximum(square[:, None] + square[None] - 2 * product, 0)
    near = jnp.where(jnp.eye(n, dtype=bool), 0, jnp.exp(-t * apart))
    return jnp.log(jnp.sum(near) / (n * (n - 1))).astype(jnp.float32)
