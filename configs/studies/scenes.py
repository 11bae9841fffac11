"""Scenes of two, three and four objects, labelled by the 64 pairs of shape and colour, with and without the label term."""

METRICS = (
    "matching/r_precision", "matching/real_r_precision", "generation/label_map_*", "generation/fid_*",
    "first:matching/real_r_precision", "first:seconds", "seconds",
)  # fmt: skip


def get_study():
    return {
        "title": "Several objects in a picture",
        "config": "configs/shapes.py:quick,scenes",
        "stage": "attngan",
        "seeds": (0, 1, 2),
        "variants": {
            **{f"objects_{n}": {"data.args.objects": n} for n in (2, 3, 4)},
            **{f"objects_{n}_without": {"data.args.objects": n, "scl": 0.0} for n in (2, 3, 4)},
        },
        "reference": "objects_2_without",
        "metrics": METRICS,
        "axis": {
            "with the label term": {f"objects_{n}": n for n in (2, 3, 4)},
            "without": {f"objects_{n}_without": n for n in (2, 3, 4)},
        },
        "axis_title": "objects",
    }  # fmt: skip
