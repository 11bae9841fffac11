"""A model from weights: which file is taken, what is compiled once, where its parameters are found."""

import jax.numpy as jnp
import numpy as np
import pytest

from supcon_jax.build import model, weights
from supcon_jax.build.names import GENERATORS
from supcon_jax.config import UserError
from supcon_jax.data.vocab import Vocab

TEXT = {"net": "rnn", "embed": 4, "width": 4, "rnn": "lstm", "dropout": 0.0}


def about(kind, **more):
    return {"kind": kind, "vocab": ["<end>", "red", "ring"], "nets": {"text": TEXT}, "config": {"data": {"words": 3}}, **more}


def write(path, kind, **more):
    weights.save(path, {"x": np.ones(1, np.float32)}, about(kind, **more))


def test_a_folder_gives_the_first_kind_that_was_asked_for(tmp_path):
    write(tmp_path / "damsm" / "weights.safetensors", "damsm")
    assert model.load(str(tmp_path)).about["kind"] == "damsm"
    write(tmp_path / "attngan" / "weights.safetensors", "attngan")
    assert model.load(str(tmp_path)).about["kind"] == "attngan"
    assert model.load(str(tmp_path), ("damsm", "attngan")).about["kind"] == "damsm"
    assert model.load(str(tmp_path / "damsm")).about["kind"] == "damsm"  # the stage's own folder
    with pytest.raises(UserError, match="holds no finished stage of classifier: train to the end first"):
        model.load(str(tmp_path), ("classifier",))


@pytest.mark.parametrize("kind", GENERATORS)
def test_a_generator_needs_no_image_encoder_to_be_read(tmp_path, kind):
    nets = {"text": TEXT, "image": {"net": "inception"}, "gen": {"net": "velocity" if kind == "flow" else f"{kind}_g"}}
    write(tmp_path / "a.safetensors", kind, nets=nets)
    read = model.load(str(tmp_path / "a.safetensors"))
    assert set(read.nets) == {"text", "gen"} and read.nets["text"].vocab == 3
    assert read.nets["gen"].__module__ == f"supcon_jax.nets.{kind}"


def test_nets_of_another_version_are_refused_by_name(tmp_path):
    write(tmp_path / "a.safetensors", "damsm", nets={"text": TEXT | {"depth": 2}})
    with pytest.raises(UserError, match=r"nets\.text\.depth is not an argument of TextEncoder; it takes: vocab, embed"):
        model.load(str(tmp_path / "a.safetensors"))


class Counted:
    """A net that counts how often it is traced and remembers which variables it saw."""

    cond = 2

    def __init__(self, answer):
        self.answer, self.traced, self.seen = answer, 0, None

    def apply(self, variables, *args):
        self.traced, self.seen = self.traced + 1, variables
        return self.answer(*args)


def encoders():
    nets = {
        "image": Counted(lambda images: (None, images[:, 0, 0])),
        "text": Counted(lambda ids, lengths: (None, ids.astype(np.float32))),
    }
    tree = {"params": {"image": "pi", "text": "pt"}, "stats": {"image": "si"}}
    return model.Model(nets, tree, about("damsm"))


def test_encoding_images_is_compiled_once_and_gives_unit_rows():
    made = encoders()
    images = np.random.default_rng(0).uniform(-1, 1, (3, 2, 2, 3)).astype(np.float32)
    for shift in (0, 0.5, 1):
        rows = made.encode_image(images + np.float32(shift))
        want = images[:, 0, 0] + np.float32(shift)
        np.testing.assert_allclose(rows, want / np.linalg.norm(want, axis=1, keepdims=True), rtol=1e-5)
    assert made.nets["image"].traced == 1 and made.nets["image"].seen == {"params": "pi", "batch_stats": "si"}
    signed = made.encode_image(np.uint8([[[[0, 255, 255]]]]))  # bytes are brought to [-1, 1]
    np.testing.assert_allclose(signed, np.float32([[-1, 1, 1]]) / np.sqrt(3), rtol=1e-5)


def test_encoding_texts_is_compiled_once_with_the_parameters_of_its_kind():
    made = encoders()
    for text, want in (("red ring", [1, 2, 0]), ("ring", [2, 0, 0])):
        np.testing.assert_allclose(made.encode_text([text])[0], want / np.linalg.norm(want), rtol=1e-6)
    assert made.nets["text"].traced == 1 and made.nets["text"].seen == {"params": "pt"}
    gan = model.Model({"text": made.nets["text"], "gen": None}, {"text": "own"}, about("attngan"))
    gan.encode_text(["red"])
    assert made.nets["text"].seen == {"params": "own"}


class Painter(Counted):
    """A generator that hands back its noise as the picture; `cond` only where a kind draws its condition."""

    def __init__(self, cond):
        super().__init__(lambda z, sentence, words, valid, eps: ((jnp.concatenate([z, eps], 1),),))
        self.cond = cond


@pytest.mark.parametrize("kind,more", [("attngan", {"cond_noise": 0.5}), ("dfgan", {"truncate": 0.1}), ("ssagan", {})])
def test_generating_draws_the_noise_that_the_stage_asks_for(tmp_path, kind, more):
    text = Counted(lambda ids, lengths: (ids[..., None].astype(np.float32), ids.astype(np.float32)))
    tree = {"gen": {"params": {"gamma": np.float32(3)}, "stats": {}}, "text": {"t": np.ones(1, np.float32)}}
    config = {"data": {"words": 3}, "own": {"args": {"z": 500, "text_norm": False, **more}}}
    weights.save(tmp_path / "w.safetensors", tree, about(kind) | {"config": config, "stage": "own"})
    read, said, _ = weights.load(tmp_path / "w.safetensors", kind)  # without batch norm the file has no "stats"
    gen = Painter(400 if kind == "attngan" else 0)
    drawn = np.asarray(model.Model({"text": text, "gen": gen}, read, said).generate(["red ring", "ring"], seed=3))
    assert gen.seen["params"]["gamma"].shape == () and gen.seen["batch_stats"] == {}
    z, eps = np.split(drawn, [500], axis=1)
    assert eps.shape == (2, gen.cond) and (kind != "attngan" or eps.std() == pytest.approx(0.5, rel=0.1))
    assert z.std() == pytest.approx(0.088 if kind == "dfgan" else 1, rel=0.1)
    assert (np.abs(z).max() <= 0.2) == (kind == "dfgan")


def test_of_branches_on_weights_of_their_own_the_first_draws():
    text = Counted(lambda ids, lengths: (ids[..., None].astype(np.float32), ids.astype(np.float32)))
    gen, args = Painter(0), {"z": 5, "text_norm": False, "shared": False}
    tree = {"gen": {"params": {"gamma": np.float32([3, 4])}}, "text": {}}
    said = about("dfgan") | {"config": {"data": {"words": 3}, "own": {"args": args}}, "stage": "own"}
    model.Model({"text": text, "gen": gen}, tree, said).generate(["red ring"])
    assert gen.seen["params"] == {"gamma": 3}


def test_weights_of_pictures_alone_read_no_text():
    with pytest.raises(UserError, match="were trained on pictures alone: they read no text"):
        model.Model({}, {}, {"vocab": None, "config": {"data": {"words": 4}}}).encode_text(["red"])


def test_a_long_vocabulary_is_shown_in_part():
    vocab = Vocab(("<end>", *(f"w{i}" for i in range(50))))
    assert model.shown(vocab) == ", ".join(f"w{i}" for i in range(40)) + " and 10 more"
    assert model.shown(Vocab(("<end>", "a", "b"))) == "a, b"
