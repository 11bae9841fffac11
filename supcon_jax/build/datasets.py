"""Sources, vocabulary and batches of a run, from its config."""

from __future__ import annotations

import dataclasses
import functools

import jax
from etils import epath

from supcon_jax import hosts, shard
from supcon_jax.build.names import call, frozen, resolve
from supcon_jax.config import UserError
from supcon_jax.data import DATA, labels
from supcon_jax.data import source as sources
from supcon_jax.data.bpe import Bpe
from supcon_jax.data.skipped import Skipped
from supcon_jax.data.vocab import Vocab
from supcon_jax.data.wordpiece import WordPiece


@dataclasses.dataclass(frozen=True)
class Data:
    """Both splits of a data set with the words that they are written in.

    taught: the training split with the labels that training is told, which may be made, wrong or missing; whatever is
    measured reads `train` and `test` as the set has them.
    options: the config's data section. skipped: where unusable records are listed, or None.
    """

    taught: sources.Source
    train: sources.Source
    test: sources.Source
    vocab: Vocab | Bpe | WordPiece
    options: dict
    seed: int
    skipped: epath.Path | None = None

    @property
    def classes(self) -> int:
        return len(self.taught.classes)

    def training(self, batch: int, size: int, start: int = 0):
        """Endless training batches of this process; each has both branches if a partner is asked for."""
        return self._batches(self.taught, batch, size, self.options["partner"], train=True, start=start)

    def evaluation(self, split: str, batch: int, size: int, limit: int | None = None):
        """Batches of one branch, in order, as a list that evaluations pass over again; `limit` records at most."""
        source = self.train if split == "train" else self.test
        found, rows = [], 0
        for item in self._batches(source, batch, size, "none", train=False):
            found.append(item)
            rows += batch
            if limit and rows >= limit:
                break
        return found

    def _batches(self, source, batch, size, partner, **options):
        o = self.options
        shard = (jax.process_index(), jax.process_count()) if options["train"] else (0, 1)
        bad = Skipped(self.skipped, o["bad_limit"], len(source))
        return sources.batches(
            source, self.vocab, batch=batch, size=size, words=o["words"], partner=partner, crop=o["crop"],
            seed=self.seed, shard=shard, threads=o["threads"], bad=bad, **options,
        )  # fmt: skip


def vocabulary(plain: list | dict) -> Vocab | Bpe | WordPiece:
    """The vocabulary that a weight file tells: a list of words, the byte pairs of a CLIP, or BERT's word pieces."""
    if isinstance(plain, list | tuple):
        return Vocab(tuple(plain))
    return WordPiece(**plain) if "pieces" in plain else Bpe(**plain)


def open_data(config: dict, workdir: epath.Path | None, vocab: Vocab | Bpe | WordPiece | None = None) -> Data:
    """Opens both splits and settles the vocabulary.

    config: plain config. workdir: keeps vocab.json and skipped.jsonl. vocab: that of pretrained encoders, if any;
    else the one in the folder, else built from the captions of both splits and written there.
    Raises UserError: missing or wrong files, labels a method cannot read.
    """
    options = config["data"]
    function = resolve(DATA, options["name"], "config.data.name")
    args = {key: frozen(value) for key, value in options["args"].items()}
    train, test = (call(function, "data.args", options[s], options["root"], **args) for s in ("train", "test"))
    if train.classes != test.classes:
        raise UserError(f"config.data: {options['train']} and {options['test']} have other classes: take both from one set")
    if options["shuffle_pairs"]:
        train = labels.shuffle_pairs(train, config["seed"])
    taught = labels.taught(
        train, origin=options["labels_from"], clusters=options["clusters"], similar=options["similar"],
        noise=options["label_noise"], missing=options["label_missing"], seed=config["seed"],
    )  # fmt: skip
    path = workdir / "vocab.json" if workdir else None
    if vocab is None:
        made = Vocab.from_captions([*train.captions, *test.captions])
        vocab = made
        if path is not None and path.exists():
            vocab = Vocab.load(path)
            if vocab.digest() != made.digest():
                raise UserError(f"{path} was made from other captions than those of data.root; use another --workdir")
    if path is not None and hosts.chief() and isinstance(vocab, Vocab) and not path.exists():
        vocab.save(path)
    own = "" if hosts.chief() else f"_{jax.process_index()}"  # each process meets other records
    skipped = workdir / f"skipped{own}.jsonl" if workdir else None
    return Data(taught, train, test, vocab, options, config["seed"], skipped)


@functools.cache
def mesh_of(batch: int, wanted) -> jax.sharding.Mesh:
    """The mesh that a batch of this size is split over."""
    try:
        return shard.data_mesh(shard.data_devices(batch, wanted))
    except ValueError as error:
        raise UserError(f"config.{error}") from None
