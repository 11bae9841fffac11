"""Another kind of generator, flow matching, behind a text encoder that was pretrained with the label term and without it."""

from supcon_jax.study import METRICS


def get_study():
    return {
        "title": "Flow matching behind encoders with and without the label term",
        "config": "configs/shapes.py:quick,flow",
        "stage": "flow",
        "seeds": (0, 1, 2),
        "variants": {"scl": {}, "no_scl": {"first.args.scl": 0.0}},
        "reference": "no_scl",
        "metrics": METRICS,
    }
