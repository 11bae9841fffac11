"""Optimisers and schedules from a config section."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import optax

from supcon_jax.config import UserError
from supcon_jax.train import lars, parts


def rmsprop(rate, *, momentum=0.9, b2=0.9, eps=1e-3, weight_decay=0.0, mask=None):
    """RMSProp as TensorFlow has it: v from 1 on, eps under the root, the rate within the momentum; decay as part of the
    gradient. v <- b2 v + (1 - b2) g^2,  m <- momentum m + rate g / sqrt(v + eps),  w <- w - m

    Tieleman and Hinton 2012, lecture 6.5.
    """
    scaled = optax.rmsprop(rate, decay=b2, eps=eps, initial_scale=1.0, eps_in_sqrt=True, momentum=momentum)
    return optax.chain(optax.add_decayed_weights(weight_decay, mask), scaled) if weight_decay else scaled


OPTIMISERS = {"adam": optax.adam, "adamw": optax.adamw, "sgd": optax.sgd, "rmsprop": rmsprop}  # of a rate
OWN = {"sgd": lars.sgd, "lars": lars.lars, "lars_outside": functools.partial(lars.lars, inside=False)}  # of parts.Rates
SCHEDULE = ("lr", "schedule", "warmup", "start", "end", "decay", "floor", "milestones")
SCALES = {"": lambda batch: 1.0, "linear": lambda batch: batch / 256, "sqrt": math.sqrt}


def optimiser(options, *, steps: int, epoch: int, batch: int | None = None) -> optax.GradientTransformation:
    """A gradient transformation from its config section.

    options: name (adam | adamw | sgd | rmsprop | lars | lars_outside), lr, schedule, warmup (steps), clip; b1 and b2, or
        momentum, nesterov and weight_decay; for the last two also what train.lars.lars takes; for rmsprop what that takes.
    exclude: rules for what has no weight decay, with LARS no ratio of norms either: "vectors" (biases and scales: LARS's own
        choice) or the name of a subtree, such as ("vectors", "probe").
    schedule: constant | cosine | linear (down to the share `end` of lr, 0 if left out), exponential: lr * decay^epoch, not
        below `floor`, or steps: lr * decay^(milestones passed, in epochs). start: share of lr at which the warm-up begins.
    scale_by_batch: "linear", lr * batch / 256, or "sqrt", lr * sqrt(batch); the rates of parts too.
    parts: {rule: what differs there of lr, schedule, warmup, ..., or freeze: a number of steps without an update}, such as
        {"predictor": {"schedule": "constant", "warmup": 0}, "prototypes": {"freeze": 313}, "vectors": {"lr": 0.0048}}.
    clip: {subtree: largest norm} on parts of the parameters, "" for all; none if empty.
    steps: of the stage; epoch: steps in one pass over the records; batch: rows of a step.
    Raises UserError: an unknown name, schedule or scaling, or options that do not belong to the optimiser.
    """
    options = dict(options)
    name, clip = options.pop("name"), dict(options.pop("clip", {}))
    if name not in {**OPTIMISERS, **OWN}:
        known = ", ".join({**OPTIMISERS, **OWN})
        raise UserError(f"optimiser {name!r} is not known; use one of: {known}")
    some = {rule: dict(part) for rule, part in options.pop("parts", {}).items()}
    freeze = {rule: part.pop("freeze") for rule, part in some.items() if "freeze" in part}
    some = {rule: part for rule, part in some.items() if part}
    factor = scale(options.pop("scale_by_batch", ""), batch)
    shared = {key: options.pop(key) for key in SCHEDULE if key in options}
    rates = parts.Rates(
        schedule(dict(shared), steps, epoch, factor),
        {rule: parts.constant(own_schedule(rule, shared | part, steps, epoch, factor)) for rule, part in some.items()},
    )
    try:
        tx = chosen(name, rates, options)
    except TypeError:
        raise UserError(f"optimiser {name!r} does not take all of: {', '.join(sorted(options))}") from None
    tx = parts.held(tx, freeze) if freeze else tx
    return optax.chain(*(clipped(part, norm) for part, norm in sorted(clip.items())), tx)


def chosen(name: str, rates: parts.Rates, options: dict) -> optax.GradientTransformation:
    """The optimiser of that name."""
    if name in OWN and (name not in OPTIMISERS or options.get("weight_decay") or options.get("exclude")):
        return OWN[name](parts.Rates(parts.constant(rates.base), rates.parts), **options)
    exclude = options.pop("exclude", ())
    if exclude and name in ("adamw", "rmsprop"):
        options["mask"] = lambda tree: parts.chosen(tree, exclude)
    options = {key: value for key, value in options.items() if name != "sgd" or key != "weight_decay"}
    if not rates.parts:
        return OPTIMISERS[name](rates.base, **options)
    return optax.chain(OPTIMISERS[name](1.0, **options), parts.paced(parts.Rates(parts.constant(rates.base), rates.parts)))


def scale(rule: str, batch: int | None) -> float:
    """The factor on every rate. Raises UserError: an unknown rule, or no batch to scale by."""
    if rule not in SCALES:
        raise UserError(f"scale_by_batch {rule!r} is not known; use one of: linear, sqrt, or leave it empty")
    if rule and batch is None:
        raise UserError(f"scale_by_batch={rule!r} needs the batch of the stage")
    return SCALES[rule](batch)


def own_schedule(rule: str, options: dict, steps: int, epoch: int, factor: float):
    """The schedule of one part. Raises UserError: an option that is none of a schedule's."""
    rate = schedule(options, steps, epoch, factor)
    if options:
        raise UserError(f"optimiser's parts.{rule} has {', '.join(sorted(options))}; use {', '.join(SCHEDULE)} or freeze")
    return rate


def schedule(options: dict, steps: int, epoch: int, factor: float = 1.0):
    """Takes its own keys out of the options; returns a function of the step, or the constant rate.

    factor: on lr and floor.
    """
    lr, kind, warmup = factor * options.pop("lr"), options.pop("schedule", "constant"), options.pop("warmup", 0)
    decay, floor = options.pop("decay", 1.0), factor * options.pop("floor", 0.0)
    start, end, milestones = options.pop("start", 0.0), options.pop("end", 0.0), options.pop("milestones", ())
    rest = max(1, steps - warmup)

    def stairs(count):
        return lr * decay ** sum(jnp.asarray(count + warmup >= mark * epoch, jnp.float32) for mark in milestones)

    kinds = {
        "constant": lambda: optax.constant_schedule(lr),
        "cosine": lambda: optax.cosine_decay_schedule(lr, rest, end),
        "linear": lambda: optax.linear_schedule(lr, end * lr, rest),
        "exponential": lambda: optax.exponential_decay(lr, max(1, epoch), decay, staircase=True, end_value=floor),
        "steps": lambda: stairs,
    }
    if kind not in kinds:
        raise UserError(f"schedule {kind!r} is not known; use one of: {', '.join(kinds)}")
    if not warmup:
        return kinds[kind]()
    return optax.join_schedules([optax.linear_schedule(start * lr, lr, warmup), kinds[kind]()], [warmup])


def clipped(part: str, norm: float) -> optax.GradientTransformation:
    """Clips the gradient norm of one subtree (the text encoder's recurrence, say) and leaves the rest alone."""
    clip = optax.clip_by_global_norm(norm)
    if not part:
        return clip

    def mask(tree):
        return {name: jax.tree.map(lambda _, own=name == part: own, sub) for name, sub in tree.items()}

    return optax.masked(clip, mask)
