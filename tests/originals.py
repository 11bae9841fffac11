"""Weight files as the original codes write them, made from our own networks: names written out by hand, layouts undone."""

import pickle
import re

import jax
import numpy as np

from supcon_jax.convert import rename
from supcon_jax.convert.vit import first, thirds

BN = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def flat(tree):
    return {"/".join(k.key for k in path): np.asarray(a) for path, a in jax.tree_util.tree_leaves_with_path(tree)}


def ends(*names, of=("weight", "bias")):
    return [f"{name}.{end}" for name in names for end in of]


def undone(tree, names, table):
    """{foreign name: array} such that the table makes `tree` of it again."""
    ours, out = flat(tree), {}
    for name in names:
        if name.endswith("num_batches_tracked"):
            out[name] = np.array(7)
            continue
        path, layout = rename.place(name, table)
        if path is None:  # layers that the original code makes and never uses
            out[name] = np.ones(3, np.float32)
            continue
        if layout is thirds:
            out[name] = np.concatenate([ours[p].T for p in path])
            continue
        leaf = ours[path]
        shape = {0: (1,), 1: leaf.shape, 2: leaf.shape[::-1], 4: leaf.shape[::-1][:2] + leaf.shape[:2]}[leaf.ndim]
        if layout in (rename.same, first) or leaf.ndim == 0 and layout is np.squeeze:
            shape = leaf.shape
        if layout is rename.pointwise:
            shape = (*shape, 1) if re.search(r"\.(M_[rw]|key|value)\.0\.", name) else (*shape, 1, 1)
        order = layout(np.arange(leaf.size).reshape(shape)).ravel()
        back = np.empty(leaf.size, leaf.dtype)
        back[order] = leaf.ravel()
        out[name] = back.reshape(shape)
    return out


def text_encoder():
    return ["encoder.weight", *(f"rnn.{kind}_{which}_l0{way}" for kind in ("weight", "bias") for which in ("ih", "hh")
                                for way in ("", "_reverse"))]


def resnet(depth, classes):
    """Names of torchvision's ResNets."""
    counts, bottleneck = {18: ((2, 2, 2, 2), False), 50: ((3, 4, 6, 3), True)}[depth]
    names = ["conv1.weight", *ends("bn1", of=BN)]
    for stage, count in enumerate(counts, 1):
        for i in range(count):
            block = f"layer{stage}.{i}"
            for k in range(1, 3 + bottleneck):
                names += [f"{block}.conv{k}.weight", *ends(f"{block}.bn{k}", of=BN)]
            if i == 0 and (bottleneck or stage > 1):
                names += [f"{block}.downsample.0.weight", *ends(f"{block}.downsample.1", of=BN)]
    return names + (ends("fc") if classes else [])


def inception(params, within=""):
    """Names of the trunk whose tree this is: layers of the stem and blocks of branches keep torchvision's names."""
    stem = {"1a": "3x3", "2a": "3x3", "2b": "3x3", "3b": "1x1", "4a": "3x3"}
    names = []
    for path in flat(params):
        if not path.startswith(within) or not path.endswith("conv/kernel"):
            continue
        first, *rest = path.removeprefix(within).removesuffix("/conv/kernel").split("/")
        layer = f"Mixed_{first[5:]}.{rest[0]}" if rest else f"Conv2d_{first[4:]}_{stem[first[4:]]}"
        names += [f"{layer}.conv.weight", *ends(f"{layer}.bn", of=BN)]
    return names


def image_encoder(params):
    return [*inception(params, "trunk/"), "emb_features.weight", *ends("emb_cnn_code")]


def stacked_generator(reading, ups=1, stages=(2, 3), residual=1):
    """AttnGAN's and DM-GAN's; `reading`: names of what a stage reads the words with."""
    names = ["h_net1.fc.0.weight", *ends("ca_net.fc"), *ends("h_net1.fc.1", of=BN), "img_net1.img.0.weight"]
    for i in range(ups):
        names += [f"h_net1.upsample{i + 1}.1.weight", *ends(f"h_net1.upsample{i + 1}.2", of=BN)]
    for k in stages:
        names += [f"h_net{k}.{name}" for name in reading] + [f"img_net{k}.img.0.weight", f"h_net{k}.upsample.1.weight"]
        names += ends(f"h_net{k}.upsample.2", of=BN)
        for r in range(residual):
            block = f"h_net{k}.residual.{r}.block"
            names += [f"{block}.0.weight", f"{block}.3.weight", *ends(f"{block}.1", f"{block}.4", of=BN)]
    return names


def attngan_generator(**more):
    return stacked_generator(["att.conv_context.weight"], **more)


def dmgan_generator(**more):
    return stacked_generator(["A.weight", "B.weight", *ends(*(f"{n}.0" for n in ("M_r", "M_w", "key", "value",
                                                                              "response_gate")))], **more)


