"""CUB-200-2011: birds with ten captions each, one label; 150 classes to train on and 50 others to test on.

    python -m supcon_jax.main --config=configs/cub.py --workdir=runs/cub --config.data.root=DIR \
        --config.damsm.frozen.trunk=inception_v3_google.pth

Lay the archives out first: python -m supcon_jax.data.fetch cub --from=FOLDER_WITH_ARCHIVES.
Hyper-parameters are the published ones of each GAN (AttnGAN: batch 48 and 20, 600 epochs each), those of the label term are
the start values of configs for arXiv 2412.03957, whose own are not public. Published: AttnGAN IS 4.36, FID 23.98
(pytorch-fid of 2018) or 14.01 (TensorFlow); DM-GAN IS 4.75, FID 16.09 (pytorch-fid of 2018); DF-GAN FID 14.81 (its released
weights 12.10); SSA-GAN IS 5.17, FID 15.61; GALIP FID 10.08. Expect a day on one H100 for both stages of the default.
Words after the colon: tiny (two CPU cores), plain (one branch, no label term), dmgan, dfgan, ssagan (that GAN after the damsm
stage, which is skipped where it is finished), damsm, attngan. GALIP (224 px, around ViT-B/32 of OpenAI's weights): galip
(before it the stage clip_heads trains heads on the frozen CLIP), galip_blocks (the last two blocks of both towers too), both
with --config.clip_heads.frozen.clip=FILE, and galip_none (as published: no such stage; --config.galip.frozen.clip=FILE).
classifier: the judge of is_cub_ours and of label accuracy, Inception-v3 on all 200 classes, the official split of pictures,
from ImageNet's weights with --config.classifier.frozen.start=inception_v3_google.pth, else from scratch; 60 epochs, not
measured on the real set yet.
effnet, resnet, minilm, clip: pretrained encoders in stage 1, after the words that set sizes; see supcon_jax.config.pretrained.
"""

from supcon_jax.config import TRUNKS, base, choose, pretrained, stage, update


