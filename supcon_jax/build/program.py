"""What a compiled program says of itself: memory of a device, collectives, and by how much it is too large."""

from __future__ import annotations

import re

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
COLLECTIVE = re.compile(rf" ({'|'.join(KINDS)})(-start|-done)?\(")  # the result's type before it may hold anything
COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
CALLED = re.compile(r"calls=%?([\w.\-]+)")
ASYNC = re.compile(r" async-start\(|async[-_]collective")
NUMBER = r"([\d.]+)([KMGT]?)"
TOO_LARGE = (
    re.compile(rf"\({NUMBER}\) exceeds available HBM \({NUMBER}\)"),
    re.compile(rf"Used {NUMBER} of {NUMBER} hbm"),
)
UNIT = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def memory(compiled) -> dict[str, int]:
    """Bytes on each device: arguments, outputs, aliased (outputs that lie where arguments lay), temporaries, and the
    peak of all of them with the program."""
    said = compiled.memory_analysis()
    names = {"arguments": "argument_size", "outputs": "output_size", "aliased": "alias_size", "temporaries": "temp_size"}
    found = {name: int(getattr(said, f"{key}_in_bytes")) for name, key in names.items()}
    return found | {"peak": int(said.peak_memory_in_bytes)}


def collectives(text: str) -> dict[str, dict[str, int]]:
    """{"all-gather": {"asynchronous": 1, "synchronous": 0}, ...} of a scheduled program's text; a loop's body once.

    Asynchronous: it starts and ends apart, as two instructions or in a computation that runs beside others. What an
    all-reduce and a slice make together, fused, is a reduce-scatter.
    """
    found, callers, here = [], {}, ""
    for line in text.splitlines():
        if header := COMPUTATION.match(line):
            here = header[1]
        if called := CALLED.search(line):
            callers[called[1]] = line
        if (one := COLLECTIVE.search(line)) and one[2] != "-done":
            found.append((here, one[1], one[2] == "-start"))
    counts = {}
    for here, kind, apart in found:
        kind = "reduce-scatter" if "all-reduce-scatter" in here else kind
        apart = apart or bool(ASYNC.search(callers.get(here, "")))
        count = counts.setdefault(kind, {"asynchronous": 0, "synchronous": 0})
        count["asynchronous" if apart else "synchronous"] += 1
    return dict(sorted(counts.items()))


def too_large(message: str) -> tuple[int, int] | None:
    """(bytes needed, bytes there are) from the compiler's refusal, None if it refused for another reason."""
    for pattern in TOO_LARGE:
        if said := pattern.search(message):
            return int(float(said[1]) * UNIT[said[2]]), int(float(said[3]) * UNIT[said[4]])
    return None
