"""Coloured shapes: the main job on a world that needs no download and whose truth is known.

    python -m supcon_jax.main --config=configs/shapes.py --workdir=runs/shapes

Default: DAMSM + supervised contrast, then AttnGAN + supervised contrast, 32 px, sized for two CPU cores.
Words after the colon: tiny (tests), quick (16 px, a minute, for studies), scenes (two objects a picture, or as many as
--config.data.args.objects says; labels: the 64 pairs of shape and colour; not scored by attributes), long (10,000 steps, 22
minutes), plain (one branch, no label term), twin (captions, labels shuffled against the pictures: everything must fail on it),
dmgan, dfgan, ssagan (that GAN after the damsm stage, which is skipped where it is finished), galip (that GAN after the stage
clip_heads, around any CLIP with a vision transformer, with --config.clip_heads.frozen.clip=FILE: none ships), flow (flow
matching in the GAN's place, for as long), classifier (the scorer of attributes), damsm, attngan.
effnet, resnet, minilm, clip: pretrained encoders in stage 1, after the words that set sizes; see supcon_jax.config.pretrained.
"""

from supcon_jax.config import TRUNKS, base, choose, pretrained, stage, update

GROUPS = (("shape", 8), ("colour", 8), ("row", 3), ("col", 3), ("size", 2))


