"""What watches a run: console, metrics.jsonl, TensorBoard, profiler traces; the only door to tensorboardX."""

from __future__ import annotations

import json
import logging
import math
import sys
import time

import jax
import numpy as np
from etils import epath

from supcon_jax import hosts, storage

log = logging.getLogger("supcon_jax")


class Writer:
    """Scalars and pictures of one stage: a line in metrics.jsonl and the same in TensorBoard.

    Lines of steps after `start` are removed at opening: a resumed run writes them again. In a folder every line lies
    there at once; in a store both appear with `send`.
    """

    def __init__(self, folder: epath.Path, start: int):
        from tensorboardX import SummaryWriter

        self.mirror = storage.Mirror(folder)
        path = self.mirror.fetch("metrics.jsonl")
        if path.exists():
            lines = [line for line in path.read_text().splitlines() if kept(line, start)]
            path.write_text("".join(line + "\n" for line in lines))
        self.file = path.open("a")
        self.board = SummaryWriter(str(self.mirror.local / "tensorboard"), purge_step=start + 1 if start else None)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        numbers = {name: float(value) for name, value in values.items()}
        shown = {name: value if math.isfinite(value) else str(value) for name, value in numbers.items()}
        self.file.write(json.dumps({"step": step, **shown}) + "\n")
        self.file.flush()
        for name, value in numbers.items():
            self.board.add_scalar(name, value, step)

    def picture(self, step: int, name: str, image) -> None:
        """image: a PIL picture."""
        self.board.add_image(name, np.asarray(image), step, dataformats="HWC")

    def send(self) -> None:
        """What was written so far lies there when this returns."""
        self.board.flush()
        self.mirror.send()

    def close(self) -> None:
        self.file.close()
        self.board.close()
        self.mirror.close()


class Silent:
    """A writer that writes nothing: that of all processes but one."""

    def scalars(self, step: int, values: dict[str, float]) -> None:
        pass

    def picture(self, step: int, name: str, image) -> None:
        pass

    def send(self) -> None:
        pass

    def close(self) -> None:
        pass


class Trace:
    """A profiler trace of the steps [first, end) below `folder`, where TensorBoard and Perfetto find it.

    steps: (first, end), or () for none. A run that ends within them is traced to its end; one that resumes within them
    not at all. Of several processes the first one is traced.
    """

    def __init__(self, folder: epath.Path, steps):
        self.folder, self.mirror = folder, None
        self.first, self.end = steps if steps and hosts.chief() else (0, 0)

    def before(self, at: int, state) -> None:
        """Starts or ends the trace if that is due before step `at`, as soon as `state` is there."""
        if at not in (self.first, self.end):
            return
        jax.block_until_ready(state)
        if at == self.end:
            self.close()
        else:
            self.mirror = storage.Mirror(self.folder)
            jax.profiler.start_trace(str(self.mirror.local))

    def close(self) -> None:
        if self.mirror is not None:
            jax.profiler.stop_trace()
            self.mirror.close()
            self.mirror = None


def kept(line: str, start: int) -> bool:
    """Whether a line of metrics.jsonl is whole and belongs to a step up to `start`."""
    try:
        return json.loads(line)["step"] <= start
    except (json.JSONDecodeError, KeyError, TypeError):
        return False


class Progress:
    """One console line each log period: step, images/s, time left, losses, share of time waiting for input; and what
    Contrast has to say."""

    def __init__(self, name: str, steps: int, images: int, start: int):
        self.name, self.steps, self.images = name, steps, images
        self.began = self.last = time.monotonic()
        self.at = start
        self.waited = 0.0
        self.contrast = Contrast()

    def rates(self, step: int) -> dict[str, float]:
        """Since the last call: images_per_s and input_wait_share."""
        now = time.monotonic()
        span, steps = max(now - self.last, 1e-9), step - self.at
        out = {"images_per_s": steps * self.images / span, "input_wait_share": self.waited / span}
        self.last, self.at, self.waited = now, step, 0.0
        return out

    def line(self, step: int, values: dict[str, float]) -> None:
        rate = values["images_per_s"]
        left = (self.steps - step) * self.images / rate if rate else math.inf
        losses = " ".join(f"{key} {value:.4g}" for key, value in values.items() if key.endswith("loss") or key.endswith("/scl"))
        text = (
            f"{self.name} {step}/{self.steps} | {rate:.0f} images/s | {clock(left)} left | {losses}"
            f" | input {100 * values['input_wait_share']:.0f} %"
        )
        lines = [text, *(f"{self.name} {step}/{self.steps} | {said}" for said in self.contrast.lines(values))]
        if hosts.chief():
            print(*lines, sep="\n", file=sys.stderr, flush=True)


class Contrast:
    """Says in words whether contrastive losses are normal: how they stand at the first logs, and later on, once for each
    cause, where one is not. Reads the metrics that losses.census gives."""

    FIRST = 3  # logs of a run that are put into words
    PATIENCE = 5  # logs in a row at chance before that is worth a warning
    CLOSE = 0.02  # nats from chance that count as chance

    def __init__(self):
        self.logs, self.flat, self.warned = 0, {}, set()

    def lines(self, values: dict[str, float]) -> list[str]:
        self.logs += 1
        out = []
        for name in (key.removesuffix("/chance_nats") for key in values if key.endswith("/chance_nats")):
            seen = {key.removeprefix(f"{name}/"): value for key, value in values.items() if key.startswith(f"{name}/")}
            if self.logs <= self.FIRST:
                out.append(f"{name}: {state(seen)}")
            at_chance = abs(seen["contrast_nats"] - seen["chance_nats"]) < self.CLOSE
            self.flat[name] = self.flat.get(name, 0) + 1 if at_chance else 0
            fresh = [(name, *one) for one in causes(seen, self.flat[name], self.PATIENCE) if (name, one[0]) not in self.warned]
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
        where = f"at chance (ln {keys:.3g} = {seen['chance_nats']:.3g}) for {flat} logs: nothing is learnt yet"
        out.append(("flat", f"{where}; look at the pairs (do they belong together?), the learning rate, the temperature"))
    return out


def clock(seconds: float) -> str:
    """h:mm:ss, or -:-- when unknown."""
    if not math.isfinite(seconds):
        return "-:--"
    minutes, s = divmod(int(seconds), 60)
    h, m = divmod(minutes, 60)
    return f"{h}:{m:02d}:{s:02d}" if h else f"{m}:{s:02d}"
