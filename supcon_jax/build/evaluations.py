"""The evaluations of a stage, by the names in its config: which heads, data and networks each one gets."""

from __future__ import annotations

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import NamedSharding, PartitionSpec

from supcon_jax import core, hosts, storage
from supcon_jax.build import representations
from supcon_jax.build.datasets import Data
from supcon_jax.build.encoders import encoders
from supcon_jax.build.networks import attribute_net, network, prepared
from supcon_jax.config import UserError
from supcon_jax.evals import attributes, generation, geometry, matching, protocol, streams
from supcon_jax.ops.arrays import unit
from supcon_jax.report import pictures
from supcon_jax.train.loop import Evaluation

LEAST = 8  # pixels on a side, as of config.data.size
DRAWS = 10  # pictures of each caption that diversity looks at


@dataclasses.dataclass(frozen=True, eq=False)
class Context:
    """What evaluations are made from. hashes: sha256 of the frozen towers' files.

    The pictures that are scored are drawn by the stage's generator; build.fakes has them from a folder instead.
    """

    config: dict
    name: str
    folder: epath.Path
    task: core.Task
    frozen: dict
    hashes: dict
    data: Data
    mesh: jax.sharding.Mesh

    @property
    def side(self) -> int:
        return self.config[self.name]["size"]

    @property
    def seen(self) -> int:
        """Pixels on a side that evaluations see: the middle of a record's picture, see data.images.middle."""
        return round(self.side * self.config["data"]["middle"])

    @property
    def resize(self) -> str:
        """From a record's picture to what the stage's networks are handed, in words; their heads resize that by themselves."""
        return f"{self.side} px as trained" if self.seen == self.side else f"middle {self.seen} of {self.side} px"

    def batches(self, split="test", limit=None):
        return cached_batches(self, split, limit)

    def head(self, name):
        """The head as a compiled function (state, batch, key)."""
        return compiled_head(self, name)

    @property
    def makes(self) -> bool:
        """Whether there are pictures to score."""
        return "generate" in self.task.heads

    def generate(self, state):
        """(batch of one branch, key) -> pictures f32[n, h, w, 3] of the averaged generator."""
        head = self.head("generate")
        return lambda batch, key: head(state, {name: batch[name][:, 0] for name in ("text", "text_len")}, key)

    def captions(self):
        """Batches of the captions that pictures are made from."""
        return self.batches()

    def varied(self, captions: int):
        """(batches, number of pictures) in which captions come more than once, or None: the first of the test split."""
        if not captions:
            return None
        leading = streams.leading(self.captions(), captions)
        return leading, DRAWS * int(sum(streams.valid_rows(batch).sum() for batch in leading))

    @property
    def made(self) -> dict:
        """What a protocol says of the pictures that are scored."""
        if not self.makes:
            return {"captions": "one for each record, by seed"}
        args = self.config[self.name]["args"]
        return {
            "fake_origin": f"{self.name} from {self.origin()}", "captions": "one for each record, by seed",
            "ema": bool(args["ema"]), "truncation": args.get("truncate") or None,
        }  # fmt: skip

    def origin(self, split="test") -> str:
        data = self.config["data"]
        twin = ", pairs shuffled" if data["shuffle_pairs"] and split == "train" else ""
        return f"{data['name']}/{data[split]}{twin}"


@functools.lru_cache(maxsize=8)
def cached_batches(context: Context, split: str, limit):
    return context.data.evaluation(split, context.config["eval_batch"], context.side, limit)


@functools.lru_cache(maxsize=16)
def compiled_head(context: Context, name: str):
    head = context.task.heads[name]
    everywhere = NamedSharding(context.mesh, PartitionSpec())  # every process reads all of it
    run = jax.jit(lambda state, frozen, batch, key: head(state, frozen, batch, key), out_shardings=everywhere)
    return lambda state, batch, key: run(state, context.frozen, batch, key)


def image_code(context: Context, state):
    """u8[n, h, w, 3] -> unit codes [n, d]."""
    head = context.head("image")
    return lambda images: np.asarray(unit(head(state, {"image": images}, jax.random.key(0))[1]))


