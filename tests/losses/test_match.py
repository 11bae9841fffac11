"""DAMSM: equal to the loops in float64, blind to padding, the same on eight devices and in groups."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import oracles
import oracles_matching
from dress import DOORS, cases, dress, mesh
from supcon_jax.losses import match, pairwise
from supcon_jax.ops import rows, scores, sharded
from supcon_jax.ops.rows import Rows

compiled_words = jax.jit(match.words, static_argnames=("gammas", "group", "lanes", "attention"))
N, R, T, D = 8, 6, 5, 4
LABEL = np.array([0, 1, 0, 2, -1, -1, 2, 0])
LENGTH = np.array([5, 1, 3, 2, 4, 5, 1, 2])
HOT = np.array([[1, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1], [0, 1, 1], [0, 0, 0], [1, 1, 0]])
# class mask: what the library gets, and what the loops get
MASKS = {
    "free": (None, "single", None),
    "classes": (LABEL, "any", LABEL),
    "any of several": (HOT, "jaccard", oracles.any_label(HOT, HOT)),
    "all of several": (HOT, "all", oracles.all_labels(HOT, HOT)),
    "several, not read": (HOT, "single", None),
}


def masked(case):
    label, mode, _ = MASKS[case]
    return {} if label is None else match.mask(jnp.asarray(label), mode)


def draw(seed=0, n=N):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, R, D)), rng.normal(size=(n, T, D)), rng.normal(size=(n, D)), rng.normal(size=(n, D))


@pytest.mark.parametrize("case, devices", cases(["free", "classes", "any of several"], ["classes"]))
def test_words(case, devices):
    def fn(regions, words):
        loss0, loss1 = match.words(regions, words, jnp.asarray(LENGTH), **masked(case))
        return loss0 + 2 * loss1

    regions, words, _, _ = draw()
    value, _ = dress(fn, [regions, words], sums=False, full=case == "classes", devices=devices, grad_rtol=3e-4)
    want = oracles_matching.words(regions, words, LENGTH, MASKS[case][2], (4, 5, 10))
    np.testing.assert_allclose(value, want[0] + 2 * want[1], rtol=1e-12)


@pytest.mark.parametrize("case, devices", cases(MASKS, ["classes"]))
def test_sentences(case, devices):
    def fn(code, sentence, sums):
        loss0, loss1 = match.sentences(code, sentence, **masked(case), gamma=5.0, sums=sums)
        return loss0 + 2 * loss1

    _, _, code, sentence = draw()
    value, _ = dress(fn, [code, sentence], full=case == "classes", devices=devices)
    want = oracles_matching.sentences(code, sentence, MASKS[case][2], 5.0)
    np.testing.assert_allclose(value, want[0] + 2 * want[1], rtol=1e-12)


def test_words_beyond_the_length_do_not_matter():
    regions, words, _, _ = (jnp.asarray(a, jnp.float32) for a in draw())
    beyond = jnp.arange(T)[None, :, None] >= jnp.asarray(LENGTH)[:, None, None]
    run = jax.jit(jax.value_and_grad(lambda r, w: sum(match.words(r, w, jnp.asarray(LENGTH), jnp.asarray(LABEL))), (0, 1)))
    value, grads = run(regions, words)
    for fill in (0.0, 50.0):
        other_value, other_grads = run(regions, jnp.where(beyond, fill, words))
        np.testing.assert_allclose(other_value, value, rtol=1e-6)
        np.testing.assert_allclose(other_grads[0], grads[0], rtol=1e-5, atol=1e-6)
        assert np.isfinite(other_grads[1]).all() and not np.any(jnp.where(beyond, other_grads[1], 0))


def test_attention_maps_are_those_of_the_own_pairs():
    regions, words, _, _ = draw()
    alpha = compiled_words(jnp.asarray(regions), jnp.asarray(words), jnp.asarray(LENGTH), attention=True, group=4)[2]
    assert alpha.shape == (N, T, R)
    for i, length in enumerate(LENGTH):
        context, want = oracles_matching.attend(regions[i], words[i][:length], 4.0)
        np.testing.assert_allclose(alpha[i][:length], want, rtol=1e-4, atol=1e-6)
        got, _ = match.attend(jnp.asarray(regions[i]), jnp.asarray(words[i]), jnp.arange(T) < length, 4.0)
        np.testing.assert_allclose(got[:length], context, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("group, size", [(4, 4), (5, 4), (3, 2), (1, 1), (100, 8), (None, 8)])
def test_groups_see_only_their_own_rows(group, size):
    regions, words, _, _ = (jnp.asarray(a) for a in draw())
    got = compiled_words(regions, words, jnp.asarray(LENGTH), jnp.asarray(LABEL), group=group)
    parts = [slice(i, i + size) for i in range(0, N, size)]
    want = [compiled_words(regions[p], words[p], jnp.asarray(LENGTH[p]), jnp.asarray(LABEL[p])) for p in parts]
    np.testing.assert_allclose(got, np.mean(want, axis=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_groups_in_turn_give_what_all_at_once_give(lanes):
    regions, words, _, _ = (jnp.asarray(a) for a in draw())

    @functools.partial(jax.jit, static_argnames="lanes")
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def loss(regions, words, lanes):
        loss0, loss1 = match.words(regions, words, jnp.asarray(LENGTH), jnp.asarray(LABEL), group=2, lanes=lanes)
        return loss0 + 2 * loss1

    got, want = loss(regions, words, lanes), loss(regions, words, None)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), got, want)


def test_groups_in_turn_move_nothing_between_devices():
    place, count = NamedSharding(mesh(2), P("data")), 64
    rows = [jax.ShapeDtypeStruct((count, *x.shape[1:]), jnp.float32, sharding=place) for x in draw()[:2]]

    def loss(regions, words):
        return sum(match.words(regions, words, jnp.full(count, T), group=4, lanes=2))

    text = jax.jit(jax.grad(loss, (0, 1)), out_shardings=place).lower(*rows).compile().as_text()
    assert "while(" in text and not set(re.findall(r"(all-gather|all-to-all|collective-permute)", text))


def test_same_class_pairs_are_neither_positive_nor_negative():
    """All of one class: nothing is left but the own pair, so both losses are 0."""
    regions, words, code, sentence = (jnp.asarray(a) for a in draw())
    one = jnp.zeros(N, jnp.int32)
    both = *compiled_words(regions, words, jnp.asarray(LENGTH), one), *match.sentences(code, sentence, one)
    np.testing.assert_allclose(both, 0, atol=1e-5)


def test_empty_captions_zero_codes_and_large_features_are_finite():
    regions, words, code, sentence = (jnp.asarray(a, jnp.float32) for a in draw())
    length = jnp.asarray(LENGTH).at[3].set(0)

    def loss(regions, words, code, sentence):
        return sum(compiled_words(regions, words, length)) + sum(match.sentences(code, sentence))

    for factor in (0.0, 1e3):
        value, grads = jax.jit(jax.value_and_grad(loss, (0, 1, 2, 3)))(*(factor * a for a in (regions, words, code, sentence)))
        assert np.isfinite(value) and all(np.isfinite(g).all() for g in grads)


def test_bad_shapes_are_named():
    with pytest.raises(ValueError, match="do not fit"):
        match.words(jnp.ones((3, R, D)), jnp.ones((4, T, D)), jnp.ones(4, jnp.int32))


# ---- through the doors

PLACES = [("tiled", 1), ("gather", 1), ("gather", 8), ("ring", 8), ("hybrid", 8)]
LENGTHS = np.r_[LENGTH, 3, 1, 5]
MASK = {"q": np.arange(R) < np.array([6, 1, 3, 2, 4, 5, 1, 2, 6, 6, 3])[:, None], "k": np.arange(T) < LENGTHS[:, None]}


def late(q, k, scale, sums, mean=False):
    """Both directions, with a weight for each."""
    q, k = (Rows(unit(x), mask=jnp.asarray(MASK[name][: len(x)])) for name, x in (("q", q), ("k", k)))
    one = match.late_interaction(q, k, scale=scale, mean=mean, sums=sums)
    return one + 2 * match.late_interaction(k, q, scale=scale, mean=mean, sums=sums)


def unit(x):
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def word(q, k, scale, sums):
    """Both directions; the scale only to have the same arguments."""
    label = jnp.asarray(np.r_[LABEL, 0, 2, -1])[: len(q)]
    loss0, loss1 = match.words(q, k, jnp.asarray(LENGTHS)[: len(q)], label, sums=sums)
    return loss0 + scale * loss1


def by_row(q, k, scale, sums):
    """A scale for each row makes the two directions two matrices."""
    q, k = (Rows(x, index=jnp.arange(len(x)), mask=jnp.asarray(MASK[name])) for name, x in (("q", q), ("k", k)))
    how = {"scale": scale * jnp.linspace(0.1, 0.3, len(q.x)), "weigh": rows.same_index}
    one, other = rows.both(scores.by(sums, scores.MaxSim()), q, k, **how)
    return jnp.sum(jnp.sin(one.lse) - one.pos) + 2 * jnp.sum(jnp.cos(other.lse) - other.pos)


def sigmoid(q, k, scale, sums):
    q, k = (Rows(x, mask=jnp.asarray(MASK[name])) for name, x in (("q", q), ("k", k)))
    return pairwise.siglip(q, k, scale=scale, bias=-1.0, sums=scores.by(sums, scores.MaxSim(mean=True)))


LOSSES = {"word": word, "late": late, "mean": functools.partial(late, mean=True), "by_row": by_row, "sigmoid": sigmoid}


@functools.cache
def defined(name):
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        regions, words, _, _ = draw(n=11)
        args = jnp.asarray(regions), jnp.asarray(words), jnp.asarray(2.0)
        return args, jax.jit(jax.value_and_grad(functools.partial(LOSSES[name], sums=rows.dense), (0, 1, 2)))(*args)


IN_PLAIN = [("tiled", "word"), ("ring", "word"), ("hybrid", "late")]  # late_interaction of gather is dressed below
EVERY_DOOR = [
    pytest.param(place, name, marks=() if (place[0], name) in IN_PLAIN else pytest.mark.slow)
    for place in PLACES for name in ("word", "late")
]  # fmt: skip


@pytest.mark.parametrize("place, name", EVERY_DOOR, ids=str)
def test_every_door_is_the_definition(place, name):
    judge(name, DOORS[place[0]](place[1], tile=(2, 3)))


@pytest.mark.parametrize("name, place", [pytest.param("mean", 4, marks=pytest.mark.slow), ("by_row", 5), ("sigmoid", 6)])
def test_other_readings_of_token_scores_pass_through_doors(name, place):
    judge(name, DOORS["ring"](place))


def judge(name, used):
    args, want = defined(name)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        got = jax.jit(jax.value_and_grad(functools.partial(LOSSES[name], sums=used), (0, 1, 2)))(*args)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12 * max(1, np.abs(other).max()))


@pytest.mark.parametrize("mean, devices", cases([False, True], [True], long=False))
def test_late_interaction(mean, devices):
    regions, words, _, _ = draw()
    value, _ = dress(
        lambda q, k, scale, sums: late(q, k, scale, sums, mean), [regions, words, np.float64(2)], full=mean, devices=devices
    )
    sets = [[row[keep] / np.linalg.norm(row[keep], axis=1, keepdims=True) for row, keep in zip(x, MASK[name], strict=False)]
            for name, x in (("q", regions), ("k", words))]  # fmt: skip
    want = oracles_matching.late_interaction(*sets, 2.0, mean) + 2 * oracles_matching.late_interaction(*sets[::-1], 2.0, mean)
    np.testing.assert_allclose(value, want, rtol=1e-12)


@pytest.mark.slow
def test_words_through_a_door_never_hold_the_matrix():
    def memory(n, sums):
        def loss(regions, words):
            return sum(match.words(regions, words, jnp.full(n, 5), sums=sums))

        args = jax.ShapeDtypeStruct((n, 16, 8), jnp.float32), jax.ShapeDtypeStruct((n, 8, 8), jnp.float32)
        return jax.jit(jax.grad(loss, (0, 1))).lower(*args).compile().memory_analysis().temp_size_in_bytes

    small, large = (memory(n, DOORS["ring"](4, tile=(8, 8))) for n in (128, 512))
    assert large < 5 * small and 20 * large < 4 * (512 * 16) * (512 * 8)  # the similarities of all tokens


def test_auto_counts_the_pairs_of_tokens():
    x = jnp.ones((300, 8, 2))
    auto = sharded.auto().by(scores.MaxSim())
    q = Rows(x, index=jnp.arange(300))
    assert auto.choose(300, 300, 16, each=1)[0] == scores.Whole(scores.MaxSim())
    assert auto.choose(300, 300, 16, each=64)[0] == sharded.tiled(score=scores.MaxSim())
    text = str(jax.make_jaxpr(lambda q: auto(q, q, scale=1.0, weigh=rows.same_index))(q))
    assert "f32[300,8,300,8]" not in text and "f32[300,300]" not in text
