"""A queue of keys, first in, first out, written in slots of one batch each.

The rows lie as [slots, b, ...]: where the batch is split over devices, split on axis 1, each device writes its own part
of a slot, and its rows stay in place. As [slots * b, ...] split by rows, every write would gather the whole queue.
"""

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array, lax

from supcon_jax.ops.rows import Rows


@flax.struct.dataclass
class Queue:
    """rows: Rows of arrays [slots, b, ...]. next: i32[], the slot that is written next, which holds the oldest rows."""

    rows: Rows
    next: Array


def init(size, like):
    """A queue of `size` rows, none of them valid yet.

    like: Rows of one batch of b rows, arrays or shapes, with all that shall be kept: the batches to come are like it.
    Raises ValueError: size is not a multiple of b.
    """
    b = like.x.shape[0]
    if size < b or size % b:
        raise ValueError(f"a queue of {size} rows takes no batches of {b}: its size must be a multiple of {b}")
    rows = jax.tree.map(lambda a: jnp.zeros((size // b, *a.shape), a.dtype), like.replace(valid=None))
    return Queue(rows.replace(valid=jnp.zeros((size // b, b), bool)), jnp.zeros((), jnp.int32))


def enqueue(queue, rows):
    """The queue with these rows in place of the oldest; no gradient flows into them. Rows that are not valid stay so.

    Raises ValueError: the rows are not like those that the queue was made for.
    """
    rows = rows.replace(valid=jnp.ones(rows.x.shape[0], bool) if rows.valid is None else rows.valid.astype(bool))
    kept = jax.tree.map(lambda a: f"{a.dtype}{list(a.shape[1:])}", queue.rows)
    new = jax.tree.map(lambda a: f"{a.dtype}{list(a.shape)}", rows)
    if kept != new:
        raise ValueError(f"the queue takes {kept}, not {new}")
    at = queue.next
    put = jax.tree.map(lambda a, b: lax.dynamic_update_index_in_dim(a, lax.stop_gradient(b), at, 0), queue.rows, rows)
    return Queue(put, (at + 1) % queue.rows.valid.shape[0])


def keys(queue):
    """All rows of the queue, Rows of slots * b keys without a gradient, those of an empty slot not valid.

    Row j * slots + i is row j of slot i: rows of one device stay together, so that nothing moves.
    """

    def flat(a):
        return lax.stop_gradient(jnp.swapaxes(a, 0, 1).reshape(-1, *a.shape[2:]))

    return jax.tree.map(flat, queue.rows)
