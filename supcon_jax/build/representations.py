"""The evaluations of picture representations: of stages whose task has the head "features", on any labelled data set."""

from __future__ import annotations

import functools
import json
import weakref
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from supcon_jax import storage
from supcon_jax.config import UserError
from supcon_jax.data import corrupt
from supcon_jax.evals import clusters, fewshot, knn, linear, robustness, spectrum
from supcon_jax.evals.protocol import Protocol
from supcon_jax.evals.streams import Content, labelled, reals
from supcon_jax.views import recipes

KINDS = ("h", "z")  # the backbone's features and the projection's


class Split(NamedTuple):
    """Features of one split. h: f32[n, f]; z: f32[n, d]; label: [n, ...] or None; content: hash of the pictures."""

    h: np.ndarray
    z: np.ndarray
    label: np.ndarray | None
    content: str


class Cache:
    """Features of the last state that was asked for, so that all evaluations of one step read the same."""

    def __init__(self):
        self.of, self.kept = None, {}

    def __call__(self, state, key, make):
        if self.of is None or self.of() is not state:
            self.of, self.kept = weakref.ref(state), {}
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]


CACHE = Cache()


def data_of(context):
    """The labelled set that features are judged on: the one that the config's data.probe names, else the run's own."""
    return context.data.probe or context.data


def with_labels(reads: str, *splits) -> None:
    """Raises UserError: what `reads` labels is given a split without any."""
    for one in splits:
        if not one.labelled:
            raise UserError(
                f"{reads} reads labels, and the records of {one.name}/{one.split} have none: name a labelled set in "
                "config.data.probe"
            )


def check(context, name, options) -> None:
    """Whether an evaluation can be made, before the training. Raises UserError: it cannot; the line says what to do."""
    where = f"config.evals.{name}"
    kinds = wanted(options)
    if not kinds or set(kinds) - set(KINDS):
        raise UserError(f"{where}.on={kinds}: must be h (the backbone's features), z (the projection's) or both")
    preset = options.get("preset", linear.LBFGS)
    if preset not in (*linear.PRESETS, linear.LBFGS):
        raise UserError(f"{where}.preset={preset!r}: use one of {', '.join((*linear.PRESETS, linear.LBFGS))}")
    baseline(options.get("baseline", ""))
    if unknown := set(options.get("kinds", ())) - set(corrupt.KINDS):
        raise UserError(f"{where}.kinds: {', '.join(sorted(unknown))} not known; use some of {', '.join(corrupt.KINDS)}")
    data = data_of(context)
    labels = [data.train.labels, data.test.labels]
    if name != "spectrum":
        with_labels(where, data.train, data.test)
    if name in SINGLE and any(found.ndim > 1 for found in labels):
        raise UserError(
            f"{where} reads one label of each record, and those of {data.test.name} have several; use knn or linear"
        )


def split_of(context, state, options, split) -> Split:
    """Features of a split, or of its first options["reals"] (test) or options["train_reals"] (train) records, 0 for all."""
    limit = options.get("reals" if split == "test" else "train_reals", 0) or None
    return CACHE(state, (context, split, limit), lambda: extracted(context, state, data_of(context), split, limit))


def extracted(context, state, data, split, limit) -> Split:
    """One pass over a split through the head "features"."""
    head, rows, label, content = context.head("features"), {kind: [] for kind in KINDS}, [], Content()
    for part in reals(data.stream(split, context.config["eval_batch"], context.side, limit), limit):
        content.add(part)
        found = head(state, {"image": part.images}, jax.random.key(0))
        for kind in KINDS:
            rows[kind].append(np.asarray(found[kind], np.float32)[part.keep])
        label.append(part.batch["label"][:, 0][part.keep])
    return Split(*(np.concatenate(rows[kind]) for kind in KINDS), labelled(np.concatenate(label)), str(content))


