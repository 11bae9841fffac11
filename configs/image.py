"""Contrastive learning from pictures alone, without captions.

    python -m supcon_jax.main --config=configs/image.py              SimCLR on coloured shapes, which need no download
    python -m supcon_jax.main --config=configs/image.py:byol,mnist5k
    python -m supcon_jax.main --config=configs/image.py:moco_v2,imagenet

Words: a method (simclr fnc supcon moco_v1 moco_v2 moco_v3 byol simsiam swav pcl cpc cmc pirl barlow vicreg, or supervised: no
pretraining, cross entropy from drawn weights), then a data set (shapes, mnist5k, digits, emoji, folder: small networks, minutes
on two CPU cores; cifar10, cifar100, stl10, imagenette: ResNet-18, 200 epochs, see _image_recipes.py; imagenet: each paper's own
recipe, with the departures that are listed there), then what changes it:
    dcl, dclw, debiased, hard, eliminated, attracted    SimCLR with other negatives
    simclr_v2                    SimCLR with a head of three layers; on ImageNet also its network and optimiser
    vit_s, vit_b                 a vision transformer, MoCo v3 with its recipe for it
    linear, finetune             a second stage on the encoder: a classifier on fixed features, or all of it fine-tuned
    one_percent, ten_percent     of the labels, which the last stage alone is told, some of each class
    seed, compress               a second stage: a small student of the encoder
    distil                       a third stage, after linear or finetune: a small student of the classifier's answers
    by_shape                     coloured shapes of 8 classes, not 64
    both                         measure projections as well as features
    fewshot, clusters, robustness    evaluations beside those by neighbours and a linear classifier
    quick                        small and short, for studies
    tiny                         sizes of tests
ImageNet recipes were not run here.
"""

from supcon_jax.config import base, choose, shared, stage, update

R = shared("_image_recipes")
METHODS, SMALL_RESNET, GRID, LABS = R.METHODS, R.SMALL_RESNET, R.GRID, R.LABS
CONV = {"net": "conv_trunk", "width": 32, "depth": 3, "norm": "batch", "groups": 1}
ADAM = {"name": "adam", "lr": 1e-3, "b1": 0.9, "b2": 0.999, "schedule": "cosine", "warmup": 50}
PROBE = {"name": "adam", "lr": 3e-2, "b1": 0.9, "b2": 0.999, "schedule": "cosine"}
LABELS = {**ADAM, "lr": 1e-2}  # where labels are learned; contrast takes less


