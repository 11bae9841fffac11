"""Every preset is built and traced through a step, full size included."""

import functools
import inspect
import pathlib

import jax
import jax.numpy as jnp
import pytest

from data.layouts import all_layouts
from supcon_jax import config, core
from supcon_jax.build import clip, compile, stage
from supcon_jax.build.names import GENERATORS, net, resolve
from supcon_jax.data import synthetic
from supcon_jax.methods import METHODS as FUNCTIONS

FULL = {
    "shapes": ("", "plain", "quick", "scenes", "twin", "long", "dmgan", "dfgan", "ssagan", "galip", "flow", "classifier",
               "damsm", "attngan"),
    "cub": ("", "plain", "dmgan", "dfgan", "ssagan", "galip", "galip_blocks", "galip_none", "damsm", "attngan", "classifier"),
    "coco": ("", "plain", "dmgan", "dfgan", "ssagan", "galip", "galip_blocks", "galip_none", "damsm", "attngan"),
    "emoji": ("", "plain", "multi", "small", "quick", "dmgan", "dfgan", "ssagan", "damsm", "attngan"),
    "folder": ("", "plain", "multi", "small", "damsm", "attngan"),
}  # fmt: skip
METHODS = ("simclr", "fnc", "supcon", "moco_v1", "moco_v2", "moco_v3", "byol", "simsiam", "swav", "pcl", "cpc", "cmc", "pirl",
           "barlow", "vicreg", "supervised")  # fmt: skip
VARIANTS = ("dcl", "dclw", "debiased", "hard", "eliminated", "attracted", "simclr_v2", "quick", "by_shape", "both")
MEASURED = ("fewshot", "clusters", "robustness")
SETS = ("shapes", "mnist5k", "digits", "emoji", "folder", "cifar10", "cifar100", "stl10", "imagenette", "imagenet")
SECOND = tuple(f"{word},tiny" for word in (
    "simclr,linear", "cmc,linear", "swav,finetune", "cpc,finetune", "moco_v2,seed", "byol,compress", "barlow,seed",
    "simclr,linear,one_percent", "simclr,finetune,ten_percent", "moco_v3,vit_s", "simclr,vit_b",
    "simclr,finetune,distil", "supervised,distil",
))  # fmt: skip
IMAGES = [*METHODS, *VARIANTS, *MEASURED, "", "linear", *(f"{word},tiny" for word in METHODS), *SECOND]
IMAGES += [f"supcon,{name},tiny" for name in SETS]
LARGE = [f"{word},{name}" for name in ("cifar10", "imagenet") for word in METHODS]
LARGE += ["simclr,imagenette", "byol,stl10", "moco_v2,imagenet,linear", "supcon,cifar100", "simclr,cifar10,seed",
          "simclr,imagenet,simclr_v2,finetune,one_percent", "moco_v3,imagenet,vit_s", "barlow,imagenet,compress"]  # fmt: skip
CHOSEN = ("simclr,imagenet", "moco_v2,imagenet", "swav,imagenet", "cmc,cifar10")  # those that stand for all
PRESETS = [f"{name}:{word}" for name, words in FULL.items() for word in words]
PRESETS += [f"{name}:{','.join(filter(None, (word, 'tiny')))}" for name, words in FULL.items() for word in words]
WORDS = ("<end>", "this", "bird", "is", "red")


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """Files in the layout of each data set that lies on disk."""
    return all_layouts(tmp_path_factory.mktemp("layouts"))


