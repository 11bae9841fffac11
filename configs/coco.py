"""COCO 2014: scenes with five captions each and the categories of their objects as several labels.

    python -m supcon_jax.main --config=configs/coco.py --workdir=runs/coco --config.data.root=DIR \
        --config.damsm.frozen.trunk=inception_v3_google.pth

Lay the archives out first: python -m supcon_jax.data.fetch coco --from=FOLDER_WITH_ARCHIVES.
Hyper-parameters are the published ones of AttnGAN (batch 48 and 14, GAN 120 epochs; the encoders it was released with had
100; 12 words, of which its DAMSM read 15), those of the label term are the start values of configs for arXiv 2412.03957,
whose own are not public: labels that overlap attract by their Jaccard index; to DAMSM every pair is its own class, as
published (with class_mask=True pairs that share a category are no negatives of each other). Published: AttnGAN IS 25.89,
FID 35.49 (pytorch-fid of 2018) or 29.53 (TensorFlow). Expect several days on one H100. DM-GAN, as published: batch 16,
200 epochs; IS 30.49, FID 32.64 (pytorch-fid of 2018).
Words after the colon: tiny (two CPU cores), plain (one branch, no label term), dmgan (DM-GAN in AttnGAN's place), damsm,
attngan.
"""

from supcon_jax.config import base, choose, stage, update


def get_config(word=""):
    c = base()
    follow = c.get_oneway_ref  # a value that a stage shares until it is given its own
    update(c, {"data": {"name": "coco", "size": 256, "words": 12, "args": {"captions": 5, "crowd": True}}})
    c.batch = 14
    c.stages = ("damsm", "attngan")
    c.every.update({"log": 100, "save": 4000, "sample": 4000})
    damsm = stage(
        c,
        method="damsm",
        batch=48,
        size=299,
        steps=172_400,  # 100 epochs of 1,724 steps
        args={
            "branches": 2, "scl": follow("scl"), "term": follow("term"),
            "temperature": 0.5, "label_mode": "jaccard", "inter": 1.0, "inner": 1.0,
            "gammas": (4.0, 5.0, 10.0), "class_mask": False, "group": 48, "flip": c.views.get_oneway_ref("flip"), "slices": 1,
        },
        nets={
            "image": {
                "net": "inception", "dim": 256, "width": 1.0, "size": 299, "align_corners": False, "small": False,
                "repeats": (3, 4, 2), "frozen": True,
            },
            "text": {"net": "rnn", "embed": 300, "width": 256, "rnn": "lstm", "dropout": 0.5},
        },
        optim={
            "model": {
                "name": "adam", "lr": 2e-3, "b1": 0.5, "b2": 0.999, "schedule": "exponential", "decay": 0.98,
                "floor": 2e-4, "clip": {"text": 0.25},
            },
        },
        frozen={"trunk": ""},
    )  # fmt: skip
    adam = {"name": "adam", "lr": 2e-4, "b1": 0.5, "b2": 0.999, "schedule": "constant"}
    attngan = stage(
        c,
        method="attngan",
        steps=709_560,  # 120 epochs of 5,913 steps
        args={
            "branches": 2, "scl": follow("scl") * 0.2, "term": follow("term"),
            "temperature": 0.5, "label_mode": "jaccard", "inter": 1.0, "inner": 1.0,
            "damsm_weight": 50.0, "gammas": (4.0, 5.0, 10.0), "class_mask": False, "group": 48, "kl_weight": 1.0,
            "z": 100, "cond_noise": 1.0, "text_norm": False, "share_noise": False, "ema": 0.999,
            "flip": c.views.get_oneway_ref("flip"),
        },
        nets={
            "gen": {"net": "attngan_g", "width": 48, "sizes": (64, 128, 256), "residual": 3, "cond": 100, "mask": "correct"},
            "disc": {"net": "attngan_d", "width": 96},
        },
        optim={"disc": dict(adam), "gen": dict(adam)},
        frozen={"damsm": "stage:damsm"},
    )  # fmt: skip
    dmgan = stage(
        c,
        method="dmgan",
        steps=1_034_600,  # 200 epochs of 5,173 steps, at the preset's batch
        args={
            "branches": 2, "scl": follow("scl") * 0.2, "term": follow("term"),
            "temperature": 0.5, "label_mode": "jaccard", "inter": 1.0, "inner": 1.0,
            "damsm_weight": 50.0, "gammas": (4.0, 5.0, 10.0), "class_mask": False, "group": 48, "kl_weight": 1.0,
            "z": 100, "cond_noise": 1.0, "text_norm": False, "share_noise": False, "ema": 0.999,
            "flip": c.views.get_oneway_ref("flip"),
        },
        nets={
            "gen": {"net": "dmgan_g", "width": 64, "sizes": (64, 128, 256), "residual": 3, "cond": 100, "mask": "correct"},
            "disc": {"net": "dmgan_d", "width": 32},
        },
        optim={"disc": dict(adam), "gen": dict(adam)},
        frozen={"damsm": "stage:damsm"},
    )  # fmt: skip
    update(c, {"damsm": damsm, "attngan": attngan, "dmgan": dmgan})
    c.evals = {
        "matching": {"every": 0, "fakes": 30_000, "reals": 3000, "seed": 0},
        "generation": {
            "every": 0, "fakes": 30_000, "reals": 0, "bank": 0, "diversity": 100, "split": "test", "seed": 0,
            "networks": ("effnet_lite0",),
        },
    }
    return choose(c, word, PRESETS)


PRESETS = {
    "plain": {
        "scl": 0.0, "data": {"partner": "none"}, "damsm": {"args": {"branches": 1}}, "attngan": {"args": {"branches": 1}},
        "dmgan": {"args": {"branches": 1}},
    },
    "dmgan": {"stages": ("damsm", "dmgan"), "batch": 16},
    "tiny": {
        "batch": 8,
        "eval_batch": 16,
        "data": {"size": 32, "words": 12, "bad_limit": 0.2},
        "every": {"log": 1, "save": 2, "sample": 2},
        "damsm": {
            "batch": 8, "size": 32, "steps": 2, "frozen": {},
            "nets": {
                "image": {"dim": 16, "width": 0.0625, "size": 32, "small": True, "repeats": (1, 1, 1), "frozen": False},
                "text": {"embed": 16, "width": 16},
            },
        },
        "attngan": {
            "size": 32, "steps": 2,
            "args": {"z": 8},
            "nets": {"gen": {"width": 4, "sizes": (8, 16, 32), "residual": 1, "cond": 8}, "disc": {"width": 2}},
        },
        "dmgan": {
            "size": 32, "steps": 2,
            "args": {"z": 8},
            "nets": {"gen": {"width": 4, "sizes": (8, 16, 32), "residual": 1, "cond": 8}, "disc": {"width": 2}},
        },
        "=evals": {"matching": {"every": 0, "fakes": 16, "reals": 16, "seed": 0}},
    },
}  # fmt: skip
