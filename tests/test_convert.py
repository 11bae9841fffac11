"""`--mode=convert`: files of the original codes in, the same pictures, codes and scores out; ours to one file and back;
and whatever cannot be right ends in one line, with nothing written."""

import json
import re
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import originals
import runs
from convert.test_captions import Evil
from convert.test_tensors import Stored, View, dump, write_zip  # noqa: F401  (dump is a fixture)
from gcs import store  # noqa: F401  (a fixture)
from supcon_jax import api
from supcon_jax.build import weights
from supcon_jax.convert import attngan, damsm, tensors
from supcon_jax.train import loop

TINY = "--config=configs/shapes.py:tiny"
TEXTS = ("a small red circle at the top left", "a green ring")


@pytest.fixture(scope="module")
def workdir():
    return runs.shapes()


@pytest.fixture(scope="module")
def folder(workdir, tmp_path_factory):
    """What AttnGAN's users have: two encoders, a generator and captions.pickle, of the networks of the tiny run."""
    folder = tmp_path_factory.mktemp("original")
    encoders, about, _ = weights.load(workdir / "damsm" / "weights.safetensors")
    gan = weights.load(workdir / "attngan" / "weights.safetensors")[0]
    image = {"params": encoders["params"]["image"], "batch_stats": encoders["stats"]["image"]}
    text = {"params": encoders["params"]["text"]}
    gen = {"params": gan["gen"]["params"], "batch_stats": gan["gen"]["stats"]}
    write(folder / "image_encoder200.safetensors",
          originals.undone(image, originals.image_encoder(image["params"]), damsm.image()))
    write(folder / "text_encoder200.safetensors", originals.undone(text, originals.text_encoder(), damsm.text()))
    write(folder / "netG_epoch_600.safetensors",
          originals.undone(gen, originals.attngan_generator(), attngan.generator((8, 16, 32))))
    originals.captions(folder / "captions.pickle", about["vocab"])
    return folder


def write(path, tensors):
    save_file({name: np.ascontiguousarray(a) for name, a in tensors.items()}, path)


@pytest.fixture(scope="module")
def converted(folder, tmp_path_factory):
    place = tmp_path_factory.mktemp("converted") / "w"
    code, out = runs.command("--mode=convert", TINY, f"--from={folder}", f"--to={place}")
    assert code == 0
    return place, out


def test_a_folder_becomes_a_work_folder(converted, workdir):
    place, out = converted
    assert sorted(str(p.relative_to(place)) for p in place.rglob("*") if p.is_file()) == [
        "attngan/weights.safetensors", "damsm/weights.safetensors", "vocab.json"]
    assert json.loads((place / "vocab.json").read_text()) == json.loads((workdir / "vocab.json").read_text())
    assert "netG_epoch_600.safetensors: AttnGAN's generator, " in out and "words lie in" in out
    for stage in ("damsm", "attngan"):
        (ours, said, _), (theirs, meant, _) = (weights.load(at / stage / "weights.safetensors") for at in (place, workdir))
        assert said["nets"] == meant["nets"] and said["stage"] == stage
        ours, theirs = originals.flat(ours), originals.flat(theirs)
        assert ours.keys() == theirs.keys()
        for path, leaf in theirs.items():
            np.testing.assert_array_equal(ours[path], leaf, err_msg=path)


def test_converted_weights_draw_the_same_pictures(converted, workdir, tmp_path):
    place, _ = converted
    for name, at in (("ours", workdir), ("theirs", place)):
        code, _ = runs.command("--mode=sample", f"--from={at}", f"--prompt={TEXTS[0]}", "--number=2",
                               f"--workdir={tmp_path / name}")
        assert code == 0
    ours, theirs = (sorted((tmp_path / name).glob("*.png")) for name in ("ours", "theirs"))
    assert len(ours) == 3 and [p.read_bytes() for p in ours] == [p.read_bytes() for p in theirs]
    assert ours[0].read_bytes() != ours[1].read_bytes()


def test_converted_encoders_give_the_same_codes(converted, workdir):
    pictures = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    ours, theirs = (api.load(str(at / "damsm")) for at in (workdir, converted[0]))
    np.testing.assert_array_equal(ours.encode_text(TEXTS), theirs.encode_text(TEXTS))
    np.testing.assert_array_equal(ours.encode_image(pictures), theirs.encode_image(pictures))


