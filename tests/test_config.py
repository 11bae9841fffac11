"""Configs: every preset, references between stages, values from the command line."""

import functools
import importlib.util
import inspect
import json
import pathlib

import pytest

from supcon_jax import config
from supcon_jax.build.names import NETS, resolve
from supcon_jax.data import DATA
from supcon_jax.gans import GANS
from supcon_jax.methods import METHODS

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"
FILES = sorted(path.stem for path in CONFIGS.glob("*.py") if path.stem[0] != "_")
PAIRS = [name for name in FILES if name != "image"]  # those of pictures and captions
METHOD_KEYS = {"method", "batch", "size", "steps", "args", "nets", "optim", "frozen"}


def presets(name):
    spec = importlib.util.spec_from_file_location(f"presets_of_{name}", CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.PRESETS if hasattr(module, "PRESETS") else module.presets([])


def words(name):
    """Nothing, every preset and stage alone, and each of them with tiny behind it."""
    alone = ["", *presets(name), *stages(name)]
    return list(dict.fromkeys([*alone, *(f"{word},tiny" for word in alone if word not in ("", "tiny"))]))


def stages(name):
    """Sections that have a method, whether or not the default runs them."""
    return [key for key, value in config.load(str(CONFIGS / f"{name}.py")).items() if hasattr(value, "method")]


def plain(path):
    return config.plain(config.load(path))


EVERY = [
    f"{name}:{word}" for name in FILES for word in words(name) if word.split(",")[0] in presets(name) or word in ("", "tiny")
]
EVERY += [
    f"{name}:{word}" for name in PAIRS for word in ("damsm", "attngan", "damsm,tiny", "attngan,tiny")
]


def loaded(preset):
    name, _, word = preset.partition(":")
    return config.load(str(CONFIGS / f"{name}.py") + f":{word}")


@pytest.mark.parametrize("preset", EVERY)
def test_every_preset_is_plain_locked_and_within_its_ranges(preset):
    found = loaded(preset)
    config.check(found)
    assert found.is_locked
    tree = config.plain(found)
    assert json.loads(json.dumps(tree)) == tree
    assert "FieldReference" not in json.dumps(tree) and "Unserializable" not in json.dumps(tree)
    for stage in tree["stages"]:
        assert set(tree[stage]) - {"data"} == METHOD_KEYS  # data: labels that one stage alone is told
    assert tree["data"]["name"] in DATA


@pytest.mark.parametrize("preset", EVERY)
def test_args_are_the_task_functions_signature_and_nets_are_their_modules_fields(preset):
    tree = config.plain(loaded(preset))
    for name, section in tree.items():
        if not isinstance(section, dict) or "method" not in section:
            continue
        function = resolve({**METHODS, **GANS}, section["method"], "method")
        parameters = inspect.signature(function).parameters.values()
        assert set(section["args"]) == {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}, name
        assert [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY] == ["nets", "tx", "about"]
        for key, options in section["nets"].items():
            takes = inspect.signature(resolve(NETS, options["net"], "net")).parameters
            fields = {field for field in takes if field not in ("parent", "name")}
            given = {"vocab", "classes"} if key != "disc" else {"size"}  # what the build knows
            unknown = set(options) - fields - {"net"}
            assert not unknown, f"{name}.nets.{key}: {unknown}"
            required = {f for f in fields if takes[f].default is inspect.Parameter.empty} - given
            assert required <= set(options)
        players = {"disc", "gen"} if section["method"] in GANS else {"gen" if section["method"] == "flow" else "model"}
        assert set(section["optim"]) - {"probe"} == players


@pytest.mark.parametrize("name", FILES)
def test_data_args_are_arguments_of_the_data_set(name):
    tree = plain(str(CONFIGS / f"{name}.py"))
    parameters = inspect.signature(resolve(DATA, tree["data"]["name"], "data")).parameters.values()
    assert set(tree["data"]["args"]) == {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}


@pytest.mark.parametrize("name", PAIRS)
def test_shared_values_reach_every_stage(name):
    path = str(CONFIGS / f"{name}.py") + ":tiny"
    changed = config.plain(config.override(config.load(path), {"scl": "0", "views.flip": "True", "data.size": "24"}))
    for stage in {"damsm", *GANS} & set(changed):
        assert changed[stage]["args"]["scl"] == 0 and changed[stage]["args"]["flip"] is True
    whole, half = config.plain(config.load(path)), config.plain(config.override(config.load(path), {"scl": "0.5"}))
    assert half["damsm"]["args"]["scl"] == 0.5
    before, after = whole["attngan"]["args"]["scl"], half["attngan"]["args"]["scl"]
    assert before > 0 and after == pytest.approx(before / 2)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("values", [{"term": "ntxent", "data.partner": "same_image"}, {"term": "unicl", "scl": "0.5"},
                                    {"term": "label_head", "scl": "0.1"}, {"term": "xmc", "scl": "2.0"}])  # fmt: skip
def test_a_comparator_is_two_values_away_and_reaches_every_stage(name, values):
    path = str(CONFIGS / f"{name}.py")
    before, after = plain(path), config.plain(config.override(config.load(path), values))
    stages = {"damsm", "clip_heads", *GANS} & set(after)
    assert {after[stage]["args"]["term"] for stage in stages} == {values["term"]}
    changed = {key for key, value in config.flat(after).items() if config.flat(before)[key] != value}
    assert changed == {*values, *(f"{stage}.args.{key}" for stage in stages for key in {"term", "scl"} & set(values))}
    first = config.plain(config.override(config.load(path), {"damsm.args.term": values["term"]}))
    assert (first["damsm"]["args"]["term"], first["attngan"]["args"]["term"]) == (values["term"], "supcon")


def test_batch_and_size_follow_where_a_stage_has_none_of_its_own():
    tree = config.plain(config.override(config.load("configs/shapes.py"), {"batch": "24", "data.size": "64"}))
    sizes = (
        tree["damsm"]["size"],
        tree["attngan"]["size"],
        tree["data"]["args"]["size"],
        tree["damsm"]["nets"]["image"]["size"],
    )
    assert sizes == (64,) * 4
    assert tree["attngan"]["batch"] == tree["classifier"]["batch"] == 24
    cub = config.plain(config.override(config.load("configs/cub.py"), {"batch": "10"}))
    assert (cub["damsm"]["batch"], cub["attngan"]["batch"]) == (48, 10)


@pytest.mark.parametrize("key,value", [("args.scl", "0"), ("args.flip", "True"), ("batch", "4"), ("size", "64")])
@pytest.mark.parametrize("stage", ["damsm", "attngan", "dmgan"])
def test_a_stages_own_value_changes_nothing_else(key, value, stage):
    before = config.flat(plain("configs/shapes.py"))
    after = config.flat(config.plain(config.override(config.load("configs/shapes.py"), {f"{stage}.{key}": value})))
    assert {name for name in after if after[name] != before[name]} == {f"{stage}.{key}"}


ALONE = [(stage, key, value) for stage in ("simclr", "linear", "finetune", "supervised", "student")
         for key, value in (("args.recipe", "simclr"), ("args.norm", "half"), ("data.label_share", "0.1"))
         if key != "data.label_share" or stage not in ("simclr", "student")]  # fmt: skip


@pytest.mark.parametrize("stage,key,value", ALONE)
def test_stages_of_pictures_share_no_value(stage, key, value):
    """Presets of one stage (ImageNet's linear one crops and flips) would otherwise change the others."""
    path = "configs/image.py:simclr,linear"
    before = config.flat(plain(path))
    after = config.flat(config.plain(config.override(config.load(path), {f"{stage}.{key}": value})))
    assert {name for name in after if after[name] != before[name]} == {f"{stage}.{key}"}
    everywhere = config.plain(config.override(config.load(path), {"views.recipe": "simclr", "data.label_share": "0.1"}))
    assert everywhere[stage]["args"]["recipe"] == "simclr" and everywhere["linear"]["data"]["label_share"] == 0.1


def of_images(word):
    return plain(f"configs/image.py:{word}")


def test_few_labels_on_imagenet_take_epochs_of_those_labels():
    """Chen et al. 2020, arXiv 2002.05709, appendix B.5: 60 epochs of one percent, 30 of ten, of 1,281,167 pictures by 1,024."""
    for word, share, steps in (("one_percent", 0.01, 750), ("ten_percent", 0.1, 3753)):
        for words in (f"simclr,imagenet,finetune,{word}", f"simclr,{word},imagenet,finetune"):
            found = of_images(words)
            assert (found["finetune"]["steps"], found["finetune"]["data"]["label_share"]) == (steps, share)
            assert found["data"]["label_share"] == 1 and found["finetune"]["optim"]["model"]["name"] == "lars"


def test_every_last_stage_takes_epochs_of_the_labels_it_is_told():
    """Their stairs count in epochs of those: with steps of all labels they would be down at once."""
    for words in ("supcon,cifar10,linear", "simclr,cifar10,finetune", "supervised,cifar10", "simclr,imagenet,linear",
                  "simclr,imagenette,linear", "supervised,imagenet"):  # fmt: skip
        whole, tenth = of_images(words), of_images(f"{words},ten_percent")
        last = whole["stages"][-1]
        assert tenth[last]["steps"] == pytest.approx(whole[last]["steps"] / 10, abs=1) and tenth["stages"] == whole["stages"]
        assert all(tenth[name]["steps"] == whole[name]["steps"] for name in whole["stages"][:-1])


def test_views_are_those_of_the_method():
    """What da Costa et al. 2022 (arXiv 2108.01775) use at 32 px, the papers' own on ImageNet."""
    wanted = {
        "simclr": ("cifar_symmetric", "simclr"), "moco_v2": ("cifar_weak", "moco_v2"), "byol": ("cifar_asymmetric", "byol"),
        "barlow": ("cifar_asymmetric", "barlow"), "vicreg": ("cifar_vicreg", "vicreg"), "simsiam": ("cifar_weak", "simsiam"),
        "pcl": ("cifar_weak", "pcl_v2"), "cmc": ("cmc", "cmc"), "moco_v3": ("cifar_asymmetric", "moco_v3"),
    }  # fmt: skip
    for name, (small, large) in wanted.items():
        for word, recipe in (("cifar10", small), ("stl10", large), ("imagenet", large)):
            assert of_images(f"{name},{word}")[name]["args"]["recipe"] == recipe, f"{name},{word}"
    assert of_images("byol,cifar100")["byol"]["args"]["norm"] == "cifar100"
    assert [of_images(f"{name},cifar10")[name]["nets"]["image"]["groups"] for name in ("moco_v1", "pcl", "byol")] == [8, 8, 1]


def test_stl10_is_trained_without_labels_and_probed_with_them():
    """Its unlabelled split has -1 everywhere: whatever learns or measures labels reads the labelled one, whose epochs are of
    5,000 pictures."""
    found = config.plain(config.override(config.load("configs/image.py:byol,stl10,linear,ten_percent"), {"data.root": "/sets"}))
    assert found["data"]["train"] == "unlabelled" and found["byol"]["steps"] == 100_000 * 200 // 512
    probe = {"name": "tfds", "root": "/sets", "train": "train", "test": "test", "args": {"builder": "stl10"}}
    assert found["data"]["probe"] == probe
    assert found["linear"]["data"] == {"train": "train", "label_share": 0.1, "only_labelled": True}
    assert found["linear"]["steps"] == 500 * 100 // 512
    for name in ("supcon", "supervised"):
        alone = of_images(f"{name},stl10")
        assert (alone["data"]["train"], alone["data"]["probe"]["name"]) == ("train", "")
        assert alone[name]["steps"] == 5000 * 200 // 512


def test_imagenet_is_measured_as_published():
    found = of_images("supcon,imagenet,linear")
    assert (found["evals"]["knn"]["k"], found["evals"]["knn"]["temperature"]) == (200, 0.07)
    assert [found["data"][key] for key in ("crop", "size", "middle")] == ["centre", 256, 0.875]
    assert found["linear"]["args"]["recipe"] == "crop_flip"
    assert found["supcon"]["optim"]["model"]["weight_decay"] == 1e-3 and found["supcon"]["args"]["recipe"] == "supcon"
    own, simclr = (of_images(f"{word},imagenet,linear")["linear"] for word in ("supcon", "simclr"))
    assert (own["batch"], own["optim"]["model"]["name"], simclr["batch"]) == (6144, "rmsprop", 4096)
    assert simclr["optim"]["model"] | {"name": "sgd", "nesterov": True} == simclr["optim"]["model"]
    assert found["student"]["args"]["recipe"] == "moco_v2" and found["student"]["args"]["queue"] == 65536


def test_a_transformer_takes_the_trunks_place_and_moco_v3_its_recipe():
    found = of_images("moco_v3,imagenet,vit_b")["moco_v3"]
    image, optim = found["nets"]["image"], found["optim"]["model"]
    assert image | {"net": "vit_trunk", "width": 768, "depth": 12, "heads": 12, "patch": 16} == image
    assert optim | {"name": "adamw", "lr": 1.5e-4, "weight_decay": 0.1} == optim
    assert found["args"]["temperature"] == 0.2 and found["args"]["change"] == [["scale", [0.08, 1.0]]]
    assert found["nets"]["project"]["layers"] == 3 and found["nets"]["predict"]["last"] is True
    other = of_images("simclr,mnist5k,vit_s")["simclr"]
    assert other["nets"]["image"]["patch"] == 4 and other["args"]["change"] == []


def test_arguments_that_nothing_names_yet_may_be_given():
    """Those of the labelled set that a probe reads: what they may be, its function says when it is built."""
    found = config.override(config.load("configs/image.py"), {"data.probe.name": "tfds", "data.probe.args.builder": "cifar100"})
    assert config.plain(found)["data"]["probe"]["args"] == {"builder": "cifar100"}
    two = config.override(config.load("configs/image.py:folder"), {"data.args.one": "1", "data.args.two": "(2, 3)"})
    assert config.plain(two)["data"]["args"] == {"one": 1, "two": [2, 3]}
    with pytest.raises(config.UserError, match="config.data.args.builder is not a key"):
        config.override(config.load("configs/image.py"), {"data.args.builder": "cifar100"})


def test_a_copied_config_finds_the_tables_it_reads(tmp_path, monkeypatch):
    copy = tmp_path / "mine.py"
    copy.write_text((CONFIGS / "image.py").read_text())
    monkeypatch.chdir(tmp_path)
    assert plain(f"{copy}:byol,cifar10") == of_images("byol,cifar10")


def test_words_are_applied_in_order_and_a_stage_runs_alone():
    assert plain("configs/shapes.py:plain,tiny")["damsm"]["args"]["branches"] == 1
    assert plain("configs/shapes.py:damsm,tiny")["stages"] == ["damsm"]
    assert plain("configs/shapes.py:dmgan,tiny")["stages"] == ["damsm", "dmgan"]
    assert plain("configs/cub.py:dmgan")["dmgan"]["batch"] == 10
    assert plain("configs/cub.py:dmgan,damsm")["stages"] == ["damsm"]
    assert plain("configs/shapes.py:tiny")["evals"].keys() == {"matching", "geometry", "attributes"}  # "=evals" replaces
    assert plain("configs/shapes.py")["evals"].keys() == {"matching", "geometry", "attributes", "generation"}


def test_difference_digest_and_flat():
    a, b = {"x": {"y": 1, "z": [1]}, "w": 0}, {"x": {"y": 2, "z": [1]}, "v": 0}
    assert config.difference(a, b) == ["v: None -> 0", "w: 0 -> None", "x.y: 1 -> 2"]
    assert config.digest(a) == config.digest({"w": 0, "x": {"z": [1], "y": 1}}) != config.digest(b)


def test_shipped_configs_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config.find("configs/cub.py").read_text() == (CONFIGS / "cub.py").read_text()
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "cub.py").write_text("mine = 1")
    assert config.find("configs/cub.py").read_text() == "mine = 1"  # what lies here goes first


