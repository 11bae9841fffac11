"""DM-GAN's generator and discriminators: names of the published state dicts (netG_epoch_N.pth, netD0.pth)."""

import functools
from collections.abc import Sequence

from supcon_jax.convert import attngan
from supcon_jax.convert.rename import Rule, conv, pointwise, turned


def memory(net: str, path: str) -> list[Rule]:
    """The dynamic memory of a stage and its response gate."""
    rules = [Rule(rf"{net}\.A\.weight", f"params/{path}/memory/word_gate/kernel", turned),
             Rule(rf"{net}\.B\.weight", f"params/{path}/memory/picture_gate/kernel", turned)]
    places = {"M_w": "memory/word", "M_r": "memory/picture", "key": "memory/key", "value": "memory/value",
              "response_gate": "response"}
    for name, ours in places.items():
        rules += [Rule(rf"{net}\.{name}\.0\.weight", f"params/{path}/{ours}/kernel", pointwise),
                  Rule(rf"{net}\.{name}\.0\.bias", f"params/{path}/{ours}/bias")]
    return rules


def generator(sizes: Sequence[int] = (64, 128, 256)) -> list[Rule]:
    """Rules for nets.dmgan.Generator; the residual blocks may be any number."""
    return attngan.generator(sizes, memory)


def inputs(a, side: int):
    """Right singular vector of a kernel: PyTorch counts its entries (in, side, side), we count (side, side, in)."""
    return a.reshape(-1, side, side).transpose(1, 2, 0).reshape(-1)


def spectral(name: str, place: int, path: str, norm_path: str, side: int) -> list[Rule]:
    """A convolution with spectral norm at `place` of a sequence; nothing stands behind it."""
    wrapped = rf"{name}\.{place}\.module"
    return [Rule(rf"{wrapped}\.weight_bar", f"params/{path}/kernel", conv),
            Rule(rf"{wrapped}\.bias", f"params/{path}/bias"),
            Rule(rf"{wrapped}\.weight_u", f"batch_stats/{path}/norm/u"),
            Rule(rf"{wrapped}\.weight_v", f"batch_stats/{path}/norm/v", functools.partial(inputs, side=side))]


def discriminator(size: int = 64) -> list[Rule]:
    """Rules for nets.dmgan.Discriminator of the published sizes 64, 128, 256 (larger powers of two follow suit)."""
    return attngan.discriminator(size, (0, 2, 4, 6), spectral)
