"""Temperature of the label term, the same in both stages."""

from supcon_jax.study import METRICS


def get_study():
    return {
        "title": "Label term: temperature",
        "config": "configs/shapes.py:quick",
        "stage": "attngan",
        "seeds": (0, 1, 2),
        "variants": {f"t_{t:g}": {"first.args.temperature": t, "last.args.temperature": t} for t in (0.05, 0.1, 0.2, 0.5, 1.0)},
        "reference": "t_0.1",
        "metrics": METRICS,
        "axis": {f"t_{t:g}": t for t in (0.05, 0.1, 0.2, 0.5, 1.0)},
        "axis_title": "temperature",
    }  # fmt: skip
