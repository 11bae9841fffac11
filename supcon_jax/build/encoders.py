"""A pretrained CLIP as a judge of whether pictures say their captions: its codes of pictures and of captions."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from supcon_jax import storage
from supcon_jax.build import clip
from supcon_jax.build.datasets import vocabulary
from supcon_jax.build.names import net
from supcon_jax.config import UserError
from supcon_jax.nets.clip import standardise
from supcon_jax.ops.arrays import unit
from supcon_jax.ops.resize import antialiased


@dataclasses.dataclass(frozen=True, eq=False)
class Encoders:
    """image: u8[n, h, w, 3] -> unit codes [n, d]; text: batch of one branch with `caption` -> unit codes [n, d].

    sha256: of the weights. side: of the square that the image tower sees; resize: the rule, in words.
    """

    sha256: str
    side: int
    image: Callable
    text: Callable
    resize: str = "bicubic, Pillow"


def encoders(files: dict[str, str]) -> Encoders | None:
    """The CLIP of config.networks, None where no file is given.

    Pictures are resized as CLIP's own preprocessing does, by Pillow's bicubic on bytes; generators make squares, so
    nothing is cut off. Captions are read whole, by CLIP's own byte pairs, whatever vocabulary the stage has.
    Raises UserError: the file is missing or holds no CLIP, or the vocabulary is not there.
    """
    if not files["clip"]:
        return None
    if not storage.place(files["clip"]).is_file():
        raise UserError(f"--config.networks.clip={files['clip']}: no such file; leave it empty for no scores by CLIP")
    return made(files["clip"], files["clip_act"], files["clip_vocab"])


@functools.cache
def made(path: str, act: str, vocab: str) -> Encoders:
    tree, about, sha = clip.opened({"clip": path, "clip_act": act, "clip_vocab": vocab}, "networks")
    module, words = net(about["nets"]["clip"], "networks.clip"), vocabulary(about["vocab"])
    tree = jax.tree.map(jnp.asarray, tree)
    side, length = module.image.side, module.text.length

    @jax.jit
    def see(images):
        x = antialiased(images.astype(jnp.float32), (side, side), "bicubic", levels=True) / 255
        return unit(module.apply(tree, standardise(x), method=lambda m, x: m.image(x)[1]).astype(jnp.float32))

    @jax.jit
    def listen(ids):
        return unit(module.apply(tree, ids, method=lambda m, x: m.text(x)[1]).astype(jnp.float32))

    def text(batch):
        return listen(np.stack([words.encode(caption, length)[0] for caption in batch["caption"][:, 0]]))

    return Encoders(sha, side, see, text)
