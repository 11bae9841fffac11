"""Checkpoints: the state, the data iterator's position and their digest; the only door to orbax."""

from __future__ import annotations

import hashlib
import logging
import math

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as managers

from supcon_jax import shard, storage
from supcon_jax.config import UserError
from supcon_jax.core import State

log = logging.getLogger("supcon_jax")


def digest(state: State) -> str:
    """sha256 over every leaf's path, type, shape and bytes: equal digests mean equal states, bit for bit, wherever they
    lie. On several processes all of them must call this.
    """
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(without_key(state)):
        value = shard.whole(leaf)
        total.update(f"{jax.tree_util.keystr(path)} {value.dtype} {value.shape}".encode())
        total.update(np.ascontiguousarray(value).tobytes())
    return total.hexdigest()


def without_key(state: State) -> State:
    """The state with its random key as plain numbers, which files can hold."""
    return state.replace(key=jax.random.key_data(state.key))


class Checkpoints:
    """The checkpoints of one stage in `folder`.

    latest: how many of the newest are kept. best: how many of the best by `metric` are kept besides.
    Neither rule can delete the newest one, and a step whose metric is not finite counts as unmeasured.
    """

    def __init__(self, folder, *, latest=2, best=0, metric="", mode="min"):
        self.metric = metric
        policies, rule = [managers.LatestN(latest)], {}
        if best and metric:
            rule = {"best_fn": lambda found: found["value"], "best_mode": mode}  # else orbax writes no metrics
            policies.append(
                managers.BestN(
                    get_metric_fn=rule["best_fn"], reverse=mode == "min", n=best, keep_checkpoints_without_metrics=False
                )
            )
        folder = epath.Path(folder)
        with storage.told(folder):
            self.manager = ocp.CheckpointManager(
                folder if storage.kind(folder) else folder.resolve(),  # orbax writes to absolute paths only
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=managers.AnyPreservationPolicy(policies), create=True, **rule
                ),
                item_names=("state", "extra"),
            )

    def save(self, state: State, data: dict, evals: dict[str, float] | None = None) -> None:
        """Writes the state after its step, the iterator's position and the digest of the state."""
        at = int(state.step)
        if at in self.manager.all_steps():
            return
        value = (evals or {}).get(self.metric)
        metrics = {"value": float(value)} if value is not None and math.isfinite(value) else None
        extra = {"data": data, "digest": digest(state)}
        args = ocp.args.Composite(state=ocp.args.StandardSave(without_key(state)), extra=ocp.args.JsonSave(extra))
        self.manager.save(at, args=args, metrics=metrics)

    def restore(self, like: State) -> tuple[State, dict] | None:
        """The newest intact checkpoint as (state, iterator position), or None if there is none at all.

        like: a state of the right shapes and shardings. A step that cannot be read, or whose digest is wrong, is
        named and passed over. Raises UserError: there are checkpoints, but none is intact.
        """
        steps = sorted(self.manager.all_steps(), reverse=True)
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, without_key(like))
        for at in steps:
            try:
                found = self.manager.restore(
                    at, args=ocp.args.Composite(state=ocp.args.StandardRestore(target), extra=ocp.args.JsonRestore())
                )
                state = found.state.replace(key=jax.random.wrap_key_data(found.state.key))
                if digest(state) != found.extra["digest"]:
                    raise ValueError("its digest does not fit its content")
            except Exception as error:  # orbax raises many kinds for damaged files
                storage.reach(self.manager.directory)  # an outage is no damage
                reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
                log.warning("checkpoint %s of %s is damaged and passed over: %s", at, self.manager.directory, reason)
                continue
            for later in (s for s in steps if s > at):
                self.manager.delete(later)
            return state, found.extra["data"]
        if steps:
            raise UserError(f"{self.manager.directory}: none of the checkpoints {steps} is intact; remove the folder")
        return None

    def settle(self) -> None:
        """Returns when all that was saved lies there."""
        self.manager.wait_until_finished()

    def close(self) -> None:
        """Waits for the last write."""
        self.settle()
        self.manager.close()