def told(context, test, train=None):
    """The protocol of features: whose they are, and of which pictures."""
    data = data_of(context)
    said = Protocol(
        network=f"{context.name} features", weights="in training", resize=context.resize,
        real_number=len(test.h), real_origin=f"{data.test.name}/{data.test.split}", real_content=test.content,
    )  # fmt: skip
    if train is None:
        return said
    origin = f"{data.train.name}/{data.train.split}"
    return said.replace(train_number=len(train.h), train_origin=origin, train_content=train.content)


def of(kind, protocol):
    return protocol.replace(network=f"{protocol.network} {kind}")


def wanted(options):
    """Which features an evaluation looks at."""
    kinds = options.get("on", "h")
    return (kinds,) if isinstance(kinds, str) else tuple(kinds)


def chosen(options, *names):
    """Options by name, as arguments; those that the config does not give keep the function's defaults."""
    found = {name: options[name] for name in names if name in options}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}


def judged(context, state, options, name, judge) -> dict:
    """What judge(train rows, label, test rows, label, protocol, name) says of each kind of features."""
    train, test = (split_of(context, state, options, split) for split in ("train", "test"))
    said = told(context, test, train)
    out = {}
    for kind in wanted(options):
        rows, query = (getattr(split, kind) for split in (train, test))
        out |= judge(rows, train.label, query, test.label, protocol=of(kind, said), name=f"{name}_{kind}")
    return out


def classes_of(context):
    return len(data_of(context).test.classes)


def evaluate_knn(context, state, options) -> dict:
    """Classification by neighbours in the training split."""
    more = chosen(options, "k", "temperature") | {"classes": classes_of(context)}
    return judged(
        context, state, options, "knn", lambda x, label, query, truth, **how: knn.knn(query, truth, x, label, **more, **how)
    )


PROBE = ("preset", "standardise", "rates", "sweep", "steps", "seed")


def evaluate_linear(context, state, options) -> dict:
    """A linear classifier on features, after its last epoch."""
    more = chosen(options, *PROBE) | {"classes": classes_of(context)}
    return judged(context, state, options, "linear", functools.partial(linear.linear, **more))


def evaluate_fewshot(context, state, options) -> dict:
    """Ridge classifiers on a few pictures of each class."""
    more = chosen(options, "shots", "draws", "penalty", "seed") | {"classes": classes_of(context)}
    return judged(context, state, options, "fewshot", functools.partial(fewshot.fewshot, **more))


def evaluate_clusters(context, state, options) -> dict:
    """k-means clusters of the test split against its classes."""
    test = split_of(context, state, options, "test")
    said = told(context, test)
    more, out = chosen(options, "seed"), {}
    for kind in wanted(options):
        out |= clusters.clusters(getattr(test, kind), test.label, protocol=of(kind, said), name=f"clusters_{kind}", **more)
    return out


def evaluate_spectrum(context, state, options) -> dict:
    """Collapse, rank and evenness of the test split's features; with options["views"] also what random views tell."""
    test = split_of(context, state, options, "test")
    said = told(context, test)
    views, recipe = viewed(context, state, options) if options.get("views", 0) else ({}, "")
    out = {}
    for kind in wanted(options):
        own = of(kind, said).replace(seed=options.get("seed", 0), subsets=recipe)
        out |= spectrum.spectrum(getattr(test, kind), views.get(kind), protocol=own, name=f"spectrum_{kind}")
    return out


