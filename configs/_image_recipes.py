"""Recipes of configs/image.py beside its small ones: sets of 32 to 144 pixels on a ResNet-18, and each paper's on ImageNet.

On the smaller sets all methods share network, optimiser and length (those of solo-learn and lightly, which differ little); what
differs is how views are drawn, as solo-learn has it. The ImageNet recipes differ from the papers' in this:
    pictures are kept as the middle square at 256 px, and random crops are taken from that
    SupCon: AutoAugment as published; the authors' code takes its library's later policy
    CPC: layer norms, as the second version of the paper has them (the first had no norms)
    CompRess: SEED's optimiser
    false-negative cancellation: SimCLR's augmentation without RandAugment after it
"""

IMAGENET = 1_281_167  # records
METHODS = ("simclr", "fnc", "supcon", "moco_v1", "moco_v2", "moco_v3", "byol", "simsiam", "swav", "pcl", "cpc", "cmc", "pirl",
           "barlow", "vicreg", "supervised")  # fmt: skip
RESNET = {"net": "resnet_trunk", "depth": 50, "width": 1.0, "stem": "imagenet", "zero": True, "sk": 0.0, "groups": 1}
SMALL_RESNET = {**RESNET, "depth": 18, "stem": "small", "zero": False}
GRID = {"net": "patch_grid", "kind": "conv", "depth": 3, "width": 32, "patch": 8, "stride": 4, "norm": "layer", "groups": 1}
LABS = {"net": "lab_trunk", "kind": "conv", "depth": 3, "width": 16, "stem": "small", "zero": False, "groups": 1}
QUEUED = ("moco_v1", "moco_v2", "pcl")  # a query must not share the statistics of BatchNorm with its key

PROBE = {"lr": 3e-3}  # of long runs on many features

# ---- ResNet-18

SGD = {"name": "sgd", "lr": 0.12, "momentum": 0.9, "nesterov": False, "weight_decay": 5e-4, "schedule": "cosine", "warmup": 0,
       "scale_by_batch": "linear"}  # fmt: skip
# da Costa et al. 2022, arXiv 2108.01775; without an entry the set's own
CIFAR_VIEWS = {
    "moco_v1": "cifar_weak", "moco_v2": "cifar_weak", "simsiam": "cifar_weak", "pcl": "cifar_weak",
    "moco_v3": "cifar_asymmetric", "byol": "cifar_asymmetric", "barlow": "cifar_asymmetric", "vicreg": "cifar_vicreg",
    "cmc": "cmc", "supervised": "crop_flip",
}  # fmt: skip
OWN_VIEWS = {
    "moco_v1": "moco_v1", "moco_v2": "moco_v2", "moco_v3": "moco_v3", "byol": "byol", "simsiam": "simsiam", "swav": "swav",
    "pcl": "pcl_v2", "cmc": "cmc", "pirl": "moco_v1", "barlow": "barlow", "vicreg": "vicreg", "supervised": "crop_flip",
}  # fmt: skip


def resnet18(records, views, share=1.0, queue=4096, epochs=200, batch=512, rate=1.0, norm="", labelled=0, **trunk):
    """ResNet-18 for pictures of 32 to 144 pixels: SGD, so many epochs.

    views: {method: recipe}. share: of labels that a last stage is told, whose epochs are of those. norm: in the place of the
    recipes' own. rate: of the linear stage (Khosla et al. 2020, arXiv 2004.11362: 5 on SupCon's features). labelled: records
    of the split that a last stage reads, if it is another one.
    """
    image = {**SMALL_RESNET, **trunk}
    steps, optim = records * epochs // batch, {"=model": SGD}
    wide = {
        "simclr": {"nets": {"project": {"dim": 128}}},
        "fnc": {"args": {"queue": queue}, "nets": {"project": {"dim": 128}}},
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
        "cpc": {"args": {"ahead": 2},  # of the three rows of patches that 32 pixels have
                "nets": {"=image": {**GRID, "kind": "resnet", "depth": 18, "width": 0.5, "patch": 16, "stride": 8}}},
    }  # fmt: skip
    out = {"batch": batch, "every": {"log": 100, "save": 2000}}
    for name in METHODS:
        more = wide.get(name, {})
        own = {"=image": {**image, "groups": 8 if name in QUEUED else 1}, **more.get("nets", {})}
        args = {"norm": "" if name == "cmc" else norm, **more.get("args", {})}
        args |= {"recipe": views[name]} if name in views else {}
        probe = {} if name == "supervised" else {"probe": PROBE}
        out[name] = {"steps": steps, "optim": optim | probe, "nets": own, "args": args}
    tuned = {**SGD, "lr": rate, "weight_decay": 0.0, "schedule": "steps", "milestones": (60, 75, 90), "decay": 0.2,
             "scale_by_batch": ""}  # fmt: skip
    known = share * (labelled or records) / batch
    out["supervised"]["steps"] = int(known * epochs)
    out["linear"] = {"steps": int(known * 100), "args": {"recipe": "crop_flip"}, "optim": {"=model": tuned}}
    out["finetune"] = {"steps": int(known * 30), "args": {"recipe": "crop_flip"}, "optim": {"model": {"lr": 1e-3}}}
    out["distil"] = {"steps": steps, "optim": optim, "nets": {"=image": {**image, "width": 0.5}}}
    out["student"] = {**out["distil"], "optim": optim | {"probe": PROBE}}
    return out


