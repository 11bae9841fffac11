"""Label term on against off on the emoji: three paired seeds, equal branches, steps, initial weights and noise.

Pictures of 32 px are scored at the network's 96 px, against all training pictures, whose features are cached.
"""

METRICS = (
    "generation/fid_effnet_lite0", "generation/kid_effnet_lite0", "generation/label_accuracy_effnet_lite0",
    "matching/r_precision", "matching/r_within",
)  # fmt: skip


def get_study():
    return {
        "title": "Label term on against off: emoji",
        "config": "configs/emoji.py:small",
        "stage": "attngan",
        "seeds": (0, 1, 2),
        "variants": {"scl": {}, "no_scl": {"scl": 0.0}},
        "reference": "no_scl",
        "metrics": METRICS,
        "prompts": [
            "a yellow face", "red heart", "a green tree", "blue circle", "a flag with red and white", "a brown dog",
        ],
    }  # fmt: skip
