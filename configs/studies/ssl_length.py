"""Length of training: SimCLR against the same encoder trained with labels, from drawn weights."""

from supcon_jax.study import FEATURES

STEPS = (150, 300, 600, 1200)
WAYS = {"simclr": {}, "supervised": {"words": "supervised"}}


def get_study():
    return {
        "title": "Length of training, without labels and with them",
        "config": "configs/image.py:simclr,shapes,quick,both",
        "stage": "last",
        "seeds": (0, 1, 2),
        "variants": {f"{way}_{n}": {**how, "last.steps": n} for way, how in WAYS.items() for n in STEPS},
        "reference": "supervised_300",
        "metrics": FEATURES,
        "axis": {way: {f"{way}_{n}": n for n in STEPS} for way in WAYS},
        "axis_title": "steps",
    }
