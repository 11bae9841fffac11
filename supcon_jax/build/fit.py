"""The largest batch of every stage that fits a machine, found by compiling for it."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Callable, Iterator, Sequence

from etils import epath

from supcon_jax.build import compile
from supcon_jax.build.target import find
from supcon_jax.config import UserError

# What may be given up for a batch twice as large or more, in this order: settings, {name} stands for the stage. A
# setting that stages share takes the last choice that any of them needs.
CHOICES = ({"mesh.door": "auto"}, {"mesh.door": "ring"})
MOST = 2**24


def stages(config: dict, topology: str, workdir: epath.Path | None, words: Sequence[str]) -> Iterator[str]:
    """Searches every stage's largest batch; yields lines to print, at last the command that trains with them.

    words: the command's own flags. Raises UserError: as compile.stages does, or not even the smallest batch fits.
    """
    target, found, settings, used = find(topology), {}, {}, []
    for name in config["stages"]:
        yield f"{name}: searching the largest batch on {topology}"
        tried, best = {}, None
        for order, choice in enumerate(CHOICES):
            choice = {key.format(name=name): value for key, value in choice.items()}

            def fits(batch, choice=choice, name=name, tried=tried):
                tried[batch] = compile.one(changed(config, {**choice, f"{name}.batch": batch}), name, target)
                return tried[batch]["fits"]

            tried.clear()
            start = best["batch"] * 2 if best else config[name]["batch"]
            batch = largest(fits, len(target.devices), start, grow_only=best is not None)
            yield from (tale(tried[batch], choice) for batch in sorted(tried))
            if batch:
                best, needed = tried[batch], (order, choice)
            if best and not best["sums"]:
                break
        if best is None:
            raise UserError(f"{name} does not fit {topology} with one row for each device; take a larger slice or chip")
        found[name], settings[f"{name}.batch"] = best, best["batch"]
        used.append(needed)
        yield from compile.shown(best)
    if workdir:
        yield f"written to {compile.write(found, topology, workdir)}"
    for _, choice in sorted(used, key=lambda one: one[0]):
        settings |= choice
    yield command(words, settings, workdir)


def largest(fits: Callable[[int], bool], unit: int, start: int, grow_only: bool = False) -> int:
    """The largest batch that fits, to an eighth: powers of two times unit, then halving the gap three times.

    fits: whether a batch does; monotone. unit: every batch is a multiple of it. start: where to begin; grow_only: give up
    if that does not fit. Returns 0 if not even `unit` fits.
    """
    batch = unit
    while batch * 2 <= start:
        batch *= 2
    if fits(batch):
        while batch * 2 <= MOST and fits(batch * 2):
            batch *= 2
    else:
        if grow_only:
            return 0
        while batch > unit and not fits(batch // 2):
            batch //= 2
        if batch == unit:
            return 0
        batch //= 2
    gap = batch // 2
    for _ in range(3):
        if gap < unit or gap % unit:
            break
        batch, gap = (batch + gap if fits(batch + gap) else batch), gap // 2
    return batch


def changed(config: dict, settings: dict) -> dict:
    """A plain config with other values: {"damsm.batch": 64}."""
    config = copy.deepcopy(config)
    for key, value in settings.items():
        *path, leaf = key.split(".")
        node = config
        for part in path:
            node = node[part]
        node[leaf] = value
    return config


def tale(said: dict, choice: dict) -> str:
    """One try, as a line."""
    how = ", ".join(f"{key}={value}" for key, value in choice.items())
    return f"  batch {said['batch']}, {how}: {'fits' if said['fits'] else 'too large'}, {compile.lack(said)}"


def command(words: Sequence[str], settings: dict, workdir: epath.Path | None) -> str:
    """The training command, ready to paste: the given flags, without those that the search has settled."""
    keys = tuple(f"--config.{key}=" for key in settings)
    kept = [word for word in words if not word.startswith(keys)]
    new = [f"--config.{key}={value}" for key, value in settings.items()]
    folder = f"--workdir={workdir or 'runs/fit'}"
    return shlex.join(["python", "-m", "supcon_jax.main", *kept, *new, folder])
