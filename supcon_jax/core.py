"""The contract: what a task is, what changes while it trains, and the one training step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import optax

Array = jax.Array
Key = jax.Array
Tree = Any
Batch = Mapping[str, Array]
Params = Mapping[str, Tree]
Frozen = Mapping[str, Tree]
EMPTY: Mapping = MappingProxyType({})


@flax.struct.dataclass
class State:
    """All that changes during training. A checkpoint is this and the data iterator's position.

    step: i32[]; always advances, also when an update was refused.
    skipped: i32[2]; player updates refused for non-finite values, in all and in a row.
    key: one typed key for the run; a step's key is fold_in(key, step).
    params, opt, stats: by owner, as {"model": ...} or {"disc": ..., "gen": ...}; stats hold BatchNorm averages.
    memory: teacher, queue, prototypes, averaged generator.
    """

    step: Array
    skipped: Array
    key: Key
    params: dict[str, Tree]
    opt: dict[str, Tree]
    stats: dict[str, Tree]
    memory: Tree


class Aux(NamedTuple):
    """What a loss hands back beside its value; stats are those of this player's own nets only."""

    metrics: dict[str, Array]
    stats: Tree
    memory: Tree


@dataclasses.dataclass(frozen=True)
class Player:
    """One gradient step on its own parameters, once in every training step.

    name: unique; the prefix of its metrics.
    loss: (params of all owners, state, frozen, batch, key) -> (value f32[], Aux).
    tx: the optimiser of what it owns.
    owns: key into params, opt and stats; its name if left out. Two players may own the same, then with the same tx.
    parts: entries of its parameters, such as single networks, whose gradient norm is told as well, as grad_norm/PART.
    """

    name: str
    loss: Callable[[Params, State, Frozen, Batch, Key], tuple[Array, Aux]]
    tx: optax.GradientTransformation
    owns: str | None = None
    parts: tuple[str, ...] = ()

    @property
    def owner(self) -> str:
        return self.owns or self.name


@dataclasses.dataclass(frozen=True)
class About:
    """What a task must know and `build` fills in: nothing else reaches it sideways.

    records, classes: of the training set; steps: of the stage; epoch: steps in one pass over the records;
    sums: the door that makes the contrastive sums (ops.rows.dense, ops.sharded.gather(mesh), ...).
    """

    records: int
    classes: int
    vocab: Any
    steps: int
    epoch: int
    sums: Callable
    mesh: jax.sharding.Mesh


@dataclasses.dataclass(frozen=True)
class Refresh:
    """Rare work outside jit, such as clustering: the state is replaced by one of the same shapes.

    It runs before step s (counted from 0) where s is a multiple of its period and not below `start`. The checkpoint of step s
    is always written before it, so that a run that is killed between the two does it again from the same state.

    every: steps of a period. start: first step.
    fn: (state, frozen, batches) -> state; batches: the training set once, in record order with evaluation's views, as global
        arrays: u8[b, 1, h, w, 3] under "image", and rows that fill up the last batch have `valid` 0.
    """

    every: int
    start: int
    fn: Callable[[State, Frozen, Iterable[Batch]], State]


@dataclasses.dataclass(frozen=True)
class Task:
    """A method: how to begin, who moves in which order, what follows, and what evaluation may call.

    init: (key, batch) -> {"params": ..., "stats": ..., "memory": ...}; traceable.
    players: move in this order, each sees the state its forerunners left.
    after: teachers and averages; only if every player moved.
    heads: name -> f(state, frozen, batch, key): all that evaluation may call ("image", "text", "generate", ...).
    refresh: rare work between steps, None if there is none.
    """

    init: Callable[[Key, Batch], dict]
    players: tuple[Player, ...]
    after: Callable[[State], State] = lambda state: state
    heads: Mapping[str, Callable[[State, Frozen, Batch, Key], Tree]] = dataclasses.field(default_factory=dict)
    refresh: Refresh | None = None


def init_state(task: Task, key: Key, batch: Batch) -> State:
    """The state before the first step.

    key: typed key of the run; parameters are drawn from a key folded apart from those of the steps.
    batch: one batch, for its shapes.
    Returns State.  Raises ValueError: two players of one name, or a player that owns nothing init made.
    """
    names = [player.name for player in task.players]
    if len(set(names)) != len(names):
        raise ValueError(f"players need unique names, got {names}")
    start = task.init(jax.random.fold_in(key, 2**31 - 1), batch)
    owners = {player.owner: player.tx for player in task.players}
    if missing := set(owners) - set(start["params"]):
        raise ValueError(f"no parameters for {sorted(missing)}: init made {sorted(start['params'])}")
    return State(
        step=jnp.zeros((), jnp.int32),
        skipped=jnp.zeros((2,), jnp.int32),
        key=key,
        params=start["params"],
        opt={owner: tx.init(start["params"][owner]) for owner, tx in owners.items()},
        stats={owner: start.get("stats", {}).get(owner, {}) for owner in start["params"]},
        memory=start.get("memory", {}),
    )


def step(task: Task, state: State, frozen: Frozen, batch: Batch) -> tuple[State, dict[str, Array]]:
    """The training step: every player moves once, then teachers and averages follow.

    Each player is gated by the finiteness of its own loss and gradients: a refused move leaves its parameters,
    optimiser, statistics and memory as they were, and `after` is left out for that step.
    Returns the next state and the metrics by name ("gen/loss"); only `state` may be donated.
    """
    key = jax.random.fold_in(state.key, state.step)
    metrics, moved = {}, []
    for player in task.players:
        state, ok, seen = move(player, state, frozen, batch, key)
        moved.append(ok)
        metrics |= {f"{player.name}/{name}": value for name, value in seen.items()}
    moved = jnp.stack(moved)
    state = choose(moved.all(), task.after(state), state)
    refused = (~moved).sum().astype(jnp.int32)
    row = jnp.where(refused > 0, state.skipped[1] + refused, 0)
    state = state.replace(step=state.step + 1, skipped=jnp.stack([state.skipped[0] + refused, row]))
    return state, metrics | {"skipped": state.skipped[0], "skipped_in_a_row": row}


def move(player: Player, state: State, frozen: Frozen, batch: Batch, key: Key):
    """One gradient step of one player. Returns the state, whether it moved (bool[]) and what it reports."""
    owner = player.owner

    def loss(own):
        return player.loss({**state.params, owner: own}, state, frozen, batch, key)

    (value, aux), grads = jax.value_and_grad(loss, has_aux=True)(state.params[owner])
    norm = optax.tree.norm(grads)
    ok = jnp.isfinite(value) & jnp.isfinite(norm)
    with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
        updates, opt = player.tx.update(grads, state.opt[owner], state.params[owner])
        params = optax.apply_updates(state.params[owner], updates)
    new = state.replace(
        params={**state.params, owner: params},
        opt={**state.opt, owner: opt},
        stats={**state.stats, owner: aux.stats},
        memory=aux.memory,
    )
    norms = {"grad_norm": norm} | {f"grad_norm/{part}": optax.tree.norm(grads[part]) for part in player.parts}
    return choose(ok, new, state), ok, {"loss": value, **norms, **aux.metrics}


def choose(ok: Array, new: State, old: State) -> State:
    """`new` where ok, else `old`, leaf by leaf: a selection, never a product, so that no NaN leaks through."""

    def pick(a, b):
        return a if a is b else jnp.where(ok, a, b)

    parts = ("params", "opt", "stats", "memory")
    return new.replace(**{part: jax.tree.map(pick, getattr(new, part), getattr(old, part)) for part in parts})
