import jax
import jax.numpy as jnp
import numpy as np
import pytest

from supcon_jax.nets import init
from supcon_jax.nets.text import TextEncoder

VOCAB, WIDTH = 11, 6


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def walk(tokens, p, rnn):
    """States of one direction over token vectors, as PyTorch documents its LSTM and GRU."""
    h = c = np.zeros(p["hidden"].shape[0])
    out = []
    for x in tokens:
        a, b = x @ p["input"] + p["input_bias"], h @ p["hidden"] + p["hidden_bias"]
        if rnn == "lstm":
            i, f, g, o = np.split(a + b, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        else:
            (ra, za, na), (rb, zb, nb) = np.split(a, 3), np.split(b, 3)
            z = sigmoid(za + zb)
            h = (1 - z) * np.tanh(na + sigmoid(ra + rb) * nb) + z * h
        out.append(h)
    return out


@pytest.mark.parametrize("rnn", ["lstm", "gru"])
def test_is_a_loop_over_each_captions_own_tokens(rnn):
    net = TextEncoder(VOCAB, 5, WIDTH, rnn)
    text = np.array([[1, 2, 3, 4], [5, 6, 9, 9], [7, 9, 9, 9]], np.int32)
    length = np.array([4, 2, 1], np.int32)
    variables = init.on_host(net.init, jax.random.key(0), text, length)
    words, sentence = jax.jit(net.apply)(variables, text, length)
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), variables["params"])
    for i, n in enumerate(length):
        tokens = p["embed"]["embedding"][text[i, :n]]
        forth, back = walk(tokens, p["forward"], rnn), walk(tokens[::-1], p["backward"], rnn)
        np.testing.assert_allclose(words[i, :n], np.concatenate([forth, back[::-1]], 1), atol=1e-5)
        np.testing.assert_allclose(sentence[i], np.concatenate([forth[-1], back[-1]]), atol=1e-5)
        assert not words[i, n:].any()


def test_dropout_acts_in_training_only():
    net = TextEncoder(VOCAB, 5, WIDTH)
    text, length = np.ones((2, 4), np.int32), np.array([4, 3], np.int32)
    variables = init.on_host(net.init, jax.random.key(0), text, length)
    run = jax.jit(lambda key: net.apply(variables, text, length, train=True, rngs={"dropout": key})[1])
    assert np.abs(run(jax.random.key(0)) - run(jax.random.key(1))).max() > 1e-3
    assert np.abs(variables["params"]["embed"]["embedding"]).max() <= 0.1


def test_branches_and_bfloat16_agree_with_one_in_float32():
    net = TextEncoder(VOCAB, 5, WIDTH)
    rng = np.random.default_rng(0)
    text, length = rng.integers(0, VOCAB, (3, 2, 4)).astype(np.int32), rng.integers(1, 5, (3, 2)).astype(np.int32)
    variables = init.on_host(net.init, jax.random.key(0), text[:, 0], length[:, 0])
    both = jax.jit(jax.vmap(lambda t, n: net.apply(variables, t, n), 1, 1))(text, length)
    low = jax.jit(net.clone(dtype=jnp.bfloat16).apply)
    for i in range(2):
        alone = net.apply(variables, text[:, i], length[:, i])
        half = low(variables, text[:, i], length[:, i])
        for a, b, c in zip(both, alone, half, strict=True):
            np.testing.assert_allclose(a[:, i], b, atol=1e-6)
            np.testing.assert_allclose(c, b, atol=2e-2)
            assert c.dtype == np.float32


def test_published_size():
    text, length = jax.ShapeDtypeStruct((2, 18), np.int32), jax.ShapeDtypeStruct((2,), np.int32)
    made = jax.eval_shape(TextEncoder(5450).init, jax.random.key(0), text, length)
    assert sum(a.size for a in jax.tree.leaves(made)) == 5450 * 300 + 2 * (512 * 300 + 512 * 128 + 2 * 512)
