"""Published codes of unimodal contrast: their names to a trunk ("image"), its head and its prediction head.

Trees are {"image": {"trunk": ...}, "head": ..., "predictor": ...}, as nets.backbone and nets.heads make them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from supcon_jax.convert import resnet
from supcon_jax.convert.rename import Rule, dense, norm


def inside(table: list[Rule], name: str, path: str) -> list[Rule]:
    """A table for a network that stands inside another one: `name` (a regular expression) before its names, `path` before
    ours."""
    return [rule._replace(name=name + rule.name, path=rule.path and rule.path.replace("/", f"/{path}/", 1)) for rule in table]


def mlp(name: str, path: str, layers: Mapping[int, str]) -> list[Rule]:
    """PyTorch's Sequential under `name` to an Mlp under `path`. layers: place -> ours, "dense0", "norm0", ..."""
    rules = {"dense": dense, "norm": norm}
    return [rule for at, ours in layers.items() for rule in rules[ours.rstrip("0123456789")](f"{name}{at}", f"{path}/{ours}")]


def supcon() -> list[Rule]:
    """Rules for SupContrast's SupConResNet, whose shortcuts have their own name."""
    trunk = [rule._replace(name=rule.name.replace("downsample", "shortcut")) for rule in resnet.torchvision()]
    return [*inside(trunk, r"encoder\.", "image/trunk"), *mlp(r"head\.", "head", {0: "dense0", 2: "dense1"})]


def simsiam() -> list[Rule]:
    """Rules for SimSiam's tensors after `folded`: its projection stands where the classifier of the ResNet did."""
    places = {0: "dense0", 1: "norm0", 3: "dense1", 4: "norm1", 6: "dense2", 7: "norm2"}
    return [
        *mlp(r"encoder\.fc\.", "head", places),
        *inside(resnet.torchvision(), r"encoder\.", "image/trunk"),
        *mlp(r"predictor\.", "predictor", {0: "dense0", 1: "norm0", 3: "dense1"}),
    ]


def folded(tensors: Mapping) -> dict:
    """SimSiam's tensors without the bias that its code never trains: the norm behind it takes it away again.

    The average of that norm, in evaluation, is one of outputs with the bias; here it loses it.
    """
    out = dict(tensors)
    for name in filter(re.compile(r"(?:module\.)?encoder\.fc\.6\.bias").fullmatch, tensors):
        average = name.removesuffix("6.bias") + "7.running_mean"
        out[average] = np.asarray(out[average], np.float64) - out.pop(name)
    return out


def byol_mlp(name: str = "", path: str = "head") -> list[Rule]:
    """Rules for a head of byol-pytorch. name: what stands before its places, a regular expression."""
    return mlp(name, path, {0: "dense0", 1: "norm0", 3: "dense1"})
