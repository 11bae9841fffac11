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
from supcon_jax.data.paired import Paired
from supcon_jax.data.skipped import Skipped
from supcon_jax.data.vocab import Vocab
from supcon_jax.data.wordpiece import WordPiece


@dataclasses.dataclass(frozen=True)
class Data:
    """Both splits of a data set with the words that they are written in, if they are.

    taught: the training split with the labels that training is told, which may be made, wrong or missing; whatever is
    measured reads `train` and `test` as the set has them.
    vocab: None where the pictures have no captions, or are to be seen without them.
    options: the config's data section. skipped: where unusable records are listed, or None.
    probe: the labelled set that probes learn and are measured on, if it is another one; its labels are as the set has them.
    """

    taught: sources.Source
    train: sources.Source
    test: sources.Source
    vocab: Vocab | Bpe | WordPiece | None
    options: dict
    seed: int
    skipped: epath.Path | None = None
    probe: Data | None = None

    @property
    def classes(self) -> int:
        return len(self.taught.classes)

    def training(self, batch: int, size: int, start: int = 0, probed: bool = True):
        """Endless training batches of this process; each has both branches if a partner is asked for, and, where a probe is
        trained beside, as many pictures and labels of the probe's set, if there is one."""
        own = self._batches(self.taught, batch, size, self.options["partner"], train=True, start=start)
        return Paired(own, self.probe.training(batch, size, start)) if self.probe and probed else own

    def evaluation(self, split: str, batch: int, size: int, limit: int | None = None):
        """Batches of one branch, in order, as a list that evaluations pass over again; `limit` records at most. Of
        pictures of `size` pixels they see the middle, the share data.middle of each side, whichever split they read."""
        return list(self.stream(split, batch, size, limit))

    def stream(self, split: str, batch: int, size: int, limit: int | None = None):
        """The same batches one after the other, for splits that are too large to hold."""
        source, rows = self.train if split == "train" else self.test, 0
        for item in self._batches(source, batch, size, "none", train=False):
            yield item
            rows += batch
            if limit and rows >= limit:
                return

    def in_order(self, batch: int, size: int):
        """This process's share of one pass over the records that are trained on, in their order and evaluation's form, middle
        and all: what PCL clusters between epochs are the codes of evaluation's view (arXiv 2005.04966)."""
        return self._batches(self.taught, batch, size, "none", train=False, shared=True)

    def _batches(self, source, batch, size, partner, shared=False, **options):
        o = self.options
        shard = (jax.process_index(), jax.process_count()) if options["train"] or shared else (0, 1)
        bad = Skipped(self.skipped, o["bad_limit"], len(source))
        return sources.batches(
            source, self.vocab, batch=batch, size=size, words=o["words"], partner=partner, crop=o["crop"],
            middle=o["middle"], seed=self.seed, shard=shard, threads=o["threads"], bad=bad, **options,
        )  # fmt: skip


def vocabulary(plain: list | dict) -> Vocab | Bpe | WordPiece:
    """The vocabulary that a weight file tells: a list of words, the byte pairs of a CLIP, or BERT's word pieces."""
    if isinstance(plain, list | tuple):
        return Vocab(tuple(plain))
    return WordPiece(**plain) if "pieces" in plain else Bpe(**plain)


def plain_words(vocab: Vocab | Bpe | WordPiece | None) -> list | dict | None:
    """The vocabulary as a weight file tells it."""
    return None if vocab is None else vocab.plain()


def open_data(config: dict, workdir: epath.Path | None, vocab: Vocab | Bpe | WordPiece | None = None) -> Data:
    """Opens both splits and settles the vocabulary.

    config: plain config. workdir: keeps vocab.json and skipped.jsonl. vocab: that of pretrained encoders, if any;
    else the one in the folder, else built from the captions of both splits and written there. Without captions none.
    Raises UserError: missing or wrong files, labels a method cannot read.
    """
    options = config["data"]
    train, test = splits(options, "data")
    if options["shuffle_pairs"]:
        train = labels.shuffle_pairs(train, config["seed"])
    taught = labels.taught(
        train, origin=options["labels_from"], clusters=options["clusters"], similar=options["similar"],
        noise=options["label_noise"], kind=options["label_noise_kind"], swaps=frozen(options["label_map"]),
        missing=options["label_missing"], share=options["label_share"], only=options["only_labelled"], seed=config["seed"],
    )  # fmt: skip
    if not options["text"]:
        taught, train, test = (dataclasses.replace(one, captions=None) for one in (taught, train, test))
    vocab = settled(vocab, train, test, workdir / "vocab.json" if workdir else None)
    own = "" if hosts.chief() else f"_{jax.process_index()}"  # each process meets other records
    skipped = workdir / f"skipped{own}.jsonl" if workdir else None
    probe = open_probe(options, config["seed"], workdir / f"skipped_probe{own}.jsonl" if workdir else None)
    return Data(taught, train, test, vocab, options, config["seed"], skipped, probe)


def splits(options: dict, where: str) -> tuple[sources.Source, sources.Source]:
    """Both splits of the set in a section of the config. Raises UserError: a bad name or file, or other classes in each."""
    function = resolve(DATA, options["name"], f"config.{where}.name")
    args = {key: frozen(value) for key, value in options["args"].items()}
    train, test = (call(function, f"{where}.args", options[s], options["root"], **args) for s in ("train", "test"))
    if train.classes != test.classes:
        raise UserError(f"config.{where}: {options['train']} and {options['test']} have other classes: take both from one set")
    return train, test


def settled(vocab, train: sources.Source, test: sources.Source, path: epath.Path | None):
    """The vocabulary of two splits, which `path` keeps; None without captions.

    Raises UserError: the one in the folder was made from other captions.
    """
    if train.captions is None or test.captions is None:
        return None
    if vocab is None:
        vocab = made = Vocab.from_captions([*train.captions, *test.captions])
        if path is not None and path.exists():
            vocab = Vocab.load(path)
            if vocab.digest() != made.digest():
                raise UserError(f"{path} was made from other captions than those of data.root; use another --workdir")
    if path is not None and hosts.chief() and isinstance(vocab, Vocab) and not path.exists():
        vocab.save(path)
    return vocab


def open_probe(options: dict, seed: int, skipped: epath.Path | None) -> Data | None:
    """The set in the config's section data.probe, pictures and labels alone; None where it names none.

    Raises UserError: as `splits`, or a set without labels.
    """
    if not options["probe"]["name"]:
        return None
    train, test = (dataclasses.replace(one, captions=None) for one in splits(options["probe"], "data.probe"))
    if not train.labelled or not test.labelled or train.labels.ndim == 2:
        raise UserError(f"config.data.probe.name={options['probe']['name']!r}: a set with one label for each record is needed")
    return Data(train, train, test, None, options | {"partner": "none"}, seed, skipped)


@functools.cache
def mesh_of(batch: int, wanted) -> jax.sharding.Mesh:
    """The mesh that a batch of this size is split over."""
    try:
        return shard.data_mesh(shard.data_devices(batch, wanted))
    except ValueError as error:
        raise UserError(f"config.{error}") from None
