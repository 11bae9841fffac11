"""Batch of SimCLR, BYOL and SwAV, and queue of MoCo v2 at a batch of 64.

All see as many pictures, so that large batches have few steps, at one learning rate.
"""

from supcon_jax.study import REPRESENTATION

SEEN = 38_400  # pictures, with repeats
BATCHES, QUEUES, METHODS = (32, 64, 128, 256), (64, 256, 1024, 4096), ("simclr", "byol", "swav")


def batch(count):
    return {"last.batch": count, "last.steps": SEEN // count}


def alone(method):
    """SwAV without a queue, which must be a multiple of the batch."""
    return {"last.args.queue": 0} if method == "swav" else {}


def get_study():
    return {
        "title": "Batch and queue",
        "config": "configs/image.py:simclr,shapes,quick,both",
        "stage": "last",
        "seeds": (0, 1, 2),
        "variants": {
            **{f"{method}_{n}": {"words": method, **batch(n), **alone(method)} for method in METHODS for n in BATCHES},
            **{f"queue_{n}": {"words": "moco_v2", **batch(64), "last.args.queue": n} for n in QUEUES},
        },
        "reference": "simclr_64",
        "metrics": REPRESENTATION,
        "axis": {
            **{f"{method}, batch": {f"{method}_{n}": n for n in BATCHES} for method in METHODS},
            "moco_v2, queue": {f"queue_{n}": n for n in QUEUES},
        },
        "axis_title": "pictures of a batch, or of the queue",
    }  # fmt: skip
