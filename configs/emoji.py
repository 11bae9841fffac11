"""Emoji: real 64 px pictures with names and tags as captions and the subgroup as label, for machines without archives.

    python -m supcon_jax.data.fetch emoji && python -m supcon_jax.data.fetch effnet_lite0
    python -m supcon_jax.main --config=configs/emoji.py --workdir=runs/emoji

Default: the full-size AttnGAN at 64 px, DAMSM from scratch; sized for one GPU. Words after the colon: small (two CPU
cores, 32 px, for comparisons), small,quick (16 px, a minute, for studies), tiny (tests), multi (group, subgroup and tags as
labels, Jaccard weights), plain (one branch, no label term), dmgan, dfgan, ssagan (that GAN, sized as AttnGAN, after the damsm
stage, which is skipped where it is finished), damsm, attngan. After the words that set sizes: effnet (pictures read by a fixed
EfficientNet-Lite0), resnet (by a ResNet-50: give torchvision's file, --config.damsm.frozen.trunk=FILE), minilm (captions read
by a fixed MiniLM, which `python -m supcon_jax.data.fetch minilm` brings), clip (both by a fixed CLIP: give
--config.damsm.frozen.trunk=FILE and --config.damsm.frozen.text_trunk=FILE).
"""

from supcon_jax.config import TRUNKS, base, choose, pretrained, stage, update


def get_config(word=""):
    c = base()
    follow = c.get_oneway_ref  # a value that a stage shares until it is given its own
    update(c, {"data": {"name": "emoji", "size": 64, "words": 12, "crop": "resize"}})
    c.data.args = {"labels": "single", "uses": 10, "test": 10, "skin_tones": False}
    c.views.flip = False  # captions say left and right, and letters must not be mirrored
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
    dmgan = stage(
        c,
        method="dmgan",
        steps=20_000,
        args={
            "branches": 2, "scl": follow("scl") * 0.2, "term": follow("term"),
            "temperature": 0.5, "label_mode": "single", "inter": 1.0, "inner": 1.0,
            "damsm_weight": 5.0, "gammas": (4.0, 5.0, 10.0), "class_mask": True, "group": 48, "kl_weight": 1.0,
            "z": 100, "cond_noise": 1.0, "text_norm": False, "share_noise": False, "shared": True, "ema": 0.999,
            "flip": c.views.get_oneway_ref("flip"),
        },
        nets={
            "gen": {"net": "dmgan_g", "width": 32, "sizes": (16, 32, 64), "residual": 2, "cond": 100, "mask": "correct"},
            "disc": {"net": "dmgan_d", "width": 32},
        },
        optim={"disc": dict(adam), "gen": dict(adam)},
        frozen={"damsm": "stage:damsm"},
    )  # fmt: skip

    def one_stage(**more):
        """What DF-GAN and SSA-GAN share."""
        terms = {"temperature": 0.5, "label_mode": "single", "inter": 1.0, "inner": 1.0, "class_mask": True, "group": 48}
        follows = {"scl": follow("scl") * 0.2, "term": follow("term"), "flip": c.views.get_oneway_ref("flip")}
        own = {"branches": 2, "magp_weight": 2.0, "magp_power": 6.0, "share_noise": False, "shared": True}
        drawn = {"z": 100, "text_norm": False, "ema": 0.0}
        return {**terms, **follows, **own, **drawn, **more}

    rate = {"name": "adam", "b1": 0.0, "b2": 0.9, "schedule": "constant"}
    dfgan = stage(
        c,
        method="dfgan",
        steps=20_000,
        args=one_stage(damsm_weight=0.0, gammas=(4.0, 5.0, 10.0), truncate=0.88),
        nets={"gen": {"net": "dfgan_g", "width": 32, "sizes": (64,)}, "disc": {"net": "dfgan_d", "width": 32, "most": 8}},
        optim={"disc": {**rate, "lr": 4e-4}, "gen": {**rate, "lr": 1e-4}},
        frozen={"damsm": "stage:damsm"},
    )
    ssagan = stage(
        c,
        method="ssagan",
        steps=20_000,
        args=one_stage(damsm_weight=0.05, gammas=(5.0, 5.0, 10.0)),
        nets={
            "gen": {"net": "ssagan_g", "width": 32, "sizes": (64,), "mask_width": 100, "norm": "correct"},
            "disc": {"net": "ssagan_d", "width": 32, "most": 16},
        },
        optim={"disc": {**rate, "lr": 4e-4}, "gen": {**rate, "lr": 1e-4}},
        frozen={"damsm": "stage:damsm"},
    )
    update(c, {"damsm": damsm, "attngan": attngan, "dmgan": dmgan, "dfgan": dfgan, "ssagan": ssagan})
    c.evals = {
        "matching": {"every": 0, "fakes": 512, "reals": 512, "seed": 0},
        "geometry": {"every": 0, "reals": 0, "seed": 0},
        "generation": {
            "every": 0, "fakes": 512, "reals": 0, "bank": 0, "diversity": 32, "split": "train", "seed": 0,
            "networks": ("effnet_lite0",),
        },
    }
    return choose(c, word, {**PRESETS, **pretrained(c, size=64)})


