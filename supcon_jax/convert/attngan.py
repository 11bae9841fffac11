"""AttnGAN's generator and discriminators: names of the published state dicts (netG_epoch_N.pth, netD0.pth)."""

import math
from collections.abc import Sequence

from supcon_jax.convert.rename import Rule, conv, norm, pointwise, turned


def positions(a):
    """Features of the first linear layer (axis 0): PyTorch counts (half, c, 4, 4), we count (4, 4, half, c)."""
    return a.reshape(2, -1, 4, 4, *a.shape[1:]).transpose(2, 3, 0, 1, *range(4, a.ndim + 3)).reshape(a.shape)


def start_kernel(a):
    return positions(a).T


def up(name: str, path: str) -> list[Rule]:
    return [Rule(rf"{name}\.1\.weight", f"params/{path}/conv/kernel", conv), *norm(rf"{name}\.2", f"{path}/norm")]


def generator(sizes: Sequence[int] = (64, 128, 256)) -> list[Rule]:
    """Rules for nets.attngan.Generator; the residual blocks may be any number."""
    start = [r._replace(layout=positions) for r in norm(r"h_net1\.fc\.1", "start/norm")]
    rules = [Rule(r"ca_net\.fc\.weight", "params/condition/dense/kernel", turned),
             Rule(r"ca_net\.fc\.bias", "params/condition/dense/bias"),
             Rule(r"h_net1\.fc\.0\.weight", "params/start/dense/kernel", start_kernel), *start]
    for i in range(int(math.log2(sizes[0] / 4))):
        rules += up(rf"h_net1\.upsample{i + 1}", f"up{i}")
    for i in range(len(sizes)):
        rules.append(Rule(rf"img_net{i + 1}\.img\.0\.weight", f"params/image{i}/kernel", conv))
    for i in range(1, len(sizes)):
        net, block = rf"h_net{i + 1}", rf"h_net{i + 1}\.residual\.(\d+)\.block"
        rules += [Rule(rf"{net}\.att\.conv_context\.weight", f"params/stage{i}/words/kernel", pointwise),
                  Rule(rf"{block}\.0\.weight", rf"params/stage{i}/residual\1/conv0/kernel", conv),
                  *norm(rf"{block}\.1", rf"stage{i}/residual\1/norm0"),
                  Rule(rf"{block}\.3\.weight", rf"params/stage{i}/residual\1/conv1/kernel", conv),
                  *norm(rf"{block}\.4", rf"stage{i}/residual\1/norm1"),
                  *up(rf"{net}\.upsample", f"stage{i}/up")]
    return rules


def discriminator(size: int = 64) -> list[Rule]:
    """Rules for nets.attngan.Discriminator of the published sizes 64, 128, 256 (larger powers of two follow suit)."""
    rules = [Rule(r"img_code_s16\.0\.weight", "params/down0/kernel", conv)]
    for i, place in ((1, 2), (2, 5), (3, 8)):
        rules.append(Rule(rf"img_code_s16\.{place}\.weight", f"params/down{i}/kernel", conv))
        rules += norm(rf"img_code_s16\.{place + 1}", f"down_norm{i}")
    extra = int(math.log2(size / 64))
    last = 2 ** (extra + 4)
    for i in range(extra):
        name = rf"img_code_s{2 ** (i + 5)}"
        rules += [Rule(rf"{name}\.0\.weight", f"params/down{i + 4}/kernel", conv),
                  *norm(rf"{name}\.1", f"down_norm{i + 4}")]
        squash = rf"img_code_s{last}_{i + 1}"
        rules += [Rule(rf"{squash}\.0\.weight", f"params/squash{i}/kernel", conv),
                  *norm(rf"{squash}\.1", f"squash_norm{i}")]
    for name, ours in (("UNCOND_DNET", "uncond_logit"), ("COND_DNET", "cond_logit")):
        rules += [Rule(rf"{name}\.outlogits\.0\.weight", f"params/{ours}/kernel", conv),
                  Rule(rf"{name}\.outlogits\.0\.bias", f"params/{ours}/bias")]
    return [*rules, Rule(r"COND_DNET\.jointConv\.0\.weight", "params/joint/kernel", conv),
            *norm(r"COND_DNET\.jointConv\.1", "joint_norm")]
