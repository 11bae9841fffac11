"""Several labels of a picture: which rows attract, and how much, on the emoji with their tags, which must have been fetched."""

RULES = ("all", "any", "jaccard", "idf", "mulsupcon")


def get_study():
    return {
        "title": "Rules of several labels: emoji",
        "config": "configs/emoji.py:multi,small,quick",
        "stage": "attngan",
        "seeds": (0, 1, 2),
        "variants": {
            "no_term": {"scl": 0.0},
            **{rule: {"first.args.label_mode": rule, "last.args.label_mode": rule} for rule in RULES},
        },
        "reference": "no_term",
        "metrics": (
            "matching/r_precision", "generation/label_map_*", "generation/fid_*", "generation/kid_*",
            "first:matching/real_r_precision", "first:matching/real_t2i_r10", "seconds",
        ),
    }  # fmt: skip
