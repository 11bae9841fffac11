"""R-precision and retrieval of pictures that say their caption, only its class, or nothing."""

import json

import jax
import numpy as np
import pytest

from evals import toys
from supcon_jax.evals.matching import matching
from supcon_jax.evals.protocol import Protocol, numbers


def code(label_like, shade):
    """[n, 5]: which class, and a shade on a circle."""
    near = -8 * ((label_like[:, None] - toys.COLOURS[None]) ** 2).sum(-1)
    return np.concatenate([np.exp(near), np.cos(shade)[:, None], np.sin(shade)[:, None]], 1)


def image_code(images):
    x = images.astype(np.float64) / 127.5 - 1
    ramp = np.linspace(-0.3, 0.3, 8)
    return code(x.mean((1, 2)), (x.mean((2, 3)) * ramp).sum(1) / (ramp**2).sum())


def text_code(batch):
    text = batch["text"][:, 0]
    return code(toys.COLOURS[(text[:, 0] - 1) % 4], (text[:, 1] - 2000) / 1000)


def run(generate=toys.generate, **changes):
    arguments = dict(
        generate=generate, caption_batches=toys.world(padding=3), number=96, count=20, protocol=Protocol(network="enc")
    )
    return matching(changes.pop("image_code", image_code), text_code, **(arguments | changes))


def only_class(batch, key):
    text = batch["text"].copy()
    text[:, 0, 1] = 2000
    return toys.generate(batch | {"text": text}, key)


def test_within_tells_what_other_does_not():
    good, vague = numbers(run()), numbers(run(only_class))
    assert good["r_precision"] == vague["r_precision"] == 100.0
    assert good["r_within"] > 40 > 15 > vague["r_within"]
    assert good["r_precision_chance"] == pytest.approx(100 / 21) == good["r_within_chance"]
    assert good["matching_fakes_not_finite"] == 0


def test_random_codes_come_near_chance():
    rng = np.random.default_rng(0)
    words = dict(caption_batches=toys.world(), number=960, count=20)
    got = numbers(
        matching(lambda x: rng.normal(size=(len(x), 6)), lambda b: rng.normal(size=(32, 6)), generate=toys.generate, **words)
    )
    for name in ("r_precision", "r_within"):
        assert abs(got[name] - got[f"{name}_chance"]) < 2.5


def test_constant_codes_score_nothing():
    out = numbers(run(image_code=lambda x: np.zeros((len(x), 6)), real_batches=toys.world()))
    assert all(out[k] == 0 for k in ("r_precision", "r_within", "real_r_precision", "real_i2t_r1", "real_t2i_r1"))


def test_reals_and_protocols():
    out = run(real_batches=toys.world(seed=1), real_limit=64, protocol=Protocol(real_origin="toys/test", fake_origin="run"))
    got = numbers(out)
    assert got["real_r_precision"] == 100.0 and got["real_i2t_r10"] > 80 and got["real_t2i_r1"] < 100
    own = out["real_r_within"]["protocol"]
    assert (own["real_number"], own["fake_number"], own["fake_origin"]) == (64, 0, "")
    assert own["splits"] == "10 folds" and own["subsets"] == "within: 15 of 20 wrong captions on average"
    own = out["r_precision"]["protocol"]
    assert (own["real_number"], own["fake_number"], own["fake_origin"]) == (0, 96, "run")
    assert json.dumps(out) == json.dumps(
        run(
            real_batches=toys.world(seed=1),
            real_limit=64,
            protocol=Protocol(real_origin="toys/test", fake_origin="run"),
        )
    )


def test_equal_captions_and_other_captions_of_one_picture_are_no_distractors():
    """Each caption stands in two records: a perfect picture would lose half of its ties to its own words."""
    batches = toys.world(records=32)
    batches += [b | {"index": b["index"] + 1000} for b in batches]
    assert numbers(run(caption_batches=batches, number=64))["r_precision"] == 100.0
    texts = {}

    def spy(batch):
        texts.update(zip(batch["index"][:, 0].tolist(), batch["text"][:, 0, 2].tolist(), strict=True))
        return np.eye(32)[batch["text"][:, 0, 2] - 5000]

    got = numbers(matching(lambda x: np.eye(32)[: len(x)], spy, real_batches=batches, count=5))
    assert got["real_r_precision"] == got["real_r_within"] == 100.0 and len(texts) == 64


def test_another_encoder_has_names_of_its_own_and_a_mean_cosine():
    own, other = run(real_batches=toys.world()), run(real_batches=toys.world(), name="clip", score="clip_score")
    assert {f"{name}_clip" for name in own} == set(other) - {"clip_score", "real_clip_score"}
    assert all(other[f"{name}_clip"]["value"] == own[name]["value"] for name in own)
    cosines, reals = [], []
    for step, batch in enumerate(toys.world(padding=3)):
        drawn = toys.generate({"text": batch["text"][:, :1]}, jax.random.fold_in(jax.random.key(0), step))
        drawn = np.clip(np.round((drawn + 1) * 127.5), 0, 255)
        for images, found in ((drawn, cosines), (batch["image"][:, 0], reals)):
            for a, b in list(zip(image_code(np.uint8(images)), text_code(batch), strict=True))[:32]:
                found.append(sum(x * y for x, y in zip(a, b, strict=True)) / (sum(a * a) * sum(b * b)) ** 0.5)
    assert other["clip_score"]["value"] == pytest.approx(np.mean(cosines), rel=1e-12)
    assert other["real_clip_score"]["value"] == pytest.approx(np.mean(reals), rel=1e-12)
    assert other["clip_score"]["protocol"]["fake_number"] == 96 and other["clip_score"]["protocol"]["fake_content"]


def test_without_labels_there_is_no_within():
    batches = [b | {"label": np.full_like(b["label"], -1)} for b in toys.world()]
    out = run(caption_batches=batches)
    assert "r_precision" in out and "r_within" not in out


def test_bad_values_are_told():
    def broken(batch, key):
        x = toys.generate(batch, key).copy()
        x[0, 0, 0, 0] = np.nan
        return x

    out = run(broken)
    assert out["matching_fakes_not_finite"]["value"] == 3 and out["r_precision"]["protocol"]["fake_number"] == 93
    with pytest.raises(ValueError, match="nothing to measure"):
        run(lambda b, k: toys.generate(b, k) * np.inf)
    with pytest.raises(ValueError, match="image codes: 96 of 96"):
        run(image_code=lambda x: image_code(x) * np.nan)
