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
from supcon_jax.build.datasets import Data
from supcon_jax.build.networks import attribute_net, network, prepared
from supcon_jax.config import UserError
from supcon_jax.evals import attributes, generation, matching, protocol
from supcon_jax.ops.arrays import unit
from supcon_jax.report import pictures
from supcon_jax.train.loop import Evaluation


@dataclasses.dataclass(frozen=True, eq=False)
class Context:
    """What evaluations are made from. hashes: sha256 of the frozen towers' files."""

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

    def batches(self, split="test", limit=None):
        return cached_batches(self, split, limit)

    def head(self, name):
        """The head as a compiled function (state, batch, key)."""
        return compiled_head(self, name)

    @property
    def sampling(self) -> dict:
        """What a protocol says of how the stage's generator draws."""
        args = self.config[self.name]["args"]
        return {"ema": bool(args["ema"]), "truncation": args.get("truncate") or None}

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


def generator(context: Context, state):
    """(batch of one branch, key) -> pictures f32[n, h, w, 3] of the averaged generator."""
    head = context.head("generate")
    return lambda batch, key: head(state, {name: batch[name][:, 0] for name in ("text", "text_len")}, key)


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
    """R-precision and retrieval with the stage's own encoders."""
    fakes, kind = "generate" in context.task.heads, "clip" if "clip" in context.hashes else "damsm"
    said = protocol.Protocol(
        network=f"{context.name} encoders" if not fakes else f"frozen {kind} encoders",
        weights=context.hashes.get(kind, "in training") if fakes else "in training", real_origin=context.origin(),
        fake_origin=f"{context.name} from {context.origin()}" if fakes else "", captions="one for each record, by seed",
        resize=f"{context.side} px as trained", **(context.sampling if fakes else {}),
    )  # fmt: skip
    return matching.matching(
        image_code(context, state), text_code(context, state),
        generate=generator(context, state) if fakes else None,
        caption_batches=context.batches() if fakes else None,
        real_batches=context.batches(limit=options["reals"]) if not fakes or options["reals"] else None,
        real_limit=options["reals"] or None, protocol=said, number=options["fakes"], seed=options["seed"],
    )  # fmt: skip


def evaluate_generation(context: Context, state, options) -> dict:
    """FID, KID, IS, precision and recall, label accuracy on every network that the config names."""
    nets = [network(name, context.config["networks"]) for name in options["networks"]]
    said = protocol.Protocol(
        real_origin=context.origin(options["split"]), fake_origin=f"{context.name} from {context.origin()}",
        captions="one for each record, by seed", **context.sampling,
    )  # fmt: skip
    return generation.generation(
        generator(context, state), context.batches(options["split"], options["reals"] or None), context.batches(), nets,
        protocol=said, fakes=options["fakes"], reals=options["reals"] or None, seed=options["seed"],
        bank_batches=context.batches("train", options["bank"]) if options["bank"] else None,
        bank_origin=context.origin("train"), cache=context.config["cache"] or None,
    )  # fmt: skip


def evaluate_attributes(context: Context, state, options) -> dict:
    """Whether pictures show the attributes that their captions name; for data whose latents are known."""
    known = context.data.test.known
    if "generate" in context.task.heads:
        apply, about, sha = attribute_net(options["weights"])
        side = about["config"]["data"]["size"]
        judge = jax.jit(lambda images: apply(prepared(images, side))[1])
        name = "shapes_classifier"
    else:
        head = context.head("attributes")
        judge = lambda images: head(state, {"image": images}, jax.random.key(0))  # noqa: E731
        name, sha = f"{context.name} in training", ""
    said = protocol.Protocol(network=name, weights=sha, fake_origin=f"{context.name} from {context.origin()}")
    made = "generate" in context.task.heads
    said = said.replace(real_origin=context.origin(), captions="one for each record, by seed")
    said = said.replace(**context.sampling) if made else said
    names = options["names"]
    return attributes.attributes(
        lambda images: {k: x for k, x in judge(jnp.asarray(images)).items() if k in names},
        {k: known[k] for k in names},
        generate=generator(context, state) if made else None,
        caption_batches=context.batches() if made else None,
        real_batches=context.batches(limit=options["reals"] or None) if options["reals"] else None,
        protocol=said, number=options["fakes"], seed=options["seed"],
    )  # fmt: skip


EVALS = {
    "matching": (evaluate_matching, {"text"}),
    "generation": (evaluate_generation, {"generate"}),
    "attributes": (evaluate_attributes, set()),
}


def build(context: Context) -> tuple[Evaluation, ...]:
    """The config's evaluations that this stage's heads can serve, each writing its protocols to evals.json.

    Raises UserError: an unknown evaluation.
    """
    out = []
    for name, options in context.config["evals"].items():
        if name not in EVALS:
            raise UserError(f"config.evals.{name} is not known; use one of: {', '.join(EVALS)}")
        function, needs = EVALS[name]
        heads = set(context.task.heads)
        if not needs <= heads or (name == "attributes" and not heads & {"generate", "attributes"}):
            continue
        for wanted in options.get("networks", ()):  # a missing file must show before the training, not after it
            network(wanted, context.config["networks"])
        out.append(Evaluation(name, options["every"], functools.partial(measured, function, context, options)))
    return tuple(out)


def measured(function, context: Context, options, state) -> dict[str, float]:
    """Runs one evaluation and writes each number with its protocol to the stage's evals.json."""
    records = function(context, state, options)
    if not hosts.chief():
        return protocol.numbers(records)
    path = context.folder / "evals.json"
    old = json.loads(path.read_text()) if path.exists() else {}
    step = int(state.step)
    old |= {name: {"step": step, **record} for name, record in records.items()}
    storage.write(path, json.dumps(old, indent=1, sort_keys=True))
    return protocol.numbers(records)


def sampler(context: Context, number: int = 24):
    """state -> a grid of pictures from the same captions and noise every time."""

    def draw(state):
        batch = context.batches()[0]
        images = np.asarray(generator(context, state)(batch, jax.random.key(0)))[:number]
        words = [context.data.vocab.decode(ids) for ids in batch["text"][:number, 0]]
        return pictures.grid(pictures.zoomed(images), columns=8, captions=words)

    return draw

