"""What watches a run: console, metrics.jsonl and TensorBoard; the only door to tensorboardX."""

from __future__ import annotations

import json
import logging
import math
import pathlib
import sys
import time

import numpy as np

from supcon_jax import hosts

log = logging.getLogger("supcon_jax")


class Writer:
    """Scalars and pictures of one stage: a line in metrics.jsonl and the same in TensorBoard.

    Lines of steps after `start` are removed at opening: a resumed run writes them again.
    """

    def __init__(self, folder: pathlib.Path, start: int):
        from tensorboardX import SummaryWriter

        self.path = folder / "metrics.jsonl"
        if self.path.exists():
            lines = [line for line in self.path.read_text().splitlines() if kept(line, start)]
            self.path.write_text("".join(line + "\n" for line in lines))
        self.file = self.path.open("a")
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1 if start else None)

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

    def close(self) -> None:
        self.file.close()
        self.board.close()


class Silent:
    """A writer that writes nothing: that of all processes but one."""

    def scalars(self, step: int, values: dict[str, float]) -> None:
        pass

    def picture(self, step: int, name: str, image) -> None:
        pass

    def close(self) -> None:
        pass


def kept(line: str, start: int) -> bool:
    """Whether a line of metrics.jsonl is whole and belongs to a step up to `start`."""
    try:
        return json.loads(line)["step"] <= start
    except (json.JSONDecodeError, KeyError, TypeError):
        return False


class Progress:
    """One console line each log period: step, images/s, time left, losses, share of time waiting for input."""

    def __init__(self, name: str, steps: int, images: int, start: int):
        self.name, self.steps, self.images = name, steps, images
        self.began = self.last = time.monotonic()
        self.at = start
        self.waited = 0.0

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
        if hosts.chief():
            print(text, file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """h:mm:ss, or -:-- when unknown."""
    if not math.isfinite(seconds):
        return "-:--"
    minutes, s = divmod(int(seconds), 60)
    h, m = divmod(minutes, 60)
    return f"{h}:{m:02d}:{s:02d}" if h else f"{m}:{s:02d}"
