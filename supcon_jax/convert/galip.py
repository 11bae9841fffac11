"""GALIP's generator and discriminator: names of the published state (state_epoch_NNN.pth).

That file holds all networks: `rename.under(tensors, "model.netG.")` is the generator, with a copy of CLIP's frozen tower
inside (dropped here, or read by `tower`); the discriminator is made of netD and netC, whose names keep their prefixes.
"""

from supcon_jax.convert.clip import image_transformer
from supcon_jax.convert.dfgan import biased, condition, scalar
from supcon_jax.convert.rename import Rule, conv, dense

TOWER = r"mapping\.CLIP_ViT\."


def start_kernel(bridge: int):
    """Rows of the first linear layer: PyTorch counts (bridge, grid, grid), we count (grid, grid, bridge)."""

    def positions(a):
        grid = round((len(a) / bridge) ** 0.5)
        return a.reshape(bridge, grid, grid, *a.shape[1:]).transpose(1, 2, 0, *range(3, a.ndim + 2)).reshape(a.shape)

    return positions


def fuse(name: str, path: str) -> list[Rule]:
    return [rule for k in (0, 1) for rule in condition(rf"{name}\.affine{k}", path, str(k))]


def generator(bridge: int = 64) -> list[Rule]:
    """Rules for nets.galip.Generator with so many channels in its bridge; the blocks may be any number."""
    positions = start_kernel(bridge)
    rules = [Rule(r"fc_code\.weight", "params/start/kernel", lambda a: positions(a).T),
             Rule(r"fc_code\.bias", "params/start/bias", positions), *dense(r"mapping\.fc_prompt", "prompts"),
             *biased(r"mapping\.conv_fuse", "patches"), *biased(r"mapping\.conv", "join"), *biased(r"to_rgb\.1", "image")]
    for name, path, first in ((r"mapping\.FBlocks\.(\d+)", r"bridge\1", "conv"), (r"GBlocks\.(\d+)", r"block\1", "c")):
        for i in (0, 1):
            rules += biased(rf"{name}\.{first}{i + 1}", f"{path}/conv{i}") + fuse(rf"{name}\.fuse{i + 1}", f"{path}/fuse{i}")
    return [*rules, *biased(r"GBlocks\.(\d+)\.c_sc", r"block\1/shortcut"), Rule(rf"{TOWER}.*", None)]


def tower() -> list[Rule]:
    """Rules for the frozen tower in the generator's file, to nets.clip.ImageTransformer without its last two layers."""
    return image_transformer(TOWER, "")


def discriminator() -> list[Rule]:
    """Rules for nets.galip.Discriminator from the names "netD. ..." and "netC. ...", with or without "model." before
    and "module." behind them."""
    d, c = (rf"(?:model\.)?net{letter}\.(?:module\.)?" for letter in "DC")
    rules = [Rule(rf"{d}DBlocks\.\d+\.conv_s\.(weight|bias)", None), *biased(rf"{d}main\.conv_s", "last/shortcut"),
             Rule(rf"{d}DBlocks\.(\d+)\.beta", r"params/block\1/beta", scalar)]
    for name, path in ((rf"{d}DBlocks\.(\d+)", r"block\1"), (rf"{d}main", "last")):
        rules += [Rule(rf"{name}\.conv_r\.{2 * k}\.weight", f"params/{path}/conv{k}/kernel", conv) for k in (0, 1)]
        rules.append(Rule(rf"{name}\.gamma", f"params/{path}/gamma", scalar))
    return [*rules, Rule(rf"{c}joint_conv\.0\.weight", "params/head/joint/kernel", conv),
            Rule(rf"{c}joint_conv\.2\.weight", "params/head/logit/kernel", conv)]
