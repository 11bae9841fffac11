"""Mode compile: on a description of this machine's devices, its files and lines, and every refusal."""

import importlib.util
import json
import re
import types

import jax
import jax.numpy as jnp
import pytest

import runs
from supcon_jax import config as configs
from supcon_jax import core
from supcon_jax.build import compile, program, stage, target
from supcon_jax.config import UserError
from supcon_jax.nets.init import on_host

SMALL = "configs/shapes.py:classifier,tiny"
WORDS = (f"--config={SMALL}", "--config.data.args.records=64", "--mode=compile", "--topology=cpu:2x4")
HERE = target.Chip("cpu", 2**30, 1e12, 1e11, 1e9, 2)


def plain(path=SMALL, **settings):
    settings = {"data.args.records": "64"} | settings
    return configs.plain(configs.override(configs.load(path), {k: v for k, v in settings.items() if v is not None}))


@pytest.fixture
def described(monkeypatch):
    """Eight devices of this machine, named as a slice is."""
    found = target.Target("cpu:2x4", HERE, tuple(jax.devices()))
    monkeypatch.setattr(compile, "find", lambda name: found)
    return found


def test_the_real_step_is_compiled_and_told(described, tmp_path, capsys):
    code, out = runs.command(*WORDS, f"--workdir={tmp_path}")
    assert code == 0, capsys.readouterr().err
    assert "classifier on cpu:2x4, batch 8 over 8 devices: compiled in" in out and "not run" in out
    said = json.loads((tmp_path / "compile_cpu_2x4.json").read_text())["classifier"]
    assert said["fits"] and said["run"] is False and said["batch"] == 8 and said["has"] == 2**30
    assert said["slices"] == 1 and said["records"] == 64 and said["flop"] > 0
    assert said["collectives"]["all-reduce"]["synchronous"] > 0  # gradients, at least
    built = stage.build(plain(), "classifier", tmp_path, evaluate=False)
    state = jax.eval_shape(built.task.init, jax.random.key(0), compile.batch_shapes(built, plain()["classifier"]))
    params = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state["params"]))
    assert said["gradients"] == params
    assert 3 * params < said["memory"]["arguments"] < 3 * params + 2**20  # Adam keeps two of each
    assert said["memory"]["aliased"] > 0.9 * 3 * params  # the old state is given up
    assert not (tmp_path / "classifier").exists()  # nothing of a run is begun


