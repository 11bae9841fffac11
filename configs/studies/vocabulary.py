"""How fine the labels are: shape, shape and colour, or both in their cell.

Scores that read labels (label accuracy, R-precision by the class of the others) are not told: each kind has its own.
"""

METRICS = (
    "attributes/attribute_colour", "attributes/attribute_shape", "attributes/attribute_row", "attributes/attribute_all",
    "generation/fid_*", "generation/kid_*", "first:matching/real_t2i_r1", "first:seconds", "seconds",
)  # fmt: skip


def get_study():
    return {
        "title": "Size of the label vocabulary",
        "config": "configs/shapes.py:quick",
        "stage": "attngan",
        "seeds": (0, 1, 2),
        "variants": {
            "none": {"scl": 0.0},
            "shapes_8": {"data.args.labels": "shape"},
            "pairs_64": {},
            "placed_576": {"data.args.labels": "placed"},
        },
        "reference": "none",
        "metrics": METRICS,
        "axis": {"shapes_8": 8, "pairs_64": 64, "placed_576": 576},
        "axis_title": "classes",
    }  # fmt: skip
