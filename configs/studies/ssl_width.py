"""Width and depth of the encoder: SimCLR against the same encoder trained with labels, from drawn weights, as long."""

from supcon_jax.study import FEATURES

WIDTHS, DEPTHS = (8, 16, 32), (2, 4)
WAYS = {"simclr": {}, "supervised": {"words": "supervised"}}


def get_study():
    return {
        "title": "Width and depth of the encoder, without labels and with them",
        "config": "configs/image.py:simclr,shapes,quick,both",
        "stage": "last",
        "seeds": (0, 1, 2),
        "variants": {
            **{f"{way}_width_{w}": {**how, "last.nets.image.width": w} for way, how in WAYS.items() for w in WIDTHS},
            **{f"{way}_depth_{d}": {**how, "last.nets.image.depth": d} for way, how in WAYS.items() for d in DEPTHS},
        },
        "reference": "supervised_width_16",
        "metrics": FEATURES,
        "axis": {way: {f"{way}_width_{w}": w for w in WIDTHS} for way in WAYS},
        "axis_title": "channels of the first layer",
    }
