"""Augmentations alone and in pairs, on coloured shapes whose class is the shape: unless it is changed, colour is a short cut.

Both views are drawn from what a variant names and from nothing else; without any they are the same picture. Chen et al. 2020
(arXiv 2002.05709, figure 5) change one view of two and crop both of them first.
"""

from supcon_jax.study import REPRESENTATION

KINDS = {
    "crop": {"scale": (0.3, 1.0), "ratio": (0.75, 1.3333)},
    "flip": {"flip": 0.5},
    "colour": {"jitter": (0.4, 0.4, 0.4, 0.5), "jitter_p": 0.8},
    "gray": {"gray": 0.5},
    "blur": {"blur": 0.5},
    "rotation": {"rotate": 30.0},
}
NOTHING = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "flip": 0.0, "jitter_p": 0.0, "gray": 0.0, "blur": 0.0, "rotate": 0.0}
PAIRS = [(one, two) for i, one in enumerate(KINDS) for two in list(KINDS)[i:]]


def name(one, two):
    return one if one == two else f"{one}_{two}"


def change(*kinds):
    """STAGE.args.change: what every view is drawn with."""
    fields = dict(NOTHING)
    for kind in kinds:
        fields |= KINDS[kind]
    return {"last.args.change": tuple(fields.items())}


def get_study():
    return {
        "title": "Augmentations: each alone (on the diagonal) and in pairs",
        "config": "configs/image.py:simclr,shapes,quick,by_shape,both",
        "stage": "simclr",
        "seeds": (0, 1, 2),
        "variants": {"nothing": change(), **{name(one, two): change(one, two) for one, two in PAIRS}},
        "reference": "nothing",
        "metrics": REPRESENTATION,
        "grid": {name(one, two): (one, two) for one, two in PAIRS},
    }
