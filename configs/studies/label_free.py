"""Labels that nobody has to give: clusters of captions, alike captions, none at all.

Who shares a label also decides who is the second branch's partner and whom the matching loss does not push apart.
"""

from supcon_jax.study import METRICS


def get_study():
    return {
        "title": "Labels from captions against the set's labels and none",
        "config": "configs/shapes.py:quick",
        "stage": "attngan",
        "seeds": (0, 1, 2),
        "variants": {
            "labels": {},
            "clusters_64": {"data.labels_from": "clusters"},
            "clusters_16": {"data.labels_from": "clusters", "data.clusters": 16},
            "alike_captions": {"data.labels_from": "captions", "data.similar": 0.8},
            "own_captions": {"data.label_missing": 1.0},
            "no_term": {"scl": 0.0},
        },
        "reference": "labels",
        "metrics": METRICS,
    }  # fmt: skip
