"""Wrong labels for SupCon: all positives, one or four of them at most, the mean inside the logarithm; cross entropy; no labels.

The labels that features are measured with are right.
"""

from supcon_jax.study import FEATURES

SHARES = (0.0, 0.1, 0.25, 0.5)
WAYS = {
    "supcon": {},
    "one_positive": {"last.args.positives": 1},
    "four_positives": {"last.args.positives": 4},
    "inside": {"last.args.inside": True},
    "supervised": {"words": "supervised"},
}


def name(way, share):
    return f"{way}_{100 * share:.0f}"


def get_study():
    return {
        "title": "Wrong labels: how many positives, and where their mean is taken",
        "config": "configs/image.py:supcon,shapes,quick,both",
        "stage": "last",
        "seeds": (0, 1, 2),
        "variants": {
            "simclr": {"words": "simclr"},
            **{name(way, share): {**how, "data.label_noise": share} for way, how in WAYS.items() for share in SHARES},
        },
        "reference": "simclr",
        "metrics": FEATURES,
        "axis": {way: {name(way, share): 100 * share for share in SHARES} for way in WAYS},
        "axis_title": "labels that are wrong, %",
    }
