"""Contrastive predictive coding against the loops, in every dress, on sequences and grids."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles_unimodal as slow
from dress import cases, dress
from supcon_jax.losses.contrast import info_nce
from supcon_jax.losses.predictive import NEGATIVES, cpc
from supcon_jax.ops.rows import Rows

RNG = np.random.default_rng(0)
B, T, H, D, E, K = 8, 5, 3, 4, 3, 2
Z, C, W = RNG.normal(size=(B, T, H, D)), RNG.normal(size=(B, T, H, E)), 0.5 * RNG.normal(size=(K, D, E))


FORMS = {f"{negatives}-{shape}": (negatives, shape == "grid") for negatives in NEGATIVES for shape in ("sequence", "grid")}


@pytest.mark.parametrize("form, devices", cases(FORMS, ["both-sequence", "batch-grid"]))
def test_equals_the_loops(form, devices):
    negatives, grid = FORMS[form]
    z, c = (Z, C) if grid else (Z[:, :, 0], C[:, :, 0])
    fn = functools.partial(cpc, negatives=negatives, scale=0.7)
    value, _ = dress(fn, [z, c, W], full=form == "both-sequence", devices=devices)
    want = slow.cpc(*(a.reshape(B, T, -1, a.shape[-1]) for a in (z, c)), W, negatives, 0.7)
    np.testing.assert_allclose(value, want, rtol=1e-11)


@pytest.mark.parametrize("negatives", NEGATIVES)
def test_steps_that_are_skipped_are_not_asked_for(negatives):
    value = jax.jit(functools.partial(cpc, skip=2, negatives=negatives))(*(jnp.asarray(a, jnp.float32) for a in (Z, C, W)))
    np.testing.assert_allclose(value, slow.cpc(Z, C, W, negatives, 1.0, skip=2), rtol=1e-5)


def test_one_step_over_the_batch_is_info_nce():
    z, c = (jnp.asarray(a[:, :2, 0], jnp.float32) for a in (Z, C))
    w = jnp.asarray(W[:1], jnp.float32)
    want = info_nce(Rows(c[:, 0] @ w[0].T), Rows(z[:, 1]), scale=1.0)
    np.testing.assert_allclose(jax.jit(functools.partial(cpc, negatives="batch"))(z, c, w), want, rtol=1e-5)


@pytest.mark.parametrize("negatives, candidates", [("batch", B), ("sequence", T * H), ("both", B * T * H)])
def test_contexts_that_know_nothing_give_the_log_of_the_candidates(negatives, candidates):
    run = jax.jit(jax.value_and_grad(functools.partial(cpc, negatives=negatives), (0, 1, 2)))
    z, c, w = (jnp.asarray(a, jnp.float32) for a in (Z, C, W))
    for args in ((z, 0 * c, w), (0 * z + z[:1, :1, :1], c, w)):
        value, grads = run(*args)
        np.testing.assert_allclose(value, K * np.log(candidates), rtol=1e-5)
        assert all(np.isfinite(g).all() for g in grads)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="negatives is 'all'"):
        cpc(Z, C, W, negatives="all")
    with pytest.raises(ValueError, match="disagree"):
        cpc(Z, C[:, :-1], W)
    with pytest.raises(ValueError, match="5 steps ahead, 0 of them skipped, in sequences of 5: ask for 1 to 4"):
        cpc(Z, C, np.concatenate([W, W, W[:1]]))
    with pytest.raises(ValueError, match="5 steps ahead, 3 of them skipped"):
        cpc(Z, C, W, skip=3)
