"""What a data set is, one split with its text and labels in memory and its images read on demand, and its batches."""

import dataclasses
import hashlib
import weakref
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from supcon_jax.config import UserError
from supcon_jax.data.fields import IMAGE, INDEX, LABEL, SAID, TEXT, TEXT_LEN, VALID
from supcon_jax.data.images import MODES, crop, middle
from supcon_jax.data.partners import Order, Partners, below, draws
from supcon_jax.data.skipped import BadRecord, Skipped
from supcon_jax.data.vocab import shorten, table

RECORD, PARTNER_LABEL, PARTNER, CAPTION, PARTNER_CAPTION, CROP, LONG, ORDER = range(8)
PARTNERS = ("none", "same_image", "same_label")
TRIES = 64


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """One split of one data set.

    name, split: for messages and file names.
    captions: for each record its captions (as many as it has); None: the set has none, and its batches carry no text.
    labels: i32[records], -1 for a record without; or u8[records, c] multi-hot; or None where the set has none.
    classes: names of the c classes.
    image: record -> u8[h0, w0, 3], cropped to the object by the set's own rule; raises BadRecord. Called from threads.
    keys: file name or id of each record, for messages.
    known: latents by name, each [records], where the truth is known.
    Raises UserError: lengths disagree, no records, labels that are not integers or out of range.
    """

    name: str
    split: str
    captions: Sequence[Sequence[str]] | None
    labels: np.ndarray | None
    classes: tuple[str, ...]
    image: Callable[[int], np.ndarray]
    keys: Sequence[str]
    known: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __len__(self):
        return len(self.keys)

    @property
    def labelled(self) -> bool:
        """Whether any record has a label."""
        return self.labels is not None and bool((self.labels >= (self.labels.ndim == 2)).any())

    def __post_init__(self):
        where, records = f"{self.name}/{self.split}", len(self.keys)
        if not records:
            raise UserError(f"{where} has no records: check data.root and the split's files")
        lists = {"captions": self.captions, "labels": self.labels, **{f"known[{k}]": v for k, v in self.known.items()}}
        for what, held in lists.items():
            if held is not None and len(held) != records:
                raise UserError(f"{where} has {records} records but {len(held)} {what}: the lists must be in step")
        if self.labels is not None:
            self._check_labels(where)

    def _check_labels(self, where):
        labels, classes = self.labels, len(self.classes)
        if labels.dtype.kind not in "iub":
            raise UserError(f"{where}: labels are {labels.dtype}: they must be integers")
        if labels.ndim == 2:
            if labels.shape[1] != classes:
                raise UserError(f"{where}: labels have {labels.shape[1]} columns for {classes} classes")
            if labels.max() > 1 or labels.min() < 0:
                raise UserError(f"{where}: multi-hot labels must be 0 or 1, found {labels.min()} to {labels.max()}")
        elif labels.ndim != 1 or labels.min() < -1 or labels.max() >= classes:
            raise UserError(
                f"{where}: labels run from {labels.min()} to {labels.max()} (shape {labels.shape}) but there are "
                f"{classes} classes: they must lie in 0..{classes - 1}, or be -1 for none"
            )


def chosen(source, rows):
    """Some records of a source as one of its own, in the order of `rows` i[n]; numbers of records are then places in it."""
    return dataclasses.replace(
        source,
        captions=None if source.captions is None else [source.captions[i] for i in rows],
        labels=None if source.labels is None else source.labels[rows],
        image=lambda record: source.image(int(rows[record])),
        keys=[source.keys[i] for i in rows],
        known={name: values[rows] for name, values in source.known.items()},
    )


_tables = weakref.WeakKeyDictionary()  # source -> {(vocabulary, words): Table}: evaluation comes back again and again


def _table(source, vocab, words):
    made = _tables.setdefault(source, {})
    key = vocab.digest(), words
    if key not in made:
        made[key] = table(source.captions, vocab, words)
    return made[key]


