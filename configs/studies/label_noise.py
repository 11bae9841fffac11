"""Share of training labels that are wrong, against no label term."""

from supcon_jax.study import METRICS


def get_study():
    return {
        "title": "Wrong labels",
        "config": "configs/shapes.py:quick",
        "stage": "attngan",
        "seeds": (0, 1, 2),
        "variants": {
            "no_term": {"scl": 0.0},
            **{f"wrong_{100 * share:.0f}": {"data.label_noise": share} for share in (0.0, 0.1, 0.2, 0.35, 0.5)},
        },
        "reference": "no_term",
        "metrics": METRICS,
        "axis": {f"wrong_{100 * share:.0f}": 100 * share for share in (0.0, 0.1, 0.2, 0.35, 0.5)},
        "axis_title": "labels that are wrong, %",
    }  # fmt: skip