@pytest.fixture(autouse=True, scope="module")
def drawn_once():
    """Most presets read the same few coloured shapes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "shapes", functools.cache(synthetic.shapes))
        yield


@functools.cache  # many presets have the same encoders
def variables(module, *shapes):
    return jax.eval_shape(lambda key, *args: module.init(key, *args), jax.random.key(0), *shapes)


def array(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


usual_clip = functools.cache(clip.shapes)


def abstract_towers(plain, name, workdir):
    """What load_frozen gives, as shapes: an ImageNet trunk, or encoders as the damsm stage would leave them."""
    places = plain[name].get("frozen", {})
    if "clip" in places:
        tree, about = usual_clip()
        if places["clip"].startswith("stage:"):
            heads = array(512, plain["clip_heads"]["args"]["dim"])
            tree = {**tree, "heads": {"image": heads, "text": heads}}
        return {"clip": tree}, {"clip": about}, {}
    if {"encoder", "teacher"} & set(places):
        return compile.frozen_shapes(plain, name, workdir)
    nets = plain.get("damsm", {}).get("nets")
    if "damsm" in places:
        size = plain["damsm"]["size"]
        image = variables(net(nets["image"], "image"), array(1, size, size, 3))
        text = variables(net(nets["text"], "text", vocab=len(WORDS)), array(1, 5, dtype=jnp.int32), array(1, dtype=jnp.int32))
        tree = {"params": {"image": image["params"], "text": text["params"]}, "stats": {"image": image["batch_stats"]}}
        return {"damsm": tree}, {"damsm": {"nets": nets, "vocab": WORDS}}, {}
    if "trunk" in places and nets["image"]["frozen"]:
        full = variables(net(nets["image"], "image"), array(1, 96, 96, 3))
        return {"trunk": {kind: tree["trunk"] for kind, tree in full.items()}}, {}, {}
    return {}, {}, {}


def built(preset, roots, tmp_path, monkeypatch):
    """(plain config, {stage: built Stage}) of a preset on generated files, with abstract frozen towers."""
    name, _, word = preset.partition(":")
    files = {"image": "emoji", "folder": "folder multi" if preset.startswith("folder:multi") else "folder"}
    settings = {"data.root": str(roots[files.get(name, name)])}
    settings |= {"data.args.records": "130"} if name == "shapes" else {}
    plain = config.plain(config.override(config.load(f"configs/{preset}".replace(":", ".py:")), settings))
    if name == "image" and plain["data"]["name"] != "emoji":
        found = drawn(len(plain["stages"]) == 1 and max(plain[plain["stages"][0]]["args"].get("counts", (0,))))
        plain["data"] |= found
        if plain["data"]["probe"]["name"]:
            plain["data"]["probe"] |= {key: found[key] for key in plain["data"]["probe"] if key in found}
    monkeypatch.setattr(stage, "load_frozen", abstract_towers)
    made = {}
    for part in plain["stages"]:
        made[part] = stage.build(plain, part, tmp_path, evaluate=False)
    return plain, made


def drawn(least):
    """Coloured shapes in the place of a set that lies in files, at least so many."""
    args = {"size": 32, "records": max(160, least + 1), "seed": 0, "labels": "single", "scenes": False, "objects": 2}
    return {"name": "shapes", "args": args, "train": "train", "test": "test", "crop": "resize"}


def zeros(plain, part, data):
    """The shapes of one training batch."""
    section = plain[part]
    n, v, size, words = (
        section["batch"],
        1 if plain["data"]["partner"] == "none" else 2,
        section["size"],
        plain["data"]["words"],
    )
    labels = data.train.labels
    label = array(n, v, data.classes) if labels is not None and labels.ndim == 2 else array(n, v, dtype=jnp.int32)
    if not plain["data"]["text"]:
        index = array(n, v, dtype=jnp.int32)
        return {"image": array(n, v, size, size, 3, dtype=jnp.uint8), "label": label, "index": index}
    text = {"text": array(n, v, words, dtype=jnp.int32), "text_len": array(n, v, dtype=jnp.int32)}
    return {"image": array(n, v, size, size, 3, dtype=jnp.uint8), **text, "label": label, "index": array(n, v, dtype=jnp.int32)}


def traced(plain, part, made):
    """Shapes after one step, and the metrics."""
    batch = zeros(plain, part, made.data)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(functools.partial(core.init_state, made.task), key, batch)
    after, metrics = jax.eval_shape(functools.partial(core.step, made.task), state, made.frozen, batch)
    return state, after, metrics


PASSED = set()  # what a stage's result depends on, of those that were traced: presets share most of their stages


def check_traced(plain, part, made):
    same = config.digest(stage.depends(plain, part))
    if same in PASSED:
        return
    state, after, metrics = traced(plain, part, made)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    before, now = ([(x.shape, x.dtype) for x in jax.tree.leaves(tree)] for tree in (state, after))
    assert now == before  # else the step would compile twice and the checkpoint would not fit
    assert all(x.shape == () for x in metrics.values())
    scl = [name for name in metrics if name.endswith("/scl")]
    assert bool(scl) == bool(plain[part]["args"].get("scl"))  # a weight of 0 leaves the term out of the program
    if plain[part]["nets"].get("image", {}).get("frozen"):
        assert "trunk" not in state.params["model"]["image"]
    if "gen" in state.params:
        largest = plain[part]["nets"]["gen"]["sizes"][-1]
        heads = made.task.heads["generate"]
        n, words = 3, plain["data"]["words"]
        batch = {"text": array(n, words, dtype=jnp.int32), "text_len": array(n, dtype=jnp.int32)}
        key = jax.eval_shape(lambda: jax.random.key(0))
        assert jax.eval_shape(heads, state, made.frozen, batch, key).shape == (n, largest, largest, 3)
    PASSED.add(same)


# what between them covers every label mode and number of branches, with the term and without; full-size ones are below
TRACED = ("shapes:classifier",)
SLOWLY = ("cub:plain,tiny", "cub:dfgan,tiny", "shapes:plain,ssagan,tiny")


def marked(word, traced=False):
    """Full networks take seconds each to trace; PCL on ImageNet needs as many records as clusters, a minute's work. Tiny ones
    and other data differ from a method's own preset by sizes alone."""
    if word not in LARGE:
        alone = word in METHODS or word in SECOND
        return (pytest.mark.slow if alone else pytest.mark.long) if traced else ()
    return pytest.mark.long if word == "pcl,imagenet" or traced and word not in CHOSEN else pytest.mark.slow


