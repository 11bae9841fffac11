"""What a notebook uses, on a run of two steps: shapes, unit rows, seeds, and what it refuses."""

import numpy as np
import pytest

import runs
from supcon_jax import api
from supcon_jax.config import UserError

TEXTS = ("a small red circle at the top left", "large blue square in the bottom right of the picture", "a green ring")


@pytest.fixture(scope="module")
def workdir():
    return runs.shapes()


@pytest.fixture(scope="module")
def gan(workdir):
    return api.load(str(workdir))


@pytest.fixture(scope="module")
def encoders(workdir):
    return api.load(str(workdir / "damsm"))


def pictures(n=5, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 32, 32, 3)).astype(np.uint8)


def test_a_work_folder_gives_the_gan_first(gan, encoders):
    assert (gan.about["kind"], encoders.about["kind"]) == ("attngan", "damsm")
    assert len(gan.vocab) == len(encoders.vocab) == len(gan.about["vocab"])


@pytest.mark.parametrize("which", ("gan", "encoders"))
def test_texts_become_unit_rows(which, request):
    model = request.getfixturevalue(which)
    rows = np.asarray(model.encode_text(TEXTS))
    assert rows.shape == (3, 16) and rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    assert np.abs(rows[0] - rows[1]).max() > 1e-3


def test_both_files_hold_the_same_text_encoder(gan, encoders):
    np.testing.assert_array_equal(gan.encode_text(TEXTS), encoders.encode_text(TEXTS))


def test_pictures_become_unit_rows_whatever_they_are_made_of(encoders):
    rows = np.asarray(encoders.encode_image(pictures()))
    assert rows.shape == (5, 16)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    signed = pictures().astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(encoders.encode_image(signed), rows, atol=1e-4)  # bytes or [-1, 1]
    mixed = np.concatenate([pictures()[:1], pictures(4, seed=1)])
    np.testing.assert_allclose(encoders.encode_image(mixed)[0], rows[0], atol=1e-4)  # a row does not see the others
    assert np.abs(np.asarray(encoders.encode_image(mixed))[1:] - rows[1:]).max() > 1e-4


def test_the_seed_decides_the_pictures(gan):
    one, again, other = gan.generate(TEXTS, seed=1), gan.generate(TEXTS, seed=1), gan.generate(TEXTS, seed=2)
    assert one.shape == (3, 32, 32, 3) and np.abs(one).max() <= 1 and np.isfinite(one).all()
    np.testing.assert_array_equal(one, again)
    assert np.abs(np.asarray(one) - np.asarray(other)).max() > 1e-3
    np.testing.assert_array_equal(one, api.load(gan_folder()).generate(TEXTS, seed=1))


def gan_folder():
    return str(runs.shapes() / "attngan")


def test_the_text_decides_the_picture_too(gan):
    a, b = (np.asarray(gan.generate([text], seed=0)) for text in TEXTS[:2])
    assert np.abs(a - b).max() > 1e-4


def test_unknown_words_are_told_and_left_out(gan):
    assert gan.unknown("a Zebra, red; circle unicorn") == ["zebra", "unicorn"]
    np.testing.assert_array_equal(gan.encode_text(["a red zebra circle"]), gan.encode_text(["a red circle"]))


def test_a_text_of_unknown_words_only_is_refused(gan):
    with pytest.raises(UserError, match="'zebra unicorn' has no word that these weights know; they know: .*red"):
        gan.generate(["a red circle", "zebra unicorn"])
    with pytest.raises(UserError, match="has no word"):
        gan.encode_text([""])


def test_what_the_weights_cannot_do_is_refused(gan, encoders):
    with pytest.raises(UserError, match="no image encoder: load the damsm stage"):
        gan.encode_image(pictures())
    with pytest.raises(UserError, match="no generator: load the GAN stage"):
        encoders.generate(TEXTS)


def test_a_missing_source_is_refused_with_the_list_of_what_ships(tmp_path):
    with pytest.raises(UserError, match="'birds' is no folder or file, and not among the shipped weights: "):
        api.load("birds")
    kinds = "attngan, dmgan, dfgan, ssagan, galip, flow, damsm, clip_heads, encoder"
    with pytest.raises(UserError, match=f"holds no finished stage of {kinds}: train to the end first"):
        api.load(str(tmp_path))


@pytest.mark.long  # compiles a stage of its own; the gate of DM-GAN runs the commands too
def test_dm_gan_is_trained_drawn_from_and_scored_by_the_same_commands(tmp_path, workdir):
    argv = ("--config=configs/shapes.py:dmgan,tiny", f"--workdir={tmp_path / 'w'}", "--config.stages=('dmgan',)",
            f"--config.dmgan.frozen.damsm={workdir / 'damsm' / 'weights.safetensors'}", "--config.mesh.data=1")
    assert runs.command(*argv)[0] == 0
    assert runs.done(tmp_path / "w", "dmgan")["steps"] == 2
    model = api.load(str(tmp_path / "w"))
    assert model.about["kind"] == "dmgan" and type(model.nets["gen"]).__module__ == "supcon_jax.nets.dmgan"
    pictures = model.generate(TEXTS, seed=1)
    assert pictures.shape == (3, 32, 32, 3) and np.isfinite(pictures).all()
    code, out = runs.command("--mode=sample", f"--from={tmp_path / 'w'}", f"--prompt={TEXTS[0]}", f"--workdir={tmp_path / 's'}")
    assert code == 0 and "pictures of 32 px" in out
    code, out = runs.command("--mode=eval", *argv)
    assert code == 0 and "matching/r_precision" in out


def test_a_foreign_file_is_refused(tmp_path):
    import safetensors.numpy

    safetensors.numpy.save_file({"x": np.zeros(3, np.float32)}, tmp_path / "foreign.safetensors")
    with pytest.raises(UserError, match="foreign"):
        api.load(str(tmp_path / "foreign.safetensors"))
    (tmp_path / "cut.safetensors").write_bytes((runs.shapes() / "damsm" / "weights.safetensors").read_bytes()[:-100])
    with pytest.raises(UserError, match="cut.safetensors"):
        api.load(str(tmp_path / "cut.safetensors"))