def get_config(word=""):
    c = base()
    follow = c.get_oneway_ref  # a value that a stage shares until it is given its own
    update(c, {"data": {"name": "cub", "size": 256, "words": 18, "args": {"bbox_crop": True}}})
    c.batch = 20
    c.stages = ("damsm", "attngan")
    c.every.update({"log": 100, "save": 4000, "sample": 4000})
    damsm = stage(
        c,
        method="damsm",
        batch=48,
        size=299,
        steps=110_400,  # 600 epochs of 184 steps
        args={
            "branches": 2, "scl": follow("scl"), "term": follow("term"),
            "temperature": 0.5, "label_mode": "single", "inter": 1.0, "inner": 1.0,
            "gammas": (4.0, 5.0, 10.0), "class_mask": True, "group": 48, "flip": c.views.get_oneway_ref("flip"), "slices": 1,
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
        steps=265_200,  # 600 epochs of 442 steps
        args={
            "branches": 2, "scl": follow("scl") * 0.2, "term": follow("term"),
            "temperature": 0.5, "label_mode": "single", "inter": 1.0, "inner": 1.0,
            "damsm_weight": 5.0, "gammas": (4.0, 5.0, 10.0), "class_mask": True, "group": 48, "kl_weight": 1.0,
            "z": 100, "cond_noise": 1.0, "text_norm": False, "share_noise": False, "shared": True, "ema": 0.999,
            "flip": c.views.get_oneway_ref("flip"),
        },
        nets={
            "gen": {"net": "attngan_g", "width": 32, "sizes": (64, 128, 256), "residual": 2, "cond": 100, "mask": "correct"},
            "disc": {"net": "attngan_d", "width": 64},
        },
        optim={"disc": dict(adam), "gen": dict(adam)},
        frozen={"damsm": "stage:damsm"},
    )  # fmt: skip
    dmgan = stage(
        c,
        method="dmgan",
        steps=708_000,  # 800 epochs of 885 steps, at the preset's batch
        args={
            "branches": 2, "scl": follow("scl") * 0.2, "term": follow("term"),
            "temperature": 0.5, "label_mode": "single", "inter": 1.0, "inner": 1.0,
            "damsm_weight": 5.0, "gammas": (4.0, 5.0, 10.0), "class_mask": True, "group": 48, "kl_weight": 1.0,
            "z": 100, "cond_noise": 1.0, "text_norm": False, "share_noise": False, "shared": True, "ema": 0.999,
            "flip": c.views.get_oneway_ref("flip"),
        },
        nets={
            "gen": {"net": "dmgan_g", "width": 64, "sizes": (64, 128, 256), "residual": 2, "cond": 100, "mask": "correct"},
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
        batch=32,
        steps=359_076,  # 1,301 epochs of 276 steps
        args=one_stage(damsm_weight=0.0, gammas=(4.0, 5.0, 10.0), truncate=0.88),
        nets={"gen": {"net": "dfgan_g", "width": 32, "sizes": (256,)}, "disc": {"net": "dfgan_d", "width": 32, "most": 8}},
        optim={"disc": {**rate, "lr": 4e-4}, "gen": {**rate, "lr": 1e-4}},
        frozen={"damsm": "stage:damsm"},
    )
    ssagan = stage(
        c,
        method="ssagan",
        batch=24,
        steps=220_800,  # 600 epochs of 368 steps
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
        steps=3400,  # 200 epochs of 17 steps
        args={
            "branches": 2, "scl": follow("scl"), "term": follow("term"),
            "temperature": 0.1, "label_mode": "single", "inter": 1.0, "inner": 1.0,
            "gamma": 10.0, "class_mask": True, "dim": 256, "blocks": 0, "clip_preproc": "correct",
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
        steps=207_276,  # 1,502 epochs of 138 steps
        args={
            "branches": 2, "scl": follow("scl") * 0.2, "term": follow("term"),
            "temperature": 0.1, "label_mode": "single", "inter": 1.0, "inner": 1.0,
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
    classifier = stage(
        c,
        method="classifier",
        batch=32,
        size=299,
        steps=11_220,  # 60 epochs of 187 steps
        args={"groups": (), "flip": c.views.get_oneway_ref("flip"), "noise_weight": 0.0},
        nets={"image": {"net": "inception_classifier", "width": 1.0, "size": 299, "small": False, "repeats": (3, 4, 2)}},
        optim={"model": {"name": "adam", "lr": 2e-4, "b1": 0.9, "b2": 0.999, "schedule": "cosine"}},
        frozen={"start": ""},  # nothing is frozen: where learning starts
    )
    gans = {"attngan": attngan, "dmgan": dmgan, "dfgan": dfgan, "ssagan": ssagan, "galip": galip}
    update(c, {"damsm": damsm, "clip_heads": clip_heads, **gans, "classifier": classifier})
    c.evals = {
        "matching": {"every": 0, "fakes": 30_000, "reals": 3000, "seed": 0},
        "geometry": {"every": 0, "reals": 0, "seed": 0},
        "generation": {
            "every": 0, "fakes": 30_000, "reals": 0, "bank": 0, "diversity": 100, "split": "test", "seed": 0,
            "networks": ("effnet_lite0",),
        },
        "labels": {"every": 0, "reals": 0},  # of the classifier
    }
    return choose(c, word, {**PRESETS, **pretrained(c, size=224)})


GALIP = {"stages": ("clip_heads", "galip"), "data": {"size": 224, "words": 77}}  # 77: what CLIP reads

PRESETS = {
    "plain": {
        "scl": 0.0, "data": {"partner": "none"}, "damsm": {"args": {"branches": 1}}, "attngan": {"args": {"branches": 1}},
        "dmgan": {"args": {"branches": 1}}, "dfgan": {"args": {"branches": 1}}, "ssagan": {"args": {"branches": 1}},
        "clip_heads": {"args": {"branches": 1}}, "galip": {"args": {"branches": 1}},
    },
    "dmgan": {"stages": ("damsm", "dmgan"), "batch": 10},
    "dfgan": {"stages": ("damsm", "dfgan")},
    "ssagan": {"stages": ("damsm", "ssagan")},
    "galip": GALIP,
    "galip_blocks": {**GALIP, "clip_heads": {"args": {"blocks": 2}, "optim": {"model": {"lr": 1e-5}}}},
    "galip_none": {**GALIP, "stages": ("galip",), "galip": {"frozen": {"clip": ""}}},
    # the judge must know the classes of the test split, so pictures are split, not classes
    "classifier": {
        "stages": ("classifier",), "data": {"partner": "none", "train": "official_train", "test": "official_test"},
    },
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
        "classifier": {
            "batch": 8, "size": 32, "steps": 2,
            "nets": {"image": {"width": 0.0625, "size": 32, "small": True, "repeats": (1, 1, 1)}},
        },
        "=evals": {"matching": {"every": 0, "fakes": 16, "reals": 16, "seed": 0}, "labels": {"every": 0, "reals": 0}},
    },
}  # fmt: skip
