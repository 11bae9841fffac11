"""Weight files: what is written comes back, what is something else is refused, and no half of one is ever seen."""

import os
import stat

import ml_dtypes
import numpy as np
import pytest
from etils import epath

from supcon_jax.build import weights
from supcon_jax.config import UserError
from supcon_jax.convert import tensors

ABOUT = {"kind": "damsm", "vocab": ["<end>", "café"], "config": {"data": {"words": 12}, "stages": ["damsm"]}}


def tree(value=0.0):
    return {"params": {"image": {"kernel": np.arange(6.0, dtype=np.float32).reshape(2, 3).T + value}}, "count": np.int32([7])}


def test_a_tree_comes_back_with_what_is_said_of_it(tmp_path):
    path = tmp_path / "deep" / "weights.safetensors"
    weights.save(path, tree(), ABOUT)
    back, about, sha = weights.load(path, "damsm")
    assert about == ABOUT and sha == tensors.sha256(path)
    assert set(back) == {"params", "count"} and back["count"].dtype == np.int32 and back["count"] == 7
    np.testing.assert_array_equal(back["params"]["image"]["kernel"], tree()["params"]["image"]["kernel"])
    assert weights.load(path)[1]["kind"] == "damsm"  # any kind


def test_half_precision_is_read_as_float32_and_only_that(tmp_path):
    halves = {"a": np.float16([0.5, 1e-3]), "b": np.array([1.5], ml_dtypes.bfloat16), "c": np.float32([0.1])}
    weights.save(tmp_path / "a.safetensors", halves, ABOUT)
    back = weights.load(tmp_path / "a.safetensors")[0]
    assert [back[name].dtype.name for name in "abc"] == ["float32", "bfloat16", "float32"]
    np.testing.assert_array_equal(back["a"], halves["a"].astype(np.float32))


def refused(path, kind=None):
    with pytest.raises(UserError) as caught:
        weights.load(path, kind)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


def test_what_is_missing_or_something_else_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    assert "is missing: train that stage first or give a weight file" in refused(path)
    weights.save(path, tree(), ABOUT)
    assert "holds 'damsm', not 'classifier'" in refused(path, "classifier")
    tensors.write(path, tree())
    assert "holds 'foreign weights', not 'weights of this library'" in refused(path)
    assert "holds 'foreign weights', not 'damsm'" in refused(path, "damsm")
    np.savez(tmp_path / "a.npz", x=np.ones(2))
    assert "foreign weights" in refused(tmp_path / "a.npz")
    path.write_bytes(path.read_bytes()[:-3])
    assert "is damaged or not a weight file" in refused(path)


def test_a_weight_file_is_replaced_whole(tmp_path):
    """A second name of the old file still holds the old numbers: nobody ever reads half a file."""
    path, kept = tmp_path / "a.safetensors", tmp_path / "kept.safetensors"
    weights.save(path, tree(), ABOUT)
    os.link(path, kept)
    weights.save(path, tree(1.0), ABOUT)
    old, new = (weights.load(file)[0]["params"]["image"]["kernel"] for file in (kept, path))
    np.testing.assert_array_equal(new, old + 1)
    assert {item.name for item in tmp_path.iterdir()} == {path.name, kept.name}


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    weights.save(path, tree(), ABOUT)
    before = path.read_bytes()

    def full(self, data):
        with open(self, "wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError("no space left on device")

    monkeypatch.setattr(type(epath.Path(path)), "write_bytes", full)
    with pytest.raises(OSError, match="no space"):
        weights.save(path, tree(1.0), ABOUT)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mask,mode", [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_weight_files_have_the_usual_permissions(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        weights.save(tmp_path / "a.safetensors", tree(), ABOUT)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.safetensors").stat().st_mode) == mode
