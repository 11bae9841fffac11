"""One line with exit code 2 for whatever is wrong with a config or the command."""

import re

import pytest

from supcon_jax import main

# setting, what the line must say beside the key itself
BAD = [
    *[(f"{stage}.args.temperature={value}", said) for stage in ("damsm", "attngan")
      for value, said in (("0", "> 0"), ("-1", "> 0"), ("nan", "float"), ("1e999", "finite"), ("warm", "float"),
                          ("None", "float"), ("(1,2)", "float"), ("True", "float"), ("", "float"))],
    *[(f"scl={value}", said) for value, said in (("-0.1", ">= 0"), ("nan", "float"), ("inf", "float"), ("-1e999", "finite"))],
    *[(f"{key}={value}", said) for key in ("batch", "damsm.batch", "eval_batch")
      for value, said in (("0", "at least 2"), ("1", "at least 2"), ("-8", "at least 2"), ("8.5", "int"), ("many", "int"))],
    *[(f"data.partner={value}", "same_label, same_image or none") for value in ("friend", "1", "None", "")],
    ("data.crop=center", "resize_crop, resize, centre or none"), ("data.label_share=0", "above 0"),
    ("data.label_map=truck", "truck->car"), ("data.label_noise_kind=pairwise", "symmetric or asymmetric"),
    ("data.size=0", "8 to 2048"), ("data.size=4096", "8 to 2048"),
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


@pytest.mark.parametrize("gan", ["dfgan", "ssagan", "galip", "flow"])
def test_what_is_drawn_must_be_as_large_as_what_is_read(capsys, tmp_path, gan):
    """Told before the encoders are trained, not when the discriminator meets the first picture."""
    for setting in ("data.size=64", f"{gan}.nets.gen.sizes=(16,)", f"{gan}.nets.gen.sizes=(16,32)"):
        line = refused(capsys, f"--config=configs/shapes.py:{gan},tiny", f"--workdir={tmp_path / 'w'}", f"--config.{setting}")
        size = 64 if "data" in setting else 32
        assert f"config.{gan}.nets.gen.sizes=" in line and f"must be ({size},), as config.{gan}.size={size}" in line
        assert not (tmp_path / "w").exists()


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
    "net": ([TINY, "--workdir=FOLDER/w9", "--config.damsm.nets.image.net=convnext"], "'convnext' is not known"),
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
