"""When a logsumexp may be shifted by one number for all rows, and what is done where it may not."""

import jax
import jax.numpy as jnp

from supcon_jax.ops.arrays import checked, norm, wide

LARGEST = {4: 40.0, 8: 350.0}  # by the bytes of the accumulation type: exp(-2 * 40) is a normal float32, exp(-2 * 44) is none
SLACK = 1.01  # unit rows in bfloat16 are longer than one by up to 0.4 %


def check_bound(bound, rules, form, dtype):
    """Raises ValueError for a bound under which the smallest exponential would leave the accumulation type."""
    most = LARGEST[jnp.dtype(dtype).itemsize]
    if form.score is not None:
        raise ValueError("bound is for inner products: leave it out with a score of token sets")
    largest = bound * max(abs(rule.factor) for rule in rules)
    if not 0 < largest <= most:
        raise ValueError(
            f"bound: logits up to {largest:g} in {jnp.dtype(dtype).name}, where exp(-2 bound) is only a number for bounds in "
            f"(0, {most:g}]: leave bound out, the running maximum takes any scale"
        )


def within(found, q, k, z, bound):
    """The sums of both sides, their logsumexps NaN where a pair's logit may be larger than `bound`; ValueError where that
    is known at once.

    found: a tuple of Sums for each side, or None. q, k: the rows, for who is valid. z: Asked. Judged by the lengths of
    the rows, |z_i| max_j |k_j|, not by their logits.
    """

    def longest(rows, x):
        size = norm(jax.lax.stop_gradient(x).astype(wide(z.x)))
        return jnp.max(size if rows.valid is None else jnp.where(rows.valid.astype(bool), size, 0), initial=0)

    bad = longest(q, z.x) * longest(k, k.x) > SLACK * bound
    says = f"logits may be larger than bound = {bound:g}: are the rows unit, and is no scale larger?"
    return tuple(side and tuple(one._replace(lse=checked(one.lse, bad, says)) for one in side) for side in found)
