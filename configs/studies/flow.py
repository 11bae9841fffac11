"""Another kind of generator, flow matching, behind encoders that were pretrained with the label term and without it.

Beside it AttnGAN, which has the term in its own stage too; as many seconds of training on two CPU cores.
"""

from supcon_jax.study import METRICS


def get_study():
    return {
        "title": "Flow matching and AttnGAN, with the label term and without",
        "config": "configs/shapes.py:quick",
        "stage": "last",
        "seeds": (0, 1, 2),
        "variants": {
            "flow": {"words": "flow"},
            "flow_without": {"words": "flow", "first.args.scl": 0.0},
            "gan": {},
            "gan_without": {"scl": 0.0},
        },
        "reference": "flow_without",
        "metrics": METRICS,
    }