# ---- ImageNet


def lars(lr, batch, epochs, **more):
    """LARS without decay and ratio for biases and norms, ten epochs of warm-up, a cosine to zero."""
    plain = {"name": "lars_outside", "momentum": 0.9, "weight_decay": 1e-6, "exclude": ("vectors",)}
    return {**plain, "lr": lr, "schedule": "cosine", "warmup": 10 * IMAGENET // batch, "scale_by_batch": "linear", **more}


def recipe(batch, epochs, optim, probe=PROBE, **more):
    """One method's ImageNet recipe: ResNet-50, so many epochs. probe: None where labels are learned anyway."""
    nets = {"=image": {**RESNET, **more.pop("image", {})}, **more.pop("nets", {})}
    size = {"size": 224, **more.pop("args", {})}
    optim = {"=model": optim} | ({"probe": probe} if probe else {})
    return {"batch": batch, "steps": IMAGENET * epochs // batch, "args": size, "nets": nets, "optim": optim, **more}


def second(batch, epochs, optim, share=1.0):
    """A classifier on an encoder: so many epochs of the labelled pictures, with crops and flips."""
    steps = int(share * IMAGENET * epochs / batch)
    return {"batch": batch, "steps": steps, "args": {"size": 224, "recipe": "crop_flip"}, "optim": {"=model": optim}}


MOMENTUM = {"name": "sgd", "lr": 0.03, "momentum": 0.9, "nesterov": False, "weight_decay": 1e-4, "scale_by_batch": "linear"}
STAIRS = {**MOMENTUM, "schedule": "steps", "milestones": (120, 160), "decay": 0.1}
COSINE = {**MOMENTUM, "schedule": "cosine"}
NESTEROV = {**COSINE, "lr": 0.1, "nesterov": True, "weight_decay": 0.0}
# Khosla et al. 2020, arXiv 2004.11362, the authors' code: 0.97 each half epoch
RMSPROP = {"name": "rmsprop", "lr": 0.05, "momentum": 0.9, "eps": 1e-3, "weight_decay": 1e-6, "schedule": "exponential",
           "decay": 0.97**2, "warmup": 12 * IMAGENET // 6144, "scale_by_batch": "linear"}  # fmt: skip
LATE = {**STAIRS, "milestones": (120, 160, 200)}
FEW = {0.01: 60, 0.1: 30}  # epochs of fine-tuning, by share of labels: Chen et al. 2020, arXiv 2002.05709, appendix B.5


def v2_lars(epochs):
    """SimCLR v2's optimiser, of training and of distillation; a twentieth warms up. Chen et al. 2020, arXiv 2006.10029."""
    warmup = epochs * IMAGENET // 4096 // 20
    return lars(0.1, 4096, epochs, name="lars", scale_by_batch="sqrt", weight_decay=1e-4, warmup=warmup)


def imagenet(share=1.0, v2=False, first="") -> dict:
    """The word imagenet. share: of labels that the last stage is told; v2: SimCLR v2 in the place of v1; first: the method, as
    SupCon has a linear stage of its own."""
    simclr = recipe(
        4096, 1000, lars(0.075, 4096, 1000, name="lars", scale_by_batch="sqrt"), image={"zero": True},
        args={"temperature": 0.1}, nets={"project": {"dim": 128}},
    )  # fmt: skip
    image = {"zero": True, "stem": "deep", "sk": 0.0625} if v2 else {"zero": True}
    if v2:
        simclr = recipe(
            4096, 800, v2_lars(800), image=image, args={"temperature": 0.1}, nets={"project": {"dim": 128}},
        )  # fmt: skip
    tuned = {**COSINE, "name": "lars", "lr": 0.005, "weight_decay": 0.0, "scale_by_batch": "sqrt"}
    del tuned["nesterov"]
    return {
        **{name: dict(found) for name, found in RECIPES.items()},
        "simclr": simclr,
        "supervised": RECIPES["supervised"] | {"steps": int(share * RECIPES["supervised"]["steps"])},
        "linear": second(*((6144, 90, RMSPROP) if first == "supcon" else (4096, 90, NESTEROV)), share),  # else SimCLR's
        "finetune": second(1024, FEW.get(share, 60), tuned, share),
        "distil": recipe(  # into itself
            4096, 400, v2_lars(400), None, image=image, args={"recipe": "crop_flip", "temperature": 1.0},
        ),
    }


RECIPES = {
    "data": {"name": "tfds", "=args": {"builder": "imagenet2012"}, "train": "train", "test": "validation", "crop": "centre",
             "size": 256, "middle": 0.875},
    "views": {"recipe": "simclr"},
    "every": {"log": 100, "save": 2000},
    "evals": {"knn": {"k": 200, "temperature": 0.07}},
    "fnc": recipe(  # the authors' command
        4096, 100, lars(0.1, 4096, 100, name="lars", scale_by_batch="sqrt", weight_decay=1e-4),
        args={"temperature": 0.1, "support": 8, "queue": 6 * 4096, "momentum": 0.999},
        nets={"project": {"dim": 128, "layers": 3}},
    ),
    "supcon": recipe(
        6144, 350, lars(0.4, 6144, 350, name="lars", weight_decay=1e-3), args={"recipe": "supcon", "temperature": 0.1},
        nets={"project": {"dim": 128, "hidden": 2048}},
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
        512, 100, {**COSINE, "lr": 0.05, "parts": {"predict": {"schedule": "constant"}}}, args={"recipe": "simsiam"},
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
        args={"recipe": "pcl_v2", "temperature": 0.2, "queue": 16384, "momentum": 0.999, "counts": (25_000, 50_000, 100_000),
              "drawn": 16384, "start": 20, "starts": 5},
    ),
    "cpc": recipe(
        512, 200, {"name": "adam", "lr": 2e-4, "b1": 0.9, "b2": 0.999, "schedule": "constant"},
        args={"recipe": "cpc", "size": 256, "ahead": 5, "skip": 0, "temperature": 1.0},  # no row left out, nothing scaled
        nets={"=image": {**GRID, "kind": "resnet_v2", "depth": 101, "width": 1.0, "patch": 64, "stride": 32},
              "context": {"width": 256, "depth": 5}},
    ),
    "cmc": recipe(
        256, 240, LATE, nets={"=image": {**LABS, "kind": "resnet", "depth": 50, "width": 0.5, "stem": "imagenet"},
                              "project": {"dim": 128}},
        args={"recipe": "cmc", "change": (("scale", (0.08, 1.0)),), "temperature": 0.07, "form": "nce", "drawn": 4096},
    ),
    "pirl": recipe(
        1024, 800, COSINE, image={"zero": False}, args={"recipe": "moco_v1", "temperature": 0.07, "drawn": 32000, "patch": 64},
        nets={"project": {"dim": 128}, "patches": {"dim": 128}},
    ),
    "barlow": recipe(
        2048, 1000, lars(0.2, 2048, 1000, end=0.001, parts={"vectors": {"lr": 0.0048}}),
        args={"recipe": "barlow", "factor": 1.0}, nets={"project": {"dim": 8192, "hidden": 8192}},
    ),
    "vicreg": recipe(
        2048, 1000, lars(0.2, 2048, 1000, end=0.001), args={"recipe": "vicreg"},
        nets={"project": {"dim": 8192, "hidden": 8192}},
    ),
    "supervised": recipe(
        256, 90, {**STAIRS, "lr": 0.1, "milestones": (30, 60)}, None, image={"zero": False}, args={"recipe": "crop_flip"},
    ),
    # Fang et al. 2021, arXiv 2101.04731
    "student": recipe(256, 200, COSINE, image={"depth": 18, "zero": False}, args={"recipe": "moco_v2", "queue": 65536}),
}  # fmt: skip
