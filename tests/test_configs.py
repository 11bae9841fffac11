"""Every preset is built and traced through a step, full size included."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import pytest

from data.layouts import all_layouts
from supcon_jax import config, core
from supcon_jax.build import clip, stage
from supcon_jax.build.names import GENERATORS, net

FULL = {
    "shapes": ("", "plain", "quick", "scenes", "twin", "long", "dmgan", "dfgan", "ssagan", "galip", "flow", "classifier",
               "damsm", "attngan"),
    "cub": ("", "plain", "dmgan", "dfgan", "ssagan", "galip", "galip_blocks", "galip_none", "damsm", "attngan", "classifier"),
    "coco": ("", "plain", "dmgan", "dfgan", "ssagan", "galip", "galip_blocks", "galip_none", "damsm", "attngan"),
    "emoji": ("", "plain", "multi", "small", "quick", "dmgan", "dfgan", "ssagan", "damsm", "attngan"),
    "folder": ("", "plain", "multi", "small", "damsm", "attngan"),
}  # fmt: skip
PRESETS = [f"{name}:{word}" for name, words in FULL.items() for word in words]
PRESETS += [f"{name}:{','.join(filter(None, (word, 'tiny')))}" for name, words in FULL.items() for word in words]
WORDS = ("<end>", "this", "bird", "is", "red")


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """Files in the layout of each data set that lies on disk."""
    return all_layouts(tmp_path_factory.mktemp("layouts"))


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
    nets = plain["damsm"]["nets"]
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
    settings = {"data.root": str(roots["folder multi" if preset.startswith("folder:multi") else name])}
    settings |= {"data.args.records": "130"} if name == "shapes" else {}
    plain = config.plain(config.override(config.load(f"configs/{preset}".replace(":", ".py:")), settings))
    monkeypatch.setattr(stage, "load_frozen", abstract_towers)
    made = {}
    for part in plain["stages"]:
        made[part] = stage.build(plain, part, tmp_path, evaluate=False)
    return plain, made


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


# what between them covers every method, label mode and number of branches; the others, full-size ones too, are slow
TRACED = ("cub:plain,tiny", "cub:dfgan,tiny", "shapes:plain,ssagan,tiny", "shapes:classifier", "folder:multi,tiny")


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_built(preset, roots, tmp_path, monkeypatch):
    plain, made = built(preset, roots, tmp_path, monkeypatch)
    assert list(made) == plain["stages"]
    for part, found in made.items():
        section = plain[part]
        assert found.run.steps == section["steps"] and found.run.folder == tmp_path / part
        assert section["batch"] % found.run.mesh.size == 0 and found.run.mesh.size > 1
        assert {player.owner for player in found.task.players} == set(section["optim"])
        assert ("generate" in found.task.heads) == (section["method"] in GENERATORS)


@pytest.mark.parametrize("preset", TRACED)
def test_a_step_of_each_kind_can_be_traced(preset, roots, tmp_path, monkeypatch):
    plain, made = built(preset, roots, tmp_path, monkeypatch)
    for part, found in made.items():
        check_traced(plain, part, found)


FULL_SIZE = [preset for preset in PRESETS if preset not in TRACED and not preset.endswith("tiny")]
PUBLISHED = ("cub", "coco")


# at full size; tiny ones differ by sizes alone, and those of test_end_to_end.py are run
@pytest.mark.parametrize("preset", [
    pytest.param(preset, marks=pytest.mark.slow if preset.startswith(PUBLISHED) else pytest.mark.long) for preset in FULL_SIZE
])  # fmt: skip
def test_a_step_of_every_full_preset_can_be_traced(preset, roots, tmp_path, monkeypatch):
    plain, made = built(preset, roots, tmp_path, monkeypatch)
    for part, found in made.items():
        check_traced(plain, part, found)


def test_every_preset_is_listed_here():
    import importlib.util

    for path in sorted((pathlib.Path(__file__).parent.parent / "configs").glob("*.py")):
        spec = importlib.util.spec_from_file_location(f"listed_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert set(module.PRESETS) <= {*FULL[path.stem], "tiny"}, f"{path.name}: add the new preset to FULL"