class _Maker:
    """Number of a batch -> the batch. Called from threads."""

    def __init__(self, source, vocab, *, batch, size, words, partner, crop, middle, seed, train, shard, bad):
        self.source, self.size, self.crop, self.train, self.bad = source, size, crop, train, bad
        self.batch, self.local = batch, batch // shard[1]
        self.first_row = shard[0] * self.local
        self.words, self.partner, self.middle, self.seed = words, partner, middle, seed
        self.order = Order(seed, len(source), ORDER)
        self.text = None if vocab is None or source.captions is None else _table(source, vocab, words)
        self.partners = None
        if partner == "same_label" and source.labels is not None:
            self.partners = Partners(source.labels)
        if self.text is not None:
            for record in np.flatnonzero(self.text.count == 0):
                reason = "no caption with a known word" if any(source.captions[record]) else "no caption"
                bad.add(source.split, source.keys[record], reason)

    def __call__(self, number):
        position = number * self.batch + self.first_row + np.arange(self.local)
        first = self.order(position) if self.train else position % len(self.source)
        valid = position < len(self.source)
        views = 1 if self.partner == "none" else 2
        image = np.empty((self.local, views, self.size, self.size, 3), np.uint8)
        chosen, raws = zip(*map(self._good, first.tolist(), position), strict=True)
        index = np.asarray(chosen)[:, None]
        valid &= index[:, 0] == first
        for row, raw in enumerate(raws):
            image[row, 0] = self._cropped(raw, position[row], 0)
        if views == 2:
            index = np.concatenate([index, self._second(index[:, 0], position, raws, image)[:, None]], axis=1)
        seen = image if self.train else middle(image, self.middle)
        out = {IMAGE: seen, LABEL: self._labels(index), INDEX: index.astype(np.int32)}
        if self.text is not None:
            out[TEXT], out[TEXT_LEN], place = self._texts(index, position)
            if not self.train:
                said = [self.source.captions[r][k] for r, k in zip(index.ravel(), place.ravel(), strict=True)]
                out[SAID] = np.array(said).reshape(index.shape)
        if not self.train:
            out[VALID] = valid.astype(np.float32)
            out[INDEX][~valid] = -1
        return out

    def _good(self, record, position):
        """The record, or the first usable one drawn in its stead, with its picture."""
        for attempt in range(TRIES):
            if attempt:
                record = int(below(draws(self.seed, position[None], RECORD, attempt), len(self.source))[0])
            raw = self._read(record)
            if raw is not None:
                return record, raw
        where = f"{self.source.name}/{self.source.split}"
        raise UserError(f"{where}: {TRIES} records in a row are unusable: check the files")

    def _read(self, record):
        """A record's picture, or None where the record is of no use; bad ones are listed."""
        if self.text is not None and not self.text.count[record]:
            return None
        try:
            return self.source.image(record)
        except BadRecord as error:
            self.bad.add(self.source.split, self.source.keys[record], str(error))
            return None

    def _second(self, first, position, raws, image):
        """Choose and read the partners; fills image[:, 1] and returns their records."""
        chosen = first if self.partners is None else self._partner(first, position, 0)
        chosen = chosen.copy()
        for row in range(self.local):
            raw = raws[row] if chosen[row] == first[row] else self._read(int(chosen[row]))
            for attempt in range(1, TRIES):
                if raw is not None:
                    break
                chosen[row] = self._partner(first[row : row + 1], position[row : row + 1], attempt)[0]
                raw = self._read(int(chosen[row]))
            if raw is None:  # all its partners are bad
                chosen[row], raw = first[row], raws[row]
            image[row, 1] = self._cropped(raw, position[row], 1)
        return chosen

    def _partner(self, first, position, attempt):
        label_bits = draws(self.seed, position, PARTNER_LABEL, attempt)
        return self.partners(first, label_bits, draws(self.seed, position, PARTNER, attempt))

    def _cropped(self, raw, position, view):
        rng = self._generator(position, view, CROP) if self.crop == "resize_crop" and self.train else None
        return crop(raw, self.size, rng, self.train, self.crop)

    def _generator(self, position, view, lane):
        bits = draws(self.seed, np.asarray([position]), lane, view)
        return np.random.Generator(np.random.Philox(key=int(bits[0])))

    def _labels(self, index):
        labels = self.source.labels
        if labels is None:
            return np.full(index.shape, -1, np.int32)
        return labels[index].astype(np.int32 if labels.ndim == 1 else np.float32)

    def _texts(self, index, position):
        """A caption for each view: uniform, but a record that is its own partner says something else then.

        Returns ids [b, v, words], their lengths and which of the record's captions they are [b, v].
        """
        text, count = self.text, self.text.count[index]
        pick = below(draws(self.seed, position, CAPTION), count[:, 0])[:, None]
        if index.shape[1] == 2:
            bits = draws(self.seed, position, PARTNER_CAPTION)
            again = (pick[:, 0] + 1 + below(bits, np.maximum(count[:, 0] - 1, 1))) % count[:, 0]
            other = below(bits, count[:, 1])
            pick = np.stack([pick[:, 0], np.where(index[:, 0] == index[:, 1], again, other)], axis=1)
        caption = text.start[index] + pick
        ids = text.text[caption]
        for row, view in np.argwhere(text.length[caption] == self.words) if text.long else ():
            if caption[row, view] in text.long:
                rng = self._generator(position[row], view, LONG)
                ids[row, view] = shorten(text.long[caption[row, view]], self.words, rng)
        return ids, text.length[caption], text.place[caption]


