"""Which network a foreign file holds, told by its tensors' names."""

import re
from collections.abc import Mapping

from supcon_jax.convert import rename

KINDS = {  # kind -> (what it is in words, a name that its files have and no other kind's)
    "text_encoder": ("DAMSM's text encoder", r"rnn\.weight_ih_l0"),
    "image_encoder": ("DAMSM's image encoder", r"emb_cnn_code\.weight"),
    "attngan_g": ("AttnGAN's generator", r"h_net2\.att\.conv_context\.weight"),
    "attngan_d": ("a discriminator of AttnGAN", r"img_code_s16\.0\.weight"),
    "dmgan_g": ("DM-GAN's generator", r"h_net2\.A\.weight"),
    "dmgan_d": ("a discriminator of DM-GAN", r"img_code_s16\.0\.module\.weight_bar"),
    "ssagan_g": ("SSA-GAN's generator", r"block0\.affine0\.fc_gamma\.linear1\.weight"),
    "ssagan_d": ("SSA-GAN's discriminator", r"COND_DNET\.joint_conv\.0\.weight"),
    "galip_g": ("GALIP's generator", r"mapping\.fc_prompt\.weight"),
    "galip_d": ("GALIP's discriminator", r"netD\.DBlocks\.0\.beta"),
    "dfgan_g": ("DF-GAN's generator", r"to_rgb\.1\.weight"),
    "dfgan_d": ("DF-GAN's discriminator", r"netD\.DBlocks\.0\.gamma"),
    "clip": ("CLIP", r"visual\.conv1\.weight|vision_model\.embeddings\.patch_embedding\.weight"),
    "inception": ("Inception-v3", r"Conv2d_1a_3x3\.conv\.weight"),
    "resnet": ("a ResNet", r"layer1\.0\.conv1\.weight"),
    "vit": ("a vision transformer alone, which no stage works with yet",
            r"encoder\.layers\.encoder_layer_0\.ln_1\.weight|(vit\.)?embeddings\.cls_token"),
    "efficientnet": ("EfficientNet-Lite0, which is read as it is: --config.networks.effnet_lite0=FILE", r"_conv_stem\.weight"),
}
WRAPPED = re.compile(r"(?:model\.)?net([GDC])\.(?:module\.)?(.+)")
BEFORE = ("state_dict.", "model.", "module.")  # what training scripts put before all names of a network


def told(tensors: Mapping) -> dict[str, dict]:
    """The networks of a file: {kind: its tensors by the names that the family's rules know}; nothing if none is known.

    A file of one network has its bare names, "module." before them or not; a whole state {"model": {"netG": ...,
    "netD": ..., "netC": ...}} has several, and optimisers beside them, which are left out.
    """
    inside = {"G": {}, "D": {}}
    for name, value in tensors.items():
        if found := WRAPPED.fullmatch(name):
            net, rest = found.groups()
            own, name = ("G", rest) if net == "G" else ("D", f"net{net}.{rest}")
            inside[own][name] = value
    if not any(inside.values()):
        for before in BEFORE:
            tensors = rename.under(tensors, before) or tensors
        inside = {"": dict(tensors)}
    kinds = {kind(part): part for part in inside.values() if part}
    return {name: part for name, part in kinds.items() if name}


def kind(tensors: Mapping) -> str | None:
    """The kind of one network's tensors; None if it is not known."""
    for name, (_, mark) in KINDS.items():
        if any(re.fullmatch(mark, given) for given in tensors):
            return name
    return None
