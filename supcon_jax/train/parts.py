"""Rules for a part of the parameters: no weight decay, a rate of its own, held still for some time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

VECTORS = "vectors"


def names(path) -> tuple[str, ...]:
    """The words of a leaf's path."""
    return tuple(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)


def fits(rule: str, path, leaf) -> bool:
    """Whether a rule names a parameter: "vectors" all of one axis or none (biases and scales), a word all under it."""
    return rule in names(path) or (rule == VECTORS and jnp.ndim(leaf) <= 1)


def chosen(tree, rules):
    """A tree of bools: True where no rule names the parameter."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: not any(fits(rule, path, leaf) for rule in rules), tree)


class Rates(NamedTuple):
    """Schedules of the learning rate: of all parameters, and of parts by rule. A word goes before "vectors"."""

    base: Callable
    parts: Mapping[str, Callable] = {}

    def of(self, path, leaf) -> Callable:
        rule = next((rule for rule in sorted(self.parts, key=lambda rule: rule == VECTORS) if fits(rule, path, leaf)), None)
        return self.base if rule is None else self.parts[rule]


def constant(rate):
    """A schedule: the rate itself if it is one."""
    return rate if callable(rate) else optax.constant_schedule(rate)


def paced(rates: Rates) -> optax.GradientTransformation:
    """Multiplies each update by its own rate at this step."""

    def init(params):
        return optax.ScaleByScheduleState(jnp.zeros((), jnp.int32))

    def update(updates, state, params=None):
        def scaled(path, u):
            return jnp.asarray(rates.of(path, u)(state.count), u.dtype) * u

        updates = jax.tree_util.tree_map_with_path(scaled, updates)
        return updates, optax.ScaleByScheduleState(optax.safe_increment(state.count))

    return optax.GradientTransformation(init, update)


class HeldState(NamedTuple):
    count: jax.Array
    inner: optax.OptState


def held(tx: optax.GradientTransformation, steps: Mapping[str, int]) -> optax.GradientTransformation:
    """Parts that stand still at first: their gradients, and the weights that decay would see, count as zero for so many steps.

    steps: rule -> number of steps. Momentum does not gather in the meantime, schedules go on.
    """

    def init(params):
        return HeldState(jnp.zeros((), jnp.int32), tx.init(params))

    def update(updates, state, params=None):
        def gate(path, leaf):
            n = max((n for rule, n in steps.items() if fits(rule, path, leaf)), default=0)
            return jnp.where(state.count >= n, leaf, 0).astype(leaf.dtype) if n else leaf

        updates, seen = (tree if tree is None else jax.tree_util.tree_map_with_path(gate, tree) for tree in (updates, params))
        updates, inner = tx.update(updates, state.inner, seen)
        return updates, HeldState(optax.safe_increment(state.count), inner)

    return optax.GradientTransformation(init, update)
