"""Few labels: an encoder from drawn weights, one that SimCLR pretrained on all pictures, fine-tuned, and the same held fixed.

The last stage alone is told 1 %, 10 % or all of the labels, some of each class, and sees no other pictures.
"""

SHARES = (0.01, 0.1, 1.0)
WAYS = {"scratch": "supervised", "finetune": "simclr,finetune", "linear": "simclr,linear"}


def name(way, share):
    return f"{way}_{100 * share:.0f}"


def told(share):
    return {"last.data.label_share": share}


def get_study():
    return {
        "title": "Few labels: from drawn weights, or after pretraining without labels",
        "config": "configs/image.py:simclr,shapes,quick,both",
        "stage": "last",
        "seeds": (0, 1, 2),
        "variants": {name(way, s): {"words": words, **told(s)} for way, words in WAYS.items() for s in SHARES},
        "reference": "scratch_10",
        "metrics": ("labels/label_accuracy", "knn/knn_h_top1", "first:seconds", "seconds"),
        "axis": {way: {name(way, share): 100 * share for share in SHARES} for way in WAYS},
        "axis_title": "labels that are told, %",
    }
