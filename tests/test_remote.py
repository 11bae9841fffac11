"""The command line with data and work folder in a store: train, stop, go on, evaluate; sample; and what is refused."""

import io
import json
import shutil

import pytest
from PIL import Image

import runs
from data.layouts import folder_layout
from gcs import store  # noqa: F401  (a fixture)
from supcon_jax import api, storage, study
from supcon_jax.build import variants
from supcon_jax.data.folder import folder
from supcon_jax.train import loop

TINY = "--config=configs/folder.py:tiny"
ENCODERS = "--config=configs/folder.py:damsm,tiny"


@pytest.fixture
def data(store, tmp_path):  # noqa: F811
    """gs://mine/pictures: the tiny folder, one picture of which is damaged."""
    folder_layout(tmp_path / "pictures")
    (tmp_path / "pictures" / "pictures" / "0004.png").write_bytes(b"no picture")
    store.upload("pictures", tmp_path / "pictures")
    shutil.rmtree(tmp_path / "pictures")
    return "--config.data.root=gs://mine/pictures"


@pytest.mark.slow
def test_a_run_lives_in_the_store_alone(store, data, monkeypatch, tmp_path, capsys):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    argv = (ENCODERS, "--workdir=gs://mine/w", data, "--config.mesh.data=1", "--config.every.profile=(2,3)")
    with monkeypatch.context() as stopped, pytest.raises(SystemExit, match="damsm: stopped at step 1, saved"):
        stopped.setattr(loop.Stop, "now", lambda stop, at: at == 1)
        runs.command(*argv)
    assert json.loads(store.files["mine"]["w/damsm/metrics.jsonl"])["step"] == 1
    code, out = runs.command(*argv)
    assert code == 0 and "everything lies in gs://mine/w" in out
    files = store.under("w")
    said = json.loads(files["damsm/DONE"])
    assert said["steps"] == 2 and said["numbers"] and json.loads(files["damsm/evals.json"])
    lines = [json.loads(line) for line in files["damsm/metrics.jsonl"].splitlines()]
    assert [line["step"] for line in lines if "images_per_s" in line] == [1, 2]
    assert {"damsm/config.json", "damsm/weights.safetensors"} <= set(files)
    for folder_name in ("checkpoints/2", "tensorboard", "profile"):
        assert any(name.startswith(f"damsm/{folder_name}/") for name in files)
    assert json.loads(files["skipped.jsonl"].splitlines()[0])["key"] == "pictures/0004.png"
    assert files["vocab.json"]

    code, again = runs.command(*argv, "--mode=eval")
    assert code == 0 and all(f"at step 2  {key}  {value:.6g}" in again for key, value in said["numbers"].items())
    assert "done: damsm 0 s" in runs.command(*argv)[1]
    assert not list(tmp_path.iterdir())  # nothing was left here


def test_weights_and_pictures_of_a_store(store, capsys):  # noqa: F811
    """The trained weights of the shapes, as if another machine had left them there."""
    for stage in ("damsm", "attngan"):
        store.put("mine", f"w/{stage}/weights.safetensors", (runs.shapes() / stage / "weights.safetensors").read_bytes())
    there, here = api.load("gs://mine/w"), api.load(str(runs.shapes()))
    assert there.about == here.about
    assert (there.encode_text(["a red circle"]) == here.encode_text(["a red circle"])).all()
    flags = ("--mode=sample", "--from=gs://mine/w", "--prompt=a red circle", "--number=1")
    code, out = runs.command(*flags, "--workdir=gs://mine/d")
    assert code == 0 and "gs://mine/d/grid.png" in out
    assert Image.open(io.BytesIO(store.under("d")["000_00_a_red_circle.png"])).size == (32, 32)
    store.put("mine", "w/attngan/weights.safetensors", b"short")
    assert runs.command(*flags)[0] == 2
    assert "error: gs://mine/w/attngan/weights.safetensors is damaged" in capsys.readouterr().err


def test_a_study_writes_its_tables_there(store, capsys):  # noqa: F811
    said = {"config": "configs/shapes.py:tiny", "stage": "attngan", "seeds": [0, 1], "variants": {"a": {}, "b": {"scl": 0.0}},
            "metrics": ["x"], "reference": "a"}  # fmt: skip
    said = variants.settled(said)
    found = {name: {seed: {"attngan": {"x": float(seed)}} for seed in (0, 1)} for name in ("a", "b")}
    workdir = storage.place("gs://mine/s")
    text = study.write(said, found, workdir, workdir / "STUDY", "command")
    assert store.under("s")["STUDY.md"].decode() == text
    assert json.loads(store.under("s")["STUDY.json"])["runs"]["b"]["1"] == {"attngan": {"x": 1.0}}
    assert study.cli(["--study=configs/studies/scl_shapes.py", "--workdir=gs://mime/s"]) == 2
    assert capsys.readouterr().err.startswith("error: gs://mime/s: there is no such bucket")


def test_pictures_and_captions_of_a_store(data):
    source = folder("train", "gs://mine/pictures")
    assert len(source) == 16 and source.captions[0][0] == "a red ellipse" and source.image(0).shape == (36, 40, 3)


REFUSED = {  # flags, what the one line says
    "workdir: bucket": (["--workdir=gs://mime/w"], "gs://mime/w: there is no such bucket"),
    "workdir: permission": (["--workdir=gs://closed/w"], "gs://closed/w: the store refuses it"),
    "workdir: only readable": (["--workdir=gs://readonly/w"], "gs://readonly/w/vocab.json: the store refuses it"),
    "workdir: no checkpoints there": (["--workdir=s3://mine/w"], "s3://mine/w: give a folder, or an address that begins with gs://"),
    "workdir: a file": (["--workdir=gs://mine/pictures/captions.jsonl"], "a file is in the way"),
    "root: bucket": (["--workdir=gs://mine/w", "--config.data.root=gs://mime/x"], "gs://mime/x: there is no such bucket"),
    "root: nothing": (["--workdir=gs://mine/w", "--config.data.root=gs://mine/x"], "gs://mine/x/captions.jsonl is missing"),
    "eval: nothing": (["--workdir=gs://mine/w", "--mode=eval"], "gs://mine/w holds no checkpoint of damsm, attngan"),
    "sample: nothing": (["--mode=sample", "--from=gs://mine/w", "--prompt=a"], "gs://mine/w holds neither a work folder nor"),
}


@pytest.mark.parametrize("argv,said", REFUSED.values(), ids=REFUSED)
def test_a_bad_address_ends_in_one_line(store, data, argv, said, capsys, monkeypatch, tmp_path):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    assert runs.command(TINY, data, *argv)[0] == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and said in line
    assert not list(tmp_path.iterdir()) and not store.under("w")
