"""Label term on against off on the coloured shapes: five paired seeds, equal branches, steps, initial weights and noise."""

METRICS = (
    "generation/fid_shapes_classifier", "generation/kid_shapes_classifier", "generation/label_accuracy_shapes_classifier",
    "matching/r_precision", "matching/r_within",
    "attributes/attribute_shape", "attributes/attribute_colour", "attributes/attribute_all",
)  # fmt: skip


def get_study():
    return {
        "title": "Label term on against off: coloured shapes",
        "config": "configs/shapes.py",
        "stage": "attngan",
        "seeds": (0, 1, 2, 3, 4),
        "variants": {"scl": {}, "no_scl": {"scl": 0.0}},
        "reference": "no_scl",
        "metrics": METRICS,
        "prompts": [
            "a small red circle at the top left", "a large blue square at the bottom right",
            "a large green triangle in the middle centre", "a small yellow cross at the top right",
            "a large purple ring at the bottom left", "a small white diamond at the middle right",
        ],
    }  # fmt: skip