def attngan_discriminator(downs):
    """For pictures of 4 * 2^downs pixels, 64 at most."""
    convs, norms = (0, 2, 5, 8)[:downs], (3, 6, 9)[: downs - 1]
    names = [f"img_code_s16.{i}.weight" for i in convs] + ends(*(f"img_code_s16.{i}" for i in norms), of=BN)
    return [*names, "COND_DNET.jointConv.0.weight", *ends("COND_DNET.jointConv.1", of=BN),
            *ends("COND_DNET.outlogits.0", "UNCOND_DNET.outlogits.0")]


def dmgan_discriminator(downs):
    layers = [*(f"img_code_s16.{i}.module" for i in (0, 2, 4, 6)[:downs]), "COND_DNET.jointConv.0.module"]
    return [*ends(*layers, of=("weight_bar", "weight_u", "weight_v", "bias")),
            *ends("COND_DNET.outlogits.0", "UNCOND_DNET.outlogits.0")]


def affine(*names):
    return ends(*(f"{name}.fc_{what}.linear{i}" for name in names for what in ("gamma", "beta") for i in (1, 2)))


def up_blocks(count, shortcuts):
    """DF-GAN's and GALIP's."""
    names = ends(*(f"GBlocks.{k}.c_sc" for k in shortcuts), "to_rgb.1")
    for k in range(count):
        names += ends(f"GBlocks.{k}.c1", f"GBlocks.{k}.c2")
        names += affine(*(f"GBlocks.{k}.fuse{i}.affine{j}" for i in (1, 2) for j in (0, 1)))
    return names


def dfgan_generator(count, shortcuts):
    return [*ends("fc"), *up_blocks(count, shortcuts)]


def residual_discriminator(first, block, head, count):
    names = ends(first) + [f"{head}joint_conv.{i}.weight" for i in (0, 2)]
    for k in range(count):
        name = block.format(k)
        names += [f"{name}.gamma", f"{name}.conv_r.0.weight", f"{name}.conv_r.2.weight", *ends(f"{name}.conv_s")]
    return names


def ssagan_generator(count, shortcuts):
    names = [*ends("fc", "conv_img.2"), *ends("conv_img.0", of=BN), *ends(*(f"block{k}.c_sc" for k in shortcuts))]
    for at in ("", *(f"block{k}." for k in range(count - 1))):
        names += [*ends(f"{at}conv_mask.0", f"{at}conv_mask.3"), *ends(f"{at}conv_mask.1", of=BN)]
    for k in range(count):
        b = f"block{k}"
        names += [f"{b}.gamma", *ends(f"{b}.c1", f"{b}.c2"), *affine(f"{b}.affine0", f"{b}.affine2")]
        names += ends(f"{b}.affine0.batch_norm2d", f"{b}.affine2.batch_norm2d", of=BN[2:])
    return names


def galip_generator(count, shortcuts, bridges):
    names = [*ends("fc_code", "mapping.fc_prompt", "mapping.conv_fuse", "mapping.conv"), *up_blocks(count, shortcuts)]
    for k in range(bridges):
        b = f"mapping.FBlocks.{k}"
        names += [*ends(f"{b}.conv1", f"{b}.conv2"), *affine(*(f"{b}.fuse{i}.affine{j}" for i in (1, 2) for j in (0, 1)))]
    return names


def vision_tower(before, blocks):
    """OpenAI's transformer of pictures up to its last block."""
    names = [f"{before}{n}" for n in ("class_embedding", "positional_embedding", "conv1.weight")]
    return [*names, *ends(f"{before}ln_pre"), *transformer(before, blocks)]


def transformer(before, blocks):
    names = []
    for k in range(blocks):
        b = f"{before}transformer.resblocks.{k}"
        names += ends(*(f"{b}.{n}" for n in ("ln_1", "ln_2", "attn.out_proj", "mlp.c_fc", "mlp.c_proj")))
        names += [f"{b}.attn.in_proj_weight", f"{b}.attn.in_proj_bias"]
    return names


def galip_discriminator():
    """Where CLIP's width is that of the map, so that its last block needs no shortcut."""
    blocks = [f"netD.DBlocks.{k}" for k in (0, 1)]
    names = [f"netC.joint_conv.{i}.weight" for i in (0, 2)] + ends(*(f"{b}.conv_s" for b in blocks))
    return [*names, *(f"{b}.{n}" for b in (*blocks, "netD.main") for n in ("gamma", "conv_r.0.weight", "conv_r.2.weight")),
            *(f"{b}.beta" for b in blocks)]


def captions(path, words, **changed):
    """captions.pickle of a vocabulary, in the protocol of Python 2."""
    tables = {"train": [[1, 2]], "test": [[1]], "by_id": dict(enumerate(words)), "by_word": {w: i for i, w in enumerate(words)}}
    path.write_bytes(pickle.dumps(list((tables | changed).values()), protocol=2))
    return path
