"""Inception-v3: torchvision's names, and those of pytorch-fid's wrapper, to nets.inception.Inception."""

from supcon_jax.convert.rename import Rule, conv, dense, norm

STEM = {"1a": "Conv2d_1a_3x3", "2a": "Conv2d_2a_3x3", "2b": "Conv2d_2b_3x3", "3b": "Conv2d_3b_1x1",
        "4a": "Conv2d_4a_3x3"}
# pytorch-fid's InceptionV3 cuts the network into blocks.K.I at its taps
WRAPPED = {"conv1a": "0.0", "conv2a": "0.1", "conv2b": "0.2", "conv3b": "1.0", "conv4a": "1.1", "mixed5b": "2.0",
           "mixed5c": "2.1", "mixed5d": "2.2", "mixed6a": "2.3", "mixed6b": "2.4", "mixed6c": "2.5", "mixed6d": "2.6",
           "mixed6e": "2.7", "mixed7a": "3.0", "mixed7b": "3.1", "mixed7c": "3.2"}


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
