"""The label term against what is compared with it on the coloured shapes: three paired seeds, both stages.

Each comparator is two values away at most: the term, and NT-Xent's partner, another caption of the same picture.
"""

METRICS = (
    "generation/fid_shapes_classifier", "generation/kid_shapes_classifier", "generation/label_accuracy_shapes_classifier",
    "matching/r_precision", "matching/r_within",
    "attributes/attribute_shape", "attributes/attribute_colour", "attributes/attribute_all",
)  # fmt: skip


def get_study():
    return {
        "title": "Label terms: coloured shapes",
        "config": "configs/shapes.py:quick",
        "stage": "attngan",
        "seeds": (0, 1, 2),
        "variants": {
            "supcon": {},
            "no_scl": {"scl": 0.0},
            "ntxent": {"term": "ntxent", "data.partner": "same_image"},
            "unicl": {"term": "unicl"},
            "label_head": {"term": "label_head"},
            "xmc": {"term": "xmc"},
        },
        "reference": "supcon",
        "metrics": METRICS,
    }
