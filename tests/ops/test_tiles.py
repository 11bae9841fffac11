"""The two primitives, tile by tile, against the definition in float64: sums and gradients, in every shape of sweep."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from supcon_jax.ops import rows, rules, sweep, tiles
from supcon_jax.ops.rows import Rows
from supcon_jax.ops.tiles import Asked, Form, Pull, Rules, block_grads, block_stats, plus

D = 5


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        yield


def draw(n, seed=0):
    rng = np.random.default_rng(seed)
    return Rows(
        jnp.asarray(rng.normal(size=(n, D))),
        jnp.asarray(rng.integers(-1, 3, n).astype(np.int32)),
        jnp.arange(n, dtype=jnp.int32),
        jnp.asarray(rng.random(n) < 0.9),
    )


def leaning(q, k):
    """Weights that differ from either side."""
    return 0.1 * (q.label[:, None] + 2).astype(jnp.float64) + 0.01 * (k.label[None, :] + 2).astype(jnp.float64)


def ahead(q, k):
    """A veto that differs from either side, and leaves whole tiles and the first rows without any pair."""
    return k.index[None, :] >= q.index[:, None] - 3


def seeds(sums, seed):
    rng = np.random.default_rng(seed)
    empty = np.asarray(sums.lse) == rows.LOWEST
    return jnp.asarray(np.where(empty, 0, rng.normal(size=empty.shape))), jnp.asarray(rng.normal(size=empty.shape))


def close(got, want):
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        one, other = np.asarray(one), np.asarray(other)
        assert np.isfinite(one).all() and one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12 * np.abs(np.where(other > -1e29, other, 0)).max())


RULES = {
    "label": Rules(rows.same_label, None, rows.same_index),
    "leaning": Rules(leaning, None, ahead),
    "back": Rules(leaning, rows.same_label, None),
    "own": Rules(rows.own_or(rows.same_label), None, rows.other(rows.same_label)),
}


@functools.cache
def defined(name, own):
    """Rows, rules, and their numbers from the definition: sums of both sides, what pulls on them, gradients."""
    q, k, rules = draw(21), draw(33, 1), RULES[name]
    q, k = (r.replace(record=r.index // 2) for r in (q, k))
    if own:
        k, rules = q, rules._replace(back=None)

    def both(x, y):
        a, b = q.replace(x=x), k.replace(x=y)
        one = rows.dense(a, b, scale=1.0, weigh=rules.weigh, veto=rules.veto)
        return one, one if own else rows.dense(b, a, scale=1.0, weigh=rules.back or rules.weigh, veto=rules.veto)

    def pulled(x, y, seed):
        return sum(jnp.sum(c * s.lse + d * s.pos) for (c, d), s in zip(seed, both(x, y), strict=True))

    want = jax.jit(both)(q.x, k.x)
    seed = [seeds(s, i) for i, s in enumerate(want)]
    return q, k, rules, want, seed, jax.jit(jax.grad(pulled, (0, 1)))(q.x, k.x, seed)


FORMS = {"running": Form(), "bounded": Form(bound=40.0)}  # the largest logit of `draw` is 15


@functools.partial(jax.jit, static_argnames=("rules", "tile", "columns", "half", "form"))
def both_sides(z, q, k, rules, **how):
    """Tallies of one reading."""
    return tuple(side[0] for side in block_stats(z, q, k, (rules,), **how))


@functools.partial(jax.jit, static_argnames=("rules", "tile", "half", "form"))
def gradients(z, q, k, mine, theirs, rules, **how):
    return block_grads(z, q, k, (mine,), (theirs,), (rules,), **how)


@pytest.mark.parametrize("name, form", [*((name, "running") for name in RULES), ("leaning", "bounded")])
def test_both_sides_in_one_sweep(name, form):
    q, k, rules, want, seed, grads = defined(name, own=False)
    form = FORMS[form]
    pulls = [Pull(s.lse, *one) for s, one in zip(want, seed, strict=True)]
    for tile in ((4, 6), (16, 8), (64, 64))[: 3 if name == "leaning" and form == FORMS["running"] else 1]:
        mine, theirs = both_sides(Asked(q.x), q, k, rules, tile=tile, columns=True, form=form)
        close((mine.sums(), theirs.sums()), want)
        close(gradients(Asked(q.x), q, k, *pulls, rules, tile=tile, form=form), (Asked(grads[0]), grads[1]))
    assert jax.eval_shape(functools.partial(block_stats, rules=(rules,), tile=tile), Asked(q.x), q, k)[1] is None


@pytest.mark.parametrize("name, form", [*((name, "running") for name in RULES), ("label", "bounded")])
def test_half_a_sweep_of_symmetric_logits(name, form):
    """One of the two sides of each pair is made; the sums of both add to the definition's, and so do the gradients."""
    q, _, rules, (want, _), (one, other), grads = defined(name, own=True)
    pull, form = Pull(want.lse, one[0] + other[0], one[1] + other[1]), FORMS[form]
    for tile in ((4, 6), (64, 64))[: 2 if name == "leaning" else 1]:
        close(plus(*both_sides(Asked(q.x), q, q, rules, tile=tile, half=True, form=form)).sums(), want)
        dz, dk = gradients(Asked(q.x), q, q, pull, pull, rules, tile=tile, half=True, form=form)
        close(dz.x + dk, sum(grads))


