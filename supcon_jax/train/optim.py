"""Optimisers and schedules from a config section."""

from __future__ import annotations

import jax
import optax

from supcon_jax.config import UserError

OPTIMISERS = {"adam": optax.adam, "adamw": optax.adamw, "sgd": optax.sgd}


def optimiser(options, *, steps: int, epoch: int) -> optax.GradientTransformation:
    """A gradient transformation from its config section.

    options: name (adam | adamw | sgd), lr, schedule, warmup (steps), clip; b1 and b2, or momentum, or weight_decay.
    schedule: constant | cosine | linear (to zero at the end), or exponential: lr * decay^epoch, not below `floor`.
    clip: {subtree: largest norm} on parts of the parameters, "" for all; none if empty.
    steps: of the stage; epoch: steps in one pass over the records.
    Raises UserError: an unknown name or schedule.
    """
    options = dict(options)
    name, clip = options.pop("name"), dict(options.pop("clip", {}))
    rate = schedule(options, steps, epoch)
    if name not in OPTIMISERS:
        raise UserError(f"optimiser {name!r} is not known; use one of: {', '.join(OPTIMISERS)}")
    clips = [clipped(part, norm) for part, norm in sorted(clip.items())]
    return optax.chain(*clips, OPTIMISERS[name](rate, **options))


def schedule(options: dict, steps: int, epoch: int):
    """Takes its own keys out of the options; returns a function of the step, or the constant rate."""
    lr, kind, warmup = options.pop("lr"), options.pop("schedule", "constant"), options.pop("warmup", 0)
    decay, floor = options.pop("decay", 1.0), options.pop("floor", 0.0)
    kinds = {
        "constant": lambda: optax.constant_schedule(lr),
        "cosine": lambda: optax.cosine_decay_schedule(lr, max(1, steps - warmup)),
        "linear": lambda: optax.linear_schedule(lr, 0.0, max(1, steps - warmup)),
        "exponential": lambda: optax.exponential_decay(lr, max(1, epoch), decay, staircase=True, end_value=floor),
    }
    if kind not in kinds:
        raise UserError(f"schedule {kind!r} is not known; use one of: {', '.join(kinds)}")
    if not warmup:
        return kinds[kind]()
    return optax.join_schedules([optax.linear_schedule(0.0, lr, warmup), kinds[kind]()], [warmup])


def clipped(part: str, norm: float) -> optax.GradientTransformation:
    """Clips the gradient norm of one subtree (the text encoder's recurrence, say) and leaves the rest alone."""
    clip = optax.clip_by_global_norm(norm)
    if not part:
        return clip

    def mask(tree):
        return {name: jax.tree.map(lambda _, own=name == part: own, sub) for name, sub in tree.items()}

    return optax.masked(clip, mask)
