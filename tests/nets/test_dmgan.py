import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nets.once import ran
from supcon_jax.nets import init
from supcon_jax.nets.dmgan import Discriminator, Generator, Stage

SMALL = Generator(4, (8, 16), residual=1, cond=6)


def shape(*sizes, dtype=np.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def count(tree):
    return sum(math.prod(a.shape) for a in jax.tree.leaves(tree["params"]))


@pytest.mark.parametrize(("residual", "expected"), [(2, 21_449_042), (3, 22_335_314)])
def test_generator_has_the_published_size(residual, expected):
    z, words = shape(2, 100), shape(2, 18, 256)
    valid = shape(2, 18, dtype=bool)
    made = jax.eval_shape(Generator(residual=residual).init, jax.random.key(0), z, shape(2, 256), words, valid, z)
    assert count(made) == expected


@pytest.mark.parametrize(("size", "expected"), [(64, 1_878_242), (128, 5_155_810), (256, 18_264_546)])
def test_discriminator_has_the_published_size(size, expected):
    made = jax.eval_shape(Discriminator(size).init, jax.random.key(0), shape(2, size, size, 3), shape(2, 256))
    assert count(made) == expected


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def plain_stage(params, h, words, length, mask):
    """What the stage hands to its residual blocks (one half of it), and the attention: word by word, pixel by pixel.

    params: {name: (weight [in, out], bias [out])}. h [n, y, x, c], words [n, t, d], length: of each caption.
    """

    def dense(name, x):
        weight, bias = params[name]
        return x @ weight + bias

    n, rows, columns, c = h.shape
    t = words.shape[1]
    mixed, attention = np.zeros_like(h), np.zeros((n, rows, columns, t))
    for b in range(n):
        picture = h[b].reshape(-1, c).mean(0)
        keys, values = [], []
        for w in words[b]:
            gate = sigmoid(dense("word_gate", w) + dense("picture_gate", picture))
            old = np.maximum(dense("picture", picture), 0)
            memory = gate * np.maximum(dense("word", w), 0) + (1 - gate) * old
            keys.append(np.maximum(dense("key", memory), 0))
            values.append(np.maximum(dense("value", memory), 0))
        for y in range(rows):
            for x in range(columns):
                row = b * rows * columns + y * columns + x
                keep = length[row % n if mask == "compat" else b]
                weight = np.array([np.exp(h[b, y, x] @ k) if s < keep else 0.0 for s, k in enumerate(keys)])
                weight /= weight.sum()
                read = sum(a * v for a, v in zip(weight, values, strict=True))
                gate = sigmoid(dense("response", np.concatenate([h[b, y, x], read])))
                mixed[b, y, x], attention[b, y, x] = gate * read + (1 - gate) * h[b, y, x], weight
    return mixed, attention


@pytest.mark.parametrize("mask", ["correct", "compat"])
def test_a_stage_is_its_definition(mask):
    """Without residual blocks, and with an identity where the doubling is."""
    rng = np.random.default_rng(0)
    n, side, c, t, d = 3, 2, 4, 5, 6
    h, words, length = rng.standard_normal((n, side, side, c)), rng.standard_normal((n, t, d)), np.array([5, 1, 3])
    valid = np.arange(t)[None] < length[:, None]
    sizes = {"word_gate": (d, 1), "picture_gate": (c, 1), "word": (d, 2 * c), "picture": (c, 2 * c), "key": (2 * c, c),
             "value": (2 * c, c), "response": (2 * c, 1)}
    weights = {name: (rng.standard_normal(s), rng.standard_normal(s[1])) for name, s in sizes.items()}
    for name in ("word_gate", "picture_gate"):  # these two have no bias
        weights[name] = weights[name][0], np.zeros(1)
    tree = {name: {"kernel": w, "bias": b} if b.any() else {"kernel": w} for name, (w, b) in weights.items()}
    def run(params, h, words, valid):
        seen = []

        def stop(h, *args, **options):
            seen.append(h)
            return h

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("supcon_jax.nets.dmgan.Up", lambda *args, **options: stop)
            return Stage(0, mask).apply({"params": params}, h, words, valid, train=False)[1], seen[0]

    with jax.enable_x64(True):
        params = {"memory": {k: v for k, v in tree.items() if k != "response"}, "response": tree["response"]}
        attention, seen = ran(run, params, h, words, valid)
    mixed, want = plain_stage(weights, h, words, length, mask)
    np.testing.assert_allclose(attention, want, rtol=1e-9)
    np.testing.assert_allclose(seen, np.concatenate([mixed, mixed], -1), rtol=1e-9)


def inputs(n, d=8, t=5, cond=6, seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda *s: rng.standard_normal(s).astype(np.float32)  # noqa: E731
    valid = np.arange(t)[None, :] < rng.integers(1, t + 1, n)[:, None]
    return draw(n, 7), draw(n, d), draw(n, t, d), valid, draw(n, cond)


@pytest.fixture(scope="module")
def variables():
    return init.on_host(SMALL.init, jax.random.key(0), *inputs(3))


def test_half_precision_keeps_float32_outside(variables):
    z = inputs(3)
    run = jax.jit(lambda v, *a: SMALL.clone(dtype=jnp.bfloat16).apply(v, *a, train=True, mutable=["batch_stats"]))
    (images, mu, logvar, attention), state = run(variables, *z)
    assert [i.shape for i in images] == [(3, s, s, 3) for s in (8, 16)] and attention[0].shape == (3, 8, 8, 5)
    assert {a.dtype for a in (*images, mu, logvar, *attention, *jax.tree.leaves(state))} == {np.dtype("float32")}
    assert all(np.isfinite(i).all() and np.abs(i).max() <= 1 for i in images)
    assert not attention[0][~np.broadcast_to(z[3][:, None, None, :], attention[0].shape)].any()


def test_padding_is_not_read(variables):
    """Another code where no word stands changes nothing; one where a word stands does."""
    z, sentence, words, valid, eps = inputs(3)
    run = jax.jit(lambda words: SMALL.apply(variables, z, sentence, words, valid, eps)[0][-1])
    padded = np.where(valid[..., None], words, 7).astype(np.float32)
    assert not valid.all()
    np.testing.assert_allclose(run(padded), run(words), atol=1e-6)
    spoken = np.where(valid[..., None], 7, words).astype(np.float32)
    assert np.abs(run(spoken) - run(words)).max() > 1e-3


@pytest.fixture(scope="module")
def judge():
    """(discriminator of 16 pixels, variables, picture, sentence). Its kernels are shaken: orthogonal ones, with which it
    begins, have one singular value, and any vectors would be right."""
    net, rng = Discriminator(16, 4), np.random.default_rng(0)
    args = rng.standard_normal((3, 16, 16, 3)).astype(np.float32), rng.standard_normal((3, 8)).astype(np.float32)
    made = init.on_host(net.init, jax.random.key(0), *args)
    shaken = jax.tree.map(lambda x: x * rng.normal(1, 0.5, x.shape).astype(np.float32), made["params"])
    return net, {**made, "params": shaken}, *args


def test_vectors_move_in_training_only_and_begin_as_units(judge):
    net, start, image, sentence = judge
    assert {path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(start["batch_stats"])} == {"u", "v"}
    for x in jax.tree.leaves(start["batch_stats"]):
        assert np.linalg.norm(x) == pytest.approx(1, rel=1e-5)
    run = jax.jit(lambda v, train: net.apply(v, image, sentence, train, mutable=["batch_stats"]), static_argnums=1)
    still, moved = run(start, False)[1], run(start, True)[1]
    for x, a, b in zip(*(jax.tree.leaves(tree["batch_stats"]) for tree in (start, still, moved)), strict=True):
        np.testing.assert_array_equal(a, x)
        assert np.abs(b - x).max() > 1e-3


def test_no_row_sees_another(judge):
    """There is no batch norm: a picture's logits stay as they are whatever stands beside it."""
    net, variables, image, sentence = judge
    run = jax.jit(lambda image, sentence: net.apply(variables, image, sentence, True, mutable=["batch_stats"])[0])
    whole = run(image, sentence)
    for got, want in zip(run(image[1:2], sentence[1:2]), whole, strict=True):
        np.testing.assert_allclose(got, want[1:2], rtol=1e-4, atol=1e-5)


def test_logits_stay_float32_in_half_precision(judge):
    net, variables, image, sentence = judge
    h, cond, uncond = jax.jit(net.clone(dtype=jnp.bfloat16).apply)(variables, image, sentence)
    assert h.dtype == jnp.bfloat16 and h.shape == (3, 4, 4, 32)
    assert cond.dtype == uncond.dtype == np.float32 and cond.shape == uncond.shape == (3,)
