import math

import jax
import numpy as np
import pytest

from gans import tiny
from nets.once import ran
from supcon_jax.nets import init
from supcon_jax.nets.clip import MODELS, ImageResNet, TextTransformer, published, standardise

TEXT = TextTransformer(4, 20, 8, 8, 2, 2)


def millions(module, side):
    image, text = jax.ShapeDtypeStruct((1, side, side, 3), np.float32), jax.ShapeDtypeStruct((1, 77), np.int32)
    made = jax.eval_shape(module.init, jax.random.key(0), image, text)
    return sum(math.prod(a.shape) for a in jax.tree.leaves(made["params"])) / 1e6


SIZES = {"RN50": 102.0, "RN101": 119.7, "RN50x4": 178.3, "RN50x16": 291.0, "RN50x64": 623.3, "ViT-B-32": 151.3,
         "ViT-B-16": 149.6, "ViT-L-14": 427.6, "ViT-L-14-336": 427.9}  # fmt: skip
OFTEN = ("RN50", "ViT-B-32", "ViT-L-14-336")  # one of each kind


@pytest.mark.parametrize(
    ("name", "expected"), [pytest.param(*one, marks=[pytest.mark.slow] * (one[0] not in OFTEN)) for one in SIZES.items()]
)
def test_published_sizes(name, expected):
    assert round(millions(published(name), MODELS[name][1]), 1) == expected


def test_standardise_by_channel():
    image = np.full((1, 2, 2, 3), 0.5, np.float32)
    want = (0.5 - np.array([0.48145466, 0.4578275, 0.40821073])) / [0.26862954, 0.26130258, 0.27577711]
    np.testing.assert_allclose(standardise(image)[0, 1, 1], want, rtol=1e-5)


@pytest.fixture(scope="module")
def text_variables():
    return init.on_host(TEXT.init, jax.random.key(0), np.zeros((1, 8), np.int32))


def test_text_is_read_at_its_end_and_what_follows_does_not_matter(text_variables):
    ids = np.array([[18, 3, 4, 19, 0, 0, 0, 0], [18, 3, 4, 5, 6, 7, 8, 19]], np.int32)
    behind = ids.copy()
    behind[0, 4:] = 7
    run = tiny.compiled(TEXT.apply, text_variables, ids)
    words, code = jax.device_get(run(text_variables, ids))
    np.testing.assert_array_equal(code[0], run(text_variables, behind)[1][0])
    np.testing.assert_allclose(code[0], ran(TEXT.apply, text_variables, ids[:1, :4])[1][0], rtol=1e-4, atol=1e-6)
    kernel = text_variables["params"]["project"]["kernel"]
    np.testing.assert_allclose(code, np.stack([words[0, 3], words[1, 7]]) @ kernel, rtol=1e-3, atol=1e-5)
    earlier = ids.copy()
    earlier[0, 1] = 5
    assert np.abs(code[0] - run(text_variables, earlier)[1][0]).max() > 1e-4


def test_a_named_end_token_need_not_be_the_largest(text_variables):
    ids = np.array([[18, 3, 1, 4, 19, 1, 0, 0]], np.int32)
    words, code = ran(TEXT.clone(end=1).apply, text_variables, ids)
    np.testing.assert_allclose(code[0], words[0, 2] @ text_variables["params"]["project"]["kernel"], rtol=1e-3, atol=1e-5)


def test_text_that_is_too_long_is_refused(text_variables):
    with pytest.raises(ValueError, match="9 tokens"):
        jax.eval_shape(TEXT.apply, text_variables, np.zeros((1, 9), np.int32))


def test_resnet_regions_and_batch_statistics():
    module = ImageResNet(6, 64, 4, (1, 1, 1, 1))
    x = np.random.default_rng(0).standard_normal((2, 64, 64, 3)).astype(np.float32)
    made = jax.eval_shape(module.init, jax.random.key(0), x)
    (regions, code), moved = jax.eval_shape(
        lambda v, x: module.apply(v, x, True, mutable=["batch_stats"]), made, x)
    assert regions.shape == (2, 4, 128) and code.shape == (2, 6)
    assert jax.tree.structure(moved["batch_stats"]) == jax.tree.structure(made["batch_stats"])
