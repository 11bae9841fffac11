"""Encoders on pretrained trunks: shapes, what is fixed and what learns, and which values a trunk is shown."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gans import tiny
from nets.once import ran
from supcon_jax.build.names import net
from supcon_jax.nets import clip
from supcon_jax.nets.bert import Bert
from supcon_jax.nets.resnet import ResNet

RNG = np.random.default_rng(0)
PICTURES = RNG.uniform(-1, 1, (3, 20, 20, 3)).astype(np.float32)
TEXT, LENGTH = np.array([[2, 5, 6, 3, 0, 0], [2, 5, 6, 7, 8, 3], [2, 4, 3, 0, 0, 0]], np.int32), np.array([4, 6, 3], np.int32)
BERT = {"vocab": 12, "length": 8, "width": 8, "depth": 2, "heads": 2, "hidden": 16}
VIT = {"embed": 6, "side": 16, "patch": 8, "width": 8, "depth": 1, "heads": 2}
RESNET = {"embed": 6, "side": 64, "width": 4, "depths": [1, 1, 1, 1]}
SPEAKER = {"embed": 6, "vocab": 12, "length": 8, "width": 8, "depth": 1, "heads": 2, "end": 3}
IMAGES = {  # options -> regions
    "vit": ({"net": "clip_image", "trunk": VIT}, 4),
    "resnet": ({"net": "clip_image", "trunk": RESNET}, 4),
    "effnet": ({"net": "effnet_lite0", "size": 32}, 4),
    "layers": ({"net": "resnet", "size": 32, "depth": 18, "width": 0.0625}, 4),
}
TEXTS = {"bert": {"net": "bert", "trunk": BERT}, "clip": {"net": "clip_text", "trunk": SPEAKER}}


def drawn(module, *inputs):
    return jax.device_get(tiny.fill(shapes(module, *inputs), 1))


@functools.cache
def shaped(module, sizes):
    return jax.eval_shape(module.init, jax.random.key(0), *(jax.ShapeDtypeStruct(*size) for size in sizes))


def shapes(module, *inputs):
    return shaped(module, tuple((x.shape, x.dtype) for x in inputs))


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_image_encoders(kind):
    """Two linear layers on what the trunk says of the picture in its own size and values."""
    options, r = IMAGES[kind]
    module = net({**options, "dim": 5}, "here")
    v = drawn(module, PICTURES)
    side = options["trunk"]["side"]

    def both(v, pictures):
        seen = (jax.image.resize(pictures, (3, side, side, 3), "linear", antialias=False) + 1) / 2
        trunk = {name: tree["trunk"] for name, tree in v.items()}
        return module.apply(v, pictures), clip.image_tower(options["trunk"]).apply(trunk, clip.standardise(seen))

    (regions, code), (tokens, pooled) = ran(both, v, PICTURES)
    assert regions.shape == (3, r, 5) and code.shape == (3, 5)
    want = np.asarray(pooled) @ v["params"]["code"]["kernel"] + v["params"]["code"]["bias"]
    np.testing.assert_allclose(code, want, rtol=2e-4, atol=2e-5)
    tokens = np.asarray(tokens)[:, kind == "vit" :]
    np.testing.assert_allclose(regions, tokens @ v["params"]["regions"]["kernel"], rtol=2e-4, atol=2e-5)


def test_a_resnet_is_shown_what_torchvision_shows_it():
    options, r = IMAGES["layers"]
    module = net({**options, "dim": 5}, "here")
    pictures = RNG.uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    v = drawn(module, pictures)
    trunk = {name: tree["trunk"] for name, tree in v.items()}
    seen = ((pictures + 1) / 2 - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    (regions, code), taps = ran(lambda v, x, y: (module.apply(v, x), ResNet(18, 0.0625).apply(trunk, y)), v, pictures, seen)
    want = taps["layer3"].reshape(2, r, -1) @ v["params"]["regions"]["kernel"]
    np.testing.assert_allclose(regions, want, rtol=1e-3, atol=1e-4)
    want = taps["pooled"] @ v["params"]["code"]["kernel"] + v["params"]["code"]["bias"]
    np.testing.assert_allclose(code, want, rtol=1e-3, atol=1e-4)


@pytest.mark.slow  # EfficientNet compiles for long
def test_effnet_is_shown_bytes():
    from supcon_jax.nets.efficientnet import EfficientNetLite0

    module = net({**IMAGES["effnet"][0], "dim": 5}, "here")
    pictures = RNG.uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    v = drawn(module, pictures)
    trunk = {name: tree["trunk"] for name, tree in v.items()}
    regions, code = module.apply(v, pictures)
    taps = jax.device_get(EfficientNetLite0(0).apply(trunk, 127.5 * (pictures + 1)))
    want = taps["1280"] @ v["params"]["code"]["kernel"] + v["params"]["code"]["bias"]
    np.testing.assert_allclose(code, want, rtol=1e-3, atol=1e-4 * np.abs(want).max())
    want = taps["112"].reshape(2, 4, 112) @ v["params"]["regions"]["kernel"]
    np.testing.assert_allclose(regions, want, rtol=1e-3, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize("kind", TEXTS)
def test_text_encoders(kind):
    module = net({**TEXTS[kind], "width": 5}, "here")
    v = drawn(module, TEXT, LENGTH)
    run = tiny.compiled(module.apply, v, TEXT, LENGTH)
    words, sentence = jax.device_get(run(v, TEXT, LENGTH))
    assert words.shape == (3, 6, 5) and sentence.shape == (3, 5) and module.width == 5
    inside = np.arange(6)[None] < LENGTH[:, None]
    assert not np.any(words[~inside]) and np.all(np.any(words[inside], axis=-1))
    behind = np.where(inside, TEXT, 9)  # what stands behind the end changes nothing
    again = run(v, behind, LENGTH)
    np.testing.assert_allclose(again[1], sentence, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(again[0], words, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["vit", *TEXTS])
def test_only_the_linear_layers_of_a_frozen_trunk_learn(kind):
    options = IMAGES[kind][0] | {"dim": 5} if kind in IMAGES else TEXTS[kind] | {"width": 5}
    inputs = (PICTURES,) if kind in IMAGES else (TEXT, LENGTH)

    def gradients(module):
        v = drawn(module, *inputs)

        def loss(v, x):
            return sum(jnp.sum(jnp.square(part)) for part in module.apply(v, x, *inputs[1:]))

        picture = kind in IMAGES
        grads = ran(jax.grad(loss, (0, 1) if picture else 0), v, inputs[0])
        grads, by_picture = grads if picture else (grads, np.zeros(1))
        own = {name: tree for name, tree in grads["params"].items() if name != "trunk"}
        return [any(np.any(g) for g in jax.tree.leaves(t)) for t in (own, grads["params"]["trunk"], by_picture)]

    module = net(options, "here")
    assert gradients(module) == [True, False, False]  # frozen is the default
    assert gradients(module.clone(frozen=False)) == [True, True, kind in IMAGES]


def test_bert_refuses_longer_texts():
    with pytest.raises(ValueError, match="texts of 9 tokens where the network has 8 positions"):
        jax.eval_shape(Bert(**BERT).init, jax.random.key(0), np.zeros((1, 9), np.int32), np.ones(1, np.int32))
