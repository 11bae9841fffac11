"""Weight of the label term in the first stage by that in the second."""

from supcon_jax.study import METRICS

WEIGHTS = (0.0, 0.3, 1.0)


def get_study():
    return {
        "title": "Label term: weight in the first stage (1) by weight in the second (2)",
        "config": "configs/shapes.py:quick",
        "stage": "attngan",
        "seeds": (0, 1, 2),
        "variants": {
            f"{one:g}_{two:g}": {"first.args.scl": one, "last.args.scl": two} for one in WEIGHTS for two in WEIGHTS
        },
        "reference": "0_0",
        "metrics": METRICS,
        "axis": {f"weight {one:g} in the first": {f"{one:g}_{two:g}": two for two in WEIGHTS} for one in WEIGHTS},
        "axis_title": "weight in the second stage",
    }  # fmt: skip
