"""Several readings of the same logits: row sums with other positives, vetoes and sharpness from one visit of each pair."""

from collections.abc import Callable
from typing import NamedTuple


class Reading(NamedTuple):
    """Row sums of factor * s_ij. weigh, veto: rules, as for rows.dense. factor: a number, not zero."""

    weigh: Callable
    veto: Callable | None = None
    factor: float = 1.0


def read(sums, q, k, *, scale, readings):
    """What the door gives for each reading, a tuple of Sums; doors in tiles make each logit once for all of them, and
    once more in the backward pass.

    sums: a door. q, k, scale: as for rows.dense.
    """
    if hasattr(sums, "read"):
        return sums.read(q, k, scale=scale, readings=readings)
    return tuple(sums(q, k, scale=one.factor * scale, weigh=one.weigh, veto=one.veto) for one in readings)
