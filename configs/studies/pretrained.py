"""Pretrained networks in the place of the encoders: EfficientNet-Lite0 for pictures, MiniLM for captions, both; on the emoji.

Both must have been fetched. The label term is also left out where the encoders are pretrained, and where they are not.
"""

METRICS = (
    "matching/r_precision", "matching/r_within", "generation/label_accuracy_*", "generation/fid_*", "generation/kid_*",
    "first:matching/real_r_precision", "first:matching/real_r_within", "first:matching/real_t2i_r1", "first:seconds", "seconds",
)  # fmt: skip


def get_study():
    return {
        "title": "Pretrained encoders: emoji",
        "config": "configs/emoji.py:small,quick",
        "stage": "attngan",
        "seeds": (0, 1, 2),
        "variants": {
            "own": {},
            "own_without": {"scl": 0.0},
            "effnet": {"words": "effnet"},
            "minilm": {"words": "minilm"},
            "both": {"words": "effnet,minilm"},
            "both_without": {"words": "effnet,minilm", "scl": 0.0},
        },
        "reference": "own",
        "metrics": METRICS,
    }  # fmt: skip
