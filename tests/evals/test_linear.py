"""Linear classifiers against a float64 Newton method, one step at a time by hand, and on classes that are known."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from supcon_jax.evals import linear
from supcon_jax.evals.protocol import Protocol, numbers

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 6)) * [1, 2, 1, 1, 3, 1] + [0, 5, 0, 0, 0, 0]
TRUTH = RNG.normal(size=(6, 3))
Y = ((X - X.mean(0)) @ TRUTH + 2 * RNG.gumbel(size=(200, 3))).argmax(1)


def newton(x, y, classes, penalty):
    """Weights [f, c] and centred biases [c] that minimise mean cross entropy + penalty |W|^2 / 2, float64."""
    n, f = x.shape
    rows, hot = np.c_[x, np.ones(n)], np.eye(classes)[y]
    found, ridge = np.zeros((f + 1, classes)), np.diag(np.r_[np.full(f, penalty), 0])
    for _ in range(50):
        z = rows @ found
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        slope = rows.T @ (p - hot) / n + ridge @ found
        curve = np.einsum(
            "ni,nj,ncd->icjd", rows, rows, np.einsum("nc,cd->ncd", p, np.eye(classes)) - p[:, :, None] * p[:, None]
        )
        curve = curve.reshape(slope.size, slope.size) / n + np.kron(ridge, np.eye(classes))
        found = found - np.linalg.lstsq(curve, slope.ravel(), rcond=None)[0].reshape(found.shape)
    return found[:-1], found[-1] - found[-1].mean()


def test_all_penalties_of_a_sweep_are_solved():
    x, values = (X - X.mean(0)) / X.std(0), np.array([1e-4, 0.1, 1e5])
    w, b = linear.penalised(np.float32(x), np.int32(Y), values, classes=3, steps=500)
    for i, value in enumerate(values):
        want, level = newton(x, Y, 3, 1 / (value * len(x)))
        np.testing.assert_allclose(w[i], want, atol=2e-3 * np.abs(want).max())  # what float32 can tell
        np.testing.assert_allclose(b[i] - b[i].mean(), level, atol=2e-3 * max(1e-3, np.abs(level).max()))


@pytest.mark.slow
def test_heads_of_a_sweep_are_those_of_single_fits(monkeypatch):
    """Of penalties in parts, too; of rates: the same batches and first weights for all."""
    values, few = np.array([1e-3, 0.1, 10.0]), (np.float32(X[:60]), np.int32(Y[:60]))
    whole, _ = linear.penalised(*few, values, classes=3, steps=60)
    monkeypatch.setattr(linear, "ROOM", 1)
    np.testing.assert_allclose(linear.penalised(*few, values, classes=3, steps=60)[0], whole, atol=1e-4)
    plan = dataclasses.replace(linear.PRESETS["byol"], batch=16, epochs=3)
    whole, _ = linear.descended(*few, [0.5, 2.0], plan=plan, classes=3, seed=1)
    for i, value in enumerate([0.5, 2.0]):
        np.testing.assert_allclose(linear.descended(*few, [value], plan=plan, classes=3, seed=1)[0][0], whole[i], atol=1e-6)


PLANS = {
    "plain": linear.Preset(0.5, 8, 2, init=0.0),
    "nesterov": linear.Preset(25.6, 5, 2, scaled=True, nesterov=True, decay=0.01),
    "drops": linear.Preset(0.3, 4, 4, drops=(1, 3), factor=0.2),
    "larc": linear.Preset(0.5, 8, 2, trust=0.01, decay=0.1, init=0.1),
}


@pytest.mark.parametrize("name", PLANS)
def test_each_step_is_that_of_the_preset(name):
    """Momentum, Nesterov, weight decay, LARC, scaled rates, cosine and drops, by hand; each epoch visits other rows once."""
    plan, key = PLANS[name], jax.random.key(3)
    x, y = np.float32(X[:8]), np.int32(Y[:8])
    got, level = linear.descended(x, y, [1.0], plan=plan, classes=3, seed=3)
    first, order = jax.random.split(key)
    p = {"w": plan.init * np.float64(jax.random.normal(first, (6, 3), jnp.float32)), "b": np.zeros(3)}
    m, steps, seen = {"w": 0.0, "b": 0.0}, 8 // plan.batch, []
    for epoch in range(plan.epochs):
        rows = np.asarray(jax.random.permutation(jax.random.fold_in(order, epoch), 8))
        seen.append(tuple(rows))
        for step in range(steps):
            at = rows[step * plan.batch : (step + 1) * plan.batch]
            z = x[at] @ p["w"] + p["b"]
            q = np.exp(z) / np.exp(z).sum(1, keepdims=True) - np.eye(3)[y[at]]
            grads = {"w": x[at].T @ q / len(at), "b": q.mean(0)}
            share = (epoch * steps + step) / (plan.epochs * steps)
            rate = plan.lr * (plan.batch / 256 if plan.scaled else 1)
            rate *= plan.factor ** sum(epoch >= e for e in plan.drops) if plan.drops else 0.5 * (1 + np.cos(np.pi * share))
            for k, g in grads.items():
                size, slope = np.linalg.norm(p[k]), np.linalg.norm(g)
                g = g + plan.decay * p[k]
                if plan.trust and size > 0 and slope > 0:
                    g = g * plan.trust * size / (slope + plan.decay * size)
                m[k] = 0.9 * m[k] + g
                p[k] = p[k] - rate * (g + 0.9 * m[k] if plan.nesterov else m[k])
    assert len(set(seen)) == plan.epochs
    np.testing.assert_allclose(got[0], p["w"], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(level[0], p["b"], rtol=1e-3, atol=1e-5)


def test_penalties_reach_from_strong_to_none():
    assert linear.penalties(12) == pytest.approx(10.0 ** np.arange(-6, 6)) and linear.penalties(1).tolist() == [1.0]


def test_presets_are_those_that_were_published():
    assert set(linear.PRESETS) == {"simclr", "moco", "mocov3", "byol", "simsiam", "swav", "barlow", "vicreg", "supcon_cifar"}
    rates = {name: linear.rate(plan, plan.batch) for name, plan in linear.PRESETS.items()}
    assert rates == {
        "simclr": pytest.approx(1.6), "moco": 30, "mocov3": pytest.approx(0.4), "byol": pytest.approx(3.2),
        "simsiam": pytest.approx(1.6), "swav": 0.3, "barlow": 0.3, "vicreg": 0.02, "supcon_cifar": 5,
    }  # fmt: skip


@pytest.mark.slow
def test_the_choice_is_made_on_training_rows():
    """The test set is handed in with wrong labels: the classifier stays the same, and its settings tell how it came about."""
    said = Protocol(network="net h", real_origin="toys/test", train_origin="toys/train")
    one, two = (
        json.loads(
            json.dumps(linear.linear(X[:150], Y[:150], X[150:], truth, classes=3, sweep=4, protocol=said, name="linear_h"))
        )
        for truth in (Y[150:], (Y[150:] + 1) % 3)
    )
    assert set(one) == {"linear_h_top1", "linear_h_ece"} and one["linear_h_top1"]["value"] > two["linear_h_top1"]["value"] + 20
    own = one["linear_h_top1"]["protocol"]
    assert own["settings"] == two["linear_h_top1"]["protocol"]["settings"]
    assert own["settings"].startswith("lbfgs, 500 steps at most, standardised, the best of 4 on 15 training rows, C ")
    assert (own["real_number"], own["train_number"], own["train_origin"]) == (50, 150, "toys/train")


def test_the_best_of_a_sweep_is_fitted_again_on_all_rows():
    probe = linear.fit(X, Y, classes=3, preset=linear.Preset(0.5, 64, 30), rates=(1e-6, 0.3), seed=2)
    assert "best of 2 on 20 training rows, rate times 0.3" in probe.said and "not standardised" in probe.said
    again = linear.fit(X, Y, classes=3, preset=linear.Preset(0.15, 64, 30), seed=2)
    np.testing.assert_allclose(probe.w, again.w, rtol=1e-4, atol=1e-6)
    assert "best" not in again.said and "batch 64, 30 epochs" in again.said


def test_standardised_features_lose_their_scale():
    scale = np.array([1e-3, 1, 1e3, 1, 1, 0])
    one, two = (linear.fit(x, Y, classes=3, sweep=1) for x in (np.c_[X[:, :5], 0 * Y], X * scale + [0, 0, 7, 0, 0, 4]))
    np.testing.assert_allclose(one(np.c_[X[:, :5], 0 * Y]), two(X * scale + [0, 0, 7, 0, 0, 4]), atol=1e-3)
    assert np.isfinite(two.w).all()  # the last feature never varies


def test_several_labels_are_told_apart_each_for_itself():
    hot = (X[:, :3] - X[:, :3].mean(0) > 0).astype(np.int32)
    how = {"classes": 3, "preset": linear.Preset(5.0, 50, 40), "standardise": True, "rates": (0.1, 1.0)}
    assert numbers(linear.linear(X, hot, X, hot, **how))["linear_map"] > 99
    noise = numbers(linear.linear(RNG.normal(size=(200, 6)), hot, RNG.normal(size=(200, 6)), hot, **how))
    assert noise["linear_map"] < 65


def test_rows_without_labels_and_mistakes():
    part = np.where(np.arange(200) < 50, -1, Y)
    out = linear.linear(X, part, X, part, classes=3, sweep=1)["linear_top1"]["protocol"]
    assert (out["real_number"], out["train_number"]) == (150, 150)
    with pytest.raises(ValueError, match="'adam' is none of simclr"):
        linear.fit(X, Y, classes=3, preset="adam")
    with pytest.raises(ValueError, match="train: no row has a label"):
        linear.fit(X, Y * 0 - 1, classes=3)
    with pytest.raises(ValueError, match="train features: 1 of 200"):
        linear.fit(np.where(np.arange(1200).reshape(200, 6) == 7, np.inf, X), Y, classes=3)
