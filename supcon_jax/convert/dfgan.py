"""DF-GAN's generator and discriminator: names of the published state (state_epoch_NNN.pth), and what SSA-GAN shares.

That file holds all three networks: `rename.under(tensors, "model.netG.")` is the generator; the discriminator is made of
netD and netC, whose names keep their prefixes here.
"""

from supcon_jax.convert.rename import Rule, conv, turned
from supcon_jax.nets.dfgan import widths


def positions(a):
    """Features of the first linear layer (axis 0): PyTorch counts (c, 4, 4), we count (4, 4, c)."""
    return a.reshape(-1, 4, 4, *a.shape[1:]).transpose(1, 2, 0, *range(3, a.ndim + 2)).reshape(a.shape)


def start_kernel(a):
    return positions(a).T


def scalar(a):
    """A number that PyTorch keeps in a vector of one."""
    return a.reshape(())


def biased(name: str, path: str) -> list[Rule]:
    """A convolution with a bias."""
    return [Rule(rf"{name}\.weight", f"params/{path}/kernel", conv), Rule(rf"{name}\.bias", f"params/{path}/bias")]


def linear(name: str, path: str) -> list[Rule]:
    return [Rule(rf"{name}\.weight", f"params/{path}/kernel", turned), Rule(rf"{name}\.bias", f"params/{path}/bias")]


def start(name: str = "fc") -> list[Rule]:
    """The linear layer from noise to 4 x 4 features."""
    return [Rule(rf"{name}\.weight", "params/start/kernel", start_kernel),
            Rule(rf"{name}\.bias", "params/start/bias", positions)]


def condition(name: str, path: str, ours: str = "") -> list[Rule]:
    """The two maps from text to scale and shift; `ours` stands behind their names."""
    rules = []
    for theirs, what in (("gamma", "scale"), ("beta", "shift")):
        for i, layer in ((1, "hidden"), (2, "out")):
            rules += linear(rf"{name}\.fc_{theirs}\.linear{i}", rf"{path}/{what}{ours}/{layer}")
    return rules


def generator() -> list[Rule]:
    """Rules for nets.dfgan.Generator; the blocks may be any number."""
    block, path = r"GBlocks\.(\d+)", r"block\1"
    rules = [*start(), *biased(r"to_rgb\.1", "image"), *biased(rf"{block}\.c_sc", f"{path}/shortcut")]
    for i in (0, 1):
        rules += biased(rf"{block}\.c{i + 1}", f"{path}/conv{i}")
        for k in (0, 1):
            rules += condition(rf"{block}\.fuse{i + 1}\.affine{k}", f"{path}/fuse{i}", str(k))
    return rules


def down(size: int, width: int, most: int, first: str, block: str) -> list[Rule]:
    """The residual blocks of a discriminator; `block` is their name with {} for the number."""
    channels, rules = widths(size, width, most), biased(first, "first")
    for i in range(len(channels) - 1):
        name, path = block.format(i), f"block{i}"
        rules += [Rule(rf"{name}\.conv_r\.{2 * k}\.weight", f"params/{path}/conv{k}/kernel", conv) for k in (0, 1)]
        rules.append(Rule(rf"{name}\.gamma", f"params/{path}/gamma", scalar))
        unused = Rule(rf"{name}\.conv_s\.(weight|bias)", None)  # where the channels stay there is no shortcut to learn
        rules += [unused] if channels[i] == channels[i + 1] else biased(rf"{name}\.conv_s", f"{path}/shortcut")
    return rules


def head(prefix: str) -> list[Rule]:
    return [Rule(rf"{prefix}joint_conv\.0\.weight", "params/head/joint/kernel", conv),
            Rule(rf"{prefix}joint_conv\.2\.weight", "params/head/logit/kernel", conv)]


def discriminator(size: int = 256, width: int = 32) -> list[Rule]:
    """Rules for nets.dfgan.Discriminator from the names "netD. ..." and "netC. ...", with or without "model." before
    and "module." behind them."""
    d, c = (rf"(?:model\.)?net{letter}\.(?:module\.)?" for letter in "DC")
    return [*down(size, width, 8, d + "conv_img", d + r"DBlocks\.{}"), *head(c)]
