"""Your own pictures: a folder with captions.jsonl, one {"image", "captions", "labels"} a line; labels may be missing.

    python -m supcon_jax.main --config=configs/folder.py --workdir=runs/mine --config.data.root=DIR

Default: AttnGAN at 64 px, DAMSM from scratch; sized for one GPU. Records without labels contrast with the other captions
of their own picture. Words after the colon: small (two CPU cores, 32 px), tiny (tests), multi (several labels each, Jaccard
weights), plain (one branch, no label term), damsm, attngan.
effnet, resnet, minilm, clip: pretrained encoders in stage 1, after the words that set sizes; see supcon_jax.config.pretrained.
"""

from supcon_jax.config import TRUNKS, base, choose, pretrained, stage, update


def get_config(word=""):
    c = base()
    follow = c.get_oneway_ref  # a value that a stage shares until it is given its own
    update(c, {"data": {"name": "folder", "size": 64, "words": 18, "args": {"captions": "captions.jsonl"}}})
    c.batch = 32
    c.stages = ("damsm", "attngan")
    c.every.update({"log": 50, "save": 1000, "sample": 1000})
    damsm = stage(
        c,
        method="damsm",
        batch=48,
        steps=4000,
        args={
            "branches": 2, "scl": follow("scl"), "term": follow("term"),
            "temperature": 0.5, "label_mode": "single", "inter": 1.0, "inner": 1.0,
            "gammas": (4.0, 5.0, 10.0), "class_mask": True, "group": 48, "flip": c.views.get_oneway_ref("flip"), "slices": 1,
        },
        nets={
            "image": {
                "net": "inception", "dim": 256, "width": 0.5, "size": c.data.get_oneway_ref("size"), "align_corners": False,
                "small": True, "repeats": (3, 4, 2), "frozen": False,
            },
            "text": {"net": "rnn", "embed": 300, "width": 256, "rnn": "lstm", "dropout": 0.5},
        },
        optim={
            "model": {"name": "adam", "lr": 1e-3, "b1": 0.9, "b2": 0.999, "schedule": "cosine", "clip": {"text": 0.25}},
        },
        frozen=dict(TRUNKS),
    )  # fmt: skip
    adam = {"name": "adam", "lr": 2e-4, "b1": 0.5, "b2": 0.999, "schedule": "constant"}
    attngan = stage(
        c,
        method="attngan",
        steps=20_000,
        args={
            "branches": 2, "scl": follow("scl") * 0.2, "term": follow("term"),
            "temperature": 0.5, "label_mode": "single", "inter": 1.0, "inner": 1.0,
            "damsm_weight": 5.0, "gammas": (4.0, 5.0, 10.0), "class_mask": True, "group": 48, "kl_weight": 1.0,
            "z": 100, "cond_noise": 1.0, "text_norm": False, "share_noise": False, "shared": True, "ema": 0.999,
            "flip": c.views.get_oneway_ref("flip"),
        },
        nets={
            "gen": {"net": "attngan_g", "width": 32, "sizes": (16, 32, 64), "residual": 2, "cond": 100, "mask": "correct"},
            "disc": {"net": "attngan_d", "width": 64},
        },
        optim={"disc": dict(adam), "gen": dict(adam)},
        frozen={"damsm": "stage:damsm"},
    )  # fmt: skip
    update(c, {"damsm": damsm, "attngan": attngan})
    c.evals = {
        "matching": {"every": 0, "fakes": 512, "reals": 512, "seed": 0},
        "geometry": {"every": 0, "reals": 2000, "seed": 0},
        "generation": {
            "every": 0, "fakes": 512, "reals": 0, "bank": 0, "diversity": 16, "split": "test", "seed": 0,
            "networks": (),  # ("effnet_lite0",) once it is fetched
        },
    }
    return choose(c, word, {**PRESETS, **pretrained(c, size=64)})


SMALL = {
    "batch": 32,
    "data": {"size": 32},
    "every": {"log": 50, "save": 500, "sample": 500},
    "damsm": {
        "batch": 32, "steps": 600,
        "nets": {"image": {"dim": 64, "width": 0.125, "repeats": (1, 1, 1)}, "text": {"embed": 64, "width": 64}},
    },
    "attngan": {
        "steps": 1500,
        "args": {"z": 32, "ema": 0.99},
        "nets": {"gen": {"width": 16, "sizes": (8, 16, 32), "residual": 1, "cond": 32}, "disc": {"width": 8}},
        "optim": {"disc": {"lr": 5e-4}, "gen": {"lr": 5e-4}},
    },
}  # fmt: skip

PRESETS = {
    "plain": {
        "scl": 0.0, "data": {"partner": "none"}, "damsm": {"args": {"branches": 1}}, "attngan": {"args": {"branches": 1}},
    },
    "multi": {
        "damsm": {"args": {"label_mode": "jaccard", "class_mask": False}},
        "attngan": {"args": {"label_mode": "jaccard", "class_mask": False}},
    },
    "small": SMALL,
    "tiny": {
        "batch": 8,
        "eval_batch": 16,
        "data": {"size": 32, "bad_limit": 0.2},
        "every": {"log": 1, "save": 2, "sample": 2},
        "damsm": {
            "batch": 8, "steps": 2,
            "nets": {
                "image": {"dim": 16, "width": 0.0625, "repeats": (1, 1, 1)},
                "text": {"embed": 16, "width": 16},
            },
        },
        "attngan": {
            "steps": 2,
            "args": {"z": 8},
            "nets": {"gen": {"width": 4, "sizes": (8, 16, 32), "residual": 1, "cond": 8}, "disc": {"width": 2}},
        },
        "=evals": {"matching": {"every": 0, "fakes": 16, "reals": 16, "seed": 0}},
    },
}  # fmt: skip
