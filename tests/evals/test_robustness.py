"""Corruptions by hand, attacks on classifiers whose worst case is known, and calibration against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from supcon_jax.evals import robustness
from supcon_jax.evals.protocol import Protocol, numbers

RNG = np.random.default_rng(0)
SIDE = 4
WEIGHT = RNG.normal(size=(SIDE * SIDE * 3, 3)).astype(np.float32)
IMAGES = RNG.integers(60, 196, (30, SIDE, SIDE, 3)).astype(np.uint8)


def linear(weight, x):
    return jnp.asarray(x, jnp.float32).reshape(len(x), -1) @ weight


LABEL = np.asarray(linear(WEIGHT, IMAGES / 255)).argmax(1)


def test_calibration_is_the_gap_of_each_bin():
    logits = 2 * RNG.normal(size=(50, 4))
    truth = np.where(np.arange(50) % 4 > 0, logits.argmax(1), 0)  # too sure of some, not sure enough of others
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    total = 0.0
    for b in range(5):
        rows = [i for i in range(50) if b / 5 < p[i].max() <= (b + 1) / 5]
        if rows:
            total += abs(sum(p[i].argmax() == truth[i] for i in rows) - sum(p[i].max() for i in rows))
    assert robustness.calibration(logits, truth, bins=5) == pytest.approx(100 * total / 50)
    shy, bold = np.log([0.75, 0.25]), np.log([0.95, 0.05])  # in neighbouring bins; the first is right, the second is not
    assert robustness.calibration([shy, bold], np.array([0, 1]), bins=5) == pytest.approx(100 * (0.25 + 0.95) / 2)
    sure = 1000.0 * np.eye(4)[truth]
    assert robustness.calibration(sure, truth) == 0 and robustness.calibration(sure, (truth + 1) % 4) == 100


def brightness(images, kind, severity):
    """Two kinds: the first does nothing, the second turns some pictures black, the more the worse."""
    out = images.copy()
    if kind == "black":
        out[: 6 * severity] = 0
    return out


def by_mean(images):
    """Class 1 where a picture is bright."""
    bright = np.asarray(images).mean((1, 2, 3)) > 10
    return np.stack([1 - bright, bright], 1).astype(np.float32)


def test_the_corruption_error_is_the_mean_over_kinds_and_severities():
    label = np.ones(30, int)
    label[29] = 0  # wrong whatever is done to it
    how = {"kinds": ("none", "black"), "severities": (1, 3), "batch": 8, "name": "c"}
    out = robustness.corruption(by_mean, brightness, IMAGES, label, protocol=Protocol(network="net h"), **how)
    black = (7 + 19) / 2 * 100 / 30
    assert numbers(out) == pytest.approx(
        {"c_clean": 100 / 30, "c_error": (100 / 30 + black) / 2, "c_none": 100 / 30, "c_black": black}
    )
    assert out["c_error"]["protocol"]["subsets"] == "2 kinds x severities (1, 3)"
    relative = robustness.corruption(by_mean, brightness, IMAGES, label, baseline={"none": 10.0, "black": 50.0}, **how)
    assert relative["c_mce"]["value"] == pytest.approx(100 * (100 / 30 / 10 + black / 50) / 2)
    assert relative["c_mce"]["protocol"]["subsets"].endswith("over baseline none 10, black 50")
    with pytest.raises(ValueError, match="no error of black"):
        robustness.corruption(by_mean, brightness, IMAGES, label, baseline={"none": 10.0}, **how)
    with pytest.raises(ValueError, match="black gave float32"):
        robustness.corruption(by_mean, lambda x, *_: np.float32(x), IMAGES, label, **(how | {"kinds": ("black",)}))
    with pytest.raises(ValueError, match="at least one"):
        robustness.corruption(by_mean, brightness, IMAGES, label, **(how | {"kinds": ()}))


def worst(weight, label, eps):
    """Share of pictures that a linear classifier of two classes keeps under the worst change of eps: its margin, by hand."""
    kept = 0
    for image, y in zip(IMAGES / 255.0, label):
        w = (weight[:, y] - weight[:, 1 - y]).astype(np.float64)
        x = image.ravel()
        kept += float(np.clip(x - eps * np.sign(w), 0, 1) @ w) > 0
    return 100 * kept / len(IMAGES)


def test_attacks_on_a_linear_classifier_find_the_worst_case():
    """There one step is the worst of all, and many steps find it too; pictures stay pictures."""
    weight = WEIGHT[:, :2] - np.float32([0, 0.002])[None]
    label = np.asarray(linear(weight, IMAGES / 255)).argmax(1)
    attacked = jax.tree_util.Partial(linear, weight)
    out = robustness.adversarial(
        attacked, IMAGES, label, eps=(24, 32, 48), restarts=2, batch=16, protocol=Protocol(network="n")
    )
    values = numbers(out)
    assert values["adversarial_clean"] == 100 and values["adversarial_pgd_128"] == 0 and values["adversarial_masked"] == 0
    shares = [worst(weight, label, e / 255) for e in (24, 32, 48)]
    assert shares[0] > shares[1] > shares[2]
    assert [values[f"adversarial_fgsm_{e}"] for e in (24, 32, 48)] == pytest.approx(shares)
    assert [values[f"adversarial_pgd_{e}"] for e in (24, 32, 48)] == pytest.approx(shares)
    assert (
        "2 restarts" in out["adversarial_pgd_32"]["protocol"]["subsets"]
        and out["adversarial_clean"]["protocol"]["real_number"] == 30
    )


def test_attacks_stay_within_their_distance_and_the_range():
    x = np.float32(IMAGES[:6]) / 255
    x[0] = 1.0
    seen = robustness.perturbed(lambda z: linear(WEIGHT, z), x, LABEL[:6], 0.1, x + 0.07, 20, 0.25)
    assert float(jnp.abs(seen - x).max()) == pytest.approx(0.1, abs=1e-6) and 0 <= float(seen.min()) <= float(seen.max()) <= 1
    assert float(jnp.abs(seen - x).min(axis=(1, 2, 3)).max()) < 0.1 or (jnp.abs(seen[0] - 1).min() == 0)


def test_a_curved_classifier_falls_to_many_steps_more_than_to_one():
    def curved(x):
        u = linear(WEIGHT, x - 0.5)
        return u + 0.9 * jnp.sin(2 * u)

    label = np.asarray(curved(np.float32(IMAGES) / 255)).argmax(1)
    values = numbers(robustness.adversarial(curved, IMAGES, label, eps=(16,)))
    assert values["adversarial_pgd_16"] < values["adversarial_fgsm_16"] < 100 and values["adversarial_masked"] == 0


def test_masked_gradients_are_told():
    """The pictures are rounded before they are seen, so that no gradient arrives."""
    out = robustness.adversarial(lambda x: linear(WEIGHT, jnp.round(x * 4) / 4), IMAGES, LABEL, eps=(4,))
    assert out["adversarial_masked"]["value"] == 1
    assert "gradients are masked" in out["adversarial_masked"]["protocol"]["subsets"]
    assert out["adversarial_pgd_128"]["value"] > 5


def test_restarts_find_more_and_the_same_seed_the_same():
    def bumpy(x):
        u = linear(WEIGHT, x - 0.5)
        return u + 2 * jnp.sin(40 * u)

    label = np.asarray(bumpy(np.float32(IMAGES) / 255)).argmax(1)
    how = {"eps": (2,), "steps": 2}
    one, again, many = (numbers(robustness.adversarial(bumpy, IMAGES, label, restarts=k, **how)) for k in (1, 1, 8))
    assert one == again and many["adversarial_pgd_2"] < one["adversarial_pgd_2"]
