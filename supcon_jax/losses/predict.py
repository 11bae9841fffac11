"""Losses without negatives: the prediction of one view is drawn to the projection of another."""

import jax
import jax.numpy as jnp

from supcon_jax.ops.arrays import cosine


def byol(p, z):
    """BYOL's regression loss, one direction: squared distance of the unit prediction to the unit target.

        L = mean_i |p_i/|p_i| - sg(z_i)/|z_i||^2 = mean_i 2 - 2 cos(p_i, sg(z_i))

    Grill et al. 2020, arXiv 2006.07733, eq. 2. The method's loss is byol(p1, z2) + byol(p2, z1).

    p: predictions of the online network [..., d]. z: projections of the target network, the same shape; no gradient flows
    into them. Neither need be unit rows; a zero row counts as orthogonal to all.
    Returns f32[] (f64 for f64 rows), 0 to 4.
    """
    return jnp.mean(2 - 2 * cosine(p, jax.lax.stop_gradient(z)))


def simsiam(p, z):
    """SimSiam's negative cosine, one direction: the prediction of one view against the projection of the other.

        L = mean_i -cos(p_i, sg(z_i))

    Chen & He 2021, arXiv 2011.10566, eq. 1 and 3. The method's loss is (simsiam(p1, z2) + simsiam(p2, z1)) / 2. It is the
    projection z that is stopped: stopping the prediction would leave the predictor untrained.

    p: predictions [..., d]. z: projections of the other view by the same network, the same shape; no gradient flows into
    them. Neither need be unit rows; a zero row counts as orthogonal to all.
    Returns f32[] (f64 for f64 rows), -1 to 1.
    """
    return -jnp.mean(cosine(p, jax.lax.stop_gradient(z)))