class Batches:
    """Iterator over batches whose place can be saved: `state()` is a plain dict for JSON, `restore` goes there.

    unknown: words of the captions that the vocabulary lacks, in all (they are left out).
    """

    def __init__(self, iterator, batch, about, unknown):
        self._iterator, self._batch, self._about, self.unknown = iterator, batch, about, unknown

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._iterator)

    def state(self):
        """Place in records of the global order: any number of processes or threads goes on from it unchanged."""
        return {**self._about, "position": self._iterator.get_state()["next_index"] * self._batch}

    def restore(self, state):
        """Go to a saved place. Raises UserError: it belongs to another set, seed or (indivisible) batch size."""
        for key, value in self._about.items():
            if state.get(key) != value:
                raise UserError(
                    f"the saved place in the data has {key}={state.get(key)!r} but this run has {value!r}: "
                    "go on with the data and seed that the run began with"
                )
        if state["position"] % self._batch:
            raise UserError(
                f"the saved place in the data, record {state['position']}, is no multiple of batch={self._batch}: "
                "go on with the batch size that the run began with"
            )
        self._iterator.set_state({"next_index": state["position"] // self._batch})

    def close(self):
        """Stop the threads."""
        self._iterator.close()


def batches(
    source, vocab, *, batch, size, words, partner="none", crop="none", middle=1.0, seed=0, train=True, start=0,
    shard=(0, 1), threads=2, bad=None,
):  # fmt: skip
    """Batches of one split, as fields.py describes them.

    source: a Source. vocab: a Vocab, or None for batches without text, as a source without captions has anyway.
    batch: rows of the global batch. shard: (this process, processes): process p gets rows p*b .. (p+1)*b - 1 with
        b = batch / processes, so the shards one after another are the same global batch for any number of processes.
    size: pixels. words: longest caption. crop: mode of `images.crop`. middle: share that evaluation sees of it then.
    partner: second view of each row. "none"; "same_image": the same record with another of its captions; "same_label":
        another record of the same class, uniformly. Multi-hot: one of the record's labels that others hold too,
        uniformly, then another holder, uniformly. Without any such: as "same_image". Each view has its own crop.
    train: shuffled anew each epoch without end, random crops; else in order, once, centre crops, the last batch filled
        up (see `valid` in fields.py), and the caption drawn by (seed, record).
    seed: of the order and of every draw; draws depend on (seed, place in the global order) alone.
    start: number of the first batch.
    threads: read ahead in so many threads; 0 reads when asked.
    bad: Skipped. Unusable records are replaced by others drawn by (seed, place), in evaluation by rows that do not
        count. Left out: a list of the default limit that goes nowhere.
    Returns Batches, an iterator over dicts of numpy with state(), restore(state) and close().
    Raises UserError: a batch that the processes cannot share, unknown names; too many unusable records, also later on.
    Differs from the loaders of "Improving Text-to-Image Synthesis Using Contrastive Learning": their two captions of an
    image can be the same one.
    """
    if batch < 1 or batch % shard[1]:
        raise UserError(f"batch={batch} cannot be shared by {shard[1]} processes: use a multiple of {shard[1]}")
    if partner not in PARTNERS or crop not in MODES:
        what = f"data.partner={partner!r}" if partner not in PARTNERS else f"data.crop={crop!r}"
        raise UserError(f"{what} is unknown: use one of {', '.join(PARTNERS if partner not in PARTNERS else MODES)}")
    import grain  # a second of imports that a Source alone does not need

    records = len(source)
    digest = hashlib.sha256(f"batches {seed}".encode()).digest()
    bad = Skipped(records=records) if bad is None else bad
    make = _Maker(
        source, vocab, batch=batch, size=size, words=words, partner=partner, crop=crop, middle=middle, train=train,
        shard=shard, bad=bad, seed=int.from_bytes(digest[:8], "little"),
    )  # fmt: skip
    numbers = grain.MapDataset.range(2**40 if train else -(-records // batch))
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    iterator = iter(numbers.map(make).to_iter_dataset(options))
    iterator.set_state({"next_index": start})
    about = {"set": f"{source.name}/{source.split}", "records": records, "seed": seed, "train": train}
    return Batches(iterator, batch, about, make.text.unknown if make.text is not None else 0)
