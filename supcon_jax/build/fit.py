"""The largest batch of every stage that fits a machine, found by compiling for it."""

from __future__ import annotations

import bisect
import copy
import dataclasses
import logging
import math
import shlex
from collections.abc import Callable, Iterator, Sequence

from etils import epath

from supcon_jax.build import compile
from supcon_jax.build.target import Target, find
from supcon_jax.config import UserError

log = logging.getLogger("supcon_jax")
SLICES = (2, 4, 8, 16)  # more would make a step so long that more devices are the better answer
AIMED = 4  # tries that follow the memory of those before them; then halving, which cannot go on for long


@dataclasses.dataclass
class Tries:
    """The compilations of one stage, none made twice. made: (batch, door, slices) -> what compile.one said."""

    config: dict
    name: str
    target: Target
    made: dict = dataclasses.field(default_factory=dict)

    def __call__(self, batch: int, door: str = "auto", slices: int = 1) -> dict:
        key = batch, door, slices
        if key not in self.made:
            said = compile.one(changed(self.config, self.settings(*key)), self.name, self.target)
            self.made[key] = said | {"door": door, "slices": slices}
            log.info("%s", tale(self.made[key]))
        return self.made[key]

    def settings(self, batch: int, door: str, slices: int) -> dict:
        """The config's keys and values of a try."""
        found = {f"{self.name}.batch": batch, "mesh.door": door}
        return found | ({f"{self.name}.args.slices": slices} if self.sliced else {})

    @property
    def sliced(self) -> bool:
        """Whether the method can encode its batch in slices."""
        return "slices" in self.config[self.name]["args"]

    @property
    def seconds(self) -> float:
        return sum(said["compile_seconds"] for said in self.made.values())


def stages(config: dict, topology: str, workdir: epath.Path | None, words: Sequence[str]) -> Iterator[str]:
    """Searches every stage's largest batch; yields lines to print, at last the command that trains with them.

    Three things are tried in this order, each only for a batch at least twice as large: the batch as it is, a ring of keys
    where gathered ones fill much of the memory, and slices where the method has them. No batch is larger than the data.
    words: the command's own flags. Raises UserError: as compile.stages does, or not even the smallest batch fits.
    """
    target, found, settings, doors = find(topology), {}, {}, set()
    config, told = compile.at_hand(config)
    yield from told
    for name in config["stages"]:
        yield f"{name}: searching the largest batch on {topology}"
        tries = Tries(config, name, target)
        plain, best = search(tries)
        if best is None:
            raise UserError(f"{name} does not fit {topology} with one row for each device; take a larger slice or chip")
        made = {"compilations": len(tries.made), "tries": [tale(said).strip() for said in tries.made.values()]}
        found[name] = best | made
        own = tries.settings(best["batch"], best["door"], best["slices"])
        doors.add(own.pop("mesh.door"))
        settings |= own
        yield from compile.shown(best)
        if best["slices"] > 1:
            yield f"  without slices: batch {plain['batch']}, {compile.lack(plain)}"
        limit = "; the data has no more records" if best["batch"] == grid(len(target.devices), best["records"])[-1] else ""
        yield f"  found with {len(tries.made)} compilations in {tries.seconds:.0f} s{limit}"
    if workdir:
        yield f"written to {compile.write(found, topology, workdir)}"
    settings["mesh.door"] = "ring" if "ring" in doors else "auto"  # all stages share it
    yield command(words, settings, workdir)


def search(tries: Tries) -> tuple[dict | None, dict | None]:
    """(the largest batch that fits as it is, the largest of all), None where not even one row for each device does."""
    unit = len(tries.target.devices)
    begin = tries.config[tries.name]["batch"] // unit * unit or unit
    first = tries(begin)
    batches = grid(unit, max(first["records"], unit))
    plain = best = largest(tries, batches, begin)
    if best is None:
        return None, None
    if 2 * best["batch"] <= batches[-1] and ring_helps(tries, best):
        more = [batch for batch in batches if batch >= 2 * best["batch"]]
        best = largest(lambda batch: tries(batch, "ring"), more, more[0]) or best
    refused = [batch for (batch, door, _), said in tries.made.items() if door == best["door"] and not said["fits"]]
    if tries.sliced and refused:
        best = in_slices(tries, best, min(refused)) or best
    return plain, best


