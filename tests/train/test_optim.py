"""Schedules against their closed forms, clipping of one subtree, optimisers against their recurrences."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from supcon_jax.config import UserError
from supcon_jax.train import optim

STEPS, EPOCH, LR = 100, 10, 0.2


def rate(step, **options):
    return float(optim.schedule({"lr": LR, **options}, STEPS, EPOCH)(step))


CLOSED = (
    ({}, lambda s: LR),
    ({"schedule": "constant"}, lambda s: LR),
    ({"schedule": "cosine"}, lambda s: LR * (1 + math.cos(math.pi * min(s, STEPS) / STEPS)) / 2),
    ({"schedule": "linear"}, lambda s: LR * (1 - min(s, STEPS) / STEPS)),
    ({"schedule": "exponential", "decay": 0.5}, lambda s: LR * 0.5 ** (s // EPOCH)),
    ({"schedule": "exponential", "decay": 0.5, "floor": 0.06}, lambda s: max(LR * 0.5 ** (s // EPOCH), 0.06)),
    ({"schedule": "constant", "warmup": 20}, lambda s: LR * min(s / 20, 1)),
    (
        {"schedule": "cosine", "warmup": 20},
        lambda s: LR * s / 20 if s < 20 else LR * (1 + math.cos(math.pi * min(s - 20, 80) / 80)) / 2,
    ),
    (
        {"schedule": "cosine", "warmup": 20, "start": 0.25, "end": 0.1},
        lambda s: LR * (0.25 + 0.75 * s / 20)
        if s < 20
        else LR * (0.1 + 0.9 * (1 + math.cos(math.pi * min(s - 20, 80) / 80)) / 2),
    ),
    ({"schedule": "linear", "end": 0.5}, lambda s: LR * (1 - 0.5 * min(s, STEPS) / STEPS)),
    ({"schedule": "steps", "decay": 0.1, "milestones": (1, 5, 5)}, lambda s: LR * 0.1 ** ((s >= 10) + 2 * (s >= 50))),
    (
        {"schedule": "steps", "decay": 0.1, "milestones": (1, 5), "warmup": 20},
        lambda s: LR * s / 20 if s < 20 else LR * 0.1 ** (1 + (s >= 50)),
    ),
    ({"schedule": "linear", "warmup": 20}, lambda s: LR * s / 20 if s < 20 else LR * (1 - min(s - 20, 80) / 80)),
)


@pytest.mark.parametrize("options,closed", CLOSED, ids=[str(row[0]) for row in CLOSED])
def test_schedule_is_its_closed_form(options, closed):
    for step in (0, 1, 9, 10, 11, 19, 20, 21, 50, 99, 100, 150):
        assert rate(step, **options) == pytest.approx(closed(step), rel=1e-6, abs=1e-7), step


def test_a_schedule_takes_its_own_keys_and_leaves_the_rest():
    options = {"lr": 1.0, "schedule": "cosine", "warmup": 3, "decay": 0.9, "floor": 0.1, "b1": 0.5, "start": 0.1,
               "end": 0.1, "milestones": (1,)}  # fmt: skip
    optim.schedule(options, STEPS, EPOCH)
    assert options == {"b1": 0.5}


def test_a_warmup_as_long_as_the_run_is_still_finite():
    for kind in ("cosine", "linear"):
        assert rate(5, schedule=kind, warmup=STEPS) == pytest.approx(LR * 5 / STEPS)
        assert math.isfinite(rate(STEPS, schedule=kind, warmup=STEPS))


@pytest.mark.parametrize("bad,said", [({"schedule": "stair"}, "schedule 'stair'.*constant"), ({"name": "adm"}, "'adm'.*adamw")])
def test_unknown_names_are_refused_with_those_that_are_known(bad, said):
    with pytest.raises(UserError, match=said):
        optim.optimiser({"name": "adam", "lr": 1.0, **bad}, steps=STEPS, epoch=EPOCH)


def updates(options, grads, params=None):
    tx = optim.optimiser({"lr": 1.0, **options}, steps=STEPS, epoch=EPOCH)
    params = params or jax.tree.map(jnp.zeros_like, grads)
    with jax.numpy_dtype_promotion("standard"):
        return tx.update(grads, tx.init(params), params)[0]


GRADS = {
    "text": {"a": jnp.asarray([3.0, 4.0]), "deep": {"b": jnp.asarray([12.0])}},  # norm 13
    "image": {"text": jnp.asarray([30.0, 40.0])},  # a subtree of that name further down is another one
}


def test_clip_touches_only_its_subtree():
    out = updates({"name": "sgd", "clip": {"text": 0.25}}, GRADS)
    np.testing.assert_allclose(out["text"]["a"], -np.asarray([3.0, 4.0]) * 0.25 / 13, rtol=1e-6)
    np.testing.assert_allclose(out["text"]["deep"]["b"], [-12.0 * 0.25 / 13], rtol=1e-6)
    np.testing.assert_array_equal(out["image"]["text"], [-30.0, -40.0])


def test_clip_leaves_small_gradients_alone():
    out = updates({"name": "sgd", "clip": {"text": 13.1}}, GRADS)
    jax.tree.map(np.testing.assert_array_equal, out, jax.tree.map(jnp.negative, GRADS))


def test_clip_of_everything_under_the_empty_name():
    out = updates({"name": "sgd", "clip": {"": 1.0}}, GRADS)
    norm = math.sqrt(13**2 + 50**2)
    jax.tree.map(lambda x, g: np.testing.assert_allclose(x, -g / norm, rtol=1e-6), out, GRADS)


def test_no_clip_and_the_options_are_not_eaten():
    options = {"name": "sgd", "lr": 1.0, "clip": {"text": 0.25}}
    before = {**options, "clip": dict(options["clip"])}
    optim.optimiser(options, steps=STEPS, epoch=EPOCH)
    assert options == before
    jax.tree.map(np.testing.assert_array_equal, updates({"name": "sgd", "clip": {}}, GRADS), jax.tree.map(jnp.negative, GRADS))


def test_adam_takes_its_decays_and_its_schedule():
    """Three steps of Adam's recurrence in float64 with b1 = 0.5 and a rate halved each epoch."""
    tx = optim.optimiser(
        {"name": "adam", "lr": LR, "b1": 0.5, "b2": 0.9, "schedule": "exponential", "decay": 0.5}, steps=9, epoch=2
    )
    w, m, v = np.float64(1.0), 0.0, 0.0
    params = jnp.asarray(1.0)
    state = tx.init(params)
    for at, grad in enumerate((0.3, -2.0, 1.5), 1):
        with jax.numpy_dtype_promotion("standard"):
            step, state = tx.update(jnp.asarray(grad), state, params)
            params = optax.apply_updates(params, step)
        m, v = 0.5 * m + 0.5 * grad, 0.9 * v + 0.1 * grad**2
        w -= LR * 0.5 ** ((at - 1) // 2) * (m / (1 - 0.5**at)) / (math.sqrt(v / (1 - 0.9**at)) + 1e-8)
    assert float(params) == pytest.approx(w, rel=1e-5)


def test_adamw_decays_weights():
    out = updates({"name": "adamw", "weight_decay": 0.1}, {"w": jnp.zeros((1,))}, {"w": jnp.asarray([2.0])})
    np.testing.assert_allclose(out["w"], [-0.2], rtol=1e-6)


def test_rmsprop_is_its_closed_form():
    """Three steps, with the rate's schedule, decay as part of the gradient, and biases without it."""
    options = {"name": "rmsprop", "momentum": 0.5, "b2": 0.8, "eps": 0.01, "weight_decay": 0.1, "exclude": ("vectors",)}
    tx = optim.optimiser({"lr": LR, "schedule": "linear", **options}, steps=STEPS, epoch=EPOCH)
    params = {"kernel": jnp.full((1, 1), 2.0), "bias": jnp.full((1,), 2.0)}
    state, slopes = tx.init(params), (1.0, -3.0, 0.5)
    want = {"kernel": [2.0, 1.0, 0.0, 0.1], "bias": [2.0, 1.0, 0.0, 0.0]}  # w, v, m, decay
    for at, slope in enumerate(slopes):
        grads = {name: jnp.full(x.shape, slope) for name, x in params.items()}
        out, state = tx.update(grads, state, params)
        params = jax.tree.map(jnp.add, params, out)
        for name, (w, v, m, decay) in want.items():
            g = slope + decay * w
            v = 0.8 * v + 0.2 * g**2
            m = 0.5 * m + LR * (1 - at / STEPS) * g / math.sqrt(v + 0.01)
            want[name] = [w - m, v, m, decay]
    for name, (w, *_) in want.items():
        assert float(params[name].squeeze()) == pytest.approx(w, rel=1e-5), name
