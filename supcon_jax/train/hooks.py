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
from supcon_jax.train import alarms

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
    the alarms have to say."""

    def __init__(self, name: str, steps: int, images: int, start: int):
        self.name, self.steps, self.images = name, steps, images
        self.began = self.last = time.monotonic()
        self.at = start
        self.waited = 0.0
        self.alarms = alarms.Contrast(), alarms.Signs()

    def rates(self, step: int) -> dict[str, float]:
        """Since the last call: images_per_s and input_wait_share."""
        now = time.monotonic()
        span, steps = max(now - self.last, 1e-9), step - self.at
        out = {"images_per_s": steps * self.images / span, "input_wait_share": self.waited / span}
        self.last, self.at, self.waited = now, step, 0.0
        return out

    def line(self, step: int, values: dict[str, float]) -> int:
        """Prints it. Returns how many warnings it had."""
        rate = values["images_per_s"]
        left = (self.steps - step) * self.images / rate if rate else math.inf
        losses = " ".join(f"{key} {value:.4g}" for key, value in values.items() if key.endswith("loss") or key.endswith("/scl"))
        text = (
            f"{self.name} {step}/{self.steps} | {rate:.0f} images/s | {clock(left)} left | {losses}"
            f" | input {100 * values['input_wait_share']:.0f} %"
        )
        said = [line for alarm in self.alarms for line in alarm.lines(values)]
        lines = [text, *(f"{self.name} {step}/{self.steps} | {line}" for line in said)]
        if hosts.chief():
            print(*lines, sep="\n", file=sys.stderr, flush=True)
        return sum(line.startswith("warning") for line in said)


def clock(seconds: float) -> str:
    """h:mm:ss, or -:-- when unknown."""
    if not math.isfinite(seconds):
        return "-:--"
    minutes, s = divmod(int(seconds), 60)
    h, m = divmod(minutes, 60)
    return f"{h}:{m:02d}:{s:02d}" if h else f"{m}:{s:02d}"
