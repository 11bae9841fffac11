"""Temperature of SimCLR against alignment and uniformity of its codes, and against what a classifier makes of its features."""

from supcon_jax.study import REPRESENTATION

TEMPERATURES = (0.05, 0.1, 0.2, 0.5, 1.0)
SPACE = ("spectrum/spectrum_z_alignment", "spectrum/spectrum_z_uniformity", "spectrum/spectrum_h_uniformity")
SCORES = ("knn/knn_h_top1", "linear/linear_h_top1")


def get_study():
    return {
        "title": "Temperature, alignment and uniformity",
        "config": "configs/image.py:simclr,shapes,quick,both",
        "stage": "simclr",
        "seeds": (0, 1, 2),
        "variants": {f"temperature_{t:g}": {"last.args.temperature": t} for t in TEMPERATURES},
        "reference": "temperature_0.2",
        "metrics": REPRESENTATION,
        "axis": {f"temperature_{t:g}": t for t in TEMPERATURES},
        "axis_title": "temperature",
        "against": [(one, two) for one in SPACE for two in SCORES],
    }
