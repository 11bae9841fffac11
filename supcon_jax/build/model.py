"""Trained weights as a model: encode images and texts, generate pictures."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from supcon_jax import storage
from supcon_jax.build import pretext, weights
from supcon_jax.build.datasets import vocabulary
from supcon_jax.build.names import GENERATORS, counted, net
from supcon_jax.build.networks import SHIPPED
from supcon_jax.config import UserError
from supcon_jax.data.bpe import Bpe
from supcon_jax.data.vocab import Vocab, tokenise
from supcon_jax.gans.galip import Tower
from supcon_jax.gans.game import noise
from supcon_jax.methods import flow
from supcon_jax.ops.arrays import unit, unit_rms
from supcon_jax.report import pictures
from supcon_jax.views.image import signed


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """Trained weights, ready to use. What the weights cannot do raises UserError.

    nets: flax modules by name. tree: their variables. about: the config and vocabulary they were trained with.
    """

    nets: dict
    tree: dict
    about: dict

    @functools.cached_property
    def vocab(self) -> Vocab | Bpe:
        if self.about["vocab"] is None:
            raise UserError("these weights were trained on pictures alone: they read no text")
        return vocabulary(self.about["vocab"])

    @property
    def args(self) -> dict:
        """The arguments of the task that the weights were trained with."""
        return self.about["config"][self.about["stage"]]["args"]

    @functools.cached_property
    def clip(self) -> Tower | None:
        """The frozen CLIP that the generator works with, if it does, or that stage 1 has trained heads for."""
        if "clip" not in self.nets:
            return None
        tree = self.tree["clip"] if "gen" in self.nets else self.tree
        try:
            return Tower(self.nets["clip"], tree, self.args["clip_preproc"])
        except ValueError as error:
            raise UserError(str(error)) from None

    def _near(self, code, kind: str):
        """CLIP's codes as they are encoded: of stage 1's own weights in the space that it has trained."""
        return code if not self.clip or "gen" in self.nets else self.clip.joint(code, kind)

    def tokens(self, texts: Sequence[str], seed: int = 0):
        """(ids i32[n, t], lengths i32[n]); words that the vocabulary lacks are left out (see `unknown`).

        Raises UserError: a text without any known word.
        """
        words = self.about["config"]["data"]["words"]
        rows = [self.vocab.encode(text, words, np.random.default_rng(seed)) for text in texts]
        for text, (_, length, _) in zip(texts, rows, strict=True):
            if not length:
                raise UserError(f"{text!r} has no word that these weights know; they know: {shown(self.vocab)}")
        return np.stack([row[0] for row in rows]), np.asarray([row[1] for row in rows], np.int32)

    def unknown(self, text: str) -> list[str]:
        """The words of a text that the vocabulary lacks."""
        vocab = self.vocab
        return [word for word in tokenise(text) if word not in vocab.ids] if isinstance(vocab, Vocab) else []

    def encode_text(self, texts: Sequence[str]):
        """Unit sentence codes f32[n, d]."""
        ids, lengths = self.tokens(texts)
        return self._sentence(ids, lengths)

    def encode_image(self, images):
        """Unit codes f32[n, d] of pictures u8[n, h, w, 3]; of an encoder of pictures alone its features, at any size of
        picture. Floats are taken to be in [-1, 1], by an encoder of pictures alone in [0, 1]."""
        if "image" not in self.nets and not self.clip:
            raise UserError("these weights hold no image encoder: load the damsm stage's folder")
        return self._image(jnp.asarray(images))

    def generate(self, texts: Sequence[str], seed: int = 0):
        """One picture f32[n, h, w, 3] in [-1, 1] for each text; the same seed gives the same noise."""
        if "gen" not in self.nets:
            raise UserError("these weights hold no generator: load the GAN stage's folder")
        ids, lengths = self.tokens(texts, seed)
        args = self.args
        if self.about["kind"] == "flow":
            return self._flow(ids, lengths, jax.random.key(seed))
        cond = getattr(self.nets["gen"], "cond", 0)  # not every generator draws its condition
        z, eps = noise(jax.random.key(seed), len(ids), 1, args["z"], cond, False, args.get("truncate", 0.0))
        return self._draw(ids, lengths, z[:, 0], args.get("cond_noise", 0.0) * eps[:, 0])

    def _text(self, ids, lengths):
        if self.clip:
            words, sentence = self.clip.listen(ids[:, None])
            return words[:, 0], sentence[:, 0]
        params = self.tree["text"] if "gen" in self.nets else self.tree["params"]["text"]
        return self.nets["text"].apply({"params": params}, ids, lengths)

    @functools.cached_property
    def _sentence(self):
        return jax.jit(lambda ids, lengths: unit(self._near(self._text(ids, lengths)[1], "text")))

    @functools.cached_property
    def _image(self):
        if self.clip:
            return jax.jit(lambda images: unit(self._near(self.clip.see(signed(images))[1], "image")))
        if self.about["kind"] == pretext.KIND:
            return jax.jit(functools.partial(pretext.encoded, self.nets["image"], self.tree, self.about))
        variables = {"params": self.tree["params"]["image"], "batch_stats": self.tree["stats"]["image"]}
        return jax.jit(lambda images: unit(self.nets["image"].apply(variables, signed(images))[1]))

    @functools.cached_property
    def _draw(self):
        def draw(ids, lengths, z, eps):
            words, sentence = self._text(ids, lengths)
            variables = {"params": self.tree["gen"]["params"], "batch_stats": self.tree["gen"].get("stats", {})}
            if not self.args.get("shared", True):  # one generator for each branch: the first one draws
                variables = jax.tree.map(lambda x: x[0], variables)
            if self.clip:
                ((image,),) = self.nets["gen"].apply(variables, z, sentence, self.clip.through)
                return jnp.clip(image, -1, 1)
            if self.args["text_norm"]:
                words, sentence = unit_rms(words), unit_rms(sentence)
            valid = jnp.arange(ids.shape[1])[None] < lengths[:, None]
            return self.nets["gen"].apply(variables, z, sentence, words, valid, eps)[0][-1]

        return jax.jit(draw)

    @functools.cached_property
    def _flow(self):
        how = {name: self.args[name] for name in ("guidance", "solver", "sampling")}

        def draw(ids, lengths, key):
            sentence = flow.heard(self._text(ids, lengths)[1], self.args["text_norm"])
            return flow.draw(self.nets["gen"], self.tree["gen"]["params"], sentence, key, **how)

        return jax.jit(draw)


def load(source: str, kinds: Sequence[str] = (*GENERATORS, "damsm", "clip_heads", pretext.KIND)) -> Model:
    """Weights from a work folder, a weight file, or by the name of shipped ones ("shapes").

    kinds: what is looked for in a work folder, in this order.
    Raises UserError: nothing is there, the line lists what ships; or a network that only other parts of a run read.
    """
    path = find(source, kinds)
    tree, about, _ = weights.load(path)
    if "nets" not in about:
        raise UserError(f"{path} holds {about['kind']!r}, which neither draws nor encodes: give it where a config asks for it")
    vocab = len(vocabulary(about["vocab"])) if about["vocab"] else 0
    nets = {k: net(o, f"nets.{k}", **counted(o, vocab)) for k, o in about["nets"].items()}
    if about["kind"] in GENERATORS:
        nets.pop("image", None)
    return Model(nets, tree, about)


def find(source: str, kinds: Sequence[str]) -> epath.Path:
    """The weight file that `load` reads. Raises UserError: nothing is there."""
    path = storage.place(source)
    if path.is_dir():
        places = [path / kind / "weights.safetensors" for kind in kinds] + [path / "weights.safetensors"]
        files = [file for file in places if file.is_file()]
        if pretext.KIND in kinds and not files:  # its stages are named after methods: the newest
            files = sorted(path.glob("*/weights.safetensors"), key=lambda file: file.stat().mtime)[-1:]
        if not files:
            raise UserError(f"{path} holds no finished stage of {', '.join(kinds)}: train to the end first")
        return files[0]
    if path.is_file():
        return path
    if storage.kind(path):
        raise UserError(f"{path} holds neither a work folder nor weights: correct the address")
    path = SHIPPED / f"{source}.safetensors"
    if not path.is_file():
        names = sorted(file.stem for file in SHIPPED.glob("*.safetensors") if not file.stem.endswith("_classifier"))
        raise UserError(f"{source!r} is no folder or file, and not among the shipped weights: {', '.join(names)}")
    return path


def sample(source: str, prompts: Sequence[str], folder: epath.Path, *, number: int, seed: int) -> Iterator[str]:
    """Draws `number` pictures for each caption into `folder`: single PNGs and grid.png. Yields lines to print."""
    model = load(source, GENERATORS)
    for prompt in prompts:
        if words := model.unknown(prompt):
            yield f"unknown words left out of {prompt!r}: {', '.join(words)}"
    texts = [prompt for prompt in prompts for _ in range(number)]
    images = np.asarray(model.generate(texts, seed))
    for i, text in enumerate(texts):
        name = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:60]
        pictures.save_png(pictures.grid(images[i : i + 1]), folder / f"{i // number:03d}_{i % number:02d}_{name}.png")
    captions = [text if i % number == 0 else "" for i, text in enumerate(texts)]
    pictures.save_png(pictures.grid(pictures.zoomed(images), columns=number, captions=captions), folder / "grid.png")
    yield f"{len(images)} pictures of {images.shape[1]} px in {folder}, all of them in {folder / 'grid.png'}"


def shown(vocab: Vocab, most: int = 40) -> str:
    words = list(vocab.words)[1:]
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")