def text_code(context: Context, state):
    """batch of one branch -> unit codes [n, d]."""
    head = context.head("text")
    return lambda batch: np.asarray(
        unit(head(state, {name: batch[name][:, 0] for name in ("text", "text_len")}, jax.random.key(0))[1])
    )


def evaluate_matching(context: Context, state, options) -> dict:
    """R-precision and retrieval with the stage's own encoders; of pictures that are made, by the config's CLIP too."""
    made, kind = context.makes, "clip" if "clip" in context.hashes else "damsm"
    data = dict(
        generate=context.generate(state) if made else None,
        caption_batches=context.captions() if made else None,
        real_batches=context.batches(limit=options["reals"]) if not made or options["reals"] else None,
        real_limit=options["reals"] or None, number=options["fakes"], seed=options["seed"],
    )  # fmt: skip
    said, out = protocol.Protocol(real_origin=context.origin(), **context.made), {}
    if {"image", "text"} <= set(context.task.heads):
        own = said.replace(
            network=f"frozen {kind} encoders" if made else f"{context.name} encoders",
            weights=context.hashes.get(kind, "in training"), resize=context.resize,
        )  # fmt: skip
        out |= matching.matching(image_code(context, state), text_code(context, state), protocol=own, **data)
    judge = encoders(context.config["networks"]) if made else None
    if judge:
        own = said.replace(network="clip", weights=judge.sha256, resize=f"-> {judge.side} {judge.resize}")
        out |= matching.matching(judge.image, judge.text, protocol=own, name="clip", score="clip_score", **data)
    return out


def evaluate_generation(context: Context, state, options) -> dict:
    """FID, KID, IS, precision and recall, label accuracy, diversity on every network that the config names."""
    nets = [network(name, context.config["networks"]) for name in options["networks"]]
    said = protocol.Protocol(real_origin=context.origin(options["split"]), **context.made)
    return generation.generation(
        context.generate(state), context.batches(options["split"], options["reals"] or None), context.captions(), nets,
        protocol=said, fakes=options["fakes"], reals=options["reals"] or None, seed=options["seed"],
        bank_batches=context.batches("train", options["bank"]) if options["bank"] else None,
        bank_origin=context.origin("train"), classes=context.data.train.classes,
        varied=context.varied(options.get("diversity", 0)), cache=context.config["cache"] or None,
    )  # fmt: skip


def evaluate_attributes(context: Context, state, options) -> dict:
    """Whether pictures show the attributes that their captions name; for data whose latents are known."""
    known = context.data.test.known
    if context.makes:
        apply, about, sha = attribute_net(options["weights"])
        side = about["config"]["data"]["size"]
        judge = jax.jit(lambda images: apply(prepared(images, side))[1])
        name = "shapes_classifier"
    else:
        head = context.head("attributes")
        judge = lambda images: head(state, {"image": images}, jax.random.key(0))  # noqa: E731
        name, sha = f"{context.name} in training", ""
    said = protocol.Protocol(network=name, weights=sha, real_origin=context.origin(), **context.made)
    names = options["names"]
    return attributes.attributes(
        lambda images: {k: x for k, x in judge(jnp.asarray(images)).items() if k in names},
        {k: known[k] for k in names},
        generate=context.generate(state) if context.makes else None,
        caption_batches=context.captions() if context.makes else None,
        real_batches=context.batches(limit=options["reals"] or None) if options["reals"] else None,
        protocol=said, number=options["fakes"], seed=options["seed"],
    )  # fmt: skip


def evaluate_labels(context: Context, state, options) -> dict:
    """Accuracy of a classifier of the set's own classes, or of an online probe, on real pictures of the test split, percent."""
    online = "classes" in context.task.heads
    data = context.data.probe if online and context.data.probe else context.data
    head, limit = context.head("classes" if online else "attributes"), options["reals"] or None
    answer = (lambda found: found) if online else (lambda found: found["label"])
    logits, truth, _, content = attributes.answers(
        lambda images: {"label": answer(head(state, {"image": images}, jax.random.key(0)))}, {"label": data.test.labels},
        streams.reals(data.stream("test", context.config["eval_batch"], context.side, limit), limit),
    )  # fmt: skip
    said = protocol.Protocol(
        network=f"{context.name} in training", resize=context.resize, real_number=len(truth["label"]),
        real_origin=context.origin() if data is context.data else f"{data.test.name}/{data.test.split}", real_content=content,
        subsets=f"{data.classes} classes",
    )  # fmt: skip
    return protocol.record({"label_accuracy": attributes.accuracies(logits, truth)["label"]}, said)


