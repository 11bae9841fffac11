"""What goes wrong in a run, in words, from the numbers that it logs: one console line for each event.

All bounds stand here. Healthy runs that are quoted are those of the shapes and emoji presets, at each of their logs.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections.abc import Callable

FIRST = 3  # logs of a run for which a contrastive loss is put into words
PATIENCE = 5  # logs in a row that a sign has to hold: healthy runs touch a bound once or twice, mostly at their start
AT_CHANCE = 0.98  # of ln(keys), and all above it, where random codes stand at a high scale; healthy below from the second log
ALIKE = 0.1  # diversity of the fakes beside the reals: healthy 0.15 (DF-GAN at step 10), later 0.38 to 2.2
CLOSE = 0.1  # spread of codes, a mean cosine of 0.99: healthy 0.16 (texts at step 10) and more, later 0.8 to 0.97
CLASS = 0.5  # distance of a pair beside any two: healthy 0.56 and more; 0.17 to 0.46 in a GAN with ten times the label term
FLAT = 0.1  # std of codes beside that of rows spread out, as CLOSE; healthy 0.98 and more (SimCLR, SimSiam)
FEW = 2.0  # directions that codes vary in: healthy 6.8 and more (SimCLR), 2.7 (SimSiam), 1.7 to 1.9 without its stop
WON = 0.02  # discriminator's loss as a share of that without an opinion: healthy 0.24 and more
BLIND = 0.01  # distance of that share from 1, where all logits are 0: healthy ones come near, even above, but do not stay
SATURATED = 50.0  # percent of values at either end, beyond those of the reals (white backgrounds): healthy up to 36
STILL = 1e-7  # gradient norm: healthy 1 and more; at 1e-8 an entry is as small as Adam's epsilon, which then hides it


@dataclasses.dataclass(frozen=True)
class Sign:
    """What shows a fault: `shows` of one metric's value and the metrics beside it. says: what it means; cure: what helps.

    metric: pattern of its name.
    """

    metric: str
    shows: Callable[[float, dict[str, float]], bool]
    says: str
    cure: str


SIGNS = (
    Sign(
        "*/diversity", lambda x, near: x < ALIKE, "the fakes of a batch are alike next to the reals (mode collapse)",
        "lower the generator's learning rate or raise the discriminator's, use a larger batch or a smaller damsm_weight or scl",
    ),
    Sign(
        "*/saturated_percent", lambda x, near: x > near.get("real_saturated_percent", 0.0) + SATURATED,
        "the fakes are black and white at the ends of their range, where hardly a gradient comes through",
        "lower the generator's learning rate",
    ),
    Sign(
        "*/blindness", lambda x, near: x < WON, "the discriminator has won: it is sure of every pair and teaches little more",
        "lower its learning rate, or give it fewer channels or the generator more",
    ),
    Sign(
        "*/blindness", lambda x, near: abs(x - 1) < BLIND, "the discriminator is blind: it tells no pair from another",
        "raise its learning rate or lower the generator's; look whether the pictures reach it",
    ),
    Sign(
        "*_spread", lambda x, near: x < CLOSE, "codes of different rows are nearly one (collapse)",
        "lower the learning rate, raise the temperature, or look whether the pairs differ",
    ),
    Sign(
        "*/std", lambda x, near: x < FLAT, "codes of all pictures are nearly one (collapse)",
        "look whether the teacher's side is cut off from the gradient and the predictor and its BatchNorm are there, lower the"
        " learning rate, use stronger views or a larger weight of the variance or decorrelation term",
    ),
    Sign(
        "*/participation", lambda x, near: x < FEW and near.get("std", 1.0) >= FLAT,
        "codes vary in hardly two directions (dimensional collapse; right only of two or three classes)",
        "lower the learning rate, use stronger views, more prototypes or negatives, or a larger weight of the covariance term",
    ),
    Sign(
        "*_pair_distance", lambda x, near: x < CLASS,
        "codes of one label are nearly one, whatever their captions say (class collapse)",
        "lower scl, or raise the temperature or the weight of the matching term",
    ),
    Sign(
        "*/grad_norm*", lambda x, near: x < STILL, "no gradient arrives: this part stands still",
        "look whether its loss is at its bound, or its input saturated or cut off",
    ),
)  # fmt: skip


class Signs:
    """Says once for each event, a sign that holds for PATIENCE logs in a row, what it means and what usually helps. A sign
    that went away may come again."""

    def __init__(self):
        self.held: dict[tuple[str, str], int] = {}

    def lines(self, values: dict[str, float]) -> list[str]:
        out = []
        for name, value in values.items():
            place = name.rpartition("/")[0]
            for sign in SIGNS:
                if not fnmatch.fnmatchcase(name, sign.metric):
                    continue
                near = {key.rpartition("/")[2]: x for key, x in values.items() if key.rpartition("/")[0] == place}
                key = name, sign.says
                self.held[key] = self.held.get(key, 0) + 1 if sign.shows(value, near) else 0
                if self.held[key] == PATIENCE:
                    out.append(f"warning: {name} {value:.3g} for {PATIENCE} logs: {sign.says}; {sign.cure}")
        return out


class Contrast:
    """Says in words whether contrastive losses are normal: how they stand at the first logs, and later on, once for each
    cause, where one is not. Reads the metrics that losses.census gives."""

    def __init__(self):
        self.logs, self.flat, self.warned = 0, {}, set()

    def lines(self, values: dict[str, float]) -> list[str]:
        self.logs += 1
        out = []
        for name in (key.removesuffix("/chance_nats") for key in values if key.endswith("/chance_nats")):
            seen = {key.removeprefix(f"{name}/"): value for key, value in values.items() if key.startswith(f"{name}/")}
            if self.logs <= FIRST:
                out.append(f"{name}: {state(seen)}")
            at_chance = seen["contrast_nats"] > AT_CHANCE * seen["chance_nats"]
            self.flat[name] = self.flat.get(name, 0) + 1 if at_chance else 0
            fresh = [(name, *one) for one in causes(seen, self.flat[name], PATIENCE) if (name, one[0]) not in self.warned]
            self.warned |= {one[:2] for one in fresh}
            out += [f"warning: {name}: {text}" for _, _, text in fresh]
        return out


def state(seen: dict[str, float]) -> str:
    """How a contrastive loss stands, in words."""
    text = (
        f"contrast {seen['contrast_nats']:.3g} of ln {math.exp(seen['chance_nats']):.3g} = {seen['chance_nats']:.3g} (chance),"
        f" {seen['positives_per_anchor']:.2g} positives per anchor, top-1 {seen['top1_percent']:.0f} %"
    )
    if "false_negative_percent" in seen:
        text += f", {seen['false_negative_percent']:.2g} % of negatives share the anchor's label"
    return text


def causes(seen: dict[str, float], flat: int, patience: int) -> list[tuple[str, str]]:
    """What is wrong with a contrastive loss that has been at chance for `flat` logs: (cause, in words)."""
    cure = "such rows need a second view, a caption of their own, or another row of their label in the batch"
    keys, lonely = math.exp(seen["chance_nats"]), seen["no_positive_percent"]
    if lonely >= 100:
        return [("none", f"no anchor has a positive, so that nothing is taught: {cure}")]
    out = [("some", f"{lonely:.2g} % of anchors have no positive and teach nothing: {cure}")] if lonely > 0 else []
    if keys < 1.5:
        out.append(("single", "anchors have one key, their own: the loss is 0 whatever the codes; use a larger batch"))
    elif seen["positives_per_anchor"] > keys - 0.5:
        out.append(("alike", "every key is a positive: nothing is told apart; the batch needs rows of other labels"))
    elif flat >= patience:
        where = f"at chance or worse (ln {keys:.3g} = {seen['chance_nats']:.3g}) for {flat} logs: nothing is learnt yet"
        out.append(("flat", f"{where}; look at the pairs (do they belong together?), the learning rate, the temperature"))
    return out
