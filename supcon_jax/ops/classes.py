"""Sums over positives of the same class without weights for pairs: the logits of one class add up to one inner product.

    pos_i = sum_{j: y_j = y_i} <z_i, k_j> = <z_i, sum_{j: y_j = y_i} k_j>

The tiles are then left with the logsumexp and the best key that is no positive (`rival`): no weight is summed in either
pass, and where nothing reads the rival, XLA leaves the weights out altogether.
"""

import jax
import jax.numpy as jnp
from jax import lax

from supcon_jax.ops.arrays import checked, wide
from supcon_jax.ops.rows import same_index, same_label


def by_class(rules, q, k):
    """Whether the sums over positives follow from sums over classes: same_label on class ids, from either side, and no
    veto that could reach a positive but the row itself where the keys are the queries."""
    plain = rules.weigh is same_label and rules.back in (None, same_label) and q.label.ndim == 1
    return plain and (rules.veto is None or rules.veto is same_index and q is k)


def positives(plan, found, q, k, z, rules, own):
    """The sums of both sides, with pos, wgt and cnt from sums over classes where the tiles had no weights.

    plan: passes.Plan. found: a tuple of rows.Sums for each side, or None. q, k: rows padded to the door's devices.
    z: Asked. rules: the readings, with their weights. own: the keys are the queries.
    """
    _, keys, z = plan.cast(q, k, z)

    def side(found, *rows):
        return found and tuple(
            of_class(plan, one, rule, own and rule.veto is not None, *rows) if one.wgt is None else one
            for one, rule in zip(found, rules, strict=True)
        )

    return side(found[0], q, z.x, k, keys.x), side(found[1], k, keys.x, q, z.x)


def of_class(plan, found, rule, own, q, z, k, x):
    """Sums of queries z over keys x, [n, d] and [m, d] as they are multiplied; with a gradient for both.

    Memory and traffic: [classes, d] numbers on each device. own: a row is none of its own positives. The ids of valid
    rows lie below the door's classes: ValueError, or NaN inside of jit, where one does not.
    """
    classes, acc = plan.door.classes, wide(z, x)

    def local(mine, z, theirs, x):
        z, x = z.astype(acc), x.astype(acc)
        total = jax.ops.segment_sum(x, theirs, classes)  # leaves rows of no class out: their group is -1
        count = jax.ops.segment_sum(jnp.ones(theirs.shape, acc), theirs, classes)
        if plan.door.parts > 1:
            total, count = lax.psum((total, count), plan.door.axes)
        some = mine >= 0
        at = jnp.where(some, mine, 0)
        keys, wgt = total[at], count[at]
        if own:
            keys, wgt = keys - x, wgt - 1
        return jnp.where(some, jnp.sum(z * keys, axis=1), 0), jnp.where(some, wgt, 0)

    mine, theirs = group(q), group(k)
    pos, wgt = plan.run(local, mine, z, theirs, x)
    beyond = jnp.maximum(jnp.max(mine, initial=-1), jnp.max(theirs, initial=-1)) >= classes
    pos = checked(pos * rule.factor, beyond, f"a class id is not below classes = {classes}")
    return found._replace(pos=pos, wgt=wgt, cnt=wgt)


def group(rows):
    """i32[n]: the class of each row, -1 for rows that are not valid or not labelled."""
    live = rows.label >= 0
    if rows.valid is not None:
        live &= rows.valid.astype(bool)
    return jnp.where(live, rows.label, -1)
