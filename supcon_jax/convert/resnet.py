"""ResNets: torchvision's names to nets.resnet.ResNet, and what a file's tensors say of the network."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from supcon_jax.config import UserError
from supcon_jax.convert.rename import Rule, conv, dense, norm
from supcon_jax.nets.resnet import DEPTHS


def torchvision(classes: int = 0) -> list[Rule]:
    """Rules for torchvision's names (resnet18 to resnet152). classes: 0 drops the last linear layer."""
    block, ours = r"layer(\d)\.(\d+)\.", r"layer\1_block\2/"
    return [
        Rule(r"conv1\.weight", "params/conv_stem/kernel", conv), *norm("bn1", "norm_stem"),
        Rule(rf"{block}conv(\d)\.weight", rf"params/{ours}conv\3/kernel", conv), *norm(rf"{block}bn(\d)", rf"{ours}norm\3"),
        Rule(rf"{block}downsample\.0\.weight", rf"params/{ours}conv_short/kernel", conv),
        *norm(rf"{block}downsample\.1", f"{ours}norm_short"),
        *(dense("fc", "fc") if classes else [Rule(r"fc\..*", None)]),
    ]  # fmt: skip


def fields(tensors: Mapping) -> dict:
    """Fields of nets.resnet.ResNet for a file's tensors: {"depth", "width", "small", "classes"}.

    Raises UserError: a ResNet of another build.
    """
    blocks = tuple(len({name.split(".")[1] for name in tensors if re.match(rf"layer{i}\.\d+\.", name)}) for i in (1, 2, 3, 4))
    built = blocks, "layer1.0.conv3.weight" in tensors
    depth = next((depth for depth, known in DEPTHS.items() if known == built), None)
    if depth is None:
        raise UserError(f"a ResNet of {blocks} blocks{' with bottlenecks' * built[1]} is not known; those known have "
                        f"{', '.join(map(str, DEPTHS))} layers")
    channels, _, side, _ = np.shape(tensors["conv1.weight"])
    classes = len(tensors["fc.bias"]) if "fc.bias" in tensors else 0
    return {"depth": depth, "width": channels / 64, "small": side == 3, "classes": classes}