LISTED_IMAGES = [pytest.param(f"image:{word}", marks=marked(word)) for word in (*IMAGES, *LARGE)]


@pytest.mark.parametrize("preset", [*PRESETS, *LISTED_IMAGES])
def test_every_preset_is_built(preset, roots, tmp_path, monkeypatch):
    plain, made = built(preset, roots, tmp_path, monkeypatch)
    assert list(made) == plain["stages"]
    for part, found in made.items():
        section = plain[part]
        assert found.run.steps == section["steps"] and found.run.folder == tmp_path / part
        assert section["batch"] % found.run.mesh.size == 0 and found.run.mesh.size > 1
        assert {player.owner for player in found.task.players} == set(section["optim"])
        assert ("generate" in found.task.heads) == (section["method"] in GENERATORS)


@pytest.mark.parametrize("preset", [*TRACED, *(pytest.param(preset, marks=pytest.mark.slow) for preset in SLOWLY)])
def test_a_step_of_each_kind_can_be_traced(preset, roots, tmp_path, monkeypatch):
    plain, made = built(preset, roots, tmp_path, monkeypatch)
    for part, found in made.items():
        check_traced(plain, part, found)


FULL_SIZE = [preset for preset in PRESETS if preset not in TRACED and not preset.endswith("tiny")]
PUBLISHED = ("cub:ssagan", "cub:galip", "cub:classifier", "coco:")


# at full size, cub's networks as coco's; tiny ones differ by sizes alone, and those of test_end_to_end.py are run
@pytest.mark.parametrize("preset", [
    pytest.param(preset, marks=pytest.mark.slow if preset in PUBLISHED else pytest.mark.long)
    for preset in FULL_SIZE
])  # fmt: skip
def test_a_step_of_every_full_preset_can_be_traced(preset, roots, tmp_path, monkeypatch):
    plain, made = built(preset, roots, tmp_path, monkeypatch)
    for part, found in made.items():
        check_traced(plain, part, found)


@pytest.mark.parametrize("preset", [pytest.param(f"image:{word}", marks=marked(word, traced=True))
                                    for word in (*IMAGES, *LARGE)])  # fmt: skip
def test_a_step_of_every_method_of_pictures_can_be_traced(preset, roots, tmp_path, monkeypatch):
    plain, made = built(preset, roots, tmp_path, monkeypatch)
    for part, found in made.items():
        check_traced(plain, part, found)


def test_arguments_of_every_method_are_listed():
    """What a preset lists is what a task takes: on the command line only what stands there can be changed."""
    plain = config.plain(config.load("configs/image.py"))
    for name in (*METHODS, "linear", "finetune", "student", "distil"):
        function = resolve(FUNCTIONS, plain[name]["method"], name)
        assert set(plain[name]["args"]) == set(list(inspect.signature(function).parameters)[3:]), name


def test_the_published_cpc_predicts_every_row_and_small_ones_not_the_one_that_overlaps():
    said = [config.load(f"configs/image.py:cpc{words}").cpc.args for words in (",imagenet", "", ",quick", ",cifar10", ",tiny")]
    assert [(args.ahead, args.skip) for args in said] == [(5, 0), (4, 1), (2, 1), (2, 1), (2, 1)]
    assert [args.temperature for args in said] == [1.0, *4 * [10.0]]


def test_every_preset_is_listed_here():
    import importlib.util

    for path in sorted((pathlib.Path(__file__).parent.parent / "configs").glob("[!_]*.py")):
        spec = importlib.util.spec_from_file_location(f"listed_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        images = {word for words in IMAGES for word in words.split(",")}
        known, listed = (module.presets([]), images) if path.stem == "image" else (module.PRESETS, FULL[path.stem])
        assert set(known) <= {*listed, "tiny"}, f"{path.name}: add the new preset to FULL"