@pytest.mark.parametrize(
    "key,text,value",
    [("damsm.args.scl", "0", 0.0), ("batch", "16", 16), ("damsm.args.class_mask", "false", False), ("mesh.data", "4", 4),
     ("damsm.args.gammas", "(1.0,2.0,3.0)", (1.0, 2.0, 3.0)), ("damsm.args.gammas", "[1.0,2.0,3.0]", (1.0, 2.0, 3.0)),
     ("stages", "damsm", ("damsm",)), ("data.root", "1", "1"), ("mesh.data", "auto", "auto"), ("every.profile", "(2,3)", (2, 3)),  # noqa: E501
     ("damsm.frozen.trunk", "a=b", "a=b"), ("damsm.optim.model.lr", "1e-4", 1e-4)],
)  # fmt: skip
def test_values_on_the_command_line_get_the_type_that_stands_there(key, text, value):
    found = config.flat(
        config.override(config.load("configs/shapes.py:tiny" if "trunk" not in key else "configs/emoji.py"), {key: text})
    )
    assert found[key] == value and type(found[key]) is type(value)


GOOD = {
    "nets": {
        "image": {"net": "resnet_trunk", "depth": 18, "width": 0.25, "stem": "small", "sk": 0.0, "groups": 4},
        "head": {"net": "mlp", "widths": (0, 128)},
        "prototypes": {"net": "prototypes", "prototypes": 30},
    },
    "optim": {
        "model": {
            "name": "lars", "lr": 0.3, "scale_by_batch": "linear", "schedule": "cosine", "warmup": 10, "start": 0.1,
            "end": 0.001, "momentum": 0.9, "weight_decay": 1e-6, "trust": 1e-3, "ratio": "joint", "clip_ratio": False,
            "exclude": ("vectors",), "milestones": (), "nesterov": False,
            "parts": {"prototypes": {"freeze": 5}, "head": {"lr": 0.1}},
        }
    },
}  # fmt: skip
BAD = (
    ("optim.model.scale_by_batch", "cube", "linear, sqrt"), ("optim.model.start", 2.0, "a share of the rate"),
    ("optim.model.end", -0.1, "a share of the rate"), ("optim.model.momentum", 1.0, r"\[0, 1\)"),
    ("optim.model.weight_decay", -1.0, "a rate >= 0"), ("optim.model.trust", 0.0, "a number > 0"),
    ("optim.model.ratio", "both", "joint or apart"), ("optim.model.clip_ratio", 1, "True or False"),
    ("optim.model.exclude", (1,), "names of parts"), ("optim.model.milestones", (0,), "epochs > 0"),
    ("optim.model.nesterov", "yes", "True or False"), ("optim.model.parts.prototypes.freeze", -1, "a number of steps"),
    ("optim.model.parts.head.lr", 0.0, "a number > 0"), ("nets.image.depth", 0, "at least 1"),
    ("nets.image.stem", "big", "one of imagenet, small"), ("nets.image.sk", -1.0, "a ratio >= 0"),
    ("nets.image.groups", 0, "at least 1"), ("nets.head.widths", (), "at least one width"),
    ("args.momentum", 1.5, "a share in"), ("args.queue", -1, "a number of rows"), ("args.prototypes", 1, "at least 2"),
    ("args.eps", 0.0, "a number > 0"), ("args.rounds", 0, "at least 1"), ("args.counts", (64, 1), "numbers of clusters"),
    ("args.counts", (), "numbers of clusters"), ("args.every", 0, "at least 1"), ("args.drawn", 0, "at least 1"),
    ("args.lam", 1.5, "a share in"), ("args.patch", 0, "at least 1"), ("args.ahead", 0, "at least 1"),
    ("args.skip", -1, "fewer"),
    ("args.off", -0.1, "a weight >= 0"), ("args.factor", 0.0, "a factor > 0"), ("args.variance", -1.0, "a weight >= 0"),
    ("args.smoothing", 1.0, "a share in"), ("args.sigma", 0.0, "a number > 0"), ("args.prior", 1.0, "a share in"),
    ("args.beta", -1.0, "a number >= 0"), ("args.most", 0, "at least 1"), ("args.threshold", 2.0, "a cosine"),
    ("args.base", 0.0, "a temperature > 0"), ("args.positives", -2, "or -1 for all"), ("args.small", 4, "pixels"),
    ("nets.head.dim", 0, "at least 1"), ("nets.head.hidden", -1, "a width"), ("nets.image.stride", 0, "pixels"),
    ("nets.head.widths", (8, -1), "at least one width"), ("nets.prototypes.prototypes", 1, "at least 2"),
)  # fmt: skip


def test_keys_of_trunks_heads_and_optimisers_have_their_ranges():
    def made(key="", value=None):
        c = config.base()
        c.stages = ("one",)
        c.one = config.stage(c, method="x", steps=1, args={}, **GOOD)
        if key:
            *path, leaf = f"one.{key}".split(".")
            node = functools.reduce(lambda node, part: node[part], path, c)
            with node.ignore_type():
                node[leaf] = value
        return c

    config.check(made())
    for key, value, said in BAD:
        with pytest.raises(config.UserError, match=rf"config\.one\.{key}=.*{said}"):
            config.check(made(key, value))
