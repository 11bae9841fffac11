"""SSA-GAN's generator and discriminator: names of the published state dicts (netG_550.pth, netD_550.pth)."""

from supcon_jax.convert.dfgan import biased, condition, down, head, scalar, start
from supcon_jax.convert.rename import Rule, norm


def mask(name: str, path: str) -> list[Rule]:
    return [*biased(rf"{name}\.0", f"{path}/conv"), *norm(rf"{name}\.1", f"{path}/norm"),
            *biased(rf"{name}\.3", f"{path}/logit")]


def generator(blocks: int = 7) -> list[Rule]:
    """Rules for nets.ssagan.Generator: 7 blocks for 256 px, one less for each halving. The mask of block k + 1 is
    predicted in block k."""
    rules = [*start(), *mask("conv_mask", "mask0"), *norm(r"conv_img\.0", "norm"), *biased(r"conv_img\.2", "image")]
    for k in range(blocks):
        name, path = f"block{k}", f"block{k}"
        rules += [*mask(rf"{name}\.conv_mask", f"mask{k + 1}"), Rule(rf"{name}\.gamma", f"params/{path}/gamma", scalar)]
        rules += biased(rf"{name}\.c_sc", f"{path}/shortcut")
        for i in (0, 1):
            affine = rf"{name}\.affine{2 * i}"
            rules += [*biased(rf"{name}\.c{i + 1}", f"{path}/conv{i}"), *condition(affine, f"{path}/affine{i}"),
                      *norm(rf"{affine}\.batch_norm2d", f"{path}/affine{i}/norm")]
    return rules


def discriminator(size: int = 256, width: int = 64) -> list[Rule]:
    """Rules for nets.ssagan.Discriminator."""
    return [*down(size, width, 16, "conv_img", "block{}"), *head(r"COND_DNET\.")]
