"""A pretrained CLIP as a frozen tower: its weights, its networks as plain options, its vocabulary."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from supcon_jax import storage
from supcon_jax.build import weights
from supcon_jax.config import UserError
from supcon_jax.convert import clip as foreign
from supcon_jax.convert import tensors
from supcon_jax.data.bpe import Bpe
from supcon_jax.nets.clip import CLIP, ImageTransformer, published
from supcon_jax.nets.galip import TAPS

DRAWN = "ViT-B-32"  # what is compiled where no file is given


def load(config: dict, name: str) -> tuple[dict, dict, str]:
    """(weights, {"nets", "vocab", ...}, sha256) of the CLIP that a stage asks for.

    Raises UserError: nothing given, or a file that holds no CLIP.
    """
    options = config[name]["frozen"]
    if not options["clip"] or not storage.place(options["clip"]).is_file():
        missing = f" ({options['clip']} is missing)" if options["clip"] else ""
        raise UserError(
            f"{name} needs a pretrained CLIP with a vision transformer, such as OpenAI's ViT-B-32.pt or open_clip's: give "
            f"--config.{name}.frozen.clip=FILE{missing}"
        )
    return opened(options, f"{name}.frozen")


def opened(options: dict, where: str) -> tuple[dict, dict, str]:
    """(weights, {"nets", "vocab", ...}, sha256) of the CLIP in a section of the config.

    clip: a file of OpenAI's, open_clip's or Hugging Face's names (.pt, .safetensors, .pth, .bin), or one of this library.
    clip_act: activation of a foreign file's network; clip_vocab: see bpe.Bpe.load. where: the section, for messages.
    Raises UserError: a file that holds no CLIP, or not the vocabulary's.
    """
    path = options["clip"]
    with storage.local(path) as file:
        if "about" in tensors.metadata(file):
            tree, about, sha = weights.load(file, "clip")
            return tree, about, sha
        sha, given = tensors.sha256(file), tensors.read(file)
    vocab = Bpe.load(options["clip_vocab"] or None)
    module = foreign.network(given, act=options["clip_act"], end=vocab.end)
    if len(vocab) > module.text.vocab:
        raise UserError(f"{path} knows {module.text.vocab} tokens, its vocabulary has {len(vocab)}: give the vocabulary "
                        f"of the same model with --config.{where}.clip_vocab=FILE")
    return foreign.load(given, blank(module)), {"nets": {"clip": described(module)}, "vocab": vocab.plain()}, sha


def shapes() -> tuple[dict, dict]:
    """(weights in shape, {"nets", "vocab"}) of ViT-B/32, to compile without a file; its vocabulary holds bytes only."""
    module = published(DRAWN)
    return blank(module), {"nets": {"clip": described(module)}, "vocab": Bpe.from_pairs([]).plain()}


def blank(module: CLIP) -> dict:
    """A CLIP's variables in shape."""
    image = jnp.zeros((1, module.image.side, module.image.side, 3))
    return jax.eval_shape(module.init, jax.random.key(0), image, np.zeros((1, module.text.length), np.int32))


def described(module: CLIP) -> dict:
    """A CLIP as plain options, of which nets.clip.made makes it again."""

    def plain(tower):
        fields = [f.name for f in dataclasses.fields(tower) if f.name not in ("parent", "name", "dtype")]
        return {field: getattr(tower, field) for field in fields}

    return {"net": "clip", "image": plain(module.image), "text": plain(module.text)}


def check(config: dict, name: str, module: CLIP, about: dict) -> None:
    """Whether this CLIP can serve a stage of GALIP's. about: what its file says.

    Raises UserError: a ResNet or too few blocks, captions longer than it reads, more blocks to train than there are, or a
    stage 1 that saw pictures of other values.
    """
    image, text, words = module.image, module.text, config["data"]["words"]
    kind = f"a vision transformer of {image.depth} blocks" if isinstance(image, ImageTransformer) else "a ResNet"
    if not isinstance(image, ImageTransformer) or image.depth <= max(TAPS):
        raise UserError(f"GALIP needs a CLIP with a vision transformer of more than {max(TAPS)} blocks; the file holds one with"
                        f" {kind}: give another")
    if words > text.length:
        raise UserError(f"config.data.words={words}: this CLIP reads {text.length} at most")
    blocks, most = config[name]["args"].get("blocks", 0), min(image.depth, text.depth)
    if blocks > most:
        raise UserError(f"config.{name}.args.blocks={blocks}: this CLIP's smaller tower has {most} blocks; use {most} at most")
    before = about["config"][about["stage"]]["args"] if "stage" in about else {}
    seen, rule = (args.get("clip_preproc") for args in (before, config[name]["args"]))
    if seen and seen != rule:
        raise UserError(f"config.{name}.args.clip_preproc={rule!r}, but the CLIP that it is given was trained with {seen!r}: "
                        "use one for both stages")


def fitted(options: dict, key: str, towers: dict) -> dict:
    """Options of the net `key` of GALIP's with what follows from the tower that it works with: its grid and width."""
    image = towers["clip"]["nets"]["clip"]["image"]
    more = {"grid": image["side"] // image["patch"]}
    return {**options, **more, **({"clip": image["width"]} if options["net"] == "galip_g" else {})}
