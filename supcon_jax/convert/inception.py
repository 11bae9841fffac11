"""Inception-v3: names of torchvision, of pytorch-fid's wrapper and of Keras to nets.inception.Inception."""

import re
from collections.abc import Iterator

import numpy as np

from supcon_jax.config import UserError
from supcon_jax.convert.rename import Rule, conv, dense, norm
from supcon_jax.nets.inception import GRID8, SHRINK8, SHRINK17, grid17, grid35

STEM = {"1a": "Conv2d_1a_3x3", "2a": "Conv2d_2a_3x3", "2b": "Conv2d_2b_3x3", "3b": "Conv2d_3b_1x1",
        "4a": "Conv2d_4a_3x3"}
# pytorch-fid's InceptionV3 cuts the network into blocks.K.I at its taps
WRAPPED = {"conv1a": "0.0", "conv2a": "0.1", "conv2b": "0.2", "conv3b": "1.0", "conv4a": "1.1", "mixed5b": "2.0",
           "mixed5c": "2.1", "mixed5d": "2.2", "mixed6a": "2.3", "mixed6b": "2.4", "mixed6c": "2.5", "mixed6d": "2.6",
           "mixed6e": "2.7", "mixed7a": "3.0", "mixed7b": "3.1", "mixed7c": "3.2"}
# blocks in the order in which Keras makes them, each branch by branch; the numbers of channels do not matter here
BLOCKS = {**dict.fromkeys(("mixed5b", "mixed5c", "mixed5d"), grid35(0)), "mixed6a": SHRINK17,
          **dict.fromkeys(("mixed6b", "mixed6c", "mixed6d", "mixed6e"), grid17(0)), "mixed7a": SHRINK8,
          **dict.fromkeys(("mixed7b", "mixed7c"), GRID8)}
KERAS = re.compile(r"(?:.*/)?(conv2d|batch_normalization)(?:_(\d+))?/(kernel|beta|moving_mean|moving_variance)(?::0)?")
LEAVES = {"kernel": "params/{}/conv/kernel", "beta": "params/{}/norm/bias", "moving_mean": "batch_stats/{}/norm/mean",
          "moving_variance": "batch_stats/{}/norm/var"}


def layer(name: str, path: str) -> list[Rule]:
    return [Rule(rf"{name}\.conv\.weight", f"params/{path}/conv/kernel", conv), *norm(rf"{name}\.bn", f"{path}/norm")]


def torchvision(within: str = "", classes: int = 0) -> list[Rule]:
    """Rules for files with torchvision's names: ImageNet weights (classes 1000), the FID weights of pytorch-fid
    (pt_inception-2015-12-05, classes 1008), DAMSM's trunk (within "trunk/").

    within: path of the trunk in our tree. classes: 0 drops the last linear layer. The auxiliary head is dropped.
    """
    rules = [rule for ours, theirs in STEM.items() for rule in layer(theirs, f"{within}conv{ours}")]
    rules += layer(r"Mixed_(\d[a-e])\.(\w+)", rf"{within}mixed\1/\2")
    return [*rules, *last(within, classes), Rule(r"AuxLogits\..*", None)]


def wrapped(within: str = "") -> list[Rule]:
    """Rules for state dicts of pytorch-fid's InceptionV3 module (names "blocks.K.I"), which has no logits."""
    rules = []
    for ours, theirs in WRAPPED.items():
        name = rf"blocks\.{theirs.replace('.', chr(92) + '.')}"
        inner = (rf"{name}\.(branch\w+)", rf"{within}{ours}/\1") if ours.startswith("mixed") else (name, within + ours)
        rules += layer(*inner)
    return rules


def last(within: str, classes: int) -> list[Rule]:
    if not classes:
        return [Rule(r"fc\.(weight|bias)", None)]
    return dense("fc", f"{within}fc")


def order() -> list[str]:
    """Our paths of the 94 convolutions, each with its batch norm, in the order in which Keras makes them."""

    def names(branches) -> Iterator[str]:
        for part in branches:
            if isinstance(part, list):
                yield from names(part)
            elif part != "max":
                yield part[0]

    return [f"conv{name}" for name in STEM] + [f"{block}/{name}" for block, parts in BLOCKS.items() for name in names(parts)]


def keras(names) -> list[Rule]:
    """Rules for the tensors of Keras' InceptionV3, given their names: "conv2d/kernel", "batch_normalization_93/moving_mean".

    A folder before a name and ":0" behind it are ignored. Keras numbers the layers of a kind in the order of their making,
    from any number on: other models may have been made before. Its layouts are ours; its batch norms have no scale, which is
    one. The last linear layer is dropped.
    Raises UserError: not 94 layers of each kind in a row.
    """
    found = {name: match.groups() for name in names if (match := KERAS.fullmatch(name))}
    ours = order()
    first = {kind: firstborn(kind, [int(n or 0) for k, n, _ in found.values() if k == kind], len(ours))
             for kind in ("conv2d", "batch_normalization")}
    rules = [Rule(r"(?:.*/)?predictions/(?:kernel|bias)(?::0)?", None)]
    for name, (kind, number, leaf) in found.items():
        layer = ours[int(number or 0) - first[kind]]
        place, more = LEAVES[leaf].format(layer), (f"params/{layer}/norm/scale",)
        rules.append(Rule(re.escape(name), (place, *more), shifted) if leaf == "beta" else Rule(re.escape(name), place))
    return rules


def shifted(beta):
    """Shift of a batch norm without a scale -> shift, scale."""
    return beta, np.ones_like(beta)


def firstborn(kind: str, numbers: list[int], count: int) -> int:
    """The lowest number. Raises UserError: they are not `count` in a row."""
    seen = sorted(set(numbers))
    if len(seen) != count or seen[-1] - seen[0] != count - 1:
        raise UserError(f"it has {len(seen)} layers named {kind}, {kind}_1, ... where Keras' InceptionV3 has {count} in a row: "
                        "export its weights by name (README, Scores)")
    return seen[0]
