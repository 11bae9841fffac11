"""COCO 2014: scenes with five captions each and the categories of their objects as several labels.

    python -m supcon_jax.main --config=configs/coco.py --workdir=runs/coco --config.data.root=DIR \
        --config.damsm.frozen.trunk=inception_v3_google.pth

Lay the archives out first: python -m supcon_jax.data.fetch coco --from=FOLDER_WITH_ARCHIVES.
Hyper-parameters are the published ones of AttnGAN (batch 48 and 14, GAN 120 epochs; the encoders it was released with had
100; 12 words, of which its DAMSM read 15), those of the label term are the start values of configs for arXiv 2412.03957,
whose own are not public: labels that overlap attract by their Jaccard index; to DAMSM every pair is its own class, as
published (with class_mask=True pairs that share a category are no negatives of each other). Published: AttnGAN IS 25.89,
FID 35.49 (pytorch-fid of 2018) or 29.53 (TensorFlow). Expect several days on one H100. The other GANs have theirs too. DM-GAN:
batch 16, 200 epochs; IS 30.49, FID 32.64 (pytorch-fid of 2018). DF-GAN: batch 32, 301 epochs; FID 19.32 (its released weights
15.41). SSA-GAN: batch 24, 120 epochs; FID 19.37. GALIP: batch 64 on each of 8 GPUs and 3,005 epochs, here 64 in all; FID
5.85 (its released weights 5.01): for a pod.
Words after the colon: tiny (two CPU cores), plain (one branch, no label term), dmgan (DM-GAN in AttnGAN's place), dfgan,
ssagan (that GAN, whose captions have 18 words: its damsm stage is another one, so give it a --workdir of its own), damsm,
attngan. GALIP (224 px, around ViT-B/32 of OpenAI's weights): galip (before it the stage clip_heads trains heads on the
frozen CLIP), galip_blocks (the last two blocks of both towers too), both with --config.clip_heads.frozen.clip=FILE, and
galip_none (as published: no such stage; --config.galip.frozen.clip=FILE).
effnet, resnet, minilm, clip: pretrained encoders in stage 1, after the words that set sizes; see supcon_jax.config.pretrained.
"""

