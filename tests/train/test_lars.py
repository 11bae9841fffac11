"""LARS, LARC and SGD against float64 recurrences and the codes that published them; rates and rules by part."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from supcon_jax.config import UserError
from supcon_jax.train import lars, optim, parts

MU, DECAY, ETA = 0.9, 0.01, 0.001


def wave(n, d, a, b, c, f):
    i, j = np.arange(n)[:, None], np.arange(d)[None]
    return np.sin(a * i + b * j + c * i * j + f)


START = {"w": wave(4, 3, 0.3, 0.7, 0.2, 0), "b": wave(1, 3, 0.5, 0.2, 0.1, 0)[0]}
GRADS = [{"w": 0.1 * wave(4, 3, 0.9, 0.4, 0.3, k), "b": 0.1 * wave(1, 3, 0.2, 0.8, 0.1, k)[0]} for k in range(3)]


def doubling(count):
    return 0.1 * 2.0**count


def run(tx, start=START, grads=GRADS, kind=jnp.float32):
    params = jax.tree.map(lambda a: jnp.asarray(a, kind), start)
    state = tx.init(params)
    for grad in grads:
        with jax.numpy_dtype_promotion("standard"):
            updates, state = tx.update(jax.tree.map(lambda a: jnp.asarray(a, kind), grad), state, params)
            params = optax.apply_updates(params, updates)
    return params


def made(inside, **options):
    return lars.lars(parts.Rates(doubling), inside=inside, momentum=MU, weight_decay=DECAY, **options)


B_OUTSIDE, B_INSIDE = (-0.08349427, 0.08740605, 0.31787685), (-0.0683478, 0.12882325, 0.36044168)
PUBLISHED = {  # three steps of a doubling rate: the codes of MoCo v3, SimCLR (optax.lars) and solo-learn
    "moco_v3": (False, {}, (-8.28492e-4, 0.64308876, 0.98422945), B_OUTSIDE),
    "simclr": (True, {}, (-6.85481e-4, 0.64341146, 0.98467106), B_INSIDE),
    "solo": (False, {"ratio": "apart"}, (-7.40932e-4, 0.64318430, 0.98431551), B_OUTSIDE),
    "solo_clip": (False, {"ratio": "apart", "trust": 0.02, "clip_ratio": True}, (-0.05694388, 0.5528521, 0.876634), B_OUTSIDE),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_steps(name):
    inside, options, w, b = PUBLISHED[name]
    got = run(made(inside, **options))
    np.testing.assert_allclose(got["w"][0], w, rtol=1e-5, atol=2e-9)
    np.testing.assert_allclose(got["b"], b, rtol=1e-5)


def plain(inside, ratio, clip, exclude, trust):
    """The recurrences entry by entry, in float64."""
    w = {name: a.copy() for name, a in START.items()}
    v = {name: np.zeros_like(a) for name, a in START.items()}
    for k, grads in enumerate(GRADS):
        rate = 0.1 * 2**k
        for name, g in grads.items():
            d = g
            if not (exclude and g.ndim == 1):
                d = g + DECAY * w[name]
                size, slope = math.sqrt((w[name] ** 2).sum()), math.sqrt((g**2).sum())
                below = math.sqrt((d**2).sum()) if ratio == "joint" else slope + DECAY * size + 1e-8
                q = trust * size / below
                d = (min(q / rate, 1) if clip else q) * d
            v[name] = MU * v[name] + (rate * d if inside else d)
            w[name] = w[name] - (v[name] if inside else rate * v[name])
    return w


VARIANTS = list(itertools.product((True, False), ("joint", "apart"), (True, False), (True, False)))


@pytest.mark.parametrize("inside,ratio,clip,exclude", VARIANTS)
def test_every_variant_is_its_recurrence(inside, ratio, clip, exclude):
    trust = 0.3 if clip else ETA  # so that the clip cuts some steps and others not
    want = plain(inside, ratio, clip, exclude, trust)
    rules = ("vectors",) if exclude else ()
    with jax.enable_x64(True):
        got = run(made(inside, ratio=ratio, clip_ratio=clip, trust=trust, exclude=rules), kind=jnp.float64)
    for name in START:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-6, atol=1e-9)


def test_the_inner_order_is_optax_own():
    mask = {"w": True, "b": False}
    own = optax.lars(doubling, DECAY, mask, ETA, 0.0, mask, MU)
    for got, want in zip(jax.tree.leaves(run(made(True))), jax.tree.leaves(run(own)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-8)


def test_orders_agree_where_the_rate_stands_still():
    still = [run(lars.lars(parts.Rates(lambda _: 0.2), inside=inside, momentum=MU, weight_decay=DECAY)) for inside in (1, 0)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), *still)
    apart = [run(made(inside)) for inside in (True, False)]
    assert np.abs(apart[0]["b"] - apart[1]["b"]).max() > 0.01


@pytest.mark.parametrize("ratio", ["joint", "apart"])
def test_zeros_are_finite_and_take_the_plain_step(ratio):
    zero = {"w": np.zeros((2, 2))}
    got = run(made(True, ratio=ratio), zero, [{"w": np.ones((2, 2))}])
    np.testing.assert_allclose(got["w"], -0.1 * np.ones((2, 2)), rtol=1e-6)
    still = run(made(True, ratio=ratio), {"w": np.ones((2, 2))}, [zero])
    want = 1 - 0.1 * (ETA if ratio == "joint" else 0)  # decay alone is a direction too; "apart" knows none
    np.testing.assert_allclose(still["w"], want * np.ones((2, 2)), rtol=1e-6)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_decays_in_the_gradient(nesterov):
    options = {"name": "sgd", "lr": 0.2, "momentum": MU, "weight_decay": 0.1, "nesterov": nesterov, "exclude": ("vectors",)}
    got = run(optim.optimiser(options, steps=9, epoch=3))
    for name, w in START.items():
        v = np.zeros_like(w)
        for grads in GRADS:
            d = grads[name] + (0.1 * w if name == "w" else 0)
            v = MU * v + d
            w = w - 0.2 * (MU * v + d if nesterov else v)
        np.testing.assert_allclose(got[name], w, rtol=1e-5, atol=1e-7)


def test_sgd_without_decay_is_optax_own():
    options = {"name": "sgd", "lr": 0.2, "momentum": MU}
    states = [optim.optimiser({**options, **more}, steps=9, epoch=3).init(START) for more in ({}, {"weight_decay": 0.0})]
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
    jax.tree.map(
        np.testing.assert_array_equal,
        *(
            run(tx)
            for tx in (optim.optimiser(options, steps=9, epoch=3), optim.optimiser({**options, "parts": {}}, steps=9, epoch=3))
        ),
    )


NESTED = {"trunk": {"w": np.ones((2, 2)), "b": np.ones(2)}, "predictor": {"w": np.ones((2, 2)), "b": np.ones(2)}}
ONES = jax.tree.map(np.ones_like, NESTED)


def moved(options, steps=1, **sizes):
    tx = optim.optimiser(options, **{"steps": 10, "epoch": 5, **sizes})
    return jax.tree.map(lambda a: float(np.mean(a)), run(tx, NESTED, [ONES] * steps))


@pytest.mark.parametrize("name", ["sgd", "lars", "lars_outside"])
def test_parts_have_their_own_rates(name):
    """A word goes before "vectors", which goes before the rest; what a part leaves out it shares."""
    more = {"exclude": ("trunk", "predictor"), "momentum": 0.0} if name != "sgd" else {}
    some = {"vectors": {"lr": 0.01}, "predictor": {"schedule": "constant"}}
    options = {"name": name, "lr": 0.1, "schedule": "linear", "parts": some, **more}
    got = moved(options, 2)
    assert got["trunk"]["w"] == pytest.approx(1 - 0.1 - 0.09) and got["trunk"]["b"] == pytest.approx(1 - 0.01 - 0.009)
    assert got["predictor"]["w"] == pytest.approx(0.8) and got["predictor"]["b"] == pytest.approx(0.8)


def test_adam_and_adamw_have_parts_too():
    for name, decay in (("adam", None), ("adamw", 0.5)):
        own = {} if decay is None else {"weight_decay": decay, "exclude": ("vectors",)}
        got = moved({"name": name, "lr": 0.1, "parts": {"predictor": {"lr": 0.02}}, **own})
        for part, rate in (("trunk", 0.1), ("predictor", 0.02)):
            assert got[part]["w"] == pytest.approx(1 - rate * (1 + (decay or 0)), rel=1e-5)
            assert got[part]["b"] == pytest.approx(1 - rate, rel=1e-5)


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars", "lars_outside"])
def test_a_frozen_part_stands_still_and_gathers_no_momentum(name):
    decay = {"weight_decay": 0.1} | ({} if name == "adamw" else {"momentum": 0.9})
    options = {"name": name, "lr": 0.1, "schedule": "linear", "parts": {"predictor": {"freeze": 2}}, **decay}
    assert moved(options, 2)["predictor"] == {"w": 1, "b": 1} and moved(options, 2)["trunk"]["w"] < 1
    free = moved({**options, "lr": 0.08, "schedule": "constant", "parts": {}})["trunk"]  # the third rate of the schedule
    if name != "adamw":  # whose moments are corrected for a count that goes on
        assert moved(options, 3)["predictor"] == pytest.approx(free)


@pytest.mark.parametrize("rule,factor", [("", 1), ("linear", 512 / 256), ("sqrt", math.sqrt(512))])
def test_rates_follow_the_batch(rule, factor):
    options = {"name": "sgd", "lr": 1e-3, "scale_by_batch": rule, "parts": {"predictor": {"lr": 2e-3}}}
    got = moved(options, batch=512)
    assert got["trunk"]["w"] == pytest.approx(1 - 1e-3 * factor) and got["predictor"]["w"] == pytest.approx(1 - 2e-3 * factor)


def test_both_scalings_of_simclr_are_one_at_its_batch():
    rates = [optim.scale(rule, 4096) * base for rule, base in (("linear", 0.3), ("sqrt", 0.075))]
    assert rates[0] == pytest.approx(rates[1]) == pytest.approx(4.8)


WRONG = {
    "batch": ({"scale_by_batch": "linear"}, "needs the batch"),
    "rule": ({"scale_by_batch": "cube"}, "'cube' is not known; use one of: linear"),
    "part": ({"parts": {"predictor": {"rate": 1.0}}}, "parts.predictor has rate; use lr"),
    "option": ({"trusted": 1.0}, "'lars' does not take all of: trusted"),
    "ratio": ({"ratio": "both"}, "'both' is not known; use joint or apart"),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_named(name):
    more, said = WRONG[name]
    with pytest.raises(UserError, match=said):
        optim.optimiser({"name": "lars", "lr": 1.0, **more}, steps=9, epoch=3)