def get_config(word=""):
    c = base()
    update(c, {
        "batch": 128, "eval_batch": 256, "stages": ("simclr",),
        "data": {"name": "shapes", "text": False, "partner": "none", "crop": "none", "size": 32},
        "views": {"recipe": "shapes"},
        "every": {"log": 50, "save": 500, "sample": 0},
    })  # fmt: skip
    c.data.args = {"size": c.data.get_oneway_ref("size"), "records": 20_000, "seed": 0, "labels": "single", "scenes": False,
                   "objects": 2}  # fmt: skip

    def view():
        """How a stage sees pictures; made anew for each, as references that stages share would be one value."""
        return {"recipe": c.views.get_oneway_ref("recipe"), "change": (), "size": c.data.get_oneway_ref("size"), "norm": ""}

    def labels():
        """What a last stage reads and is told, in the place of config.data's."""
        return {name: c.data.get_oneway_ref(name) for name in ("train", "label_share")} | {"only_labelled": True}

    def method(name, args, nets, **more):
        """One method at the sizes of two CPU cores; every one has an online probe."""
        return stage(
            c, method=name, steps=1500, args={**view(), **args}, nets={"image": dict(CONV), **nets},
            optim={"model": dict(ADAM), "probe": dict(PROBE)}, **more,
        )  # fmt: skip

    simclr = {"temperature": 0.2, "negatives": "all", "sigma": 0.5, "prior": 0.1, "beta": 1.0, "most": 10,
              "threshold": 0.7, "mean": "anchors", "slices": 1}  # fmt: skip
    fnc = {"temperature": 0.2, "support": 2, "queue": 512, "momentum": 0.99, "most": 10, "threshold": 0.7, "attract": True}
    supcon = {"temperature": 0.1, "base": None, "inside": False, "label_mode": "single", "positives": -1, "slices": 1}
    moco = {"temperature": 0.2, "queue": 4096, "momentum": 0.99, "shuffle": True}
    bank = {"temperature": 0.1, "drawn": 1024, "negatives": "shared", "momentum": 0.5}
    update(c, {
        "simclr": method("simclr", simclr, {"project": dict(net="simclr_head", dim=64, hidden=0, layers=2)}),
        "fnc": method("fnc", fnc, {"project": dict(net="simclr_head", dim=64, hidden=0, layers=2)}),
        "supcon": method("supcon", supcon, {"project": dict(net="supcon_head", dim=64, hidden=0)}),
        "moco_v1": method("moco", {**moco, "temperature": 0.1}, {"project": dict(net="moco_head", dim=64)}),
        "moco_v2": method("moco", moco, {"project": dict(net="moco2_head", dim=64, hidden=0)}),
        "moco_v3": method(
            "moco3", {"temperature": 0.2, "momentum": 0.99},
            {"project": dict(net="moco3_head", dim=64, hidden=256, layers=2),
             "predict": dict(net="moco3_predictor", dim=64, hidden=256)},
        ),
        "byol": method(
            "byol", {"momentum": 0.99},
            {"project": dict(net="byol_head", dim=64, hidden=256), "predict": dict(net="byol_head", dim=64, hidden=256)},
        ),
        "simsiam": method(
            "simsiam", {"stop": True},
            {"project": dict(net="simsiam_head", dim=128, hidden=0, layers=2),
             "predict": dict(net="simsiam_predictor", dim=128, hidden=32)},
        ),
        "swav": method(
            "swav",
            {"small": 16, "temperature": 0.1, "eps": 0.05, "rounds": 3, "prototypes": 128, "queue": 0, "queue_start": 0},
            {"project": dict(net="swav_head", dim=64, hidden=128)},
        ),
        "pcl": method(
            "pcl",
            {**moco, "counts": (64, 128, 256), "negatives": "code", "drawn": 128, "start": 1, "every": 1, "starts": 1,
             "rounds": 20, "weight": 1.0},
            {"project": dict(net="moco2_head", dim=64, hidden=0)},
        ),
        "cpc": method(
            "cpc", {"ahead": 4, "skip": 1, "negatives": "both", "temperature": 10.0},  # logits of drawn networks near 1
            {"image": dict(net="patch_grid", kind="conv", depth=3, width=32, patch=8, stride=4, norm="layer"),
             "context": dict(net="row_context", width=64, depth=2)},
        ),
        "cmc": method(
            "cmc", {**bank, "recipe": "cmc", "form": "softmax", "graph": "full"},
            {"image": dict(net="lab_trunk", kind="conv", depth=3, width=16), "project": dict(net="lab_head", dim=64)},
        ),
        "pirl": method(
            "pirl", {**bank, "patch": 8, "lam": 0.5},
            {"project": dict(net="moco_head", dim=64), "patches": dict(net="patch_head", dim=64)},
        ),
        "barlow": method("barlow", {"off": 0.0051, "factor": 0.1}, {"project": dict(net="barlow_head", dim=256, hidden=256)}),
        "vicreg": method(
            "vicreg", {"invariance": 25.0, "variance": 25.0, "covariance": 1.0},
            {"project": dict(net="vicreg_head", dim=256, hidden=256)},
        ),
    })  # fmt: skip
    for name, freeze, lr in (("linear", True, 0.1), ("finetune", False, 1e-2)):
        c[name] = stage(
            c, method="finetune", steps=500, args={**view(), "freeze": freeze, "layers": 0, "smoothing": 0.0}, nets={},
            optim={"model": {**PROBE, "lr": lr}},
            frozen={"encoder": ""}, data=labels(),
        )  # fmt: skip
    c.supervised = stage(
        c, method="finetune", steps=1500, args={**view(), "freeze": False, "layers": 0, "smoothing": 0.0},
        nets={"image": dict(CONV)}, optim={"model": dict(LABELS)}, frozen={"encoder": ""}, data=labels(),
    )  # fmt: skip
    c.distil = stage(
        c, method="distil", steps=1500, args={**view(), "alpha": 1.0, "temperature": 1.0, "smoothing": 0.0},
        nets={"image": {**CONV, "width": 8}}, optim={"model": dict(LABELS)}, frozen={"teacher": ""},
    )  # fmt: skip
    c.student = stage(
        c, method="student", steps=1500,
        args={**view(), "kind": "seed", "temperature": 0.2, "teacher_temperature": 0.01, "queue": 4096},
        nets={"image": {**CONV, "width": 8}, "project": dict(net="moco2_head", dim=0, hidden=0)},
        optim={"model": dict(ADAM), "probe": dict(PROBE)}, frozen={"teacher": ""},
    )  # fmt: skip
    c.evals = {name: dict(EVALS[name]) for name in ("knn", "linear", "spectrum", "labels")}
    return choose(c, word, presets(word.split(","), c.data.get_oneway_ref("root")))