def viewed(context, state, options):
    """({kind: features [n, v, f]} of options["views"] random views, two at least, of the test split's pictures, drawn by the
    stage's own recipe; the recipe in words)."""
    args, data = context.config[context.name]["args"], data_of(context)
    how = {"recipe": args["recipe"], "size": args["size"], "norm": "none", "change": dict(args.get("change") or {}),
           "small": args.get("small", 0)}  # fmt: skip
    draw = jax.jit(lambda images, key: recipes.crops(images, key, **how)[0])
    head, key, limit = context.head("features"), jax.random.key(options.get("seed", 0)), options.get("reals", 0) or None
    rows, number = {kind: [] for kind in KINDS}, max(2, options["views"])
    for at, part in enumerate(reals(data.stream("test", context.config["eval_batch"], context.side, limit), limit)):
        each = {kind: [] for kind in KINDS}
        for turn in range(-(-number // 2)):  # a recipe draws two views at once
            pair = draw(part.images, jax.random.fold_in(jax.random.fold_in(key, at), turn))
            for view in range(2):
                found = head(state, {"image": pair[:, view]}, key)
                for kind in KINDS:
                    each[kind].append(np.asarray(found[kind], np.float32)[part.keep])
        for kind in KINDS:
            rows[kind].append(np.stack(each[kind][:number], 1))
    return {kind: np.concatenate(found) for kind, found in rows.items()}, f"views of the recipe {args['recipe']}"


def evaluate_robustness(context, state, options) -> dict:
    """Corruptions and attacks on the test split's first pictures, against a linear classifier fitted to clean features."""
    train, kind = split_of(context, state, options, "train"), wanted(options)[0]
    data, limit, content = data_of(context), options.get("reals", 0) or None, Content()
    images, label = [], []
    for part in reals(data.stream("test", context.config["eval_batch"], context.side, limit), limit):
        content.add(part)
        keep = part.keep & (part.batch["label"][:, 0] >= 0)
        images.append(part.images[keep])
        label.append(part.batch["label"][:, 0][keep])
    images, label = np.concatenate(images), np.concatenate(label)
    probe = linear.fit(getattr(train, kind), train.label, classes=classes_of(context), **chosen(options, *PROBE))
    said = told(context, Split(images, images, label, str(content)), train)
    said = of(kind, said).replace(settings=probe.said, seed=options.get("seed", 0))
    call = {"protocol": said, "batch": context.config["eval_batch"]}
    out, logits = {}, classifier(context, state, probe, kind)
    if options.get("kinds"):
        more = chosen(options, "kinds", "severities") | {"baseline": baseline(options.get("baseline", ""))}
        out |= robustness.corruption(logits, corrupted(options), images, label, name="corruption", **more, **call)
    if options.get("eps"):
        reads_floats(logits, images[: context.config["eval_batch"]])
        more = chosen(options, "eps", "restarts", "seed") | {"steps": options.get("pgd_steps", 20)}
        out |= robustness.adversarial(logits, images, label, name="adversarial", **more, **call)
    return out


def classifier(context, state, probe, kind):
    """Pictures, u8 or f32 in [0, 1], [n, h, w, 3] -> logits [n, c], through the head "features" and the fitted classifier;
    all that is not code travels as an argument, so that no program holds a network's weights."""
    everywhere = NamedSharding(context.mesh, PartitionSpec())
    logits = jax.jit(functools.partial(named, context.task.heads["features"], kind, everywhere))
    return jax.tree_util.Partial(logits, state, context.frozen, probe)


def named(head, kind, sharding, state, frozen, probe, images):
    found = probe(head(state, frozen, {"image": images}, jax.random.key(0))[kind])
    return jax.lax.with_sharding_constraint(found, sharding)


def reads_floats(logits, images) -> None:
    """Raises UserError: the head reads floats in another way than bytes, so that attacks would be on another network."""
    one, two = (np.asarray(logits(x)) for x in (images, np.float32(images) / np.float32(255)))
    if not np.allclose(one, two, rtol=1e-3, atol=1e-3 * float(np.abs(one).max())):
        raise UserError('the head "features" must read f32 pictures in [0, 1] as it reads the bytes they are of')


def baseline(path):
    """Mean error of each kind of corruption in percent, from a JSON file, or None for no path. Raises UserError."""
    if not path:
        return None
    place = storage.place(path)
    if not place.exists():
        raise UserError(f"config.evals.robustness.baseline={path}: no such file; give JSON {{kind: error in percent}}, or none")
    return json.loads(place.read_text())


def corrupted(options):
    return functools.partial(corrupt.corrupted, seed=options.get("seed", 0))


SINGLE = ("fewshot", "clusters", "robustness")  # need one label of each record
EVALS = {
    "knn": evaluate_knn, "linear": evaluate_linear, "fewshot": evaluate_fewshot, "clusters": evaluate_clusters,
    "spectrum": evaluate_spectrum, "robustness": evaluate_robustness,
}  # fmt: skip