def get_config(word=""):
    c = base()
    follow = c.get_oneway_ref  # a value that a stage shares until it is given its own
    update(c, {"data": {"name": "shapes", "words": 12, "crop": "none", "train": "train", "test": "test"}})
    c.data.args = {
        "size": c.data.get_oneway_ref("size"), "records": 20_000, "seed": 0, "labels": "single", "scenes": False, "objects": 2,
    }  # fmt: skip
    c.views.flip = False  # captions say left and right
    c.batch = 16
    c.stages = ("damsm", "attngan")
    c.every.update({"log": 50, "save": 250, "sample": 500})
    damsm = stage(
        c,
        method="damsm",
        batch=32,
        steps=600,
        args={
            "branches": 2, "scl": follow("scl"), "term": follow("term"),
            "temperature": 0.1, "label_mode": "single", "inter": 1.0, "inner": 1.0,
            "gammas": (4.0, 5.0, 10.0), "class_mask": True, "group": 48, "flip": c.views.get_oneway_ref("flip"), "slices": 1,
        },
        nets={
            "image": {
                "net": "inception", "dim": 64, "width": 0.125, "size": c.data.get_oneway_ref("size"), "align_corners": False,
                "small": True, "repeats": (1, 1, 1), "frozen": False,
            },
            "text": {"net": "rnn", "embed": 64, "width": 64, "rnn": "lstm", "dropout": 0.1},
        },
        optim={"model": {"name": "adam", "lr": 2e-3, "b1": 0.9, "b2": 0.999, "schedule": "cosine", "clip": {"text": 0.25}}},
        frozen=dict(TRUNKS),
    )  # fmt: skip
    attngan = stage(
        c,
        method="attngan",
        steps=1400,
        args={
            "branches": 2, "scl": follow("scl"), "term": follow("term"),
            "temperature": 0.1, "label_mode": "single", "inter": 1.0, "inner": 1.0,
            "damsm_weight": 0.5, "gammas": (4.0, 5.0, 10.0), "class_mask": True, "group": 48, "kl_weight": 1.0,
            "z": 16, "cond_noise": 0.1, "text_norm": True, "share_noise": False, "shared": True, "ema": 0.99,
            "flip": c.views.get_oneway_ref("flip"),
        },
        nets={
            "gen": {"net": "attngan_g", "width": 16, "sizes": (8, 16, 32), "residual": 1, "cond": 32, "mask": "correct"},
            "disc": {"net": "attngan_d", "width": 8},
        },
        optim={
            "disc": {"name": "adam", "lr": 1e-3, "b1": 0.5, "b2": 0.999, "schedule": "constant"},
            "gen": {"name": "adam", "lr": 3e-3, "b1": 0.5, "b2": 0.999, "schedule": "constant"},
        },
        frozen={"damsm": "stage:damsm"},
    )  # fmt: skip
    dmgan = stage(
        c,
        method="dmgan",
        steps=1400,
        args={
            "branches": 2, "scl": follow("scl"), "term": follow("term"),
            "temperature": 0.1, "label_mode": "single", "inter": 1.0, "inner": 1.0,
            "damsm_weight": 0.5, "gammas": (4.0, 5.0, 10.0), "class_mask": True, "group": 48, "kl_weight": 1.0,
            "z": 16, "cond_noise": 0.1, "text_norm": True, "share_noise": False, "shared": True, "ema": 0.99,
            "flip": c.views.get_oneway_ref("flip"),
        },
        nets={
            "gen": {"net": "dmgan_g", "width": 16, "sizes": (8, 16, 32), "residual": 1, "cond": 32, "mask": "correct"},
            "disc": {"net": "dmgan_d", "width": 8},
        },
        optim={
            "disc": {"name": "adam", "lr": 1e-3, "b1": 0.5, "b2": 0.999, "schedule": "constant"},
            "gen": {"name": "adam", "lr": 3e-3, "b1": 0.5, "b2": 0.999, "schedule": "constant"},
        },
        frozen={"damsm": "stage:damsm"},
    )  # fmt: skip

    def one_stage(**more):
        """What DF-GAN and SSA-GAN share."""
        terms = {"temperature": 0.1, "label_mode": "single", "inter": 1.0, "inner": 1.0, "class_mask": True, "group": 48}
        follows = {"scl": follow("scl"), "term": follow("term"), "flip": c.views.get_oneway_ref("flip")}
        own = {"branches": 2, "magp_weight": 2.0, "magp_power": 6.0, "share_noise": False, "shared": True}
        small = {"z": 16, "text_norm": True, "ema": 0.99}
        return {**terms, **follows, **own, **small, **more}

    rate = {"name": "adam", "b1": 0.0, "b2": 0.9, "schedule": "constant"}
    dfgan = stage(
        c,
        method="dfgan",
        steps=1400,
        args=one_stage(damsm_weight=0.05, gammas=(4.0, 5.0, 10.0), truncate=0.88),
        nets={"gen": {"net": "dfgan_g", "width": 8, "sizes": (32,)}, "disc": {"net": "dfgan_d", "width": 8, "most": 8}},
        optim={"disc": {**rate, "lr": 1e-3}, "gen": {**rate, "lr": 1e-3}},
        frozen={"damsm": "stage:damsm"},
    )
    ssagan = stage(
        c,
        method="ssagan",
        steps=1400,
        args=one_stage(damsm_weight=0.05, gammas=(5.0, 5.0, 10.0)),
        nets={
            "gen": {"net": "ssagan_g", "width": 8, "sizes": (32,), "mask_width": 16, "norm": "correct"},
            "disc": {"net": "ssagan_d", "width": 8, "most": 8},
        },
        optim={"disc": {**rate, "lr": 1e-3}, "gen": {**rate, "lr": 1e-3}},
        frozen={"damsm": "stage:damsm"},
    )
    flow = stage(
        c,
        method="flow",
        batch=32,
        steps=1100,
        args={
            "drop": 0.1, "guidance": 2.0, "solver": "heun", "sampling": 8, "text_norm": True, "ema": 0.99,
            "flip": c.views.get_oneway_ref("flip"),
        },
        nets={"gen": {"net": "velocity", "width": 16, "sizes": (32,), "most": 4}},
        optim={"gen": {"name": "adam", "lr": 3e-3, "b1": 0.9, "b2": 0.999, "schedule": "cosine", "warmup": 50}},
        frozen={"damsm": "stage:damsm"},
    )  # fmt: skip
    clip_heads = stage(
        c,
        method="clip_heads",
        batch=64,
        steps=600,
        args={
            "branches": 2, "scl": follow("scl"), "term": follow("term"),
            "temperature": 0.1, "label_mode": "single", "inter": 1.0, "inner": 1.0,
            "gamma": 10.0, "class_mask": True, "dim": 64, "blocks": 0, "clip_preproc": "correct",
            "flip": c.views.get_oneway_ref("flip"),
        },
        nets={},
        optim={"model": {"name": "adam", "lr": 1e-3, "b1": 0.9, "b2": 0.999, "schedule": "cosine"}},
        frozen={"clip": "", "clip_act": "quick_gelu", "clip_vocab": ""},
    )  # fmt: skip
    galip = stage(
        c,
        method="galip",
        steps=1400,
        args={
            "branches": 2, "scl": follow("scl") * 0.2, "term": follow("term"),
            "temperature": 0.1, "label_mode": "single", "inter": 1.0, "inner": 1.0,
            "sim_weight": 4.0, "magp_weight": 2.0, "magp_power": 6.0, "clip_preproc": "correct", "z": 16,
            "share_noise": False, "shared": True, "ema": 0.99, "flip": c.views.get_oneway_ref("flip"),
        },
        nets={
            "gen": {"net": "galip_g", "width": 8, "sizes": (32,), "bridge": 16, "inner": 8, "depth": 2},
            "disc": {"net": "galip_d", "features": 64, "joint": 32},
        },
        optim={"disc": {**rate, "lr": 1e-3}, "gen": {**rate, "lr": 1e-3}},
        frozen={"clip": "stage:clip_heads", "clip_act": "quick_gelu", "clip_vocab": ""},
    )  # fmt: skip
    classifier = stage(
        c,
        method="classifier",
        steps=4000,
        args={"groups": (), "flip": False, "noise_weight": 0.1},
        nets={"image": {"net": "attributes", "heads": dict(GROUPS), "width": 16}},
        optim={"model": {"name": "adam", "lr": 2e-3, "b1": 0.9, "b2": 0.999, "schedule": "cosine"}},
    )
    gans = {"attngan": attngan, "dmgan": dmgan, "dfgan": dfgan, "ssagan": ssagan, "galip": galip}
    update(c, {"damsm": damsm, "clip_heads": clip_heads, **gans, "flow": flow, "classifier": classifier})
    c.evals = {
        "matching": {"every": 0, "fakes": 512, "reals": 512, "seed": 0},
        "geometry": {"every": 0, "reals": 512, "seed": 0},
        "attributes": {
            "every": 0, "fakes": 512, "reals": 512, "seed": 0, "weights": "",
            "names": ("shape", "colour", "row", "col", "size"),
        },
        "generation": {
            "every": 0, "fakes": 512, "reals": 512, "bank": 2048, "diversity": 32, "split": "test", "seed": 0,
            "networks": ("shapes_classifier",),
        },
    }  # fmt: skip
    return choose(c, word, {**PRESETS, **pretrained(c, size=64)})