EVALS = {
    "knn": {"every": 0, "on": ("h",), "k": 0, "temperature": 0.1},
    "linear": {"every": 0, "on": ("h",), "preset": "lbfgs", "sweep": 12, "steps": 500},
    "spectrum": {"every": 0, "on": ("h",), "views": 2},
    "labels": {"every": 0, "reals": 0},
    "fewshot": {"every": 0, "on": ("h",), "shots": (1, 5, 10), "draws": 5, "penalty": 1.0},
    "clusters": {"every": 0, "on": ("h",)},
    "robustness": {
        "every": 0, "on": ("h",), "preset": "lbfgs", "sweep": 12, "steps": 500, "reals": 500,
        "kinds": ("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur",
                  "snow", "frost", "fog", "brightness", "contrast", "elastic", "pixelate", "jpeg"),
        "severities": (1, 3, 5), "baseline": "", "eps": (1.0, 2.0, 4.0, 8.0), "pgd_steps": 20, "restarts": 1,
    },
}  # fmt: skip
SHARES = {"one_percent": 0.01, "ten_percent": 0.1}
VITS = {"vit_s": {"width": 384, "depth": 12, "heads": 12}, "vit_b": {"width": 768, "depth": 12, "heads": 12}}
TINY_VIT = {"width": 8, "depth": 1, "heads": 2}
PATCHES = {"imagenet": 16, "imagenette": 8, "stl10": 8, "folder": 8}  # pixels; 4 elsewhere


def presets(words, root="") -> dict:
    """What each word changes. words: all that are given, as a second stage follows the method among them, and sizes the set;
    root: of the set."""
    first = method_of(words)
    share = next((SHARES[word] for word in words if word in SHARES), 1.0)
    alone = {name: {"stages": (name,)} for name in METHODS}
    encoder = {"frozen": {"encoder": f"stage:{first}"}}
    second = {name: {"stages": (first, name), name: encoder} for name in ("linear", "finetune")}
    told = {word: {name: {"data": {"label_share": s}} for name in (*second, "supervised")} for word, s in SHARES.items()}
    taught = {"stages": (first, "student"), "student": {"frozen": {"teacher": f"stage:{first}"}}}
    compress = {**taught["student"], "args": {"kind": "compress", "temperature": 0.04}}
    compress["args"] |= {"queue": 128_000} if "imagenet" in words else {}
    below = next((word for word in words if word in second), "supervised" if first == "supervised" else "finetune")
    asked = {"stages": (first, below, "distil"), below: encoder}
    asked = {"stages": ("supervised", "distil")} if below == "supervised" else asked
    return {
        **alone, **second, **told, **sets(first, share, root), **VARIANTS,
        "seed": taught, "compress": {**taught, "student": compress},
        "distil": {**asked, "distil": {"frozen": {"teacher": f"stage:{below}"}}},
        "imagenet": R.imagenet(share, "simclr_v2" in words, first),
        **{word: vit(word, words, first) for word in VITS},
        **{word: {"evals": {word: dict(EVALS[word])}} for word in ("fewshot", "clusters", "robustness")},
        "quick": sized(words, quick(words), 4000), "tiny": sized(words, tiny(words), 160),
    }  # fmt: skip


def method_of(words) -> str:
    return next((word for word in words if word in METHODS), "simclr")