def test_converted_weights_are_evaluated_without_a_checkpoint(converted, workdir):
    """The same numbers as at the end of the training that they come from."""
    place, _ = converted
    code, out = runs.command("--mode=eval", TINY, f"--workdir={place}", "--config.mesh.data=1")
    assert code == 0
    for stage in ("damsm", "attngan"):
        numbers = runs.done(workdir, stage)["numbers"]
        assert numbers
        for key, value in numbers.items():
            assert f"{stage} at step 0  {key}  {value:.6g}" in out
    assert json.loads((place / "attngan" / "evals.json").read_text())
    assert not (place / "attngan" / "checkpoints").exists()


def test_evaluation_refuses_what_does_not_belong_together(converted, tmp_path, capsys):
    place = tmp_path / "w"
    shutil.copytree(converted[0], place)
    assert runs.command("--mode=eval", "--config=configs/shapes.py:attngan,tiny", f"--workdir={place}",
                        "--config.attngan.nets.gen.width=8")[0] == 2
    assert "the weights of attngan: tensor params/" in capsys.readouterr().err
    tree, about, _ = weights.load(place / "damsm" / "weights.safetensors")
    tree["params"]["text"]["embed"]["embedding"] += 1e-3
    weights.save(place / "damsm" / "weights.safetensors", tree, about)
    assert runs.command("--mode=eval", "--config=configs/shapes.py:attngan,tiny", f"--workdir={place}")[0] == 2
    assert "was trained with other encoders than config.attngan.frozen.damsm" in capsys.readouterr().err


def test_training_begins_with_converted_weights(converted, tmp_path, monkeypatch):
    seen = []

    def train(run):
        state, _, saved = loop.begin(run)
        saved.close()
        seen.append(state)
        raise SystemExit

    monkeypatch.setattr(loop, "train", train)
    with pytest.raises(SystemExit):
        runs.command("--config=configs/shapes.py:damsm,tiny", f"--from={converted[0]}", f"--workdir={tmp_path / 'w'}",
                     "--config.mesh.data=1")
    ours = originals.flat(seen[0].params["model"])
    for path, leaf in originals.flat(weights.load(converted[0] / "damsm" / "weights.safetensors")[0]["params"]).items():
        np.testing.assert_array_equal(ours[path], leaf, err_msg=path)
    assert json.loads((tmp_path / "w" / "damsm" / "start.json").read_text())["from"].endswith("damsm/weights.safetensors")