def evaluate_geometry(context: Context, state, options) -> dict:
    """How the codes of the stage's own encoders lie, of pictures and captions of the test split."""
    said = protocol.Protocol(
        network=f"{context.name} encoders", weights="in training", resize=context.resize,
        real_origin=context.origin(), captions="one for each record, by seed",
    )  # fmt: skip
    limit = options["reals"] or None
    return geometry.geometry(
        image_code(context, state), text_code(context, state), batches=context.batches(limit=limit), limit=limit,
        protocol=said, seed=options["seed"],
    )  # fmt: skip


EVALS = {  # name -> how, and whether a stage with these heads gets it
    "matching": (evaluate_matching, lambda heads: "text" in heads),
    "geometry": (evaluate_geometry, lambda heads: {"image", "text"} <= heads and "generate" not in heads),
    "generation": (evaluate_generation, lambda heads: "generate" in heads),
    "attributes": (evaluate_attributes, lambda heads: bool(heads & {"generate", "attributes"})),
    "labels": (evaluate_labels, lambda heads: bool(heads & {"attributes", "classes"})),
    **{name: (how, lambda heads: "features" in heads) for name, how in representations.EVALS.items()},
}


def build(context: Context) -> tuple[Evaluation, ...]:
    """The config's evaluations that this stage's heads can serve, each writing its protocols to evals.json.

    Raises UserError: an unknown evaluation, or one that cannot be made of the data.
    """
    check_middle(context)
    out = []
    for name, options in context.config["evals"].items():
        if name not in EVALS:
            raise UserError(f"config.evals.{name} is not known; use one of: {', '.join(EVALS)}")
        function, serves = EVALS[name]
        if not serves(set(context.task.heads)):
            continue
        for wanted in options.get("networks", ()):  # a missing file must show before the training, not after it
            network(wanted, context.config["networks"])
        if name in representations.EVALS:
            representations.check(context, name, options)
        if name == "labels":
            representations.with_labels("config.evals.labels", representations.data_of(context).test)
        if name == "matching" and context.makes:
            encoders(context.config["networks"])
        out.append(Evaluation(name, options["every"], functools.partial(measured, function, context, options)))
    return tuple(out)


def check_middle(context: Context) -> None:
    """Raises UserError: config.data.middle leaves too little, or cuts real pictures beside whole ones that are made."""
    share, seen = context.config["data"]["middle"], context.seen
    if context.makes and share != 1:
        raise UserError(
            f"config.data.middle={share}: {context.name} makes whole pictures, to be scored beside whole ones: use 1"
        )
    if seen < LEAST:
        raise UserError(f"config.data.middle={share} leaves {seen} of {context.side} pixels: use a share that leaves {LEAST}")


def measured(function, context: Context, options, state) -> dict[str, float]:
    """Runs one evaluation and writes each number with its protocol to the stage's evals.json."""
    records = function(context, state, options)
    stored(context.folder / "evals.json", records, step=int(state.step))
    return protocol.numbers(records)


def stored(path: epath.Path, records: dict, **more) -> None:
    """Adds numbers with their protocols, and what else is to be told of each, to a file; the first process does."""
    if not hosts.chief():
        return
    old = json.loads(path.read_text()) if path.exists() else {}
    old |= {name: {**more, **record} for name, record in records.items()}
    storage.write(path, json.dumps(old, indent=1, sort_keys=True))


def sampler(context: Context, number: int = 24):
    """state -> a grid of pictures from the same captions and noise every time."""

    def draw(state):
        batch = context.batches()[0]
        images = np.asarray(context.generate(state)(batch, jax.random.key(0)))[:number]
        vocab = context.data.vocab
        words = None if vocab is None else [vocab.decode(ids) for ids in batch["text"][:number, 0]]
        return pictures.grid(pictures.zoomed(images), columns=8, captions=words)

    return draw
