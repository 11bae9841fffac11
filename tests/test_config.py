"""Configs: every preset, references between stages, and one line with exit code 2 for whatever is wrong."""

import importlib.util
import inspect
import json
import pathlib
import re

import pytest

from supcon_jax import config, main
from supcon_jax.build.names import NETS, resolve
from supcon_jax.data import DATA
from supcon_jax.gans import GANS
from supcon_jax.methods import METHODS

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"
FILES = sorted(path.stem for path in CONFIGS.glob("*.py") if path.stem != "__init__")
METHOD_KEYS = {"method", "batch", "size", "steps", "args", "nets", "optim", "frozen"}


def presets(name):
    spec = importlib.util.spec_from_file_location(f"presets_of_{name}", CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.PRESETS


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
EVERY += [f"{name}:{word}" for name in FILES for word in ("damsm", "attngan", "damsm,tiny", "attngan,tiny")]


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
        assert set(tree[stage]) == METHOD_KEYS
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
            module = resolve(NETS, options["net"], "net")
            fields = {field for field in module.__dataclass_fields__ if field not in ("parent", "name")}
            given = {"net": 0, "vocab": 0, "dtype": 0} if key != "disc" else {"net": 0, "size": 0, "dtype": 0}
            unknown = set(options) - fields - {"net"}
            assert not unknown, f"{name}.nets.{key}: {unknown}"
            required = {f for f in fields if module.__dataclass_fields__[f].default is inspect._empty} - set(given)
            assert required <= set(options)
        players = {"disc", "gen"} if section["method"] in GANS else {"gen" if section["method"] == "flow" else "model"}
        assert set(section["optim"]) == players


@pytest.mark.parametrize("name", FILES)
def test_data_args_are_arguments_of_the_data_set(name):
    tree = plain(str(CONFIGS / f"{name}.py"))
    parameters = inspect.signature(resolve(DATA, tree["data"]["name"], "data")).parameters.values()
    assert set(tree["data"]["args"]) == {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}


@pytest.mark.parametrize("name", FILES)
def test_shared_values_reach_every_stage(name):
    path = str(CONFIGS / f"{name}.py") + ":tiny"
    changed = config.plain(config.override(config.load(path), {"scl": "0", "views.flip": "True", "data.size": "24"}))
    for stage in {"damsm", *GANS} & set(changed):
        assert changed[stage]["args"]["scl"] == 0 and changed[stage]["args"]["flip"] is True
    whole, half = config.plain(config.load(path)), config.plain(config.override(config.load(path), {"scl": "0.5"}))
    assert half["damsm"]["args"]["scl"] == 0.5
    before, after = whole["attngan"]["args"]["scl"], half["attngan"]["args"]["scl"]
    assert before > 0 and after == pytest.approx(before / 2)


@pytest.mark.parametrize("name", FILES)
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


# setting, what the line must say beside the key itself
BAD = [
    *[(f"{stage}.args.temperature={value}", said) for stage in ("damsm", "attngan")
      for value, said in (("0", "> 0"), ("-1", "> 0"), ("nan", "float"), ("1e999", "finite"), ("warm", "float"),
                          ("None", "float"), ("(1,2)", "float"), ("True", "float"), ("", "float"))],
    *[(f"scl={value}", said) for value, said in (("-0.1", ">= 0"), ("nan", "float"), ("inf", "float"), ("-1e999", "finite"))],
    *[(f"{key}={value}", said) for key in ("batch", "damsm.batch", "eval_batch")
      for value, said in (("0", "at least 2"), ("1", "at least 2"), ("-8", "at least 2"), ("8.5", "int"), ("many", "int"))],
    *[(f"data.partner={value}", "same_label, same_image or none") for value in ("friend", "1", "None", "")],
    ("data.crop=centre", "resize_crop, resize or none"), ("data.size=0", "8 to 2048"), ("data.size=4096", "8 to 2048"),
    ("data.words=0", "1 to 512"), ("data.words=9999", "1 to 512"), ("data.threads=-1", "0 to 256"),
    ("data.bad_limit=1.5", "between 0 and 1"), ("data.bad_limit=-0.1", "between 0 and 1"), ("precision=fp8", "f32 or bf16"),
    ("seed=-1", "integer"), ("seed=0.5", "int"), ("seed=99999999999999999999", "integer"), ("skip_limit=0", "> 0"),
    ("damsm.steps=0", "at least 1"), ("damsm.steps=-5", "at least 1"), ("damsm.steps=1e3", "int"),
    ("every.log=-1", "number of steps"), ("every.save=0.5", "int"), ("every.profile=(1,2,3)", "two steps"),
    ("every.profile=(2,2)", "two steps"), ("every.profile=(0,2)", "two steps"), ("every.profile=2", "two steps"),
    ("every.profile=(1,4)", "within the steps of a stage; damsm has 2, attngan has 2"),
    ("evals.matching.every=-1", "number of steps"), ("evals.matching.fakes=1", "at least 2"), ("evals.matching.reals=-1", "records"),  # noqa: E501
    ("keep.latest=0", "at least 1"), ("keep.best=-1", "0 or more"), ("keep.mode=best", "min or max"),
    ("mesh.params=zero", "replicate or fsdp"), ("mesh.params_mib=-1", "MiB"), ("mesh.params_mib=nan", "float"),
    ("mesh.data=0", "number of devices"), ("mesh.data=all", "number of devices"), ("mesh.data=-2", "number of devices"),
    ("term=clip", "one of supcon, ntxent"), ("attngan.args.term=SupCon", "one of supcon, ntxent"),
    ("flow.args.solver=rk4", "euler or heun"), ("flow.args.drop=1.0", "[0, 1)"), ("flow.args.sampling=0", "at least 1"),
    ("flow.args.guidance=-1", ">= 0"),
    ("damsm.args.branches=3", "1 or 2"), ("damsm.args.branches=0", "1 or 2"), ("damsm.args.group=1", "at least 2"),
    ("damsm.args.slices=0", "at least 1"), ("damsm.args.slices=2.5", "int"),
    ("damsm.args.gammas=(4.0,nan,1.0)", "three"), ("damsm.args.gammas=(4.0,1e999,1.0)", "finite"),
    ("damsm.args.gammas=(4.0,5.0)", "three"), ("damsm.args.gammas=(4.0,-5.0,1.0)", "three"), ("damsm.args.gammas=4.0", "three"),
    ("damsm.args.flip=maybe", "bool"), ("damsm.args.flip=1", "bool"), ("attngan.args.ema=1.0", "[0, 1)"),
    ("attngan.args.ema=-0.1", "[0, 1)"), ("attngan.args.z=0", "at least 1"), ("attngan.args.kl_weight=-1", ">= 0"),
    ("damsm.optim.model.lr=0", "> 0"), ("damsm.optim.model.lr=-1e-3", "> 0"), ("damsm.optim.model.lr=nan", "float"),
    ("damsm.optim.model.b1=1.0", "[0, 1)"), ("damsm.optim.model.clip.text=0", "> 0"), ("damsm.nets.text.dropout=1.0", "[0, 1)"),
    ("damsm.nets.image.width=0", "> 0"), ("stages=dream", "no such stage"),
]  # fmt: skip

UNKNOWN = (
    # setting, the key that is meant
    ("damsm.args.temperatur=1", "damsm.args.temperature"),
    ("damsm.temperature=1", "args.temperature"),
    ("bacth=8", "batch"),
    ("damsm.args.alpha=1", ""),
    ("data.args=1", ""),
    ("data=1", ""),
    ("=1", ""),
    ("damsm.args.scl.x=1", ""),
)


def refused(capsys, *argv):
    """The one line that main ends in."""
    assert main.main(list(argv)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), said.err
    assert "Traceback" not in lines[0]
    return lines[0]


TINY = "--config=configs/shapes.py:tiny"


@pytest.mark.parametrize("setting,said", BAD, ids=[row[0] for row in BAD])
def test_a_bad_value_ends_in_one_line_that_names_the_key(capsys, tmp_path, setting, said):
    line = refused(capsys, TINY, f"--workdir={tmp_path / 'w'}", f"--config.{setting}")
    assert f"config.{setting.partition('=')[0]}" in line and said in line.partition("must be")[2] + line.partition("but")[2]
    assert not (tmp_path / "w").exists()  # nothing was begun


@pytest.mark.parametrize("setting,meant", UNKNOWN, ids=[row[0] for row in UNKNOWN])
def test_an_unknown_key_ends_in_one_line_with_the_nearest(capsys, tmp_path, setting, meant):
    line = refused(capsys, TINY, f"--workdir={tmp_path / 'w'}", f"--config.{setting}")
    assert f"config.{setting.partition('=')[0]} is not a key" in line
    assert meant in line and (not meant or "did you mean config." in line)


def test_a_setting_without_equals_takes_the_next_word(capsys):
    assert "at least 2" in refused(capsys, TINY, "--workdir=w", "--config.batch", "0")
    assert "must be of type int" in refused(capsys, TINY, "--workdir=w", "--config.batch")


COMMANDS = {
    "no config": ([], "--config=FILE is missing"),
    "no workdir": ([TINY], "--workdir=DIR is missing"),
    "missing file": (["--config=configs/none.py"], "no config file configs/none.py; shipped ones:.*configs/shapes.py"),
    "missing file of a folder": (["--config=/nowhere/x.py:tiny"], "no config file /nowhere/x.py"),
    "a folder": (["--config=FOLDER"], "no config file"),
    "not python": (["--config=FOLDER/not.txt"], "not.txt"),
    "unknown preset": (["--config=configs/shapes.py:tinny"], "'tinny' is not known; use one of:.*tiny"),
    "unknown second preset": (["--config=configs/shapes.py:tiny,pastel"], "'pastel' is not known"),
    "unknown flag": ([TINY, "--wrokdir=x"], "unrecognized arguments: --wrokdir=x"),
    "stray word": ([TINY, "--workdir=x", "train"], "unrecognized arguments: train"),
    "unknown mode": ([TINY, "--mode=dream"], "dream.*(choose from|train)"),
    "workdir is a file": ([TINY, "--workdir=FOLDER/not.txt"], "not.txt"),
    "number is text": (["--mode=sample", "--number=x"], "--number"),
    "sample: no source": (["--mode=sample", "--prompt=a"], "--from is missing"),
    "sample: no caption": (["--mode=sample", "--from=shapes"], "no caption"),
    "sample: no number": (["--mode=sample", "--from=shapes", "--prompt=a", "--number=0"], "--number=0: at least 1"),
    "sample: negative seed": (["--mode=sample", "--from=shapes", "--prompt=a red circle", "--seed=-1"], "--seed=-1"),
    "sample: no file": (["--mode=sample", "--from=shapes", "--prompts=/nowhere/p"], "/nowhere/p: no such file"),
    "sample: empty file": (["--mode=sample", "--from=shapes", "--prompts=FOLDER/empty"], "no caption"),
    "sample: no text": (["--mode=sample", "--from=shapes", "--prompts=FOLDER/latin"], "latin.*UTF-8"),
    "sample: unknown source": (["--mode=sample", "--from=birds", "--prompt=a"], "'birds' is no folder or file, and not among the shipped weights"),  # noqa: E501
    "sample: no weights": (["--mode=sample", "--from=FOLDER/not.txt", "--prompt=a"], "not.txt"),
    "sample: no stage": (["--mode=sample", "--from=FOLDER", "--prompt=a"], "holds no finished stage of attngan"),
    "eval: nothing": ([TINY, "--mode=eval", "--workdir=FOLDER/w"], "holds no checkpoint of damsm, attngan"),
    "label mode": ([TINY, "--workdir=FOLDER/w1", "--config.damsm.args.label_mode=jaccard"], "label_mode='jaccard'.*use single"),
    "unknown label mode": ([TINY, "--workdir=FOLDER/w2", "--config.damsm.args.label_mode=all_of"], "label_mode"),
    "one branch": ([TINY, "--workdir=FOLDER/w16", "--config.term=ntxent", "--config.attngan.args.branches=1"],
                   "config.attngan.args.term='ntxent' .*branches=2$"),
    "guidance": (["--config=configs/shapes.py:flow,tiny", "--workdir=FOLDER/w17", "--config.flow.args.drop=0"], "drop > 0"),
    "data set": ([TINY, "--workdir=FOLDER/w3", "--config.data.name=mnist"], "'mnist' is not known; use one of:.*shapes"),
    "split": ([TINY, "--workdir=FOLDER/w4", "--config.data.test=moon"], "no split 'moon'"),
    "root": (["--config=configs/folder.py:tiny", "--workdir=FOLDER/w5", "--config.data.root=/nowhere"], "/nowhere"),
    "mesh": ([TINY, "--workdir=FOLDER/w6", "--config.mesh.data=3"], "config.mesh.data=3: batch 8 cannot be split"),
    "optimiser": ([TINY, "--workdir=FOLDER/w7", "--config.damsm.optim.model.name=lamb"], "'lamb' is not known"),
    "schedule": ([TINY, "--workdir=FOLDER/w8", "--config.damsm.optim.model.schedule=step"], "'step' is not known"),
    "net": ([TINY, "--workdir=FOLDER/w9", "--config.damsm.nets.image.net=resnet"], "'resnet' is not known"),
    "method": ([TINY, "--workdir=FOLDER/w10", "--config.damsm.method=clip"], "'clip' is not known.*damsm"),
    "encoders": (["--config=configs/shapes.py:attngan,tiny", "--workdir=FOLDER/w11"], "damsm/weights.safetensors is missing"),
    "no encoders": ([TINY, "--workdir=FOLDER/w12", "--config.attngan.frozen.damsm=", "--config.stages=attngan"],
                    "attngan needs pretrained encoders: run the damsm stage first"),
    "trunk": (["--config=configs/cub.py:damsm", "--workdir=FOLDER/w13"], "frozen=True needs torchvision's"),
    "shapes' size": ([TINY, "--workdir=FOLDER/w14", "--config.data.size=40"], "data.size=40"),
    "broken config": (["--config=FOLDER/broken.py", "--workdir=FOLDER/w15"], "stages"),
}  # fmt: skip


@pytest.mark.parametrize("argv,said", COMMANDS.values(), ids=COMMANDS)
def test_a_bad_command_ends_in_one_line(capsys, tmp_path, argv, said):
    broken = tmp_path / "broken.py"
    broken.write_text("from supcon_jax.config import base\n\n\ndef get_config(word=''):\n    return base().lock()\n")
    (tmp_path / "not.txt").write_text("x")
    (tmp_path / "latin").write_bytes(b"a caf\xe9\n")
    (tmp_path / "empty").write_text("\n\n")
    line = refused(capsys, *(word.replace("FOLDER", str(tmp_path)) for word in argv))
    assert re.search(said, line), line
