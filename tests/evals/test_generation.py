"""Scores of generators whose quality is known: faithful, collapsed, off colour, broken."""

import json

import numpy as np
import pytest

from evals import toys
from supcon_jax.evals.fid import frechet, gaussian
from supcon_jax.evals.generation import generation, known
from supcon_jax.evals.protocol import Network, Protocol, numbers

BASE = Protocol(real_origin="toys/test", fake_origin="run", captions="first of test", ema=True)


def run(generate=toys.generate, nets=None, **changes):
    arguments = dict(protocol=BASE, fakes=96, subsets=5) | changes
    real = arguments.pop("real", toys.world(seed=1))
    return generation(generate, real, toys.world(), nets or [toys.network()], **arguments)


def collapsed(batch, key):
    return toys.generate(batch, key)[:1].repeat(len(batch["text"]), 0)


def shifted(batch, key):
    return np.roll(toys.generate(batch, key), 1, -1)


def test_a_faithful_generator_beats_collapsed_and_off_colour_ones():
    good, flat, off = (numbers(run(g)) for g in (toys.generate, collapsed, shifted))
    assert good["fid_toy"] < 0.05 < 0.3 < min(flat["fid_toy"], off["fid_toy"])
    assert abs(good["kid_toy"]) < 0.1 < flat["kid_toy"]
    assert good["recall_toy"] > 0.6 > 0.1 > flat["recall_toy"]
    assert good["label_accuracy_toy"] == 100.0 and off["label_accuracy_toy"] < 60
    assert good["is_toy"] > 3 > 1.5 > flat["is_toy"]
    assert good["fakes_not_finite"] == 0
    wanted = {"fid", "kid", "kid_std", "is", "is_std", "precision", "recall", "density", "coverage", "label_accuracy"}
    assert set(good) == {f"{name}_toy" for name in wanted} | {"fakes_not_finite"}


def test_numbers_are_those_of_the_quantised_pictures_and_repeat():
    one = run()
    assert json.dumps(one) == json.dumps(run()) != json.dumps(run(seed=1))
    seen = []
    run(lambda b, k: seen.append(toys.generate(b, k)) or seen[-1])
    u8 = np.clip(np.round((np.concatenate(seen) + 1) * 127.5), 0, 255).astype(np.uint8)
    fake, real = (np.float32(toys.look(x)[0]) for x in (u8, np.concatenate([b["image"][:, 0] for b in toys.world(seed=1)])))
    assert one["fid_toy"]["value"] == pytest.approx(frechet(*gaussian(real), *gaussian(fake)), rel=1e-9)


def test_reals_against_themselves():
    images = toys.world(seed=1)
    copies = iter(images)
    got = numbers(run(lambda b, k: next(copies)["image"][:, 0] / 127.5 - 1, real=images))
    assert abs(got["fid_toy"]) < 1e-6 and got["precision_toy"] == got["recall_toy"] == got["coverage_toy"] == 1.0


def test_protocol_says_what_was_done():
    out = run(nets=[toys.network(), Network("pt", "cd" * 32, 299, "bilinear", toys.look)], reals=64, seed=7)
    fid = out["fid_pt"]["protocol"]
    assert fid == BASE.replace(
        metric="fid_pt", network="pt", weights="cd" * 32, resize="real 8x8, fake 8x8 -> 299 bilinear",
        real_number=64, fake_number=96, seed=7,
    ).dict()  # fmt: skip
    assert out["kid_toy"]["protocol"]["subsets"] == "5 x 32" and out["precision_pt"]["protocol"]["neighbours"] == 3
    assert out["is_pt"]["protocol"]["splits"] == "1 shuffled" and out["is_pt"]["protocol"]["real_number"] == 0
    assert len({entry["line"] for entry in out.values()}) == len(out)


@pytest.mark.parametrize(
    "scores, names",
    [(("is",), {"is", "is_std"}), (("fid", "kid"), {"fid", "kid", "kid_std"}), (("labels",), {"label_accuracy"}),
     (("prdc",), {"precision", "recall", "density", "coverage"})],
)  # fmt: skip
def test_a_network_measures_what_it_is_for(scores, names):
    out = run(nets=[Network("some", "cd" * 32, 299, "bilinear", toys.look, scores)])
    assert set(out) == {f"{name}_some" for name in names} | {"fakes_not_finite"}


def test_label_accuracy_looks_where_it_is_told():
    bank = toys.world(records=128, seed=5)
    out = run(bank_batches=bank, bank_origin="toys/train")
    own = out["label_accuracy_toy"]["protocol"]
    assert own["real_origin"] == "toys/train" and own["real_number"] == 128 and own["neighbours"] == 16
    assert out["real_label_accuracy_toy"]["value"] == 100.0
    assert out["real_label_accuracy_toy"]["protocol"]["fake_origin"] == "toys/test"
    elsewhere = [b | {"label": b["label"] + 10} for b in bank]
    assert not [name for name in run(bank_batches=elsewhere) if "label" in name]
    half = [b | {"label": np.where(b["label"] < 2, b["label"], b["label"] + 10)} for b in bank]
    out = run(bank_batches=half)["label_accuracy_toy"]
    assert out["protocol"]["fake_number"] == 48 and out["value"] == 100.0
    unlabelled = [b | {"label": np.full_like(b["label"], -1)} for b in bank]
    assert not [name for name in run(bank_batches=unlabelled) if "label" in name]


def test_known_of_several_labels():
    bank = np.array([[1, 0, 0], [0, 1, 0]])
    assert known(np.array([[1, 0, 1], [0, 0, 1], [0, 0, 0]]), bank).tolist() == [True, False, False]
    assert known(np.array([0, 3, -1]), np.array([0, -1])).tolist() == [True, False, False]


def test_several_labels_give_a_map():
    def hot(batches):
        return [b | {"label": np.float32(np.eye(5)[b["label"]] + np.eye(5)[4])} for b in batches]

    out = generation(toys.generate, hot(toys.world(seed=1)), hot(toys.world()), [toys.network()], fakes=96, subsets=2)
    assert out["label_map_toy"]["value"] == pytest.approx(100.0) and "label_accuracy_toy" not in out


def test_pictures_that_are_not_finite_are_counted_and_left_out():
    def broken(batch, key):
        x = toys.generate(batch, key).copy()
        x[::8] = np.nan
        return x

    out = run(broken)
    assert out["fakes_not_finite"]["value"] == 12 and out["fid_toy"]["protocol"]["fake_number"] == 84
    assert out["fid_toy"]["value"] < 0.1  # black squares in their place would cost far more
    with pytest.raises(ValueError, match="96 of 96 generated pictures"):
        run(lambda b, k: toys.generate(b, k) * np.nan)


def test_cache_changes_nothing(tmp_path):
    assert json.dumps(run(cache=tmp_path)) == json.dumps(run(cache=tmp_path)) == json.dumps(run())
    assert len(list(tmp_path.iterdir())) == 1
