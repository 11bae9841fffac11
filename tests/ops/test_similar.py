"""False-negative cancellation: which rows are found, what becomes of them, through every door."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
import oracles_unimodal as slow
from dress import DOORS, cases, dress
from supcon_jax.losses import contrast
from supcon_jax.ops import rows
from supcon_jax.ops.rows import Rows
from supcon_jax.ops.similar import cancelled

RNG = np.random.default_rng(0)
N, D = 16, 4
X, MORE = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (RNG.normal(size=(N, D)), RNG.normal(size=(N // 2, 3, D))))
RECORD = np.arange(N) // 2
SUPPORT = np.repeat(MORE, 2, axis=0)
MOST, THRESHOLD = 3, 0.8


def loss(x, scale, sums=rows.dense, support=None, attract=False, valid=None):
    given = None if support is None else jnp.asarray(support, x.dtype)
    q = Rows(x, record=jnp.asarray(RECORD), valid=None if valid is None else jnp.asarray(valid))
    q, rules = cancelled(q, given, most=MOST, threshold=THRESHOLD, attract=attract)
    return contrast.supcon(q, scale=scale, sums=sums, **rules)


def by_loops(found, attract, live=None):
    same = RECORD[:, None] == RECORD[None, :]
    out = np.eye(N, dtype=bool)
    if live is not None:
        out = out | ~live[:, None] | ~live[None, :]
    w = same | found if attract else same
    return oracles.supcon(X, X, w.astype(float), 6.0, out if attract else out | found)


CASES = {
    f"{name}-{what}": (support, what == "attracted")
    for name, support in (("views", None), ("support", SUPPORT)) for what in ("eliminated", "attracted")
}  # fmt: skip


@pytest.mark.parametrize("case, devices", cases(CASES, ["support-attracted"], long=False))
def test_equals_the_loops(case, devices):
    support, attract = CASES[case]
    value, _ = dress(functools.partial(loss, support=support, attract=attract), [X, np.float64(6)], devices=devices)
    found = slow.nearest(X, support, RECORD, MOST, THRESHOLD)
    assert 0 < found.sum() < N * MOST and (found != found.T).any()  # some are near, few enough are, and not both ways
    np.testing.assert_allclose(value, by_loops(found, attract), rtol=1e-12)


PLACES = [
    pytest.param(place, attract, id=f"{place}-{what}", marks=pytest.mark.slow if attract != (place == "ring") else ())
    for place in ("tiled", "ring", "hybrid") for attract, what in ((False, "eliminated"), (True, "attracted"))
]  # fmt: skip


@pytest.mark.parametrize("place, attract", PLACES)
def test_every_door_is_the_definition(place, attract):
    """What was found is not the same from either side, although the logits are."""
    used = DOORS[place](1 if place == "tiled" else 8, tile=(4, 6))
    with jax.enable_x64(True):
        got, want = (
            jax.jit(jax.value_and_grad(functools.partial(loss, sums=door, attract=attract), (0, 1)))(jnp.asarray(X), 6.0)
            for door in (used, rows.dense)
        )
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-13)


def test_padding_is_never_found_and_finds_nothing():
    live = np.arange(N) < N - 2
    x = np.where(live[:, None], X, 3 * X[:1])  # very near to one of them
    found = slow.nearest(X[live], None, RECORD[live], MOST, THRESHOLD)
    whole = np.zeros((N, N), bool)
    whole[: N - 2, : N - 2] = found
    for attract in (False, True):
        with jax.enable_x64(True):
            got = jax.jit(lambda x, attract=attract: loss(x, 6.0, attract=attract, valid=live))(jnp.asarray(x))
        np.testing.assert_allclose(got, by_loops(whole, attract, live), rtol=1e-12)


def test_nothing_is_near_enough_or_all_are():
    with jax.enable_x64(True):
        q = Rows(jnp.asarray(X), record=jnp.asarray(RECORD))
        plain = contrast.supcon(q.replace(index=jnp.arange(N)), scale=6.0, weights=rows.same_record)
        for attract in (False, True):
            one, rules = cancelled(q, threshold=1.1, attract=attract)
            np.testing.assert_allclose(contrast.supcon(one, scale=6.0, **rules), plain, rtol=1e-12)
        one, rules = cancelled(q, most=N, threshold=-1.1)
        np.testing.assert_allclose(contrast.supcon(one, scale=6.0, **rules), 0, atol=1e-12)  # only the positive is left


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="reads Rows"):
        cancelled(Rows(jnp.asarray(X)))
    with pytest.raises(ValueError, match="takes 1 to 16 of them, not 17"):
        cancelled(Rows(jnp.asarray(X), record=jnp.asarray(RECORD)), most=17)
