"""What values of a stage must be together, as far as its config alone tells."""

from __future__ import annotations

from collections.abc import Mapping


def misfits(name: str, stage: Mapping):
    """A line for each value of the stage `name` that does not fit the others: key, value and what it must be.

    stage: its part of a config, each value in its own range.
    """
    args = stage.get("args", {})
    for (method, key), said in RULES.items():
        if stage["method"] == method and key in args and (must := said(f"config.{name}", stage, args[key])):
            yield f"config.{name}.args.{key}={args[key]!r}: must be {must}"
    if stage["method"] in ONE_SIZE and (must := one_size(f"config.{name}", stage)):
        yield f"config.{name}.nets.gen.sizes={tuple(stage['nets']['gen']['sizes'])}: must be {must}"


def one_size(where: str, stage: Mapping) -> str | None:
    """What is drawn is compared with pictures as they are read."""
    size = stage["size"]
    return f"({size},), as {where}.size={size}" if tuple(stage["nets"]["gen"]["sizes"]) != (size,) else None


def queue(where: str, stage: Mapping, rows: int) -> str | None:
    """Keys are written a batch at a time."""
    batch = stage["batch"]
    near = max(batch, rows // batch * batch)
    return f"a multiple of {where}.batch={batch}, such as {near}" if rows == 0 or rows % batch else None


def queue_or_none(where: str, stage: Mapping, rows: int) -> str | None:
    return queue(where, stage, rows) if rows else None


def patch(where: str, stage: Mapping, side: int) -> str | None:
    """A patch is cut out of each of nine cells."""
    size = stage["args"]["size"]
    return f"at most {size // 3}, a third of {where}.args.size={size}" if 3 * side > size else None


def ahead(where: str, stage: Mapping, steps: int) -> str | None:
    """The first row of patches predicts one that is there."""
    size, net = stage["args"]["size"], stage["nets"]["image"]
    if net["net"] != "patch_grid" or "patch" not in net or "stride" not in net:
        return None
    rows = max(0, (size - net["patch"]) // net["stride"] + 1)
    grid = f"args.size={size}, nets.image.patch={net['patch']} and stride={net['stride']}"
    if rows < 2:
        return f"less than the rows of patches, which are {rows}: {grid} of {where} must make 2 or more"
    return f"at most {rows - 1}, less than the {rows} rows of patches that {grid} of {where} make" if steps >= rows else None


def skip(where: str, stage: Mapping, rows: int) -> str | None:
    steps = stage["args"]["ahead"]
    return f"less than {where}.args.ahead={steps}, so that a row is left to predict" if rows >= steps else None


ONE_SIZE = ("dfgan", "ssagan", "galip", "flow")  # the others draw a pyramid, and resize what they read to each of its sizes
RULES = {
    ("moco", "queue"): queue,
    ("pcl", "queue"): queue,
    ("student", "queue"): queue,
    ("swav", "queue"): queue_or_none,
    ("fnc", "queue"): queue_or_none,
    ("pirl", "patch"): patch,
    ("cpc", "ahead"): ahead,
    ("cpc", "skip"): skip,
}