def largest(attempt: Callable[[int], dict], batches: Sequence[int], begin: int) -> dict | None:
    """What `attempt` says of the largest batch that fits, None if none does.

    attempt: batch -> {"fits", "needs", "has"}; what does not fit does not fit with more rows. It costs minutes: the first
    tries go where a line through the memory of those before them ends. batches: ascending. begin: the first try.
    """
    low, high, best, known = -1, len(batches), None, []
    while high - low > 1:
        at = (low + high) // 2
        if len(known) < AIMED:
            at = bisect.bisect_right(batches, end(known) if known else begin) - 1
        at = min(max(at, low + 1), high - 1)
        known.append(attempt(batches[at]))
        if known[-1]["fits"]:
            low, best = at, known[-1]
        else:
            high = at
    return best


def end(known: Sequence[dict]) -> float:
    """The batch at which memory ends: on the line through the two tries that came nearest, in proportion from one."""
    one, *others = sorted(known, key=lambda said: abs(said["has"] - said["needs"]))
    slope = one["needs"] / one["batch"]
    if others and (others[0]["needs"] - one["needs"]) * (others[0]["batch"] - one["batch"]) > 0:
        slope = (others[0]["needs"] - one["needs"]) / (others[0]["batch"] - one["batch"])
    return one["batch"] + (one["has"] - one["needs"]) / max(slope, 1)


def grid(unit: int, most: int) -> list[int]:
    """Multiples of `unit` up to `most`, neighbours no further apart than an eighth."""
    found, count = [], 1
    while count * unit <= most:
        found.append(count * unit)
        count += max(1, (1 << count.bit_length()) // 16)
    return found


def ring_helps(tries: Tries, best: dict) -> bool:
    """Whether twice the batch could fit if no device held gathered keys and their gradients."""
    held = sum(call["m"] * call["d"] * (call["width"] + 4) for call in best["sums"] if call["door"] == "gather")
    same = [said for said in tries.made.values() if said["door"] == "auto" and said["slices"] == 1]
    room = best | {"has": best["has"] + 2 * held}
    return held > 0 and end([room] + [said | {"has": room["has"]} for said in same if said is not best]) >= 2 * best["batch"]


def in_slices(tries: Tries, best: dict, refused: int) -> dict | None:
    """The largest batch, at least twice that of `best`, that fits in slices, and with the fewest slices; None: there is none.

    refused: a batch that did not fit at once: no slice holds as many rows.
    """
    unit, door = len(tries.target.devices), best["door"]
    for most in reversed(SLICES):
        batches = [batch for batch in grid(unit * most, best["records"]) if batch >= 2 * best["batch"]]
        if batches:
            break
    else:
        return None
    found = largest(lambda batch: tries(batch, door, most), batches, best["batch"] * most)
    if found is None:
        return None
    for slices in SLICES:
        if math.ceil(found["batch"] / slices) < refused and found["batch"] % (slices * unit) == 0:
            if (said := tries(found["batch"], door, slices))["fits"]:
                return said
    return found


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


def tale(said: dict) -> str:
    """One try, as a line."""
    how = f"batch {said['batch']}" + (f" in {said['slices']} slices" if said["slices"] > 1 else "")
    verdict = "fits" if said["fits"] else "too large"
    return f"  {how}, door {said['door']}: {verdict}, {compile.lack(said)} ({said['compile_seconds']:.0f} s)"


def command(words: Sequence[str], settings: dict, workdir: epath.Path | None) -> str:
    """The training command, ready to paste: the given flags, without those that the search has settled."""
    keys = tuple(f"--config.{key}=" for key in settings)
    kept = [word for word in words if not word.startswith(keys)]
    new = [f"--config.{key}={value}" for key, value in settings.items()]
    folder = f"--workdir={workdir or 'runs/fit'}"
    return shlex.join(["python", "-m", "supcon_jax.main", *kept, *new, folder])
