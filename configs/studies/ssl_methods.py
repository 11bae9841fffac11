"""Every method on one budget of pictures, beside an encoder as it was drawn and one that was taught the labels.

The drawn one takes all steps of SimCLR at a rate of 1e-12, so that BatchNorm has its averages and nothing else is learned.
Rates, temperatures and momenta are those of the small preset, which were not tuned for each method.
"""

from supcon_jax.study import REPRESENTATION

METHODS = ("simclr", "fnc", "supcon", "moco_v1", "moco_v2", "moco_v3", "byol", "simsiam", "swav", "pcl", "cpc", "cmc", "pirl",
           "barlow", "vicreg", "supervised")  # fmt: skip


def get_study():
    return {
        "title": "All methods on one budget",
        "config": "configs/image.py:simclr,shapes,quick,both",
        "stage": "last",
        "seeds": (0, 1, 2),
        "variants": {"untrained": {"last.optim.model.lr": 1e-12}, **{method: {"words": method} for method in METHODS}},
        "reference": "untrained",
        "metrics": REPRESENTATION,
    }
