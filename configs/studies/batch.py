"""Batch of the first stage, and with it the positives of an anchor; equal steps, so that more pictures are seen too.

The second stage stays as it is. Each batch is also run without the label term: what the term adds is the difference of the two
curves.
"""

from supcon_jax.study import METRICS


def get_study():
    return {
        "title": "Batch of the first stage",
        "config": "configs/shapes.py:quick",
        "stage": "attngan",
        "seeds": (0, 1, 2),
        "variants": {
            **{f"batch_{n}": {"first.batch": n} for n in (16, 32, 64)},
            **{f"batch_{n}_without": {"first.batch": n, "scl": 0.0} for n in (16, 32, 64)},
        },
        "reference": "batch_16_without",
        "metrics": METRICS,
        "axis": {
            "with the label term": {f"batch_{n}": n for n in (16, 32, 64)},
            "without": {f"batch_{n}_without": n for n in (16, 32, 64)},
        },
        "axis_title": "batch",
    }  # fmt: skip
