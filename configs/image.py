"""Contrastive learning from pictures alone, without captions.

    python -m supcon_jax.main --config=configs/image.py              SimCLR on coloured shapes, which need no download
    python -m supcon_jax.main --config=configs/image.py:byol,mnist5k
    python -m supcon_jax.main --config=configs/image.py:moco_v2,imagenet

Words: a method (simclr supcon moco_v1 moco_v2 moco_v3 byol simsiam swav pcl cpc cmc pirl barlow vicreg, or supervised: no
pretraining, cross entropy from drawn weights), then a data set (shapes, mnist5k, digits, emoji: small networks, minutes on two
CPU cores; cifar10 and others: ResNet-18, 200 epochs; imagenet: each paper's own recipe), then what changes it:
    dcl, dclw, debiased, hard, eliminated, attracted    SimCLR with other negatives
    linear, finetune             a second stage on the encoder: a classifier on fixed features, or all of it fine-tuned
    seed, compress               a second stage: a small student of the encoder
    by_shape                     coloured shapes of 8 classes, not 64
    both                         measure projections as well as features, and how near two views of a picture stay
    quick                        small and short, for studies
    tiny                         sizes of tests
ImageNet recipes were not run here.
"""

from supcon_jax.config import base, choose, stage, update

IMAGENET = 1_281_167  # records
CONV = {"net": "conv_trunk", "width": 32, "depth": 3, "norm": "batch", "groups": 1}
RESNET = {"net": "resnet_trunk", "depth": 50, "width": 1.0, "stem": "imagenet", "zero": True, "sk": 0.0, "groups": 1}
SMALL_RESNET = {**RESNET, "depth": 18, "stem": "small", "zero": False}
GRID = {"net": "patch_grid", "kind": "conv", "depth": 3, "width": 32, "patch": 8, "stride": 4, "norm": "layer", "groups": 1}
LABS = {"net": "lab_trunk", "kind": "conv", "depth": 3, "width": 16, "stem": "small", "zero": False, "groups": 1}
ADAM = {"name": "adam", "lr": 1e-3, "b1": 0.9, "b2": 0.999, "schedule": "cosine", "warmup": 50}
PROBE = {"name": "adam", "lr": 3e-3, "b1": 0.9, "b2": 0.999, "schedule": "cosine"}
METHODS = ("simclr", "supcon", "moco_v1", "moco_v2", "moco_v3", "byol", "simsiam", "swav", "pcl", "cpc", "cmc", "pirl",
           "barlow", "vicreg", "supervised")  # fmt: skip


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

    def method(name, args, nets, **more):
        """One method at the sizes of two CPU cores; every one has an online probe."""
        shared = {"recipe": c.views.get_oneway_ref("recipe"), "change": (), "size": c.data.get_oneway_ref("size"), "norm": ""}
        return stage(
            c, method=name, steps=1500, args={**shared, **args}, nets={"image": dict(CONV), **nets},
            optim={"model": dict(ADAM), "probe": dict(PROBE)}, **more,
        )  # fmt: skip

    simclr = {"temperature": 0.2, "negatives": "all", "sigma": 0.5, "prior": 0.1, "beta": 1.0, "most": 10,
              "threshold": 0.7, "mean": "anchors", "slices": 1}  # fmt: skip
    supcon = {"temperature": 0.1, "base": None, "inside": False, "label_mode": "single", "positives": -1, "slices": 1}
    moco = {"temperature": 0.2, "queue": 4096, "momentum": 0.99, "shuffle": True}
    bank = {"temperature": 0.1, "drawn": 1024, "negatives": "shared", "momentum": 0.5}
    update(c, {
        "simclr": method("simclr", simclr, {"project": dict(net="simclr_head", dim=64, hidden=0, layers=2)}),
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
    view = {"recipe": c.views.get_oneway_ref("recipe"), "change": (), "size": c.data.get_oneway_ref("size"), "norm": ""}
    labels = {"label_share": c.data.get_oneway_ref("label_share"), "only_labelled": True}  # in the place of config.data's
    for name, freeze in (("linear", True), ("finetune", False)):
        c[name] = stage(
            c, method="finetune", steps=500, args={**view, "freeze": freeze, "layers": 0, "smoothing": 0.0}, nets={},
            optim={"model": {"name": "adam", "lr": 1e-3, "b1": 0.9, "b2": 0.999, "schedule": "cosine"}},
            frozen={"encoder": ""}, data=dict(labels),
        )  # fmt: skip
    c.supervised = stage(
        c, method="finetune", steps=1500, args={**view, "freeze": False, "layers": 0, "smoothing": 0.0},
        nets={"image": dict(CONV)}, optim={"model": dict(ADAM)}, frozen={"encoder": ""}, data=dict(labels),
    )  # fmt: skip
    c.student = stage(
        c, method="student", steps=1500,
        args={**view, "kind": "seed", "temperature": 0.2, "teacher_temperature": 0.01, "queue": 4096},
        nets={"image": {**CONV, "width": 8}, "project": dict(net="moco2_head", dim=0, hidden=0)},
        optim={"model": dict(ADAM), "probe": dict(PROBE)}, frozen={"teacher": ""},
    )  # fmt: skip
    c.evals = {
        "knn": {"every": 0, "on": ("h",)},
        "linear": {"every": 0, "on": ("h",), "preset": "lbfgs", "sweep": 12, "steps": 500},
        "spectrum": {"every": 0, "on": ("h",)},
        "labels": {"every": 0, "reals": 0},
    }
    return choose(c, word, presets(word.split(",")))


def presets(words) -> dict:
    """What each word changes. words: those that are given, as a second stage follows the method among them."""
    first = next((word for word in words if word in METHODS), "simclr")
    alone = {name: {"stages": (name,)} for name in METHODS}
    encoder = {"frozen": {"encoder": f"stage:{first}"}}
    second = {name: {"stages": (first, name), name: encoder} for name in ("linear", "finetune")}
    taught = {"stages": (first, "student"), "student": {"frozen": {"teacher": f"stage:{first}"}}}
    compress = {**taught, "student": {**taught["student"], "args": {"kind": "compress", "temperature": 0.04}}}
    students = {"seed": taught, "compress": compress}
    small = {"quick": sized(words, QUICK, 4000), "tiny": sized(words, TINY, 160)}
    return {**alone, **second, **students, **DATA, **VARIANTS, "imagenet": IMAGENET_RECIPES, **small}


def sized(words, sizes, records) -> dict:
    """Small sizes, and so many pictures where the set is drawn and not one that another word names."""
    drawn = not any(word in DATA and word != "shapes" or word == "imagenet" for word in words)
    return sizes | ({"data": {"args": {"records": records}}} if drawn else {})


def fixed(name, **args):
    """A data set whose pictures all have one size."""
    return {"name": name, "=args": args, "train": "train", "test": "test"}


NEGATIVES = {"dcl": "decoupled", "dclw": "weighted"} | {word: word for word in ("debiased", "hard", "eliminated", "attracted")}
VARIANTS = {
    **{word: {"stages": ("simclr",), "simclr": {"args": {"negatives": negatives}}} for word, negatives in NEGATIVES.items()},
    "by_shape": {"data": {"args": {"labels": "shape"}}},
    "both": {"evals": {
        "knn": {"every": 0, "on": ("h", "z")}, "linear": {"every": 0, "on": ("h", "z"), "sweep": 1, "steps": 100},
        "spectrum": {"every": 0, "on": ("h", "z"), "views": 2},
    }},
}

SGD = {"name": "sgd", "lr": 0.12, "momentum": 0.9, "nesterov": False, "weight_decay": 5e-4, "schedule": "cosine", "warmup": 0,
       "scale_by_batch": "linear"}  # fmt: skip


def resnet18(records, queue=4096, epochs=200, batch=512, **trunk):
    """ResNet-18 for pictures of 32 to 128 pixels: SGD, so many epochs."""
    image = {**SMALL_RESNET, **trunk}
    change = {"steps": records * epochs // batch, "nets": {"=image": image}, "optim": {"=model": SGD}}
    wide = {
        "simclr": {"nets": {"project": {"dim": 128}}},
        "supcon": {"nets": {"project": {"dim": 128}}},
        "moco_v1": {"args": {"queue": queue}, "nets": {"project": {"dim": 128}}},
        "moco_v2": {"args": {"queue": queue, "momentum": 0.99}, "nets": {"project": {"dim": 128}}},
        "moco_v3": {"nets": {"project": {"dim": 256, "hidden": 4096}, "predict": {"dim": 256, "hidden": 4096}}},
        "byol": {"nets": {"project": {"dim": 256, "hidden": 1024}, "predict": {"dim": 256, "hidden": 1024}}},
        "simsiam": {"nets": {"project": {"dim": 2048, "hidden": 2048}, "predict": {"dim": 2048, "hidden": 512}}},
        "swav": {"args": {"prototypes": 512}, "nets": {"project": {"dim": 128, "hidden": 512}}},
        "pcl": {"args": {"queue": queue, "counts": (records // 50, records // 20, records // 10), "drawn": 512, "start": 20,
                         "starts": 5}, "nets": {"project": {"dim": 128}}},
        "pirl": {"args": {"drawn": 4096, "patch": 10}, "nets": {"project": {"dim": 128}, "patches": {"dim": 128}}},
        "barlow": {"nets": {"project": {"dim": 2048, "hidden": 2048}}},
        "vicreg": {"nets": {"project": {"dim": 2048, "hidden": 2048}}},
        "cmc": {"nets": {"=image": {**LABS, "kind": "resnet", "depth": 18, "width": 0.5, "stem": image["stem"]}}},
        "cpc": {"nets": {"=image": {**GRID, "kind": "resnet", "depth": 18, "width": 0.5, "patch": 16, "stride": 8}}},
    }  # fmt: skip
    out = {"batch": batch, "every": {"log": 100, "save": 2000}}
    for name in METHODS:
        more = wide.get(name, {})
        out[name] = {**change, **more, "nets": {**change["nets"], **more.get("nets", {})}}
    return out


DATA = {
    "shapes": {},
    "mnist5k": {"data": {**fixed("mnist5k"), "size": 28}, "views": {"recipe": "digits"}},
    "digits": {"data": {**fixed("digits"), "size": 32}, "views": {"recipe": "digits"}},
    "emoji": {
        "data": {**fixed("emoji", labels="group", uses=10, test=20, skin_tones=False), "crop": "resize", "size": 32},
        "views": {"recipe": "emoji"},
    },
    **{name: {"data": fixed("tfds", builder=name), "views": {"recipe": "cifar_symmetric"}, **resnet18(50_000)}
       for name in ("cifar10", "cifar100")},
    "stl10": {
        "data": {**fixed("tfds", builder="stl10"), "train": "unlabelled", "size": 96}, "views": {"recipe": "simclr"},
        **resnet18(100_000),
    },
    "imagenette": {
        "data": {**fixed("tfds", builder="imagenette"), "test": "validation", "crop": "resize", "size": 144},
        "views": {"recipe": "simclr"}, **resnet18(9_469, epochs=800, batch=256, stem="imagenet"),
    },
}  # fmt: skip


def lars(lr, batch, epochs, **more):
    """LARS without decay and ratio for biases and norms, ten epochs of warm-up, a cosine to zero."""
    plain = {"name": "lars_outside", "momentum": 0.9, "weight_decay": 1e-6, "exclude": ("vectors",)}
    return {**plain, "lr": lr, "schedule": "cosine", "warmup": 10 * IMAGENET // batch, "scale_by_batch": "linear", **more}


def recipe(batch, epochs, optim, **more):
    """One method's ImageNet recipe: ResNet-50, so many epochs."""
    nets = {"=image": {**RESNET, **more.pop("image", {})}, **more.pop("nets", {})}
    size = {"size": 224, **more.pop("args", {})}
    return {"batch": batch, "steps": IMAGENET * epochs // batch, "args": size, "nets": nets, "optim": {"=model": optim}, **more}


def second(batch, epochs, optim):
    """A classifier on an encoder: so many epochs of the whole set, with crops and flips."""
    steps = IMAGENET * epochs // batch
    return {"batch": batch, "steps": steps, "args": {"size": 224, "recipe": "crop_flip"}, "optim": {"=model": optim}}


MOMENTUM = {"name": "sgd", "lr": 0.03, "momentum": 0.9, "nesterov": False, "weight_decay": 1e-4, "scale_by_batch": "linear"}
STAIRS = {**MOMENTUM, "schedule": "steps", "milestones": (120, 160), "decay": 0.1}
COSINE = {**MOMENTUM, "schedule": "cosine"}
NESTEROV = {**COSINE, "lr": 0.1, "nesterov": True, "weight_decay": 0.0}
LATE = {**STAIRS, "milestones": (120, 160, 200)}
IMAGENET_RECIPES = {
    "data": {**fixed("tfds", builder="imagenet2012"), "test": "validation", "crop": "resize", "size": 256},
    "views": {"recipe": "simclr"},
    "every": {"log": 100, "save": 2000},
    "simclr": recipe(
        4096, 1000, lars(0.075, 4096, 1000, name="lars", scale_by_batch="sqrt"), image={"zero": True},
        args={"temperature": 0.1}, nets={"project": {"dim": 128}},
    ),
    "supcon": recipe(
        6144, 350, lars(0.4, 6144, 350, name="lars"), args={"temperature": 0.1}, nets={"project": {"dim": 128, "hidden": 2048}},
    ),
    "moco_v1": recipe(
        256, 200, STAIRS, image={"zero": False, "groups": 8}, nets={"project": {"dim": 128}},
        args={"recipe": "moco_v1", "temperature": 0.07, "queue": 65536, "momentum": 0.999},
    ),
    "moco_v2": recipe(
        256, 200, COSINE, image={"zero": False, "groups": 8}, nets={"project": {"dim": 128}},
        args={"recipe": "moco_v2", "temperature": 0.2, "queue": 65536, "momentum": 0.999},
    ),
    "moco_v3": recipe(
        4096, 300, lars(0.3, 4096, 300), args={"recipe": "moco_v3", "temperature": 1.0, "momentum": 0.99},
        nets={"project": {"dim": 256, "hidden": 4096}, "predict": {"dim": 256, "hidden": 4096}},
    ),
    "byol": recipe(
        4096, 1000, lars(0.2, 4096, 1000, weight_decay=1.5e-6), image={"zero": False},
        args={"recipe": "byol", "momentum": 0.996},
        nets={"project": {"dim": 256, "hidden": 4096}, "predict": {"dim": 256, "hidden": 4096}},
    ),
    "simsiam": recipe(
        512, 100, {**COSINE, "lr": 0.05, "parts": {"predict": {"schedule": "constant"}}}, args={"recipe": "moco_v2"},
        nets={"project": {"dim": 2048, "hidden": 2048, "layers": 3}, "predict": {"dim": 2048, "hidden": 512}},
    ),
    "swav": recipe(
        4096, 400,
        lars(0.3, 4096, 400, ratio="apart", exclude=(), start=0.0625, end=0.001, parts={"prototypes": {"freeze": 313}}),
        image={"zero": False}, args={"recipe": "swav", "small": 96, "prototypes": 3000},
        nets={"project": {"dim": 128, "hidden": 2048}},
    ),
    "pcl": recipe(
        256, 200, COSINE, image={"zero": False, "groups": 8}, nets={"project": {"dim": 128}},
        args={"recipe": "moco_v2", "temperature": 0.2, "queue": 16384, "momentum": 0.999, "counts": (25_000, 50_000, 100_000),
              "drawn": 16384, "start": 20, "starts": 5},
    ),
    "cpc": recipe(
        512, 200, {"name": "adam", "lr": 2e-4, "b1": 0.9, "b2": 0.999, "schedule": "constant"},
        args={"size": 256, "ahead": 5, "skip": 0, "temperature": 1.0},  # the paper leaves no row out and scales nothing
        nets={"=image": {**GRID, "kind": "resnet", "depth": 101, "width": 1.0, "patch": 64, "stride": 32},
              "context": {"width": 256, "depth": 5}},
    ),
    "cmc": recipe(
        256, 240, LATE, args={"recipe": "cmc", "temperature": 0.07, "form": "nce", "drawn": 4096},
        nets={"=image": {**LABS, "kind": "resnet", "depth": 50, "width": 0.5, "stem": "imagenet"}, "project": {"dim": 128}},
    ),
    "pirl": recipe(
        1024, 800, COSINE, image={"zero": False}, args={"recipe": "moco_v1", "temperature": 0.07, "drawn": 32000, "patch": 64},
        nets={"project": {"dim": 128}, "patches": {"dim": 128}},
    ),
    "barlow": recipe(
        2048, 1000, lars(0.2, 2048, 1000, end=0.001, parts={"vectors": {"lr": 0.0048}}),
        args={"recipe": "moco_v3", "factor": 1.0}, nets={"project": {"dim": 8192, "hidden": 8192}},
    ),
    "vicreg": recipe(
        2048, 1000, lars(0.2, 2048, 1000, end=0.001), args={"recipe": "moco_v3"},
        nets={"project": {"dim": 8192, "hidden": 8192}},
    ),
    "linear": second(4096, 90, NESTEROV),  # SimCLR's, on augmented pictures
    "finetune": second(1024, 60, {**NESTEROV, "name": "lars", "lr": 0.005, "scale_by_batch": "sqrt"}),
    "supervised": recipe(
        256, 90, {**STAIRS, "lr": 0.1, "milestones": (30, 60)}, image={"zero": False}, args={"recipe": "crop_flip"},
    ),
}  # fmt: skip

QUICK_OPTIM = {"=optim": {"model": {**ADAM, "lr": 3e-3, "warmup": 20}}}
QUICK = {  # half a minute on two CPU cores
    "batch": 64,
    **{name: {"steps": 300, "nets": {"image": {"width": 16}}, **QUICK_OPTIM} for name in METHODS if name not in ("cmc", "cpc")},
    "cmc": {"steps": 300, "nets": {"image": {"width": 8}}, **QUICK_OPTIM},
    "cpc": {"steps": 300, "nets": {"image": {"width": 16, "patch": 16, "stride": 8}}, "args": {"ahead": 2}, **QUICK_OPTIM},
    "linear": {"steps": 200}, "finetune": {"steps": 200},
    "student": {"steps": 300, **QUICK_OPTIM},
}  # fmt: skip

SLIM = {"project": {"dim": 8}}
SLIM_HIDDEN = {"project": {"dim": 8, "hidden": 8}}
SLIM_PREDICT = {**SLIM_HIDDEN, "predict": {"dim": 8, "hidden": 8}}
SMALL = {"cpc": {**GRID, "width": 4, "patch": 8, "stride": 4}, "cmc": {**LABS, "width": 4}}
TINY = {
    "batch": 16, "eval_batch": 32,
    "every": {"log": 1, "save": 2},
    **{name: {"steps": 2, "nets": {"=image": SMALL.get(name, {**CONV, "width": 4}), **nets}, "args": args}
       for name, nets, args in (
        ("simclr", SLIM, {}), ("supcon", SLIM, {}),
        ("moco_v1", SLIM, {"queue": 32}), ("moco_v2", SLIM, {"queue": 32}), ("moco_v3", SLIM_PREDICT, {}),
        ("byol", SLIM_PREDICT, {}), ("simsiam", SLIM_PREDICT, {}),
        ("swav", SLIM_HIDDEN, {"prototypes": 12, "queue": 32}),
        ("pcl", SLIM, {"queue": 32, "counts": (3, 4), "drawn": 2, "start": 0, "rounds": 5}),
        ("cpc", {"context": {"width": 4, "depth": 1}}, {"ahead": 2}),
        ("cmc", SLIM, {"drawn": 16}), ("pirl", {**SLIM, "patches": {"dim": 8}}, {"drawn": 16}),
        ("barlow", SLIM_HIDDEN, {}), ("vicreg", SLIM_HIDDEN, {}), ("supervised", {}, {}),
    )},
    "linear": {"steps": 2}, "finetune": {"steps": 2},
    "student": {"steps": 2, "args": {"queue": 32}, "nets": {"image": {"width": 2}, "project": {"dim": 8}}},
    "=evals": {"knn": {"every": 0, "on": ("h",)}, "spectrum": {"every": 0, "on": ("h",)}, "labels": {"every": 0, "reals": 16}},
}  # fmt: skip