def test_a_generator_alone_listens_to_encoders_that_were_converted_before(converted, folder, tmp_path, dump):  # noqa: F811
    """In PyTorch's own format, as published."""
    given = load_file(folder / "netG_epoch_600.safetensors")
    stored = [Stored("Long" if a.dtype == np.int64 else "Float", str(i), a.ravel()) for i, a in enumerate(given.values())]
    strides = [tuple(s // a.itemsize for s in a.strides) for a in given.values()]
    views = {name: View(s, 0, a.shape, by) for (name, a), s, by in zip(given.items(), stored, strides, strict=True)}
    write_zip(tmp_path / "netG.pth", dump({"netG": views}), stored)
    code, out = runs.command("--mode=convert", TINY, f"--from={tmp_path / 'netG.pth'}", f"--to={tmp_path / 'g.safetensors'}",
                             f"--config.attngan.frozen.damsm={converted[0] / 'damsm' / 'weights.safetensors'}")
    assert code == 0 and "attngan lies in" in out
    ours = originals.flat(weights.load(tmp_path / "g.safetensors", "attngan")[0])
    for path, leaf in originals.flat(weights.load(converted[0] / "attngan" / "weights.safetensors")[0]).items():
        np.testing.assert_array_equal(ours[path], leaf, err_msg=path)


@pytest.mark.parametrize("source,kind,stage", [("attngan", "attngan", "attngan"), ("", "attngan", "attngan"),
                                               ("damsm", "damsm", "damsm")])
def test_ours_are_exported_to_one_file_and_read_again(workdir, tmp_path, source, kind, stage):
    place = tmp_path / "file.safetensors"
    code, out = runs.command("--mode=convert", f"--from={workdir / source}", f"--to={place}")
    assert code == 0 and f"({kind}: " in out and f"stage {stage} of a config for shapes" in out
    about = json.loads(tensors.metadata(place)["about"])
    assert about["stage"] == stage and about["config"]["stages"] == ["damsm", "attngan"]
    assert place.read_bytes() == (workdir / stage / "weights.safetensors").read_bytes()
    again = runs.command("--mode=convert", f"--from={place}", f"--to={tmp_path / 'again.safetensors'}")
    assert again[0] == 0 and (tmp_path / "again.safetensors").read_bytes() == place.read_bytes()


def test_shipped_weights_are_exported_by_name(tmp_path):
    assert runs.command("--mode=convert", "--from=shapes", f"--to={tmp_path / 'a.safetensors'}")[0] == 0
    model, shipped = api.load(str(tmp_path / "a.safetensors")), api.load("shapes")
    assert model.about == shipped.about
    for path, leaf in originals.flat(shipped.tree).items():
        np.testing.assert_array_equal(originals.flat(model.tree)[path], leaf)


def test_a_vocabulary_alone(folder, tmp_path, workdir):
    code, out = runs.command("--mode=convert", f"--from={folder / 'captions.pickle'}", f"--to={tmp_path / 'vocab.json'}")
    assert code == 0 and "words lie in" in out
    assert (tmp_path / "vocab.json").read_bytes() == (workdir / "vocab.json").read_bytes()


def test_a_store_is_read_and_written(store, workdir, tmp_path):  # noqa: F811
    store.upload("w", workdir / "damsm")
    code, out = runs.command("--mode=convert", "--from=gs://mine/w", "--to=gs://mine/out/damsm.safetensors")
    assert code == 0 and "lies in gs://mine/out/damsm.safetensors" in out
    assert store.files["mine"]["out/damsm.safetensors"] == (workdir / "damsm" / "weights.safetensors").read_bytes()


# what is done to a copy of the folder, the flags, what the one line says
def remove(*names):
    def change(at):
        for name in names:
            (at / name).unlink()

    return change


def edit(file, **changed):
    """Replaces tensors of a file; None takes one out."""

    def change(at):
        given = load_file(at / file) | changed
        write(at / file, {name: a for name, a in given.items() if a is not None})

    return change


def several(*changes):
    return lambda at: [change(at) for change in changes]


TEXT, IMAGE, GEN = "text_encoder200.safetensors", "image_encoder200.safetensors", "netG_epoch_600.safetensors"
ONLY_GEN = remove(TEXT, IMAGE, "captions.pickle")
BIAS, HIDDEN = "rnn.bias_ih_l0", "rnn.weight_hh_l0"
REFUSED = {
    "nothing there": (None, [TINY, "--from=FOLDER/absent"], "absent' is no folder or file"),
    "no source": (None, [TINY, "--from="], "--from is missing"),
    "no target": (None, [TINY, "--to="], "--to is missing"),
    "target there": (None, [TINY, "--to=FOLDER"], "is there already: name a new file or folder"),
    "a file above the target": (None, [TINY, "--to=FOLDER/captions.pickle/w"], "a file is in the way; name another place"),
    "target of another kind": (None, [TINY, "--to=FOLDER/a.pth"], "weights are written as .safetensors"),
    "no config": (None, [], "--config is missing: .* holds DAMSM's image encoder, AttnGAN's generator, DAMSM's text encoder"),
    "settings alone": (None, ["--config.seed=1"], "--config=FILE is missing, to which --config.KEY=VALUE belongs"),
    "one file for two": (None, [TINY, "--to=FOLDER/a.safetensors"], "damsm and attngan were found: name a folder"),
    "another GAN": (None, ["--config=configs/shapes.py:dmgan,tiny"],
                    "found netG_epoch_600.*, AttnGAN's generator; this config is for damsm, dmgan: give one for attngan"),
    "another width": (remove(IMAGE), [TINY, "--config.attngan.nets.gen.width=8"],
                      r"netG_epoch_600.safetensors \(AttnGAN's generator\): tensor \S+ gives params/\S+ shape"),
    "other words": (lambda at: originals.captions(at / "captions.pickle", ["<end>", "bird"]), [TINY],
                    r"text_encoder200.safetensors was trained with \d+ words, the vocabulary beside it has 2"),
    "no words": (remove("captions.pickle"), [TINY], "captions.pickle or vocab.json must lie beside the encoders"),
    "words twice": (lambda at: shutil.copy(at / "captions.pickle", at / "captions_DAMSM.pickle"), [TINY],
                    "holds several vocabularies"),
    "pickled code": (lambda at: originals.captions(at / "captions.pickle", ["<end>"], train=Evil(at / "ran")), [TINY],
                     "captions.pickle: it asks for .*mkdir, and only lists"),
    "encoders missing": (ONLY_GEN, [TINY], r"listens to a text encoder: put text_encoder\*.pth and captions.pickle beside it"),
    "half of the encoders": (remove(IMAGE, GEN), [TINY], "one of DAMSM's encoders, text: put the other beside it"),
    "the same twice": (lambda at: shutil.copy(at / GEN, at / "netG_epoch_500.safetensors"), [TINY],
                       "netG_epoch_500.safetensors and netG_epoch_600.safetensors each hold AttnGAN's generator"),
    "missing and unused": (edit(TEXT, **{BIAS: None, "rnn.extra": np.zeros(2)}), [TINY],
                           "1 tensors of the file that the network has no place for: rnn.extra; 1 weights of the network that "
                           "the file lacks: params/forward/input_bias"),
    "wrong shape": (edit(TEXT, **{HIDDEN: np.zeros((4, 4), np.float32)}), [TINY],
                    r"text_encoder200.* \(DAMSM's text encoder\): tensor rnn.weight_hh_l0 gives params/forward/hidden"),
    "damaged": (lambda at: (at / GEN).write_bytes((at / GEN).read_bytes()[:-9]), [TINY], "netG_epoch_600.* is damaged"),
    "nothing known": (several(ONLY_GEN, remove(GEN), lambda at: (at / "README").write_text("x")), [TINY],
                      "holds neither weights known here nor a captions.pickle"),
    "a judge alone": (several(remove(TEXT, IMAGE, GEN), lambda at: write(at / "netD0.safetensors", {
        "img_code_s16.0.weight": np.zeros((2, 3, 4, 4))})), [TINY], "is a discriminator: put its generator beside it"),
    "a vision transformer": (lambda at: write(at / "v.safetensors", {"embeddings.cls_token": np.zeros(1)}),
                             ["--from=FOLDER/v.safetensors"], "a vision transformer alone, which no stage works with yet"),
    "another ResNet": (lambda at: write(at / "r.safetensors", {"layer1.0.conv1.weight": np.zeros(1)}),
                       ["--from=FOLDER/r.safetensors"], r"a ResNet of \(1, 0, 0, 0\) blocks is not known"),
    "an unknown file": (lambda at: write(at / "r.safetensors", {"x.weight": np.zeros(1)}), ["--from=FOLDER/r.safetensors"],
                        "names such as x.weight belong to none of the networks known here: DAMSM's text encoder, "),
}  # fmt: skip


@pytest.mark.parametrize("change,argv,said", REFUSED.values(), ids=REFUSED)
def test_a_mistake_ends_in_one_line_and_writes_nothing(folder, tmp_path, capsys, change, argv, said):
    at = tmp_path / "original"
    shutil.copytree(folder, at)
    if change:
        change(at)
    before = sorted(p.name for p in at.iterdir())
    flags = [f"--from={at}", f"--to={tmp_path / 'out'}", *(word.replace("FOLDER", str(at)) for word in argv)]
    assert runs.command("--mode=convert", *flags)[0] == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert re.search(said, line), line
    assert not (tmp_path / "out").exists() and sorted(p.name for p in at.iterdir()) == before


@pytest.mark.parametrize("argv,said", [(["--to=x"], "--to=x belongs to --mode=convert"),
                                       (["--mode=eval", "--from=x"], "--from=x: --mode=eval does not read it"),
                                       (["--mode=compile", "--from=x"], "--from=x: --mode=compile does not read it")])
def test_a_flag_of_another_mode_is_not_passed_over(capsys, argv, said):
    assert runs.command(TINY, *argv)[0] == 2 and said in capsys.readouterr().err
