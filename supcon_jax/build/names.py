"""What a name in a config stands for."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping

import jax.numpy as jnp

from supcon_jax.config import UserError
from supcon_jax.gans import GANS

NETS = {
    "inception": "supcon_jax.nets.inception:ImageEncoder",
    "inception_classifier": "supcon_jax.nets.inception:Classifier",
    "rnn": "supcon_jax.nets.text:TextEncoder",
    "effnet_lite0": "supcon_jax.nets.pretrained:effnet_lite0",
    "resnet": "supcon_jax.nets.pretrained:resnet",
    "clip_image": "supcon_jax.nets.pretrained:clip_image",
    "bert": "supcon_jax.nets.pretrained:bert",
    "clip_text": "supcon_jax.nets.pretrained:clip_text",
    "attngan_g": "supcon_jax.nets.attngan:Generator",
    "attngan_d": "supcon_jax.nets.attngan:Discriminator",
    "dmgan_g": "supcon_jax.nets.dmgan:Generator",
    "dmgan_d": "supcon_jax.nets.dmgan:Discriminator",
    "dfgan_g": "supcon_jax.nets.dfgan:Generator",
    "dfgan_d": "supcon_jax.nets.dfgan:Discriminator",
    "ssagan_g": "supcon_jax.nets.ssagan:Generator",
    "ssagan_d": "supcon_jax.nets.ssagan:Discriminator",
    "galip_g": "supcon_jax.nets.galip:Generator",
    "galip_d": "supcon_jax.nets.galip:Discriminator",
    "velocity": "supcon_jax.nets.flow:Velocity",
    "clip": "supcon_jax.nets.clip:made",
    "attributes": "supcon_jax.nets.classify:AttributeNet",
    "resnet_trunk": "supcon_jax.nets.backbone:resnet_trunk",
    "conv_trunk": "supcon_jax.nets.backbone:ConvTrunk",
    "vit_trunk": "supcon_jax.nets.backbone:ViTTrunk",
    "lab_trunk": "supcon_jax.nets.backbone:lab_trunk",
    "patch_grid": "supcon_jax.nets.cpc:patch_grid",
    "row_context": "supcon_jax.nets.cpc:RowContext",
    "wave_encoder": "supcon_jax.nets.audio:WaveEncoder",
    "mlp": "supcon_jax.nets.heads:Mlp",
    "patch_head": "supcon_jax.nets.heads:PatchHead",
    "lab_head": "supcon_jax.nets.heads:LabHead",
    "simclr_head": "supcon_jax.nets.heads:simclr",
    "simclr2_head": "supcon_jax.nets.heads:simclr2",
    "supcon_head": "supcon_jax.nets.heads:moco2",
    "moco_head": "supcon_jax.nets.heads:moco",
    "moco2_head": "supcon_jax.nets.heads:moco2",
    "moco3_head": "supcon_jax.nets.heads:moco3",
    "moco3_predictor": "supcon_jax.nets.heads:moco3_predictor",
    "byol_head": "supcon_jax.nets.heads:byol",
    "simsiam_head": "supcon_jax.nets.heads:simsiam",
    "simsiam_predictor": "supcon_jax.nets.heads:simsiam_predictor",
    "swav_head": "supcon_jax.nets.heads:swav",
    "barlow_head": "supcon_jax.nets.heads:barlow",
    "vicreg_head": "supcon_jax.nets.heads:vicreg",
}
GENERATORS = (*GANS, "flow")  # what draws pictures: its weights are those of "gen" and of the encoder that it listens to
DTYPES = {"f32": None, "bf16": jnp.bfloat16}


def resolve(table: Mapping[str, str], name: str, what: str):
    """The object that a name stands for in a table of "module:object" strings.

    Raises UserError: the name is not in the table; the line lists those that are.
    """
    if name not in table:
        raise UserError(f"{what} {name!r} is not known; use one of: {', '.join(sorted(table))}")
    module, _, thing = table[name].partition(":")
    return getattr(importlib.import_module(module), thing)


def call(function, where: str, *args, **options):
    """function(*args, **options), after a check that it knows every option and lacks none.

    Raises UserError: an option that is not in its signature, or one without a default that is not given; the line names
    the config section.
    """
    known = list(inspect.signature(function).parameters.values())[len(args) :]
    takes = [p.name for p in known if p.name not in ("parent", "name")]  # those two are flax's own
    for name in options:
        if name not in takes:
            raise UserError(f"config.{where}.{name} is not an argument of {function.__name__}; it takes: {', '.join(takes)}")
    lacking = [p.name for p in known if p.default is inspect.Parameter.empty and p.name not in options]
    if lacking:
        raise UserError(f"config.{where} lacks {', '.join(lacking)}, without which there is no {function.__name__}")
    return function(*args, **options)


def net(options: Mapping, where: str, precision: str = "f32", **more):
    """A flax module from a config section {"net": name, ...}."""
    options = {key: frozen(value) for key, value in options.items()}
    kind = resolve(NETS, options.pop("net", None), f"config.{where}.net")
    return call(kind, where, dtype=DTYPES[precision], **options, **more)


def counted(options: Mapping, words: int) -> dict:
    """What a net needs to know of the vocabulary: its size, if its token vectors are its own."""
    return {"vocab": words} if options["net"] == "rnn" else {}


def frozen(value):
    """Lists (as JSON gives them) to tuples, all the way down: module attributes must be hashable."""
    if isinstance(value, list | tuple):
        return tuple(frozen(item) for item in value)
    return value
