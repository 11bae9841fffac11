"""In which stage the label term helps: while the encoders are pretrained, while the GAN is trained, in both or in neither."""

from supcon_jax.study import METRICS


def get_study():
    return {
        "title": "Label term: first stage, second stage, both, neither",
        "config": "configs/shapes.py:quick",
        "stage": "attngan",
        "seeds": (0, 1, 2, 3, 4),
        "variants": {
            "both": {},
            "first": {"last.args.scl": 0.0},
            "second": {"first.args.scl": 0.0},
            "neither": {"scl": 0.0},
        },
        "reference": "neither",
        "metrics": METRICS,
    }  # fmt: skip