SMALL = {
    "batch": 16,
    "data": {"size": 32},
    "every": {"log": 50, "save": 500, "sample": 500},
    "damsm": {
        "batch": 32, "steps": 600,
        "args": {"temperature": 0.1},
        "nets": {"image": {"dim": 64, "width": 0.125, "repeats": (1, 1, 1)}, "text": {"embed": 64, "width": 64}},
        "optim": {"model": {"lr": 2e-3}},
    },
    "attngan": {
        "steps": 1200,
        "args": {
            "z": 16, "ema": 0.99, "cond_noise": 0.1, "text_norm": True, "damsm_weight": 0.5, "temperature": 0.1,
        },
        "nets": {"gen": {"width": 16, "sizes": (8, 16, 32), "residual": 1, "cond": 32}, "disc": {"width": 8}},
        "optim": {"disc": {"lr": 1e-3}, "gen": {"lr": 3e-3}},
    },
    "dmgan": {
        "steps": 1200,
        "args": {
            "z": 16, "ema": 0.99, "cond_noise": 0.1, "text_norm": True, "damsm_weight": 0.5, "temperature": 0.1,
        },
        "nets": {"gen": {"width": 16, "sizes": (8, 16, 32), "residual": 1, "cond": 32}, "disc": {"width": 8}},
        "optim": {"disc": {"lr": 1e-3}, "gen": {"lr": 3e-3}},
    },
    "dfgan": {
        "steps": 1200,
        "args": {"z": 16, "ema": 0.99, "text_norm": True, "damsm_weight": 0.05, "temperature": 0.1},
        "nets": {"gen": {"width": 8, "sizes": (32,)}, "disc": {"width": 8}},
        "optim": {"disc": {"lr": 1e-3}, "gen": {"lr": 1e-3}},
    },
    "ssagan": {
        "steps": 1200,
        "args": {"z": 16, "ema": 0.99, "text_norm": True, "temperature": 0.1},
        "nets": {"gen": {"width": 8, "sizes": (32,), "mask_width": 16}, "disc": {"width": 8, "most": 8}},
        "optim": {"disc": {"lr": 1e-3}, "gen": {"lr": 1e-3}},
    },
}  # fmt: skip

QUICK_GAN = {"steps": 700, "nets": {"gen": {"sizes": (8, 16)}}}
QUICK_ONE_STAGE = {"steps": 700, "nets": {"gen": {"sizes": (16,)}}}

PRESETS = {
    "plain": {
        "scl": 0.0, "data": {"partner": "none"}, "damsm": {"args": {"branches": 1}}, "attngan": {"args": {"branches": 1}},
        "dmgan": {"args": {"branches": 1}}, "dfgan": {"args": {"branches": 1}}, "ssagan": {"args": {"branches": 1}},
    },
    "multi": {
        "data": {"args": {"labels": "multi"}},
        "damsm": {"args": {"label_mode": "jaccard", "class_mask": False}},
        "attngan": {"args": {"label_mode": "jaccard", "class_mask": False}},
        "dmgan": {"args": {"label_mode": "jaccard", "class_mask": False}},
        "dfgan": {"args": {"label_mode": "jaccard", "class_mask": False}},
        "ssagan": {"args": {"label_mode": "jaccard", "class_mask": False}},
    },
    "dmgan": {"stages": ("damsm", "dmgan")},
    "dfgan": {"stages": ("damsm", "dfgan")},
    "ssagan": {"stages": ("damsm", "ssagan")},
    "small": SMALL,
    "quick": {
        "data": {"size": 16},
        "every": {"log": 100, "save": 1000, "sample": 1000},
        "damsm": {
            "steps": 300, "nets": {"image": {"dim": 48, "width": 0.0625}, "text": {"embed": 32, "width": 48}},
            "optim": {"model": {"lr": 4e-3}},
        },
        "attngan": QUICK_GAN, "dmgan": QUICK_GAN, "dfgan": QUICK_ONE_STAGE, "ssagan": QUICK_ONE_STAGE,
    },
    "tiny": {
        "batch": 8,
        "eval_batch": 16,
        "data": {"size": 32},
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
        "dmgan": {
            "steps": 2,
            "args": {"z": 8},
            "nets": {"gen": {"width": 4, "sizes": (8, 16, 32), "residual": 1, "cond": 8}, "disc": {"width": 2}},
        },
        "dfgan": {
            "steps": 2,
            "args": {"z": 8},
            "nets": {"gen": {"width": 4, "sizes": (32,)}, "disc": {"width": 4}},
        },
        "ssagan": {
            "steps": 2,
            "args": {"z": 8},
            "nets": {"gen": {"width": 4, "sizes": (32,), "mask_width": 8}, "disc": {"width": 4, "most": 8}},
        },
        "=evals": {"matching": {"every": 0, "fakes": 16, "reals": 16, "seed": 0}},
    },
}  # fmt: skip