SEVERAL = {"args": {"label_mode": "any", "class_mask": False}}
QUICK_GAN = {"steps": 700, "nets": {"gen": {"sizes": (8, 16)}}}
QUICK_ONE_STAGE = {"steps": 700, "nets": {"gen": {"sizes": (16,)}}}

PRESETS = {
    "quick": {
        "data": {"size": 16, "args": {"records": 6000}},
        "every": {"log": 100, "save": 1000, "sample": 1000},
        "damsm": {"batch": 16, "steps": 500, "nets": {"image": {"width": 0.0625}}},
        "attngan": QUICK_GAN, "dmgan": QUICK_GAN, "dfgan": QUICK_ONE_STAGE, "ssagan": QUICK_ONE_STAGE,
        "galip": QUICK_ONE_STAGE, "clip_heads": {"steps": 500},
        "flow": {"steps": 550, "nets": {"gen": {"sizes": (16,)}}},
    },
    "scenes": {
        "data": {"args": {"labels": "pairs", "scenes": True}},
        **dict.fromkeys(("damsm", "attngan", "dmgan", "dfgan", "ssagan", "clip_heads"), SEVERAL),
        "galip": {"args": {"label_mode": "any"}},
        "=evals": {
            "matching": {"every": 0, "fakes": 512, "reals": 512, "seed": 0},
            "generation": {
                "every": 0, "fakes": 512, "reals": 512, "bank": 2048, "diversity": 32, "split": "test", "seed": 0,
                "networks": ("shapes_classifier",),
            },
        },
    },
    "plain": {
        "scl": 0.0, "data": {"partner": "none"}, "damsm": {"args": {"branches": 1}}, "attngan": {"args": {"branches": 1}},
        "dmgan": {"args": {"branches": 1}}, "dfgan": {"args": {"branches": 1}}, "ssagan": {"args": {"branches": 1}},
        "clip_heads": {"args": {"branches": 1}}, "galip": {"args": {"branches": 1}},
    },
    "dmgan": {"stages": ("damsm", "dmgan")},
    "dfgan": {"stages": ("damsm", "dfgan")},
    "ssagan": {"stages": ("damsm", "ssagan")},
    "flow": {"stages": ("damsm", "flow")},
    "galip": {"stages": ("clip_heads", "galip"), "data": {"words": 77}},  # 77: what CLIP reads
    "twin": {"data": {"shuffle_pairs": True}},
    "long": {
        "damsm": {"steps": 1500},
        "attngan": {"steps": 10_000, "optim": {"disc": {"schedule": "cosine"}, "gen": {"schedule": "cosine"}}},
        "dmgan": {"steps": 10_000, "optim": {"disc": {"schedule": "cosine"}, "gen": {"schedule": "cosine"}}},
    },
    "classifier": {
        "stages": ("classifier",), "batch": 128,
        "data": {"partner": "none", "args": {"labels": "multi", "records": 40000}},
        "classifier": {"args": {"groups": GROUPS}},
    },
    "tiny": {
        "batch": 8,
        "eval_batch": 16,
        "data": {"args": {"records": 256}},
        "every": {"log": 1, "save": 2, "sample": 2},
        "damsm": {
            "batch": 8, "steps": 2,
            "nets": {"image": {"dim": 16, "width": 0.0625}, "text": {"embed": 16, "width": 16}},
        },
        "attngan": {
            "steps": 2,
            "args": {"z": 8},
            "nets": {"gen": {"width": 4, "cond": 8}, "disc": {"width": 2}},
        },
        "dmgan": {
            "steps": 2,
            "args": {"z": 8},
            "nets": {"gen": {"width": 4, "cond": 8}, "disc": {"width": 2}},
        },
        "dfgan": {
            "steps": 2,
            "args": {"z": 8},
            "nets": {"gen": {"width": 4}, "disc": {"width": 4}},
        },
        "ssagan": {
            "steps": 2,
            "args": {"z": 8},
            "nets": {"gen": {"width": 4, "mask_width": 8}, "disc": {"width": 4}},
        },
        "flow": {"batch": 8, "steps": 2, "args": {"sampling": 2}, "nets": {"gen": {"width": 4}}},
        "clip_heads": {"batch": 8, "steps": 2, "args": {"dim": 8}},
        "galip": {
            "steps": 2,
            "args": {"z": 8},
            "nets": {"gen": {"width": 4, "bridge": 4, "inner": 2, "depth": 1}, "disc": {"features": 8, "joint": 4}},
        },
        "classifier": {"steps": 2, "nets": {"image": {"width": 4}}},
        "=evals": {
            "matching": {"every": 0, "fakes": 16, "reals": 16, "seed": 0},
            "geometry": {"every": 0, "reals": 16, "seed": 0},
            "attributes": {"every": 0, "fakes": 16, "reals": 16, "seed": 0, "weights": "", "names": ("shape", "colour")},
        },
    },
}  # fmt: skip
