"""Training that begins with given weights instead of drawn ones: those that --mode=convert made, or another run left."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

import jax
import jax.numpy as jnp
from etils import epath

from supcon_jax import core, hosts, storage
from supcon_jax.build import adopt, exports, model, weights
from supcon_jax.config import UserError

log = logging.getLogger("supcon_jax")


def given(config: dict, name: str, workdir: epath.Path, source: str | None) -> Callable[[core.State], core.State] | None:
    """What puts the weights of a work folder or weight file in the place of a stage's first ones; None without a source.

    The stage's folder keeps start.json, the file's address and sha256: a run goes on only from where it began.
    Raises UserError: no weights of such a stage, a GAN's without discriminators, or the folder's run began elsewhere.
    """
    record = workdir / name / "start.json"
    before = json.loads(record.read_text()) if record.exists() else None
    if not source:
        if before:
            raise UserError(f"{workdir / name} was started from {before['from']}: give --from={before['from']} again")
        return None
    method = config[name]["method"]
    path = model.find(source, (name, method))
    tree, _, sha = weights.load(path, exports.KINDS.get(method, method))
    if "gen" in tree and "disc" not in tree:
        raise UserError(f"{path} holds a generator without discriminators, which would unlearn against new ones: convert it "
                        "together with their files")
    if before and before["sha256"] != sha or not before and (workdir / name / "config.json").exists():
        began = f"from {before['from']}" if before else "from drawn weights"
        raise UserError(f"{workdir / name} was started {began}, not from {path}: use another --workdir")
    parts = adopt.owned(config, name, tree)
    hosts.wait("the start was looked for")
    if hosts.chief() and not before:
        storage.write(record, json.dumps({"from": str(path), "sha256": sha}, indent=1))
    log.info("%s: starts from %s", name, path)
    return lambda state: put(state, parts, path)


def put(state: core.State, parts: dict, path: epath.Path) -> core.State:
    """The state with the weights of some owners replaced, and the averaged generator with them. Raises UserError: other
    shapes than the config's nets have."""
    like = {"params": state.params, "stats": state.stats}
    found = jax.tree.map(jnp.asarray, {owner: adopt.fitted(own, like, owner, str(path)) for owner, own in parts.items()})
    memory = state.memory
    if "ema" in memory and "gen" in found:
        memory = memory | {"ema": jax.tree.map(jnp.copy, found["gen"]["params"])}
    return state.replace(
        params=state.params | {owner: own["params"] for owner, own in found.items()},
        stats=state.stats | {owner: own.get("batch_stats", {}) for owner, own in found.items()},
        memory=memory,
    )
