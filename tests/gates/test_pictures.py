"""Every method of pictures alone learns what is in them and its broken twin does not: the commands that users type.

A linear classifier on the encoder's features names 1,000 held-back digits, or held-back emoji by their group. A twin is the
same run with two settings changed: its pairs are of any two pictures, or what keeps codes from collapsing is taken away.
The drawn encoder has taken its steps at a rate of nothing, so that BatchNorm has its averages.
"""

import functools
import json
import subprocess
import sys

import pytest

PAIRS = {"data.partner": "same_label", "data.label_noise": 1.0}  # any two pictures
SMALL = {"last.optim.model.lr": 3e-3, "last.optim.model.warmup": 20, "last.nets.image.width": 16}
NOTHING = {"last.optim.model.lr": 1e-12, "last.steps": 100}
QUEUE = {"last.args.queue": 512}
# steps, settings, what breaks it; bounds: at least, the twin's at most, above the drawn encoder: percent right
CONTRAST, ALONE = (69.0, 67.0, 15), (66.0, 66.5, 12)
METHODS = {
    "simclr": (300, {}, PAIRS, CONTRAST),
    "supcon": (300, {}, PAIRS, CONTRAST),
    "moco_v1": (300, QUEUE, PAIRS, CONTRAST),
    "moco_v2": (300, QUEUE, PAIRS, CONTRAST),
    "moco_v3": (300, {}, PAIRS, CONTRAST),
    "pcl": (300, QUEUE, PAIRS, CONTRAST),
    "byol": (900, {"last.args.momentum": 0.95}, PAIRS, ALONE),
    "simsiam": (900, {}, {"last.args.stop": False}, ALONE),
    "swav": (900, {"last.args.prototypes": 32}, PAIRS, ALONE),
    "barlow": (900, {}, PAIRS, ALONE),
    "vicreg": (900, {}, {"last.args.variance": 0.0}, ALONE),
}
SLOW = ("simclr", "moco_v2", "byol", "swav")  # the others take as long, by hand
