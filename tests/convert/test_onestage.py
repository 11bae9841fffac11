"""Tables of DF-GAN and SSA-GAN: every leaf of the networks has one published name, whatever the file's prefixes."""

import jax
import numpy as np
import pytest

from supcon_jax.config import UserError
from supcon_jax.convert import dfgan, rename, ssagan
from supcon_jax.nets import dfgan as df
from supcon_jax.nets import ssagan as ssa


def like(module, *shapes):
    return jax.eval_shape(module.init, jax.random.key(0), *(jax.ShapeDtypeStruct(s, np.float32) for s in shapes))


def leaves(tree):
    return sorted("/".join(k.key for k in path) for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0])


def both(*names):
    return [f"{name}.{what}" for name in names for what in ("weight", "bias")]


def norms(*names, affine=True):
    tails = ("weight", "bias") * affine + ("running_mean", "running_var")
    return [f"{name}.{tail}" for name in names for tail in tails]


def conditions(*names):
    return both(*(f"{name}.fc_{what}.linear{i}" for name in names for what in ("gamma", "beta") for i in (1, 2)))


def placed(table, names):
    return sorted(path for path in (rename.place(name, table)[0] for name in names) if path)


def test_dfgan_generator():
    names = both("fc", "to_rgb.1", *(f"GBlocks.{k}.c_sc" for k in (0, 1, 2)))
    for k in range(3):  # 32 px: 8 -> 4 -> 2 -> 1
        names += both(f"GBlocks.{k}.c1", f"GBlocks.{k}.c2")
        names += conditions(*(f"GBlocks.{k}.fuse{i}.affine{j}" for i in (1, 2) for j in (0, 1)))
    assert placed(dfgan.generator(), names) == leaves(like(df.Generator(2, (32,)), (1, 5), (1, 6)))


def discriminator_names(block, first, head, count):
    names = both(first) + [f"{head}joint_conv.{i}.weight" for i in (0, 2)]
    for k in range(count):
        name = block.format(k)
        names += [f"{name}.gamma", f"{name}.conv_r.0.weight", f"{name}.conv_r.2.weight", *both(f"{name}.conv_s")]
    return names


@pytest.mark.parametrize("before,behind", [("", ""), ("model.", ""), ("model.", "module.")])
def test_dfgan_discriminator(before, behind):
    """64 px: 1, 2, 4, 8, 8: the last block has a shortcut that is never used, and dropped."""
    d, c = f"{before}netD.{behind}", f"{before}netC.{behind}"
    names = discriminator_names(d + "DBlocks.{}", d + "conv_img", c, 4)
    want = leaves(like(df.Discriminator(64, 2), (1, 64, 64, 3), (1, 6)))
    assert placed(dfgan.discriminator(64, 2), names) == want
    assert rename.place(f"{d}DBlocks.3.conv_s.bias", dfgan.discriminator(64, 2))[0] is None


def test_ssagan_generator():
    names = both("fc", "conv_img.2", "conv_mask.0", "conv_mask.3") + norms("conv_mask.1", "conv_img.0")
    for k in range(4):
        b = f"block{k}"
        names += [f"{b}.gamma", *both(f"{b}.c1", f"{b}.c2"), *conditions(f"{b}.affine0", f"{b}.affine2")]
        names += norms(f"{b}.affine0.batch_norm2d", f"{b}.affine2.batch_norm2d", affine=False)
        names += both(f"{b}.c_sc") if k else []  # 32 px: 8 -> 8 -> 4 -> 2 -> 1
        names += both(f"{b}.conv_mask.0", f"{b}.conv_mask.3") + norms(f"{b}.conv_mask.1") if k < 3 else []
    assert placed(ssagan.generator(4), names) == leaves(like(ssa.Generator(2, (32,), 3), (1, 5), (1, 6)))


def test_ssagan_discriminator():
    names = discriminator_names("block{}", "conv_img", "COND_DNET.", 6)
    want = leaves(like(ssa.Discriminator(256, 2), (1, 256, 256, 3), (1, 6)))
    assert placed(ssagan.discriminator(256, 2), names) == want


def test_noise_to_features_is_moved_from_planes_to_pixels():
    c, zd = 3, 5
    weight, bias = np.arange(16.0 * c * zd).reshape(16 * c, zd), np.arange(16.0 * c)
    z = np.arange(1.0, zd + 1)
    planes = (weight @ z + bias).reshape(c, 4, 4)
    ours = (z @ dfgan.start_kernel(weight) + dfgan.positions(bias)).reshape(4, 4, c)
    np.testing.assert_array_equal(ours.transpose(2, 0, 1), planes)


def test_a_file_of_all_networks():
    """One network of a whole DF-GAN checkpoint by its prefix; another width is told in one line."""
    net = df.Discriminator(8, 2)
    shapes = like(net, (1, 8, 8, 3), (1, 6))
    tensors = {
        "model.netD.conv_img.weight": np.ones((2, 3, 3, 3)), "model.netD.conv_img.bias": np.ones(2),
        "model.netD.DBlocks.0.conv_r.0.weight": np.ones((4, 2, 4, 4)), "model.netD.DBlocks.0.gamma": np.array([0.5]),
        "model.netD.DBlocks.0.conv_r.2.weight": np.ones((4, 4, 3, 3)), "model.netC.joint_conv.2.weight": np.ones((1, 4, 4, 4)),
        "model.netD.DBlocks.0.conv_s.weight": np.ones((4, 2, 1, 1)), "model.netD.DBlocks.0.conv_s.bias": np.ones(4),
        "model.netC.joint_conv.0.weight": np.ones((4, 10, 3, 3)), "model.netG.fc.bias": np.ones(3),
        "optimizers.optimizer_G.state.0.step": np.ones(1),
    }  # fmt: skip
    own = {name: a for name, a in tensors.items() if name.startswith(("model.netD.", "model.netC."))}
    tree = rename.load(own, dfgan.discriminator(8, 2), shapes)
    assert tree["params"]["block0"]["gamma"].shape == () and tree["params"]["block0"]["gamma"] == 0.5
    assert rename.under(tensors, "model.netG.").keys() == {"fc.bias"}
    with pytest.raises(UserError, match="check the network's sizes"):
        rename.load(own, dfgan.discriminator(8, 4), like(df.Discriminator(8, 4), (1, 8, 8, 3), (1, 6)))
