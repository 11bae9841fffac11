"""DAMSM: equal to the loops in float64, blind to padding, the same on eight devices and in groups."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from dress import dress
from supcon_jax.losses import match

compiled_words = jax.jit(match.words, static_argnames=("gammas", "group", "attention"))
N, R, T, D = 8, 6, 5, 4
LABEL = np.array([0, 1, 0, 2, -1, -1, 2, 0])
LENGTH = np.array([5, 1, 3, 2, 4, 5, 1, 2])


def draw(seed=0, n=N):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, R, D)), rng.normal(size=(n, T, D)), rng.normal(size=(n, D)), rng.normal(size=(n, D))


@pytest.mark.parametrize("label", [None, LABEL], ids=["free", "classes"])
def test_words(label):
    def fn(regions, words):
        loss0, loss1 = match.words(regions, words, jnp.asarray(LENGTH), None if label is None else jnp.asarray(label))
        return loss0 + 2 * loss1

    regions, words, _, _ = draw()
    value, _ = dress(fn, [regions, words], sums=False, full=label is not None, grad_rtol=3e-4)
    want = oracles.words(regions, words, LENGTH, label, (4, 5, 10))
    np.testing.assert_allclose(value, want[0] + 2 * want[1], rtol=1e-12)


@pytest.mark.parametrize("label", [None, LABEL], ids=["free", "classes"])
def test_sentences(label):
    def fn(code, sentence, sums):
        given = None if label is None else jnp.asarray(label)
        loss0, loss1 = match.sentences(code, sentence, given, gamma=5.0, sums=sums)
        return loss0 + 2 * loss1

    _, _, code, sentence = draw()
    value, _ = dress(fn, [code, sentence], full=label is not None)
    want = oracles.sentences(code, sentence, label, 5.0)
    np.testing.assert_allclose(value, want[0] + 2 * want[1], rtol=1e-12)


def test_words_beyond_the_length_do_not_matter():
    regions, words, _, _ = (jnp.asarray(a, jnp.float32) for a in draw())
    beyond = jnp.arange(T)[None, :, None] >= jnp.asarray(LENGTH)[:, None, None]
    run = jax.jit(
        jax.value_and_grad(lambda r, w: sum(match.words(r, w, jnp.asarray(LENGTH), jnp.asarray(LABEL))), (0, 1))
    )
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
        context, want = oracles.attend(regions[i], words[i][:length], 4.0)
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
        value, grads = jax.jit(jax.value_and_grad(loss, (0, 1, 2, 3)))(
            *(factor * a for a in (regions, words, code, sentence))
        )
        assert np.isfinite(value) and all(np.isfinite(g).all() for g in grads)


def test_bad_shapes_are_named():
    with pytest.raises(ValueError, match="do not fit"):
        match.words(jnp.ones((3, R, D)), jnp.ones((4, T, D)), jnp.ones(4, jnp.int32))
