"""The geometry of codes against plain loops, on worlds whose answer is known, and where there is nothing to measure."""

import itertools
import json
import math

import numpy as np
import pytest

from evals import toys
from evals.test_matching import image_code, text_code
from supcon_jax.evals import geometry
from supcon_jax.evals.protocol import Protocol, numbers
from supcon_jax.evals.r_precision import unit


def rows(n=23, d=5, seed=0):
    return unit(np.random.default_rng(seed).normal(size=(n, d)))


def measured(batches=None, image=image_code, text=text_code, **changes):
    return geometry.geometry(image, text, batches=batches or toys.world(records=64, padding=2), **changes)


# ---- against loops ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["single", "several"])
def test_cosines_are_means_over_pairs(kind, monkeypatch):
    monkeypatch.setattr(geometry, "CHUNK", 7)
    rng, a, b = np.random.default_rng(1), rows(), rows(seed=2)
    label = rng.integers(-1, 3, 23) if kind == "single" else (rng.random((23, 4)) < 0.3).astype(np.float32)
    index, same = rng.integers(0, 20, 23), rng.integers(0, 9, 23)
    found = {"within": [], "between": []}
    for i, j in itertools.product(range(23), repeat=2):
        if index[i] == index[j] or same[i] == same[j]:
            continue
        if kind == "single":
            has, share = label[i] >= 0 and label[j] >= 0, label[i] == label[j]
        else:
            has, share = label[i].any() and label[j].any(), (label[i] * label[j]).any()
        if has:
            found["within" if share else "between"].append(float(a[i] @ b[j]))
    assert min(map(len, found.values())) > 20
    want = {name: math.fsum(x) / len(x) for name, x in found.items()}
    want["separation"] = want["within"] - want["between"]
    assert geometry.cosines(a, b, label, (index, same)) == pytest.approx(want, rel=1e-12)


# ---- of a world --------------------------------------------------------------------------------------------------------


def test_codes_that_know_the_class_stand_apart_and_random_ones_at_chance():
    good = numbers(measured())
    assert good["image_separation"] > 0.3 and good["text_nmi"] > 0.9 and good["both_nmi"] > 0.9 > 0.3 > good["both_nmi_chance"]
    assert good["both_separation"] == pytest.approx(good["both_within"] - good["both_between"])
    assert good["text_alignment"] == pytest.approx(2 - 2 * good["text_within"])
    assert 0 < good["both_alignment"] < good["image_alignment"]  # a picture is nearer its own caption than its class
    rng = np.random.default_rng(0)
    blind = numbers(measured(image=lambda x: rng.normal(size=(len(x), 6))))
    assert abs(blind["image_separation"]) < 0.1 and abs(blind["image_nmi"] - blind["image_nmi_chance"]) < 0.12
    assert blind["image_rank"] > good["image_rank"] + 0.3 and blind["image_uniformity"] < good["image_uniformity"]


def test_each_number_has_its_protocol():
    out = measured(limit=40, protocol=Protocol(network="enc", real_origin="toys/test"), seed=4)
    kinds = ("within", "between", "separation", "alignment", "uniformity", "rank", "nmi", "nmi_chance")
    assert set(out) == {f"{x}_{kind}" for x in ("image", "text", "both") for kind in kinds}
    own = out["both_nmi"]["protocol"]
    assert (own["real_number"], own["real_origin"], own["seed"]) == (40, "toys/test", 4) and own["real_content"]
    assert own["subsets"] == "k-means, 4 clusters of 80 rows"
    assert json.dumps(out) == json.dumps(measured(limit=40, protocol=Protocol(network="enc", real_origin="toys/test"), seed=4))


def test_of_both_the_pairs_are_of_a_picture_and_anothers_caption():
    """All pictures in one place, all captions in the opposite one: apart within the label, and that is all one sees."""
    up, down = (lambda x: np.tile([1.0, 0], (32 + 2, 1))), (lambda b: np.tile([-1.0, 0], (32 + 2, 1)))
    got = numbers(measured(toys.world(records=64, padding=2), up, down))
    assert got["image_within"] == got["text_between"] == 1 and got["both_within"] == got["both_between"] == -1
    assert got["both_alignment"] == 4 and got["both_separation"] == 0 and got["both_rank"] == pytest.approx(1, abs=1e-6)


def relabelled(label):
    """The world with other labels: a function of the record's number."""
    return [b | {"label": np.stack([label(b["index"][:, 0])] * 2, 1)} for b in toys.world(records=32)]


def test_what_the_labels_cannot_give_is_left_out():
    def names(label):
        out = numbers(measured(relabelled(label)))
        assert all(map(math.isfinite, out.values()))
        return {name.removeprefix("image_") for name in out if name.startswith("image_")}

    always = {"uniformity", "rank"}
    assert names(lambda i: i * 0 - 1) == always  # no labels
    assert names(lambda i: i * 0 + 3) == always | {"within", "alignment"}  # one
    assert names(lambda i: i) == always | {"between"}  # each once
    several = {"within", "between", "separation", "alignment"}
    assert names(lambda i: np.eye(4, dtype=np.float32)[i % 4]) == always | several
    dead = numbers(measured(image=lambda x: np.zeros((len(x), 6))))
    assert "image_rank" not in dead and dead["image_within"] == 0 and all(map(math.isfinite, dead.values()))


def test_one_picture_has_a_rank_and_nothing_else():
    out = numbers(measured(limit=1))
    assert set(out) == {"image_rank", "text_rank", "both_rank", "both_uniformity", "both_alignment"}


def test_equal_captions_are_not_counted_as_near():
    """Each picture stands twice under its caption: the captions of a label are as near to each other as before."""
    once = toys.world(records=32)
    twice = once + [b | {"index": b["index"] + 1000} for b in once]
    one, two = (numbers(measured(batches)) for batches in (once, twice))
    for name in ("text_within", "both_within", "text_between", "image_between"):
        assert two[name] == pytest.approx(one[name])
    assert two["image_within"] > one["image_within"]  # equal pictures of two records are pictures like others
