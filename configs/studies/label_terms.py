"""Which part of the label term helps: between pictures and texts (inter), within each of them (inner), or both."""

from supcon_jax.study import METRICS


def get_study():
    return {
        "title": "Label term: between and within modalities",
        "config": "configs/shapes.py:quick",
        "stage": "attngan",
        "seeds": (0, 1, 2, 3, 4),
        "variants": {
            "both": {},
            "inter": {"first.args.inner": 0.0, "last.args.inner": 0.0},
            "inner": {"first.args.inter": 0.0, "last.args.inter": 0.0},
            "none": {"scl": 0.0},
        },
        "reference": "none",
        "metrics": METRICS,
    }  # fmt: skip
