"""What the values of a config may be."""

# key pattern, accepted types, range check, what to do. The first row that matches a key decides.
NUMBER = (int, float)
TERMS = ("supcon", "ntxent", "unicl", "label_head", "xmc")  # those of losses.terms
STEMS = ("imagenet", "small", "deep", "patch", "conv")  # of nets.backbone
LABEL_MODES = ("single", "any", "all", "jaccard", "idf", "mulsupcon", "mulsupcon_weighted")  # of losses.contrast
RECIPES = (  # of views.recipes
    "simclr", "simclr_cifar", "moco_v1", "moco_v2", "simsiam", "pcl_v2", "byol", "moco_v3", "barlow", "vicreg", "swav",
    "swav_two", "cifar_symmetric", "cifar_weak", "cifar_asymmetric", "cifar_vicreg", "supcon", "supcon_cifar", "cmc", "cpc",
    "crop_flip", "emoji", "digits", "shapes",
)  # fmt: skip
NORMS = ("none", "half", "imagenet", "swav", "cifar", "cifar100", "cifar_supcon", "lab")  # of views.recipes
VIEW = {  # what each field of views.recipes.View holds: a type, or so many numbers
    "scale": 2, "ratio": 2, "kernel": str, "flip": NUMBER, "jitter": 4, "jitter_p": NUMBER, "order": str, "gray": NUMBER,
    "gray_first": bool, "blur": NUMBER, "sigma": 2, "taps": int, "solarize": NUMBER, "threshold": NUMBER, "rotate": NUMBER,
    "flavour": str, "policy": str,
}  # fmt: skip
NEGATIVES = {  # by method; of methods.simclr, losses.predictive, losses.prototypes and losses.bank
    "simclr": ("all", "decoupled", "weighted", "debiased", "hard", "hardened", "eliminated", "attracted"),
    "cpc": ("batch", "sequence", "both"),
    "pcl": ("code", "paper"),
    "cmc": ("shared", "per_anchor"),
    "pirl": ("shared", "per_anchor"),
}
RECIPE = (str, lambda x: x in RECIPES, f"one of {', '.join(RECIPES)}")
RANGES = (
    ("*seed", int, lambda x: 0 <= x < 2**31, "an integer, 0 to 2147483647"),
    ("precision", str, lambda x: x in ("f32", "bf16"), "f32 or bf16"),
    ("skip_limit", int, lambda x: x > 0, "an integer > 0"),
    ("data.partner", str, lambda x: x in ("same_label", "same_image", "none"), "same_label, same_image or none"),
    ("data.crop", str, lambda x: x in ("resize_crop", "resize", "centre", "none"), "resize_crop, resize, centre or none"),
    ("data.middle", NUMBER, lambda x: 0 < x <= 1, "a share above 0 to 1; 1 shows evaluations whole pictures"),
    ("data.bad_limit", NUMBER, lambda x: 0 <= x <= 1, "a share between 0 and 1"),
    ("data.threads", int, lambda x: 0 <= x <= 256, "0 to 256"),
    ("data.words", int, lambda x: 1 <= x <= 512, "1 to 512"),
    ("data.labels_from", str, lambda x: x in ("set", "clusters", "captions"), "set, clusters or captions"),
    ("data.clusters", int, lambda x: x >= 2, "at least 2"),
    ("data.similar", NUMBER, lambda x: 0 < x <= 1, "a cosine, above 0 to 1"),
    ("data.label_noise_kind", str, lambda x: x in ("symmetric", "asymmetric"), "symmetric or asymmetric"),
    ("data.label_map", tuple, lambda x: all(isinstance(y, str) and "->" in y for y in x), "classes as ('truck->car', ...)"),
    ("*data.label_share", NUMBER, lambda x: 0 < x <= 1, "a share above 0 to 1; 1 keeps all labels"),
    ("data.label_*", NUMBER, lambda x: 0 <= x <= 1, "a share between 0 and 1"),
    ("data.size", int, lambda x: 8 <= x <= 2048, "pixels, 8 to 2048"),
    ("keep.mode", str, lambda x: x in ("min", "max"), "min or max"),
    ("mesh.data", (int, str), lambda x: x == "auto" or (isinstance(x, int) and x > 0), "auto or a number of devices"),
    ("mesh.door", str, lambda x: x in ("auto", "gather", "ring"), "auto, gather or ring"),
    ("mesh.params", str, lambda x: x in ("replicate", "fsdp"), "replicate or fsdp (cut over the devices)"),
    ("mesh.params_mib", NUMBER, lambda x: x >= 0, "a size in MiB >= 0: fsdp cuts what is as large"),
    ("every.profile", tuple, lambda x: x == () or span(x), "two steps, the first one smaller, as (10, 20), or ()"),
    ("evals.*.split", str, lambda x: x in ("train", "test"), "train or test"),
    ("evals.*.every", int, lambda x: x >= 0, "a number of steps, 0 for only at the end"),
    ("evals.*.reals", int, lambda x: x >= 0, "a number of records, 0 for all of them"),
    ("evals.*.train_reals", int, lambda x: x >= 0, "a number of training records, 0 for all of them"),
    ("evals.*.bank", int, lambda x: x >= 0, "a number of records, 0 for none"),
    ("evals.*.on", (str, tuple), lambda x: set((x,) if isinstance(x, str) else x) <= {"h", "z"} and x, "h, z or (h, z)"),
    ("evals.*.k", int, lambda x: x >= 0, "a number of neighbours, 0 for half of a class, 200 at most"),
    ("evals.*.rates", tuple, lambda x: all(isinstance(r, NUMBER) and r > 0 for r in x), "multiples of the rate, each > 0"),
    ("evals.*.sweep", int, lambda x: x >= 1, "a number of penalties, at least 1"),
    ("evals.*.shots", tuple, lambda x: x and all(type(k) is int and k >= 1 for k in x), "numbers of pictures, each at least 1"),
    ("evals.*.draws", int, lambda x: x >= 3, "at least 3"),
    ("evals.*.penalty", NUMBER, lambda x: x > 0, "a number > 0"),
    ("evals.*.views", int, lambda x: x == 0 or x >= 2, "a number of views, at least 2, or 0 for none"),
    ("evals.*.severities", tuple, lambda x: x and all(x in (1, 2, 3, 4, 5) for x in x), "numbers from 1 to 5"),
    ("evals.*.eps", tuple, lambda x: all(isinstance(e, NUMBER) and 0 < e < 128 for e in x), "distances of 255, below 128"),
    ("evals.*.pgd_steps", int, lambda x: x >= 1, "at least 1 step"),
    ("evals.*.restarts", int, lambda x: x >= 1, "at least 1"),
    ("every.*", int, lambda x: x >= 0, "a number of steps, 0 for never"),
    ("keep.latest", int, lambda x: x >= 1, "at least 1"),
    ("keep.best", int, lambda x: x >= 0, "0 or more"),
    ("*.optim.*.scale_by_batch", str, lambda x: x in ("", "linear", "sqrt"), "linear, sqrt, or empty for none"),
    ("*batch", int, lambda x: x >= 2, "at least 2"),
    ("*.steps", int, lambda x: x >= 1, "at least 1"),
    ("*.heads.*", int, lambda x: x >= 2, "at least 2 classes"),
    ("*.size", int, lambda x: 8 <= x <= 2048, "pixels, 8 to 2048"),
    ("*temperature", NUMBER, lambda x: x > 0, "a number > 0 (0.1 and 0.5 are usual)"),
    ("*scl", NUMBER, lambda x: x >= 0, "a weight >= 0; 0 drops the term"),
    ("*term", str, lambda x: x in TERMS, f"one of {', '.join(TERMS)}"),
    ("views.recipe", *RECIPE),
    ("*.args.recipe", *RECIPE),
    ("*.args.norm", str, lambda x: x in ("", *NORMS), f"one of {', '.join(NORMS)}, or empty for the recipe's own"),
    ("*.args.change", tuple, lambda x: changes(x), f"pairs as (('gray', 0.2),) with values as they stand in {', '.join(VIEW)}"),
    ("*.args.label_mode", str, lambda x: x in LABEL_MODES, f"one of {', '.join(LABEL_MODES)}"),
    *(
        (f"{method}.args.negatives", str, lambda x, words=words: x in words, f"one of {', '.join(words)}")
        for method, words in NEGATIVES.items()
    ),
    ("*.args.mean", str, lambda x: x in ("anchors", "examples"), "anchors or examples"),
    ("*.args.form", str, lambda x: x in ("softmax", "nce"), "softmax or nce"),
    ("*.args.graph", str, lambda x: x in ("core", "full"), "core or full"),
    ("*.args.kind", str, lambda x: x in ("seed", "compress"), "seed or compress"),
    ("*_weight", NUMBER, lambda x: x >= 0, "a weight >= 0"),
    ("*.args.cond_noise", NUMBER, lambda x: x >= 0, "a scale >= 0, 1 as published"),
    ("*.args.magp_power", NUMBER, lambda x: x >= 2, "a power >= 2, 6 as published"),
    ("*.args.clip_preproc", str, lambda x: x in ("correct", "compat"), "correct or compat (as the published weights expect)"),
    ("networks.clip_act", str, lambda x: x in ("gelu", "quick_gelu"), "gelu, or quick_gelu for OpenAI's weights"),
    ("evals.generation.fakes", int, lambda x: x >= 5, "at least 5"),
    ("evals.generation.reals", int, lambda x: x == 0 or x >= 5, "at least 5, or 0 for all of them"),
    ("evals.*.diversity", int, lambda x: x >= 0, "a number of captions, each drawn ten times, 0 for none"),
    ("*.frozen.clip_act", str, lambda x: x in ("gelu", "quick_gelu"), "gelu, or quick_gelu for OpenAI's weights"),
    ("*.args.drop", NUMBER, lambda x: 0 <= x < 1, "a share in [0, 1)"),
    ("*.args.guidance", NUMBER, lambda x: x >= 0, "a factor >= 0, 1 for none"),
    ("*.args.solver", str, lambda x: x in ("euler", "heun"), "euler or heun"),
    ("*.args.sampling", int, lambda x: x >= 1, "at least 1 step"),
    ("*.args.truncate", NUMBER, lambda x: x >= 0, "a scale >= 0, 0 for noise that is not cut"),
    ("*.args.branches", int, lambda x: x in (1, 2), "1 or 2"),
    ("*.args.inter", NUMBER, lambda x: x >= 0, "a weight >= 0"),
    ("*.args.inner", NUMBER, lambda x: x >= 0, "a weight >= 0"),
    ("*.args.ema", NUMBER, lambda x: 0 <= x < 1, "a decay in [0, 1)"),
    ("*.args.group", int, lambda x: x >= 2, "at least 2"),
    ("*.args.slices", int, lambda x: x >= 1, "at least 1; 1 encodes the batch at once"),
    ("*.args.momentum", NUMBER, lambda x: 0 <= x <= 1, "a share in [0, 1]; 1 stands still"),
    ("*.args.queue", int, lambda x: x >= 0, "a number of rows, 0 for none"),
    ("*.args.support", int, lambda x: x >= 0, "a number of views >= 0"),
    ("*.args.queue_start", int, lambda x: x >= 0, "a number of steps >= 0"),
    ("*.args.prototypes", int, lambda x: x >= 2, "at least 2"),
    ("*.args.eps", NUMBER, lambda x: x > 0, "a number > 0 (0.05 and 0.03 are usual)"),
    ("*.args.rounds", int, lambda x: x >= 1, "at least 1"),
    ("*.args.small", int, lambda x: x >= 8, "pixels of the small crops, at least 8"),
    ("*.args.counts", tuple, lambda x: x and all(type(k) is int and k >= 2 for k in x), "numbers of clusters, each at least 2"),
    ("*.args.start", int, lambda x: x >= 0, "an epoch, 0 for the first"),
    ("*.args.every", int, lambda x: x >= 1, "a number of epochs, at least 1"),
    ("*.args.starts", int, lambda x: x >= 1, "at least 1"),
    ("*.args.weight", NUMBER, lambda x: x >= 0, "a weight >= 0"),
    ("*.args.drawn", int, lambda x: x >= 1, "a number of rows, at least 1"),
    ("*.args.lam", NUMBER, lambda x: 0 <= x <= 1, "a share in [0, 1]"),
    ("*.args.patch", int, lambda x: x >= 1, "pixels, at least 1"),
    ("*.args.ahead", int, lambda x: x >= 1, "rows or steps, at least 1"),
    ("*.args.skip", int, lambda x: x >= 0, "rows >= 0, fewer than `ahead`"),
    ("*.args.off", NUMBER, lambda x: x >= 0, "a weight >= 0 (0.0051 is usual)"),
    ("*.args.factor", NUMBER, lambda x: x > 0, "a factor > 0"),
    ("*.args.invariance", NUMBER, lambda x: x >= 0, "a weight >= 0"),
    ("*.args.variance", NUMBER, lambda x: x >= 0, "a weight >= 0"),
    ("*.args.covariance", NUMBER, lambda x: x >= 0, "a weight >= 0"),
    ("*.args.alpha", NUMBER, lambda x: 0 <= x <= 1, "a share in [0, 1]; 1 reads no labels"),
    ("*.args.layers", int, lambda x: x >= 0, "a number of layers, 0 for none"),
    ("*.args.smoothing", NUMBER, lambda x: 0 <= x < 1, "a share in [0, 1)"),
    ("*.args.sigma", NUMBER, lambda x: x > 0, "a number > 0 (0.5 is usual)"),
    ("*.args.prior", NUMBER, lambda x: 0 <= x < 1, "a share in [0, 1)"),
    ("*.args.beta", NUMBER, lambda x: x >= 0, "a number >= 0, 0 for negatives that weigh alike"),
    ("*.args.most", int, lambda x: x >= 1, "at least 1"),
    ("*.args.threshold", NUMBER, lambda x: -1 <= x <= 1, "a cosine, -1 to 1"),
    ("*.args.base", (int, float, type(None)), lambda x: x is None or x > 0, "a temperature > 0, or None"),
    ("*.args.positives", int, lambda x: x >= -1, "a number of other pictures >= 0, or -1 for all"),
    ("student*.nets.project.dim", int, lambda x: x >= 0, "at least 1, or 0 for as many as the teacher's"),
    ("*.nets.*.dim", int, lambda x: x >= 1, "at least 1"),
    ("*.nets.*.hidden", int, lambda x: x >= 0, "a width, 0 for that of the features"),
    ("*.nets.*.stride", int, lambda x: x >= 1, "pixels, at least 1"),
    ("*.nets.*.patch", int, lambda x: x >= 1, "pixels, at least 1"),
    ("*.lr", NUMBER, lambda x: x > 0, "a number > 0"),
    ("*.clip.*", NUMBER, lambda x: x > 0, "a norm > 0"),
    ("*.warmup", int, lambda x: x >= 0, "a number of steps >= 0"),
    ("*.decay", NUMBER, lambda x: 0 < x <= 1, "a factor in (0, 1]"),
    ("*.optim.*.start", NUMBER, lambda x: 0 <= x <= 1, "a share of the rate, 0 to 1"),
    ("*.optim.*.end", NUMBER, lambda x: 0 <= x <= 1, "a share of the rate, 0 to 1"),
    ("*.optim.*.milestones", tuple, lambda x: all(isinstance(m, NUMBER) and m > 0 for m in x), "epochs > 0, as (120, 160)"),
    ("*.optim.*.momentum", NUMBER, lambda x: 0 <= x < 1, "a share in [0, 1)"),
    ("*.optim.*.nesterov", bool, lambda x: True, "True or False"),
    ("*.optim.*.weight_decay", NUMBER, lambda x: x >= 0, "a rate >= 0"),
    ("*.optim.*.trust", NUMBER, lambda x: x > 0, "a number > 0, 0.001 as published"),
    ("*.optim.*.ratio", str, lambda x: x in ("joint", "apart"), "joint or apart"),
    ("*.optim.*.clip_ratio", bool, lambda x: True, "True or False"),
    ("*.optim.*.exclude", tuple, lambda x: words(x), "names of parts, such as ('vectors',), or () for nothing"),
    ("*.optim.*.freeze", int, lambda x: x >= 0, "a number of steps >= 0"),
    ("*.floor", NUMBER, lambda x: x >= 0, "a rate >= 0"),
    ("*.dropout", NUMBER, lambda x: 0 <= x < 1, "a share in [0, 1)"),
    ("*.args.gammas", tuple, lambda x: len(x) == 3 and all(isinstance(g, NUMBER) and g > 0 for g in x), "three numbers > 0"),
    ("*.args.gamma", NUMBER, lambda x: x > 0, "a number > 0 (10 is usual)"),
    ("*.args.dim", int, lambda x: x >= 1, "at least 1"),
    ("*.args.blocks", int, lambda x: x >= 0, "a number of blocks, 0 for the heads alone"),
    ("*.args.z", int, lambda x: x >= 1, "at least 1"),
    ("*.nets.gen.mask_width", int, lambda x: x >= 1, "at least 1"),
    ("*.nets.disc.most", int, lambda x: x >= 1, "at least 1"),
    ("*.nets.gen.norm", str, lambda x: x in ("correct", "compat"), "correct or compat (as the published weights expect)"),
    ("*.nets.gen.mask", str, lambda x: x in ("correct", "compat"), "correct or compat (as the published weights expect)"),
    ("*.nets.image.norm", str, lambda x: x in ("batch", "layer"), "batch or layer"),
    ("*.nets.*.norm", str, lambda x: x in ("batch", "layer", "none"), "batch, layer or none"),
    ("*.nets.*.kind", str, lambda x: x in ("resnet", "resnet_v2", "conv"), "resnet, resnet_v2 or conv"),
    ("*.nets.*.kinds", str, lambda x: x in ("l_ab", "l_a_b"), "l_ab or l_a_b"),
    ("*.nets.*.widths", tuple, lambda x: widths(x), "at least one width >= 0 (0: as the input)"),
    ("*.nets.*.depth", int, lambda x: x >= 1, "at least 1"),
    ("*.nets.*.stem", str, lambda x: x in STEMS, f"one of {', '.join(STEMS)} (ViT: patch or conv)"),
    ("*.nets.*.sk", NUMBER, lambda x: x >= 0, "a ratio >= 0, 0.0625 in SimCLR v2, 0 for none"),
    ("*.nets.*.groups", int, lambda x: x >= 1, "at least 1; 1 normalises by the whole batch"),
    ("*.nets.*.pool", str, lambda x: x in ("class", "mean"), "class or mean"),
    ("*.nets.project.layers", int, lambda x: x >= 0, "a number of layers, 0 for no head"),
    ("*.nets.*.layers", int, lambda x: x >= 1, "at least 1"),
    ("*.nets.*.prototypes", int, lambda x: x >= 2, "at least 2"),
    ("*.nets.*.width", NUMBER, lambda x: x > 0, "a number > 0"),
    ("*.b1", NUMBER, lambda x: 0 <= x < 1, "a number in [0, 1)"),
    ("*.b2", NUMBER, lambda x: 0 <= x < 1, "a number in [0, 1)"),
    ("*.fakes", int, lambda x: x >= 2, "at least 2"),
)


def widths(x: tuple) -> bool:
    return bool(x) and all(type(w) is int and w >= 0 for w in x)


def words(x: tuple) -> bool:
    return all(isinstance(word, str) and word for word in x)


def span(x: tuple) -> bool:
    return list(map(type, x)) == [int, int] and 1 <= x[0] < x[1]


def changes(x: tuple) -> bool:
    return all(isinstance(pair, list | tuple) and len(pair) == 2 and pair[0] in VIEW and held(*pair) for pair in x)


def held(field: str, value) -> bool:
    kind = VIEW[field]
    if isinstance(kind, int):
        return isinstance(value, list | tuple) and len(value) == kind and all(type(y) in NUMBER for y in value)
    return type(value) in (kind if isinstance(kind, tuple) else (kind,))
