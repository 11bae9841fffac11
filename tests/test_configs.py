"""Every preset is built and traced through a step, full size included; tiny ones run end to end on generated files."""

import functools
import json
import logging
import os
import pathlib

import jax
import jax.numpy as jnp
import pytest
from PIL import Image

import runs
from data.layouts import coco_layout, cub_layout, emoji_layout, folder_layout
from supcon_jax import config, core
from supcon_jax.build import clip, stage
from supcon_jax.build.names import GENERATORS, net

FULL = {
    "shapes": ("", "plain", "twin", "long", "dmgan", "dfgan", "ssagan", "galip", "flow", "classifier", "damsm", "attngan"),
    "cub": ("", "plain", "dmgan", "dfgan", "ssagan", "galip", "galip_blocks", "galip_none", "damsm", "attngan", "classifier"),
    "coco": ("", "plain", "dmgan", "dfgan", "ssagan", "galip", "galip_blocks", "galip_none", "damsm", "attngan"),
    "emoji": ("", "plain", "multi", "small", "dmgan", "dfgan", "ssagan", "damsm", "attngan"),
    "folder": ("", "plain", "multi", "small", "damsm", "attngan"),
}
PRESETS = [f"{name}:{word}" for name, words in FULL.items() for word in words]
PRESETS += [f"{name}:{','.join(filter(None, (word, 'tiny')))}" for name, words in FULL.items() for word in words]
WORDS = ("<end>", "this", "bird", "is", "red")


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """Files in the layout of each data set that lies on disk."""
    folder = tmp_path_factory.mktemp("layouts")
    return {
        "shapes": "",
        "cub": cub_layout(folder / "cub"),
        "coco": coco_layout(folder / "coco"),
        "emoji": emoji_layout(folder / "emoji"),
        "folder": folder_layout(folder / "folder"),
        "folder multi": folder_layout(folder / "multi", labels="multi"),
        "folder none": folder_layout(folder / "none", labels=None),
    }


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


@pytest.mark.slow
@pytest.mark.parametrize("preset", [preset for preset in PRESETS if preset not in TRACED])
def test_a_step_of_every_preset_can_be_traced(preset, roots, tmp_path, monkeypatch):
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


# config, which files, more flags
RUNS = {
    "cub": ("configs/cub.py:tiny", "cub", ()),
    "coco": ("configs/coco.py:tiny", "coco", ()),
    "cub, DM-GAN": ("configs/cub.py:dmgan,tiny", "cub", ()),
    "cub, one stage": ("configs/cub.py:ssagan,tiny", "cub", ()),
    "shapes, flow": ("configs/shapes.py:flow,tiny", "shapes", ()),
    "cub, label head": ("configs/cub.py:tiny", "cub", ("--config.term=label_head",)),
    "folder, one label": ("configs/folder.py:tiny", "folder", ()),
    "folder, no labels": ("configs/folder.py:tiny", "folder none", ()),
    "folder, several labels": ("configs/folder.py:multi,tiny", "folder multi", ()),
    "emoji": ("configs/emoji.py:tiny", "emoji", ("--config.data.args.uses=1", "--config.data.args.test=2")),
}


def check_run(path, root, folder, caplog, capsys, *more):
    """Both stages, their files, the same command again, and another config in the same folder."""
    stages = config.load(path).stages
    argv = (f"--config={path}", f"--workdir={folder}", f"--config.data.root={root}", "--config.mesh.data=1", *more)
    code, _ = runs.command(*argv)
    assert code == 0, capsys.readouterr().err
    for part in stages:
        said = runs.done(folder, part)
        assert said["steps"] == 2 and said["skipped"] == 0
        records = json.loads((folder / part / "evals.json").read_text())
        assert {key.partition("/")[2] for key in said["numbers"]} <= set(records)
        assert all("protocol" in record for record in records.values())
        lines = [json.loads(line) for line in (folder / part / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines if "skipped" in line] == [1, 2]
        assert all(isinstance(value, int | float) for line in lines for value in line.values())  # nothing but numbers
    assert Image.open(folder / stages[-1] / "samples" / "0000002.png").size[0] >= 8 * 32
    caplog.clear()
    with caplog.at_level(logging.INFO, "supcon_jax"):
        assert runs.command(*argv)[0] == 0
    assert caplog.text.count("finished before (2 steps), skipped") == 2
    capsys.readouterr()
    assert runs.command(*argv, "--config.scl=0.5")[0] == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ") and "damsm.args.scl: 1.0 -> 0.5" in line


@pytest.mark.slow  # each compiles programs of its own; the shapes' two stages are run in the plain tests
@pytest.mark.parametrize("case", RUNS)
def test_two_steps_of_both_stages_end_to_end(case, roots, tmp_path, caplog, capsys):
    path, root, more = RUNS[case]
    check_run(path, roots[root], tmp_path / "w", caplog, capsys, *more)


@pytest.mark.data
def test_two_steps_on_the_real_emoji(tmp_path, caplog, capsys):
    root = pathlib.Path(os.environ.get("SUPCON_DATA", pathlib.Path.home() / ".cache" / "supcon_jax" / "data")) / "emoji"
    if not root.is_dir():
        pytest.skip("python -m supcon_jax.data.fetch emoji")
    check_run("configs/emoji.py:tiny", root, tmp_path / "w", caplog, capsys)