def sized(words, sizes, records) -> dict:
    """Small sizes, and so many pictures where the set is drawn and not one that another word names."""
    drawn = not any(word in (*sets(""), "imagenet") and word != "shapes" for word in words)
    return sizes | ({"data": {"args": {"records": records}}} if drawn else {})


def fixed(name, **args):
    """A data set whose pictures all have one size."""
    return {"name": name, "=args": args, "train": "train", "test": "test"}


# ---- data


def sets(first, share=1.0, root="") -> dict:
    """Data sets by their words. first: the method, as SupCon's features take another rate of the linear stage; share: of labels
    that the last stage is told; root: of the set."""
    rate = 5.0 if first == "supcon" else 1.0
    cifar = {name: {
        "data": fixed("tfds", builder=name), "views": {"recipe": "cifar_symmetric"},
        **R.resnet18(50_000, R.CIFAR_VIEWS, share, rate=rate, norm="cifar100" if name == "cifar100" else ""),
    } for name in ("cifar10", "cifar100")}  # fmt: skip
    return {
        "shapes": {},
        "mnist5k": {"data": {**fixed("mnist5k"), "size": 28}, "views": {"recipe": "digits"}},
        "digits": {"data": {**fixed("digits"), "size": 32}, "views": {"recipe": "digits"}},
        "emoji": {
            "data": {**fixed("emoji", labels="group", uses=10, test=20, skin_tones=False), "crop": "resize", "size": 32},
            "views": {"recipe": "emoji"},
        },
        "folder": {"data": {**fixed("image_folder"), "crop": "centre", "size": 64}, "views": {"recipe": "simclr"}},
        **cifar,
        "stl10": stl10(first, share, rate, root),
        "imagenette": {
            "data": {**fixed("tfds", builder="imagenette"), "test": "validation", "crop": "centre", "size": 144},
            "views": {"recipe": "simclr"},
            **R.resnet18(9_469, R.OWN_VIEWS, share, epochs=800, batch=256, rate=rate, stem="imagenet"),
        },
    }  # fmt: skip


def stl10(first, share, rate, root) -> dict:
    """Pretraining on the unlabelled split, probes, last stages and methods that learn labels on the labelled one."""
    taught = first in ("supcon", "supervised")
    own = {**fixed("tfds", builder="stl10"), "size": 96}
    probe = {"name": "tfds", "root": root, "train": "train", "test": "test", "=args": {"builder": "stl10"}}
    found = R.resnet18(5_000 if taught else 100_000, R.OWN_VIEWS, share, rate=rate, labelled=5_000)
    if not taught:
        own |= {"train": "unlabelled", "probe": probe}
        found |= {name: {**found[name], "data": {"train": "train"}} for name in ("linear", "finetune")}
    return {"data": own, "views": {"recipe": "simclr"}, **found}


# ---- what changes a method

NEGATIVES = {"dcl": "decoupled", "dclw": "weighted"} | {word: word for word in ("debiased", "hard", "eliminated", "attracted")}
VARIANTS = {
    **{word: {"stages": ("simclr",), "simclr": {"args": {"negatives": negatives}}} for word, negatives in NEGATIVES.items()},
    "simclr_v2": {
        "stages": ("simclr",), "simclr": {"nets": {"project": {"layers": 3}}}, "finetune": {"args": {"layers": 1}},
    },
    "by_shape": {"data": {"args": {"labels": "shape"}}},
    "both": {"evals": {
        "knn": {"on": ("h", "z")}, "linear": {"on": ("h", "z"), "sweep": 1, "steps": 100}, "spectrum": {"on": ("h", "z")},
    }},
}  # fmt: skip


def vit(word, words, first) -> dict:
    """A vision transformer in the place of the method's trunk; Chen et al. 2021, arXiv 2104.02057, section 5 and table 1."""
    size = next((PATCHES[name] for name in words if name in PATCHES), 4)
    image = {"net": "vit_trunk", "patch": size, **VITS[word], "hidden": 0, "stem": "patch", "frozen": True, "pool": "class"}
    steps = R.IMAGENET // 4096
    adamw = {"name": "adamw", "lr": 1.5e-4, "b1": 0.9, "b2": 0.999, "weight_decay": 0.1, "schedule": "cosine",
             "warmup": 40 * steps if "imagenet" in words else 50, "scale_by_batch": "linear"}  # fmt: skip
    found = {"nets": {"=image": image}, "optim": {"=model": adamw}}
    if first == "moco_v3":
        found["args"] = {"temperature": 0.2, "change": (("scale", (0.08, 1.0)),)}
        found["nets"] |= {"project": {"layers": 3}, "predict": {"last": True}}
    return {first: found}


