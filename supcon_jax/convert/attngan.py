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


def attention(net: str, path: str) -> list[Rule]:
    """What a stage reads the words with."""
    return [Rule(rf"{net}\.att\.conv_context\.weight", f"params/{path}/words/kernel", pointwise)]


def generator(sizes: Sequence[int] = (64, 128, 256), reading=attention) -> list[Rule]:
    """Rules for nets.attngan.Generator; the residual blocks may be any number.

    reading: (foreign name of a stage, our path) -> the rules for what it reads the words with.
    """
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
        rules += [*reading(net, f"stage{i}"),
                  Rule(rf"{block}\.0\.weight", rf"params/stage{i}/residual\1/conv0/kernel", conv),
                  *norm(rf"{block}\.1", rf"stage{i}/residual\1/norm0"),
                  Rule(rf"{block}\.3\.weight", rf"params/stage{i}/residual\1/conv1/kernel", conv),
                  *norm(rf"{block}\.4", rf"stage{i}/residual\1/norm1"),
                  *up(rf"{net}\.upsample", f"stage{i}/up")]
    return rules


def normed(name: str, place: int, path: str, norm_path: str, side: int) -> list[Rule]:
    """A convolution without bias at `place` of a sequence, and the batch norm behind it, if it has a path."""
    behind = norm(rf"{name}\.{place + 1}", norm_path) if norm_path else []
    return [Rule(rf"{name}\.{place}\.weight", f"params/{path}/kernel", conv), *behind]


def discriminator(size: int = 64, places: Sequence[int] = (0, 2, 5, 8), layer=normed) -> list[Rule]:
    """Rules for nets.attngan.Discriminator of the published sizes 64, 128, 256 (larger powers of two follow suit).

    places: where the first four convolutions stand. layer: (foreign name, place, our paths of convolution and norm, side
    of the kernel) -> the rules of one layer.
    """
    rules = []
    for i, place in enumerate(places):
        rules += layer("img_code_s16", place, f"down{i}", f"down_norm{i}" if i else "", 4)
    extra = int(math.log2(size / 64))
    last = 2 ** (extra + 4)
    for i in range(extra):
        rules += layer(f"img_code_s{2 ** (i + 5)}", 0, f"down{i + 4}", f"down_norm{i + 4}", 4)
        rules += layer(f"img_code_s{last}_{i + 1}", 0, f"squash{i}", f"squash_norm{i}", 3)
    for name, ours in (("UNCOND_DNET", "uncond_logit"), ("COND_DNET", "cond_logit")):
        rules += [Rule(rf"{name}\.outlogits\.0\.weight", f"params/{ours}/kernel", conv),
                  Rule(rf"{name}\.outlogits\.0\.bias", f"params/{ours}/bias")]
    return rules + layer(r"COND_DNET\.jointConv", 0, "joint", "joint_norm", 3)
