"""Negatives of SimCLR where many of them are false: eight classes, so that one picture in eight shares its anchor's class.

`knn/knn_z_false_negative_chance` is that rate as it is in the test split, `knn/knn_z_false_negative` the rate among the nearest
projections: the lower, the more the loss has torn classes apart. SupCon is told the labels.
"""

from supcon_jax.study import REPRESENTATION

RATE = 0.125


def get_study():
    return {
        "title": "False negatives: what SimCLR makes of them, against SupCon",
        "config": "configs/image.py:simclr,shapes,quick,by_shape,both",
        "stage": "last",
        "seeds": (0, 1, 2),
        "variants": {
            "all": {},
            **{name: {"last.args.negatives": name} for name in ("decoupled", "eliminated", "attracted")},
            **{name: {"last.args.negatives": name, "last.args.prior": RATE} for name in ("debiased", "hard")},
            "supcon": {"words": "supcon"},
        },
        "reference": "all",
        "metrics": ("knn/knn_?_false_negative*", *REPRESENTATION),
    }