# ---- small sizes

QUICK_OPTIM = {"=optim": {"model": {**ADAM, "lr": 3e-3, "warmup": 20}}}
QUICK_LABELS = {"=optim": {"model": {**LABELS, "warmup": 20}}}


def quick(words) -> dict:
    """Half a minute on two CPU cores."""
    wide = {method_of(words)} if set(words) & set(VITS) else set()  # a transformer's width is as its name says
    image = {"nets": {"image": {"width": 16}}}
    return {
        "batch": 64,
        **{name: {"steps": 300, **({} if name in wide else image), **QUICK_OPTIM} for name in METHODS},
        **({} if "supervised" in wide else {"supervised": {"steps": 300, **image, **QUICK_LABELS}}),
        "cmc": {"steps": 300, "nets": {"image": {"width": 8}}, **QUICK_OPTIM},
        "cpc": {"steps": 300, "nets": {"image": {"width": 16, "patch": 16, "stride": 8}}, "args": {"ahead": 2}, **QUICK_OPTIM},
        "linear": {"steps": 200}, "finetune": {"steps": 200},
        "student": {"steps": 300, **QUICK_OPTIM}, "distil": {"steps": 300, **QUICK_LABELS},
    }  # fmt: skip


SLIM = {"project": {"dim": 8}}
SLIM_HIDDEN = {"project": {"dim": 8, "hidden": 8}}
SLIM_PREDICT = {**SLIM_HIDDEN, "predict": {"dim": 8, "hidden": 8}}
SMALL = {"cpc": {**GRID, "width": 4, "patch": 8, "stride": 4}, "cmc": {**LABS, "width": 4}}
PARTS = (  # method, nets, arguments
    ("simclr", SLIM, {}), ("fnc", SLIM, {"support": 1, "queue": 32, "most": 3}), ("supcon", SLIM, {}),
    ("moco_v1", SLIM, {"queue": 32}), ("moco_v2", SLIM, {"queue": 32}), ("moco_v3", SLIM_PREDICT, {}),
    ("byol", SLIM_PREDICT, {}), ("simsiam", SLIM_PREDICT, {}),
    ("swav", SLIM_HIDDEN, {"prototypes": 12, "queue": 32}),
    ("pcl", SLIM, {"queue": 32, "counts": (3, 4), "drawn": 2, "start": 0, "rounds": 5}),
    ("cpc", {"context": {"width": 4, "depth": 1}}, {"ahead": 2}),
    ("cmc", SLIM, {"drawn": 16}), ("pirl", {**SLIM, "patches": {"dim": 8}}, {"drawn": 16}),
    ("barlow", SLIM_HIDDEN, {}), ("vicreg", SLIM_HIDDEN, {}), ("supervised", {}, {}),
)  # fmt: skip


def tiny(words) -> dict:
    """Sizes of tests."""
    two, drawn = {"steps": 2, "batch": 16}, {"=image": {**CONV, "width": 4}}
    trunks = {name: {"=image": SMALL[name]} if name in SMALL else drawn for name in METHODS}
    trunks |= {method_of(words): {"image": TINY_VIT}} if set(words) & set(VITS) else {}
    return {
        "batch": 16, "eval_batch": 32,
        "every": {"log": 1, "save": 2},
        **{name: {**two, "nets": {**trunks[name], **nets}, "args": args} for name, nets, args in PARTS},
        "linear": two, "finetune": two,
        "student": {**two, "args": {"queue": 32}, "nets": {"=image": {**CONV, "width": 2}}},
        "distil": {**two, "nets": {"=image": {**CONV, "width": 2}}},
        "=evals": {"knn": EVALS["knn"], "spectrum": {**EVALS["spectrum"], "views": 0}, "labels": {"every": 0, "reals": 16}},
    }  # fmt: skip
