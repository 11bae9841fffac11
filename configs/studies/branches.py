"""Branches that share all parameters, against branches with a generator and discriminators of their own, and one branch alone.

Branches of their own are connected by the label term alone; pictures are then drawn by the first one. One branch has the label
term over its own batch.
"""

from supcon_jax.study import METRICS


def get_study():
    return {
        "title": "Branches: shared, of their own, one",
        "config": "configs/shapes.py:quick",
        "stage": "attngan",
        "seeds": (0, 1, 2),
        "variants": {
            "shared": {},
            "own": {"last.args.shared": False},
            "one": {"last.args.branches": 1},
        },
        "reference": "shared",
        "metrics": METRICS,
    }  # fmt: skip