from supcon_jax.config import TRUNKS, base, choose, pretrained, stage, update


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
        frozen=dict(TRUNKS),
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
            "z": 100, "cond_noise": 1.0, "text_norm": False, "share_noise": False, "shared": True, "ema": 0.999,
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
            "z": 100, "cond_noise": 1.0, "text_norm": False, "share_noise": False, "shared": True, "ema": 0.999,
            "flip": c.views.get_oneway_ref("flip"),
        },
        nets={
            "gen": {"net": "dmgan_g", "width": 64, "sizes": (64, 128, 256), "residual": 3, "cond": 100, "mask": "correct"},
            "disc": {"net": "dmgan_d", "width": 32},
        },
        optim={"disc": dict(adam), "gen": dict(adam)},
        frozen={"damsm": "stage:damsm"},
    )  # fmt: skip

    def one_stage(**more):
        """What DF-GAN and SSA-GAN share."""
        terms = {"temperature": 0.5, "label_mode": "jaccard", "inter": 1.0, "inner": 1.0, "class_mask": False, "group": 48}
        follows = {"scl": follow("scl") * 0.2, "term": follow("term"), "flip": c.views.get_oneway_ref("flip")}
        own = {"branches": 2, "magp_weight": 2.0, "magp_power": 6.0, "share_noise": False, "shared": True}
        drawn = {"z": 100, "text_norm": False, "ema": 0.0}
        return {**terms, **follows, **own, **drawn, **more}

    rate = {"name": "adam", "b1": 0.0, "b2": 0.9, "schedule": "constant"}
    dfgan = stage(
        c,
        method="dfgan",
        batch=32,
        steps=778_386,  # 301 epochs of 2,586 steps
        args=one_stage(damsm_weight=0.0, gammas=(4.0, 5.0, 10.0), truncate=0.88),
        nets={"gen": {"net": "dfgan_g", "width": 32, "sizes": (256,)}, "disc": {"net": "dfgan_d", "width": 32, "most": 8}},
        optim={"disc": {**rate, "lr": 4e-4}, "gen": {**rate, "lr": 1e-4}},
        frozen={"damsm": "stage:damsm"},
    )
    ssagan = stage(
        c,
        method="ssagan",
        batch=24,
        steps=413_880,  # 120 epochs of 3,449 steps
        args=one_stage(damsm_weight=0.05, gammas=(5.0, 5.0, 10.0)),
        nets={
            "gen": {"net": "ssagan_g", "width": 64, "sizes": (256,), "mask_width": 100, "norm": "correct"},
            "disc": {"net": "ssagan_d", "width": 64, "most": 16},
        },
        optim={"disc": {**rate, "lr": 4e-4}, "gen": {**rate, "lr": 1e-4}},
        frozen={"damsm": "stage:damsm"},
    )
    clip_heads = stage(
        c,
        method="clip_heads",
        batch=512,
        size=224,
        steps=3220,  # 20 epochs of 161 steps
        args={
            "branches": 2, "scl": follow("scl"), "term": follow("term"),
            "temperature": 0.1, "label_mode": "jaccard", "inter": 1.0, "inner": 1.0,
            "gamma": 10.0, "class_mask": False, "dim": 256, "blocks": 0, "clip_preproc": "correct",
            "flip": c.views.get_oneway_ref("flip"),
        },
        nets={},
        optim={"model": {"name": "adam", "lr": 1e-3, "b1": 0.9, "b2": 0.999, "schedule": "cosine"}},
        frozen={"clip": "", "clip_act": "quick_gelu", "clip_vocab": ""},
    )  # fmt: skip
    galip = stage(
        c,
        method="galip",
        batch=64,
        size=224,
        steps=3_885_465,  # 3,005 epochs of 1,293 steps
        args={
            "branches": 2, "scl": follow("scl") * 0.2, "term": follow("term"),
            "temperature": 0.1, "label_mode": "jaccard", "inter": 1.0, "inner": 1.0,
            "sim_weight": 4.0, "magp_weight": 2.0, "magp_power": 6.0, "clip_preproc": "correct", "z": 100,
            "share_noise": False, "shared": True, "ema": 0.0, "flip": c.views.get_oneway_ref("flip"),
        },
        nets={
            "gen": {"net": "galip_g", "width": 64, "sizes": (224,), "bridge": 64, "inner": 32, "depth": 4},
            "disc": {"net": "galip_d", "features": 512, "joint": 128},
        },
        optim={"disc": {**rate, "lr": 4e-4}, "gen": {**rate, "lr": 1e-4}},
        frozen={"clip": "stage:clip_heads", "clip_act": "quick_gelu", "clip_vocab": ""},
    )  # fmt: skip
    update(c, {"damsm": damsm, "attngan": attngan, "dmgan": dmgan, "dfgan": dfgan, "ssagan": ssagan})
    update(c, {"clip_heads": clip_heads, "galip": galip})
    c.evals = {
        "matching": {"every": 0, "fakes": 30_000, "reals": 3000, "seed": 0},
        "geometry": {"every": 0, "reals": 1000, "seed": 0},
        "generation": {
            "every": 0, "fakes": 30_000, "reals": 0, "bank": 0, "diversity": 100, "split": "test", "seed": 0,
            "networks": ("effnet_lite0",),
        },
    }
    return choose(c, word, {**PRESETS, **pretrained(c, size=224)})


GALIP = {"stages": ("clip_heads", "galip"), "data": {"size": 224, "words": 77}}  # 77: what CLIP reads

PRESETS = {
    "plain": {
        "scl": 0.0, "data": {"partner": "none"}, "damsm": {"args": {"branches": 1}}, "attngan": {"args": {"branches": 1}},
        "dmgan": {"args": {"branches": 1}}, "dfgan": {"args": {"branches": 1}}, "ssagan": {"args": {"branches": 1}},
        "clip_heads": {"args": {"branches": 1}}, "galip": {"args": {"branches": 1}},
    },
    "dmgan": {"stages": ("damsm", "dmgan"), "batch": 16},
    "dfgan": {"stages": ("damsm", "dfgan"), "data": {"words": 18}},
    "ssagan": {"stages": ("damsm", "ssagan"), "data": {"words": 18}},
    "galip": GALIP,
    "galip_blocks": {**GALIP, "clip_heads": {"args": {"blocks": 2}, "optim": {"model": {"lr": 1e-5}}}},
    "galip_none": {**GALIP, "stages": ("galip",), "galip": {"frozen": {"clip": ""}}},
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
        "dfgan": {
            "batch": 8, "size": 32, "steps": 2,
            "args": {"z": 8},
            "nets": {"gen": {"width": 4, "sizes": (32,)}, "disc": {"width": 4}},
        },
        "ssagan": {
            "batch": 8, "size": 32, "steps": 2,
            "args": {"z": 8},
            "nets": {"gen": {"width": 4, "sizes": (32,), "mask_width": 8}, "disc": {"width": 4}},
        },
        "clip_heads": {"batch": 8, "size": 32, "steps": 2, "args": {"dim": 8}},
        "galip": {
            "batch": 8, "size": 32, "steps": 2,
            "args": {"z": 8},
            "nets": {
                "gen": {"width": 4, "sizes": (32,), "bridge": 4, "inner": 2, "depth": 1},
                "disc": {"features": 8, "joint": 4},
            },
        },
        "=evals": {"matching": {"every": 0, "fakes": 16, "reals": 16, "seed": 0}},
    },
}  # fmt: skip
