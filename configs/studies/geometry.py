"""What the space of the pretrained encoders looks like, against what the GAN trained on it scores.

The variants are different ways to pretrain; the second stage is the same in all of them.
"""

from supcon_jax.study import METRICS

SPACE = ("both_within", "both_between", "both_separation", "both_nmi", "both_alignment", "both_uniformity", "both_rank")
SCORES = ("matching/r_precision", "attributes/attribute_colour")


def get_study():
    return {
        "title": "Geometry after the first stage against final scores",
        "config": "configs/shapes.py:quick",
        "stage": "attngan",
        "seeds": (0, 1, 2),
        "variants": {
            "first_supcon": {"last.args.scl": 0.0},
            "no_term": {"scl": 0.0},
            "first_weight_3": {"first.args.scl": 3.0, "last.args.scl": 0.0},
            "first_inner": {"first.args.inter": 0.0, "last.args.scl": 0.0},
            "first_temperature_1": {"first.args.temperature": 1.0, "last.args.scl": 0.0},
            "first_unicl": {"first.args.term": "unicl", "last.args.scl": 0.0},
        },
        "reference": "no_term",
        "metrics": ("first:geometry/*", *METRICS),
        "against": [(f"first:geometry/{one}", two) for one in SPACE for two in SCORES],
    }  # fmt: skip
