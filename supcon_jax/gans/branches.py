"""The branches of a GAN: all on one set of weights, as published, or each on its own."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from supcon_jax.ops.arrays import merge


@dataclasses.dataclass(frozen=True)
class Branches:
    """How many branches there are and whose weights they read.

    shared: one set of weights for all. Else each owns a generator and discriminators, which double in size with them: the
    leaves of parameters and statistics have the branch as axis 0, and only the label term, which sees the pictures of all
    branches, lets one branch teach the other. Sampling then uses those of branch 0.
    """

    count: int
    shared: bool
    mesh: jax.sharding.Mesh

    def init(self, init: Callable, key):
        """Variables of a network from init(key): one set, or one for each branch, each drawn anew."""
        return init(key) if self.shared else jax.vmap(init)(jax.random.split(key, self.count))

    def each(self, f: Callable, weights: tuple, out):
        """f(*weights, *args) for every branch, which is axis 1 of all args; the results are stacked on axis `out`, as in
        jax.vmap.

        On several devices the branches are computed one after another: jax.vmap would merge [v, n] into the rows of every
        convolution, branch first, which no sharding of n can express, and each device would gather and compute all rows.
        So they are on weights of their own, which would make grouped convolutions.
        out: an axis, or for a tuple of results one each.
        """
        if self.shared and self.mesh.size == 1:
            return jax.vmap(functools.partial(f, *weights), 1, out)

        def stacked(axis, parts):
            return jax.tree.map(lambda *x: jnp.stack(x, axis), *parts)

        def run(*args):
            own = [weights if self.shared else jax.tree.map(lambda x, b=b: x[b], weights) for b in range(self.count)]
            parts = [f(*own[b], *jax.tree.map(lambda x, b=b: x[:, b], args)) for b in range(self.count)]
            if isinstance(out, tuple):
                return tuple(stacked(axis, part) for axis, part in zip(out, zip(*parts), strict=True))
            return stacked(out, parts)

        return run

    def rows(self, f: Callable, weights) -> Callable:
        """f(weights, *rows) for rows [n * v, ...] of all branches, at once, or those of each branch by its own weights."""
        if self.shared:
            return functools.partial(f, weights)

        def run(*rows):
            parts = self.each(f, (weights,), 1)(*(x.reshape(-1, self.count, *x.shape[1:]) for x in rows))
            return jax.tree.map(merge, parts)

        return run

    def settled(self, stats):
        """Statistics to keep after one update by each branch [v, ...]: the branches' mean, or each its own."""
        return jax.tree.map(lambda x: x.mean(0), stats) if self.shared else stats

    def first(self, variables):
        """The variables that sampling uses."""
        return variables if self.shared else jax.tree.map(lambda x: x[0], variables)
