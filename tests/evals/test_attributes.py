"""Attribute accuracy by construction."""

import numpy as np
import pytest

from evals import toys
from supcon_jax.evals.attributes import accuracies, attributes
from supcon_jax.evals.protocol import numbers

KNOWN = {
    "colour": np.arange(96) % 4,
    "light": (np.concatenate([b["text"][:, 0, 1] for b in toys.world()]) > 2000).astype(int),
}


def classify(images):
    x = images.astype(np.float32) / 127.5 - 1
    slope = x[:, 4:].mean((1, 2, 3)) - x[:, :4].mean((1, 2, 3))
    return {"colour": toys.look(images)[1], "light": np.stack([-slope, slope], 1), "unasked": np.zeros((len(x), 2))}


def run(generate=toys.generate, known=KNOWN, **changes):
    arguments = dict(generate=generate, caption_batches=toys.world(padding=3), number=96) | changes
    return attributes(classify, known, **arguments)


def test_accuracies_by_hand():
    logits = {"a": np.eye(3)[[0, 1, 2, 0]], "b": np.eye(2)[[0, 0, 1, 1]], "c": np.zeros((4, 2))}
    truth = {"a": np.array([0, 1, 0, -1]), "b": np.array([0, 1, 1, -1]), "c": np.full(4, -1)}
    assert accuracies(logits, truth) == pytest.approx({"a": 200 / 3, "b": 200 / 3, "all": 100 / 3})
    with pytest.raises(ValueError, match="'d'.*known"):
        accuracies(logits, {"d": truth["a"]})
    with pytest.raises(ValueError, match="1 of 4 rows are not finite"):
        accuracies(logits | {"a": np.diag([np.nan, 1, 1, 1])}, truth)
    with pytest.raises(ValueError, match="no row"):
        accuracies(logits, {"c": truth["c"]})


def test_faithful_pictures_and_reals():
    got = numbers(run(real_batches=toys.world()))
    assert got["attribute_colour"] == got["real_attribute_colour"] == 100.0
    assert got["attribute_light"] > 90 < got["real_attribute_light"]
    assert got["attribute_all"] == got["attribute_light"]
    assert got["attribute_fakes_not_finite"] == 0 and "attribute_unasked" not in got


def test_what_a_generator_gets_wrong_is_seen_in_its_attribute_alone():
    def negative(batch, key):
        return toys.generate(batch, key)[:, ::-1]  # upside down: the shade is the wrong way round, the colour right

    got = numbers(run(negative))
    assert got["attribute_colour"] == 100.0 and got["attribute_light"] < 10 > got["attribute_all"]


def test_attributes_that_a_caption_does_not_name_do_not_count():
    said = KNOWN | {"light": np.where(np.arange(96) < 90, -1, 1 - KNOWN["light"])}
    got = numbers(run(known=said))
    assert got["attribute_light"] < 40 and got["attribute_all"] > 93


def test_bad_pictures_are_counted_and_left_out():
    def broken(batch, key):
        x = toys.generate(batch, key).copy()
        x[::8] = np.nan
        return x

    out = run(broken)
    assert out["attribute_fakes_not_finite"]["value"] == 12 and out["attribute_colour"]["value"] == 100.0
    assert out["attribute_colour"]["protocol"]["fake_number"] == 84
    with pytest.raises(ValueError, match="all 96"):
        run(lambda b, k: toys.generate(b, k) * np.nan)
