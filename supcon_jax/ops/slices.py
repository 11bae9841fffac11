"""Large batches on few devices: an encoder that sees the batch in slices and keeps only its codes."""

import jax
import jax.numpy as jnp
from jax import lax


def sliced(encode, rows, stats, key, *, slices=1):
    """Codes of a whole batch from an encoder that holds the inner values of one slice at a time.

        forward:  (z_s, stats_s+1) = encode(x_s, stats_s, key_s),  s = 0 .. slices - 1
        backward: each slice is encoded again from its rows, then differentiated

    Gao et al. 2021, arXiv 2101.06983: the gradient of any loss on all codes is exact, at the memory of one
    slice and one more forward pass (4 units of work for 3). There it is two passes with a cache of gradients; here it
    is a rematerialised scan under the usual differentiation, so that both passes see the same rows, keys and statistics.

    encode: (rows [n / slices, ...], stats, key) -> (codes [n / slices, ...], stats); both may be trees. Differentiable
        in whatever it closes over.
    rows: tree of arrays [n, ...]. Slice s holds the rows s, s + slices, s + 2 slices, ...: where the rows are split over
        devices, every device cuts up its own ones and nothing is sent.
    stats: what goes from slice to slice in this order, such as BatchNorm averages: they move once for each slice, and
        each slice is normalised by its own rows. No gradient passes through them.
    key: folded with s for slice s. slices: 1 calls encode(rows, stats, key) as it is.
    Returns (codes [n, ...] in the order of the rows, stats after the last slice).
    Raises ValueError: n is no multiple of slices.
    Differs from gradient caching as published: dropout and BatchNorm are those of the first pass also in the second.
    """
    if slices == 1:
        return encode(rows, stats, key)
    n = len(jax.tree.leaves(rows)[0])
    if n % slices:
        raise ValueError(f"{n} rows cannot be encoded in {slices} slices of one size")

    @jax.checkpoint
    def one(stats, part):
        x, s = part
        codes, stats = encode(x, stats, jax.random.fold_in(key, s))
        return lax.stop_gradient(stats), codes

    cut = jax.tree.map(lambda x: x.reshape(n // slices, slices, *x.shape[1:]).swapaxes(0, 1), rows)
    stats, codes = lax.scan(one, stats, (cut, jnp.arange(slices)))
    return jax.tree.map(lambda z: z.swapaxes(0, 1).reshape(n, *z.shape[2:]), codes), stats
