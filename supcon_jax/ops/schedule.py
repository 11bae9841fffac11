"""Numbers that move with the step."""

import jax.numpy as jnp


def momentum_at(step, steps: int, start: float, end: float = 1.0):
    """How much of itself a teacher keeps at a step: from `start` to `end` along half a cosine.

        m_k = end - (end - start) (1 + cos(pi k / K)) / 2

    Grill et al. 2020, arXiv 2006.07733, section 3.2; Chen et al. 2021, arXiv 2104.02057, appendix.

    step: i32[] k, from 0; steps: K, after which it stays; start = end keeps it constant.
    Returns f32[].
    """
    share = jnp.minimum(jnp.asarray(step, jnp.float32) / max(steps, 1), 1)
    return end - (end - start) * (1 + jnp.cos(jnp.pi * share)) / 2
