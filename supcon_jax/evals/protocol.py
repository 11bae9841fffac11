"""What a score means: everything that, changed, would change the number, written beside the number."""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Network:
    """A feature network, handed in ready to use.

    name: part of its metrics' names: fid_pt, is_imagenet, kid_effnet_lite0.
    sha256: of its weights. size: side of the square it sees, pixels. resize: rule that makes a picture that size.
    features: u8[n, h, w, 3] -> (features [n, d], logits [n, c] or None); resizes by itself.
    scores: what may be measured with it, of "fid", "kid", "prdc", "labels" (by neighbours), "is", "classes" (label
    accuracy of its own head) and "diversity".
    maps: u8[n, h, w, 3] -> layers [n, h_l, w_l, c_l], for diversity; None: it has none to look at.
    classes: names of the classes of its logits, where "classes" is measured.
    """

    name: str
    sha256: str
    size: int
    resize: str
    features: Callable[[np.ndarray], tuple[Any, Any]]
    scores: tuple[str, ...] = ("fid", "kid", "prdc", "labels", "is", "diversity")
    maps: Callable[[np.ndarray], tuple[Any, ...]] | None = None
    classes: tuple[str, ...] = ()

    def metric(self, name):
        """Name of a metric measured with this network: fid -> fid_effnet_lite0."""
        return f"{name}_{self.name}"


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How one number was measured. Equal protocols may be compared; `str` is one line that differs if any field does.

    metric: its name. network, weights: name and sha256 of the feature network or encoder. resize: from picture to
    its input. real_number, real_origin, fake_number, fake_origin: how many and whence; real_content, fake_content:
    hash of those pictures (see streams.Content). captions: which captions and how chosen. truncation: of the noise,
    None for none. splits: of the Inception score or folds. subsets: of KID, or candidates of R-precision, or pairs of
    diversity. neighbours: k. train_number, train_origin, train_content: pictures that a probe was fitted to or that
    neighbours were looked for among. settings: how a probe was fitted, in words. seed: of noise and drawing. ema: whether
    the averaged weights were used. truncation and ema are "unknown" of pictures that come from elsewhere.
    """

    metric: str = ""
    network: str = ""
    weights: str = ""
    resize: str = ""
    real_number: int = 0
    real_origin: str = ""
    real_content: str = ""
    fake_number: int = 0
    fake_origin: str = ""
    fake_content: str = ""
    captions: str = ""
    truncation: float | str | None = None
    splits: str = ""
    subsets: str = ""
    neighbours: int = 0
    train_number: int = 0
    train_origin: str = ""
    train_content: str = ""
    settings: str = ""
    seed: int = 0
    ema: bool | str = False

    def __str__(self):
        return " ".join(f"{k}={json.dumps(v, ensure_ascii=False)}" for k, v in self.dict().items())

    def dict(self):
        """Fields by name, JSON-ready."""
        return dataclasses.asdict(self)

    def replace(self, **changes):
        """The same protocol with some fields changed."""
        return dataclasses.replace(self, **changes)


def record(values, protocol):
    """Put the protocol beside each number, as the evaluation's JSON holds it.

    values: metric name -> number; protocol: its `metric` is set to each name.
    Returns {name: {"value": float, "protocol": dict, "line": str}}.
    Raises ValueError: a value is not finite (JSON has no NaN, and "best so far" must never meet one).
    """
    out = {}
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"{name}: the value is {value}")
        own = protocol.replace(metric=name)
        out[name] = {"value": float(value), "protocol": own.dict(), "line": str(own)}
    return out


def numbers(records: Mapping[str, Mapping]) -> dict[str, float]:
    """Only the numbers of a `record`, for the metric writers."""
    return {name: entry["value"] for name, entry in records.items()}
