"""Feature networks by name: what is missing is told in one line, and the shipped one knows the shapes."""

import numpy as np
import pytest

from supcon_jax.build import networks, weights
from supcon_jax.config import UserError
from supcon_jax.data.synthetic import PAIRS, shapes


def test_an_unknown_network_is_answered_with_those_there_are():
    with pytest.raises(UserError, match="^network 'clip' is not known; use one of: effnet_lite0, fid_inception, shapes_"):
        networks.network("clip", {})


@pytest.mark.parametrize(
    "name,path,said",
    [("effnet_lite0", "", r"python -m supcon_jax\.data\.fetch effnet_lite0"),
     ("effnet_lite0", "/nowhere/a.pth", r"--config\.networks\.effnet_lite0=/nowhere/a\.pth: no such file"),
     ("fid_inception", "", r"give --config\.networks\.fid_inception=FILE$"),
     ("fid_inception", "/nowhere/b.pth", r"give --config\.networks\.fid_inception=FILE \(/nowhere/b\.pth is missing\)$")],
)  # fmt: skip
def test_a_missing_file_is_told_with_the_way_to_it(tmp_path, monkeypatch, name, path, said):
    monkeypatch.setenv("SUPCON_DATA", str(tmp_path))
    with pytest.raises(UserError, match=said) as caught:
        networks.network(name, {name: path})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", (32, 64))
def test_the_shipped_classifier_tells_the_pairs_apart_at_any_size(size):
    found = networks.network("shapes_classifier", {})
    assert found is networks.network("shapes_classifier", {"shapes_classifier": ""})  # read once
    source = shapes("test", size=size, records=64)
    features, logits = map(np.asarray, found.features(np.stack([source.image(i) for i in range(64)])))
    assert features.shape == (64, 128) and logits.shape == (64, len(PAIRS))
    np.testing.assert_allclose(np.exp(logits).sum(1), 1, rtol=1e-4)  # log probabilities of both heads together
    assert (logits.argmax(1) == source.labels).mean() > 0.9
    assert found.size == 32 and len(found.sha256) == 64


def test_another_kind_of_weights_is_no_judge():
    with pytest.raises(UserError, match="holds 'attngan', not 'classifier'"):
        networks.attribute_net(str(networks.SHIPPED / "shapes.safetensors"))
    assert weights.load(networks.SHIPPED / "shapes_classifier.safetensors")[1]["kind"] == "classifier"


def test_bytes_become_signed_floats_of_the_side_asked_for():
    images = np.zeros((2, 8, 8, 3), np.uint8)
    images[1] = 255
    out = np.asarray(networks.prepared(images, 4))
    assert out.shape == (2, 4, 4, 3)
    np.testing.assert_allclose(out[0], -1, atol=1e-6)
    np.testing.assert_allclose(out[1], 1, atol=1e-6)
