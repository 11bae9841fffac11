"""Weight of the label term in both stages, from none to ten times the usual: scores, and what the run warns of."""

from supcon_jax.study import METRICS


def get_study():
    return {
        "title": "Weight of the label term",
        "config": "configs/shapes.py:quick",
        "stage": "attngan",
        "seeds": (0, 1, 2),
        "variants": {f"weight_{weight:g}": {"scl": weight} for weight in (0.0, 0.1, 0.3, 1.0, 3.0, 10.0)},
        "reference": "weight_0",
        "metrics": (*METRICS, "log/warnings", "first:log/warnings", "log/gen/fake_pair_distance"),
        "axis": {f"weight_{weight:g}": weight for weight in (0.0, 0.1, 0.3, 1.0, 3.0, 10.0)},
        "axis_title": "weight",
    }  # fmt: skip
