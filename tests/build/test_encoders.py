"""CLIP as a judge: its own resize, its own byte pairs, unit codes."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from build.test_clip import BPE, WIDE, own_file
from supcon_jax.build import clip, encoders
from supcon_jax.config import UserError, base
from supcon_jax.nets.clip import DEVIATION, MEAN

CAPTIONS = ("lower newest", "a b", "Lower  NEWEST")


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    path = own_file(tmp_path_factory.mktemp("clip") / "a.safetensors", WIDE)
    return encoders.encoders({"clip": str(path), "clip_act": "gelu", "clip_vocab": ""}), clip.opened({"clip": path}, "")[0]


def test_no_file_no_judge():
    assert encoders.encoders(dict(base().networks)) is None
    with pytest.raises(UserError, match=r"^--config\.networks\.clip=/nowhere: no such file; leave it empty for no "):
        encoders.encoders({"clip": "/nowhere"})


def test_pictures_are_seen_as_clips_own_preprocessing_has_them(judge):
    """Pillow's bicubic on bytes, [0, 1], then mean and deviation of each channel."""
    judge, tree = judge
    images = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3), np.uint8)
    small = [Image.fromarray(x).resize((16, 16), Image.Resampling.BICUBIC) for x in images]
    x = (np.stack([np.asarray(s) for s in small]) / 255.0 - MEAN) / DEVIATION
    code = np.asarray(WIDE.image.apply({"params": tree["params"]["image"]}, jnp.float32(x))[1], np.float64)
    np.testing.assert_allclose(judge.image(images), code / np.linalg.norm(code, axis=1, keepdims=True), atol=2e-5)
    assert judge.side == 16 and len(judge.sha256) == 64


def test_captions_are_read_by_clips_own_byte_pairs(judge):
    """The batch's own tokens are another vocabulary's and not looked at."""
    judge, tree = judge
    found = np.asarray(judge.text({"caption": np.array(CAPTIONS)[:, None], "text": None}))
    ids = np.stack([BPE.encode(caption, WIDE.text.length)[0] for caption in CAPTIONS])
    code = np.asarray(WIDE.text.apply({"params": tree["params"]["text"]}, ids)[1], np.float64)
    np.testing.assert_allclose(found, code / np.linalg.norm(code, axis=1, keepdims=True), atol=2e-5)
    np.testing.assert_array_equal(found[0], found[2])
    assert np.abs(found[0] - found[1]).max() > 0.01