def test_a_stage_too_large_ends_in_one_line(described, monkeypatch, tmp_path, capsys):
    class Lowered:
        def compile(self, compiler_options):
            raise jax.errors.JaxRuntimeError(
                "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO "
                "temporaries (38.02G) exceeds available HBM (15.75G)."
            )

    real = compile.loop.stepper

    class Stepper:
        def __init__(self, *args):
            self.real = real(*args)

        def trace(self, *args):
            return types.SimpleNamespace(jaxpr=self.real.trace(*args).jaxpr, lower=Lowered)

    monkeypatch.setattr(compile.loop, "stepper", Stepper)
    code, out = runs.command(*WORDS, f"--workdir={tmp_path}")
    assert code == 2 and "does not fit: needs 38.02 GiB of 15.75 GiB per device" in out
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: too large for cpu:2x4: classifier (needs 38.02 GiB of 15.75 GiB") and "--fit" in line
    assert json.loads((tmp_path / "compile_cpu_2x4.json").read_text())["classifier"]["fits"] is False


def test_a_peak_above_the_memory_does_not_fit(described):
    big = jax.ShapeDtypeStruct((2**29,), jnp.float32)
    said = compile.compiled(jax.jit(lambda x: x + 1).lower(big), described)
    assert not said["fits"] and said["needs"] >= 2**31 and said["has"] == 2**30


def test_another_failure_of_the_compiler_is_told_as_such(described):
    class Lowered:
        def compile(self, compiler_options):
            raise jax.errors.JaxRuntimeError("INTERNAL: Mosaic failed\nmany lines")

    with pytest.raises(UserError, match="compiler of cpu:2x4 failed, for another reason than memory: INTERNAL: Mosaic failed$"):
        compile.compiled(Lowered(), described)


def test_towers_in_shape_are_those_that_training_leaves(tmp_path):
    """Of a stage that was not trained, as the GAN stage would load them."""
    config = plain("configs/shapes.py:tiny")
    built = stage.build(config, "damsm", tmp_path, evaluate=False)
    batch = next(built.data.training(8, 32))
    built.finish(on_host(lambda key, batch: core.init_state(built.task, key, batch), jax.random.key(0), batch), {})
    trained, about, _ = stage.load_frozen(config, "attngan", tmp_path)
    shapes, told, _ = compile.frozen_shapes(config, "attngan", tmp_path / "elsewhere")
    assert jax.tree.structure(trained) == jax.tree.structure(shapes)
    assert [(a.shape, a.dtype) for a in jax.tree.leaves(trained)] == [(a.shape, a.dtype) for a in jax.tree.leaves(shapes)]
    assert {key: about["damsm"][key] for key in ("nets", "vocab")} == told["damsm"]


def test_the_door_is_a_setting():
    mesh = target.Target("cpu:2x4", HERE, tuple(jax.devices())).mesh(8)
    assert stage.door(plain(**{"mesh.door": "ring"}), mesh).outer == "data"
    assert stage.door(plain(**{"mesh.door": "gather"}), mesh).inner == "data"
    assert stage.door(plain(), mesh, 2**34).memory == 2**34
    with pytest.raises(UserError, match="config.mesh.door='dense': must be auto, gather or ring"):
        plain(**{"mesh.door": "dense"})


@pytest.mark.parametrize(
    "words, says",
    [
        ([], "--topology is missing"),
        (["--topology=v5e"], "give chip:shape such as v5e:16x16"),
        (["--topology=v9:2x2"], "chips: v5e, v5p, v6e, a100, h100, h200"),
        (["--topology=v5e:2x2"], 'needs libtpu, which compiles for it without the device: pip install -c'),
        (["--topology=h200:1x1x8", "--fit"], 'pip install -c constraints.txt -e ".[gpu]"'),
        (["--topology=h100:1x1x8"], "needs jax_cuda13_plugin, which compiles for it without the device"),
        (["--topology=a100:1x1x8"], "needs jax_cuda13_plugin, which compiles for it without the device"),
    ],
)  # fmt: skip
def test_what_cannot_be_compiled_is_told_in_one_line(words, says, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert runs.command(f"--config={SMALL}", "--mode=compile", *words)[0] == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and says in said and said.count("\n") == 1


@pytest.mark.parametrize("batch, wanted", [(12, "auto"), (4, "auto"), (16, 4)])
def test_a_slice_takes_only_batches_that_all_its_devices_share(batch, wanted):
    found = target.Target("v5e:2x4", HERE, tuple(jax.devices()))
    with pytest.raises(UserError, match="v5e:2x4 has 8 devices.*multiple of 8"):
        found.mesh(batch, wanted)
    assert found.mesh(16).size == 8 and found.mesh(16, 8).shape == {"data": 8}


def test_every_gpu_has_a_description_that_agrees_with_its_chip():
    gpus = {name for name, chip in target.CHIPS.items() if chip.platform == "cuda"}
    assert gpus == set(target.DESCRIPTIONS) == {"a100", "h100", "h200"}
    for name in gpus:
        text = target.DESCRIPTIONS[name]
        assert name.upper() in text and text.count("{") == text.count("}")
        (memory,) = re.findall(r"device_memory_size: (\d+)", text)
        assert target.CHIPS[name].memory == int(memory) * 3 // 4


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No data set lies where they lie by default."""
    monkeypatch.setenv("SUPCON_DATA", str(tmp_path / "nothing"))


def test_a_set_of_known_size_need_not_be_at_hand(nowhere, tmp_path):
    config = plain("configs/cub.py:tiny", **{"data.args.bbox_crop": "True", "data.args.records": None})
    config, (told,) = compile.at_hand(config)
    assert told == "cub is not at hand: compiled for its published sizes (8855 records, 200 classes, 5450 words)"
    built = stage.build(config, "damsm", tmp_path, evaluate=False)
    assert len(built.data.train) == 8855 and built.data.classes == 200 and len(built.data.vocab) == 5450
    batch = compile.batch_shapes(built, config["damsm"] | {"batch": 64})
    assert batch["image"].shape == (64, 2, 32, 32, 3) and batch["text"].shape == (64, 2, 12) and batch["label"].shape == (64, 2)


def test_so_need_not_coco_nor_imagenet(nowhere, tmp_path):
    config, (told,) = compile.at_hand(plain("configs/coco.py:tiny", **{"data.args.records": None}))
    assert told == "coco is not at hand: compiled for its published sizes (82783 records, 80 classes, 27297 words)"
    built = stage.build(config, "damsm", tmp_path, evaluate=False)
    batch = compile.batch_shapes(built, config["damsm"] | {"batch": 64})
    assert batch["label"].shape == (64, 2, 80) and len(built.data.vocab) == 27297
    config, (told,) = compile.at_hand(plain("configs/image.py:supcon,imagenet,tiny", **{"data.args.records": None}))
    assert told == "imagenet2012 is not at hand: compiled for its published sizes (1281167 records, 1000 classes)"


def test_a_set_that_should_be_there_is_missed(nowhere, tmp_path, described, capsys):
    assert compile.at_hand(plain())[1] == []  # rendered: nothing to miss
    code, _ = runs.command(
        "--config=configs/cub.py:tiny", f"--config.data.root={tmp_path}", "--mode=compile", "--topology=cpu:2x4"
    )
    said = capsys.readouterr().err
    assert code == 2 and said.count("\n") == 1 and f"{tmp_path} has neither CUB_200_2011/images.txt" in said
    with pytest.raises(UserError, match="emoji"):
        compile.one(plain("configs/emoji.py:tiny", **{"data.args.records": None}), "damsm", described)


def test_a_batch_that_cannot_be_split_is_told_before_anything_is_compiled(described, monkeypatch, capsys):
    monkeypatch.setattr(compile, "one", None)
    words = ["--config=configs/shapes.py:tiny", "--mode=compile", "--topology=cpu:2x4"]
    for more, says in (
        ("--config.attngan.batch=20", "config.attngan.batch=20: cpu:2x4 has 8 devices: give a batch that is a multiple of 8"),
        ("--config.damsm.args.slices=2", "config.damsm.batch=8 / args.slices = 4: cpu:2x4 has 8 devices"),
    ):
        assert runs.command(*words, more)[0] == 2
        said = capsys.readouterr().err
        assert says in said and said.count("\n") == 1


def test_sizes_read_well():
    assert compile.size(31 * 2**20) == "31.0 MiB" and compile.size(int(38.02 * 2**30)) == "38.02 GiB"
    assert set(program.memory(jax.jit(lambda x: x).lower(jnp.ones(3)).compile())) >= {"peak", "temporaries"}


def test_a_missing_compiler_skips_its_tests_or_fails_them(need, request, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for needed, outcome in (([], pytest.skip.Exception), (["libtpu"], pytest.fail.Exception)):
        monkeypatch.setattr(request.config.option, "need", needed)
        with pytest.raises(outcome, match="libtpu is not installed: say how"):
            need("libtpu", "say how")
