"""From foreign tensors to our trees: a table of rules says where each tensor goes and how its axes move."""

import re
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax
import jax
import numpy as np

from supcon_jax.config import UserError


def same(a):
    return a


def turned(a):
    """Linear (out, in) -> (in, out)."""
    return a.T


def conv(a):
    """Convolution (out, in, h, w) -> (h, w, in, out); depthwise (c, 1, h, w) -> (h, w, 1, c) is the same."""
    return a.transpose(2, 3, 1, 0)


def pointwise(a):
    """1 x 1 convolution (out, in, 1, 1) or (out, in, 1) -> (in, out) of a dense layer."""
    return a.reshape(a.shape[:2]).T


class Rule(NamedTuple):
    """One line of a table.

    name: regular expression for the whole foreign name. path: ours, "params/...", with its groups as \\1; None drops
    the tensor in silence; several, where one foreign tensor is many of ours. layout: how the axes move; with several
    paths it gives as many arrays.
    """

    name: str
    path: str | tuple[str, ...] | None
    layout: Callable = same


OWN = [Rule(r"(.+)", r"\1")]  # names that are ours already


def norm(name: str, path: str) -> list[Rule]:
    """The five tensors of a PyTorch batch norm under `name` (a regular expression) to our BatchNorm under `path`."""
    return [Rule(rf"{name}\.weight", f"params/{path}/scale"), Rule(rf"{name}\.bias", f"params/{path}/bias"),
            Rule(rf"{name}\.running_mean", f"batch_stats/{path}/mean"),
            Rule(rf"{name}\.running_var", f"batch_stats/{path}/var"), Rule(rf"{name}\.num_batches_tracked", None)]


def scaled(name: str, path: str) -> list[Rule]:
    """Scale and bias of a PyTorch layer norm."""
    return [Rule(rf"{name}\.weight", f"params/{path}/scale"), Rule(rf"{name}\.bias", f"params/{path}/bias")]


def dense(name: str, path: str) -> list[Rule]:
    """Kernel and bias of a PyTorch linear layer."""
    return [Rule(rf"{name}\.weight", f"params/{path}/kernel", turned), Rule(rf"{name}\.bias", f"params/{path}/bias")]


def place(name: str, table: Sequence[Rule]) -> tuple[str | tuple[str, ...] | None, Callable] | None:
    """(our path or paths, layout) of a foreign name by the first rule that fits the whole name; None if none does."""
    for rule in table:
        found = re.fullmatch(rule.name, name)
        if found:
            several = isinstance(rule.path, tuple)
            return (tuple(map(found.expand, rule.path)) if several else rule.path and found.expand(rule.path)), rule.layout
    return None


def pieces(path, layout, value):
    """[(one of our paths, its array)] of one foreign tensor. Raises ValueError: the shape does not fit the layout."""
    parts = layout(np.asarray(value))
    return [(path, parts)] if isinstance(path, str) else list(zip(path, parts, strict=True))


def under(tensors, prefix: str) -> dict:
    """Only the tensors whose names begin with prefix ("module.", "model.netG."), without it."""
    return {name.removeprefix(prefix): a for name, a in tensors.items() if name.startswith(prefix)}


def load(tensors, table: Sequence[Rule], like, *, strict: bool = True):
    """A tree shaped as `like`, filled from foreign tensors.

    tensors: name -> array, as tensors.read gives them. table: rules, the first that fits counts. like: tree of
    {"params", "batch_stats"} of arrays or ShapeDtypeStruct. A "module." (DataParallel) before all names is ignored.
    strict: refuse tensors that no rule knows and leaves that no tensor fills; otherwise warn, and keep what `like`
    holds (which then must be arrays).
    Returns nested dictionaries of numpy arrays in `like`'s types.
    Raises UserError: a wrong shape, a name met twice, or, if strict, unused or missing names.
    """
    if tensors and all(name.startswith("module.") for name in tensors):
        tensors = under(tensors, "module.")
    flat = {"/".join(k): v for k, v in flax.traverse_util.flatten_dict(flax.core.unfreeze(like)).items()}
    filled, unused = {}, []
    for name, value in tensors.items():
        found = place(name, table)
        if found is None:
            unused.append(name)
            continue
        if found[0] is None:
            continue
        try:
            parts = pieces(*found, value)
        except ValueError:
            raise UserError(f"tensor {name} has shape {np.shape(value)}, which does not fit {found[0]}") from None
        if any(path not in flat for path, _ in parts):
            unused.append(name)
            continue
        for path, part in parts:
            fill(filled, flat, name, path, part)
    missing = [path for path in flat if path not in filled]
    told = [f"{len(names)} {what}: {shown(names)}" for names, what in (
        (unused, "tensors of the file that the network has no place for"),
        (missing, "weights of the network that the file lacks")) if names]
    if told and strict:
        raise UserError(f"{'; '.join(told)}: is this file for this network?")
    for line in told:
        warnings.warn(line, stacklevel=2)
    for path in missing:
        if isinstance(flat[path], jax.ShapeDtypeStruct):
            raise UserError(f"nothing to keep for {path}: hand in initialised weights")
        filled[path] = np.asarray(flat[path])
    return flax.traverse_util.unflatten_dict({tuple(path.split("/")): filled[path] for path in flat})


def fill(filled, flat, name, path, value):
    """Puts one array in its place. Raises UserError: a wrong shape, or a place that is taken."""
    if value.shape != flat[path].shape:
        raise UserError(f"tensor {name} gives {path} shape {value.shape} where the network has {flat[path].shape}: "
                        "check the network's sizes in the config")
    if path in filled:
        raise UserError(f"tensor {name} fills {path}, which another tensor filled already")
    filled[path] = value.astype(flat[path].dtype)


def shown(names, most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
