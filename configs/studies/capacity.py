"""Width of the image encoder, with and without the label term."""

from supcon_jax.study import METRICS

WIDTHS = (0.03125, 0.0625, 0.125)


def get_study():
    return {
        "title": "Capacity of the image encoder",
        "config": "configs/shapes.py:quick",
        "stage": "attngan",
        "seeds": (0, 1, 2),
        "variants": {
            **{f"width_{w:g}": {"first.nets.image.width": w} for w in WIDTHS},
            **{f"width_{w:g}_without": {"first.nets.image.width": w, "scl": 0.0} for w in WIDTHS},
        },
        "reference": f"width_{WIDTHS[1]:g}_without",
        "metrics": METRICS,
        "axis": {
            "with the label term": {f"width_{w:g}": w for w in WIDTHS},
            "without": {f"width_{w:g}_without": w for w in WIDTHS},
        },
        "axis_title": "width, of the published Inception's channels",
    }  # fmt: skip