def test_half_a_sweep_visits_half_the_tiles():
    seen = []

    @rules.mutual
    def counted(q, k):
        jax.debug.callback(lambda: seen.append(1))
        return rows.same_label(q, k)

    q = draw(32)
    for half, number in ((False, 16), (True, 10)):
        seen.clear()
        found = jax.jit(functools.partial(block_stats, rules=(Rules(counted),), tile=(8, 8), half=half))(Asked(q.x), q, q)
        jax.block_until_ready(found)
        jax.effects_barrier()
        assert len(seen) == number


@pytest.mark.parametrize("moves", [(True, False), (False, True)])
def test_a_side_without_gradient_costs_no_product(moves):
    q, k = draw(16), draw(16, 1)
    pull = Pull(*(jnp.ones(16) for _ in range(3)))

    def run(q, k, moves):
        return block_grads(Asked(q.x), q, k, (pull,), None, (Rules(rows.same_label),), tile=(8, 8), moves=moves)

    whole, part = (str(jax.make_jaxpr(run, static_argnums=2)(q, k, m)).count("dot_general") for m in ((True, True), moves))
    assert (whole, part) == (3, 2)
    want = [grad if moved else None for grad, moved in zip(run(q, k, (True, True)), moves, strict=True)]
    close(run(q, k, moves), want)


def test_tiles_are_even_and_few():
    assert [sweep.cut_of(np.zeros(n), 512) for n in (512, 600, 1025)] == [(512, 1, 512), (600, 2, 304), (1025, 3, 344)]
    q = sweep.cut_of(np.zeros(5), 4)(draw(5))
    assert q.x.shape == (1, 8, D) and not np.any(q.valid[0, 5:])


def test_tallies_of_nothing_add():
    some = jnp.array([-500.0, 3.0])
    for form in FORMS.values():
        none = tiles.empty_tally(2, jnp.float64, Rules(rows.same_label), form)
        one = tiles.Tally(some, some, (some,) * 3, some, None if form.bound is None else some)
        close(plus(none, none), none)
        close(plus(none, one), one)
        close(plus(one, none), one)


def test_scale_100_in_float32():
    """Rows whose best logit is 200 below the tile's: a maximum for each row keeps them."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 64, D))
    x, y = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, y))
    q64 = Rows(jnp.asarray(x), index=jnp.arange(64))
    k64 = q64.replace(x=jnp.asarray(y))
    want = rows.dense(q64, k64, scale=100.0, weigh=rows.same_index)
    q, k = (r.replace(x=r.x.astype(jnp.float32)) for r in (q64, k64))
    got = block_stats(Asked(q.x * jnp.float32(100)), q, k, (Rules(rows.same_index),), tile=(16, 8))[0][0].sums()
    for one, other in zip(got, want, strict=True):
        assert one.dtype == jnp.float32
        np.testing.assert_allclose(one, other, rtol=2e-6, atol=2e-5)
