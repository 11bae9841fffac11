"""The projection head of SimCLR: none, one linear layer, two, three; features (h) and projections (z) are both measured."""

from supcon_jax.study import REPRESENTATION

LAYERS = {"none": 0, "linear": 1, "two": 2, "three": 3}


def get_study():
    return {
        "title": "Layers of the projection head, measured before it (h) and after it (z)",
        "config": "configs/image.py:simclr,shapes,quick,both",
        "stage": "simclr",
        "seeds": (0, 1, 2),
        "variants": {f"head_{name}": {"last.nets.project.layers": count} for name, count in LAYERS.items()},
        "reference": "head_none",
        "metrics": REPRESENTATION,
        "axis": {f"head_{name}": count for name, count in LAYERS.items()},
        "axis_title": "layers of the head",
    }
