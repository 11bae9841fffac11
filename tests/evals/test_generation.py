"""Scores of generators whose quality is known: faithful, collapsed, off colour, broken."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from evals import toys
from supcon_jax.evals import streams
from supcon_jax.evals.diversity import spread
from supcon_jax.evals.fid import frechet, gaussian
from supcon_jax.evals.generation import generation, known
from supcon_jax.evals.protocol import Network, Protocol, numbers

BASE = Protocol(real_origin="toys/test", fake_origin="run", captions="first of test", ema=True)


def run(generate=toys.generate, nets=None, **changes):
    arguments = dict(protocol=BASE, fakes=96, subsets=5) | changes
    real = arguments.pop("real", toys.world(seed=1))
    return generation(generate, real, toys.world(), nets or [toys.network()], **arguments)


def hashed(batches, limit=None):
    content = streams.Content()
    for part in streams.reals(batches, limit):
        content.add(part)
    return str(content)


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
        real_number=64, fake_number=96, seed=7, real_content=hashed(toys.world(seed=1), 64), fake_content=fid["fake_content"],
    ).dict()  # fmt: skip
    shown = [{"image": x.images[:, None]} for x in streams.fakes(toys.generate, toys.world(), 96, 7)]
    assert fid["fake_content"] == hashed(shown) == out["is_toy"]["protocol"]["fake_content"]
    assert out["is_toy"]["protocol"]["real_content"] == ""
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


NAMES = ("grey", "red", "green", "sand")


def test_label_accuracy_by_the_networks_own_head():
    """Top-1 of the logits, in percent; only where the head was trained on the very classes of the set."""
    def wrong(images):
        features, logits = toys.look(images)
        return features, np.where(np.arange(len(images))[:, None] % 4 == 0, np.roll(logits, 1, -1), logits)

    net = Network("birds", "cd" * 32, 8, "none", wrong, ("is", "classes"), classes=NAMES)
    out = run(nets=[net], classes=NAMES)
    assert out["label_accuracy_birds"]["value"] == 75.0 and set(out) >= {"is_birds"} and "fid_birds" not in out
    said = out["label_accuracy_birds"]["protocol"]
    assert said["subsets"] == "own head of 4 classes" and said["fake_number"] == 96
    assert (said["real_number"], said["real_origin"], said["real_content"]) == (0, "", "")
    for other in (NAMES[::-1], NAMES[:3], ()):
        assert "label_accuracy_birds" not in run(nets=[net], classes=other)
    half = [b | {"label": np.where(b["label"] == 2, -1, b["label"])} for b in toys.world()]
    out = generation(toys.generate, toys.world(seed=1), half, [net], fakes=96, subsets=2, classes=NAMES)
    assert out["label_accuracy_birds"]["protocol"]["fake_number"] == 72
    assert out["label_accuracy_birds"]["value"] == pytest.approx(100 * 48 / 72)  # those of class 0 are told wrongly


def test_diversity_tells_noise_from_none():
    def rigid(batch, key):
        return toys.generate(batch, jax.random.key(0))

    def maps(images):
        return (images.astype(np.float32),)

    nets = [toys.network(), toys.network("deep")]
    nets[1] = dataclasses.replace(nets[1], maps=maps)
    varied = streams.leading(toys.world(), 5), 15
    assert not [name for name in run(nets=nets) if "diversity" in name]
    run(nets=nets[:1], varied=(None, 15))  # nobody looks at them: nothing is drawn
    good, flat = (run(g, nets=nets, varied=varied) for g in (toys.generate, rigid))
    assert "diversity_toy" not in good and good["diversity_deep"]["value"] > 1e-3 and flat["diversity_deep"]["value"] == 0
    said = good["diversity_deep"]["protocol"]
    assert said["subsets"] == "15 pairs of 5 captions" and (said["fake_number"], said["real_number"]) == (15, 0)
    images = np.stack([p.images[:5] for p in streams.fakes(toys.generate, varied[0], 15, 0)], 1).reshape(15, 8, 8, 3)
    assert good["diversity_deep"]["value"] == pytest.approx(spread(maps, images, np.arange(15) // 3)[0], rel=1e-12)


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
