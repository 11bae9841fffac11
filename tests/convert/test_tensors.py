import collections
import hashlib
import io
import os
import pickle
import struct
import sys
import types
import zipfile

import numpy as np
import pytest

from supcon_jax.config import UserError
from supcon_jax.convert import pth, tensors


class Stored:
    """A storage to be written: its kind ("Float"), its key and its numbers."""

    def __init__(self, kind, key, data):
        self.kind, self.key, self.data = kind, key, data


class View:
    def __init__(self, storage, offset, shape, stride):
        self.args = (storage, offset, shape, stride, False, collections.OrderedDict())


@pytest.fixture
def dump(monkeypatch):
    """Pickles as torch.save does: names of torch's functions and storages, without torch."""
    torch, inner = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for kind in ("Float", "Long", "BFloat16"):
        setattr(torch, f"{kind}Storage", type(f"{kind}Storage", (), {"__module__": "torch"}))

    def _rebuild_tensor_v2():
        pass

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    inner._rebuild_tensor_v2 = _rebuild_tensor_v2
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", inner)

    class Writer(pickle.Pickler):
        legacy = False

        def reducer_override(self, value):
            return (_rebuild_tensor_v2, value.args) if isinstance(value, View) else NotImplemented

        def persistent_id(self, value):
            if isinstance(value, Stored):
                token = ("storage", getattr(torch, f"{value.kind}Storage"), value.key, "cpu", len(value.data))
                return (*token, None) if self.legacy else token
            return None

    def write(tree, legacy=False):
        out = io.BytesIO()
        writer = Writer(out, protocol=2)
        writer.legacy = legacy
        writer.dump(tree)
        return out.getvalue()

    return write


A = Stored("Float", "0", np.arange(6, dtype="<f4"))
B = Stored("Long", "1", np.array([7], "<i8"))
STATE = collections.OrderedDict(
    {"a.weight": View(A, 0, (2, 3), (3, 1)), "turned": View(A, 1, (2, 2), (1, 3)), "steps": View(B, 0, (), ())})


def write_zip(path, data, storages=(A, B)):
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("archive/data.pkl", data)
        z.writestr("archive/byteorder", "little")
        for s in storages:
            z.writestr(f"archive/data/{s.key}", s.data.tobytes())


def write_legacy(path, data, storages=(A, B)):
    with open(path, "wb") as f:
        for part in (pth.LEGACY_MAGIC, 1001, {"little_endian": True}):
            pickle.dump(part, f, protocol=2)
        f.write(data)
        pickle.dump([s.key for s in storages], f, protocol=2)
        for s in storages:
            f.write(struct.pack("<q", len(s.data)) + s.data.tobytes())


@pytest.mark.parametrize("legacy", [False, True])
def test_reads_both_formats_of_pytorch(tmp_path, dump, legacy):
    STATE._metadata = {"": {"version": 1}}  # torch hangs this on its state dicts
    path = tmp_path / "net.pth"
    (write_legacy if legacy else write_zip)(path, dump({"model": STATE, "epoch": 3}, legacy))
    got = tensors.read(path)
    assert set(got) == {"model.a.weight", "model.turned", "model.steps"}
    np.testing.assert_array_equal(got["model.a.weight"], np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(got["model.turned"], [[1, 4], [2, 5]])
    assert got["model.steps"] == 7 and got["model.steps"].shape == ()


def test_reads_bfloat16(tmp_path, dump):
    import ml_dtypes
    s = Stored("BFloat16", "0", np.array([1.5, -2], ml_dtypes.bfloat16))
    write_zip(tmp_path / "a.pt", dump({"w": View(s, 0, (2,), (1,))}), [s])
    np.testing.assert_array_equal(tensors.read(tmp_path / "a.pt")["w"].astype(np.float32), [1.5, -2])


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("legacy", [False, True])
def test_refuses_code_without_running_it(tmp_path, dump, legacy):
    path, mark = tmp_path / "net.pth", tmp_path / "ran"
    (write_legacy if legacy else write_zip)(path, dump({"a": Evil(mark)}, legacy))
    with pytest.raises(UserError, match="mkdir, and only tensors") as caught:
        tensors.read(path)
    assert not mark.exists() and "\n" not in str(caught.value)


@pytest.mark.parametrize("view", [
    View(A, 0, (3, 3), (3, 1)), View(A, 4, (3,), (1,)), View(A, -1, (2,), (1,)), View(A, 5, (2,), (-1,)),
    View(A, 0, (10**12,), (0,)), View("text", 0, (2,), (1,))])
def test_refuses_tensors_outside_their_storage(tmp_path, dump, view):
    write_zip(tmp_path / "a.pth", dump({"w": view}))
    with pytest.raises(UserError, match="storage"):
        tensors.read(tmp_path / "a.pth")


@pytest.mark.parametrize("legacy", [False, True])
def test_damaged_files_are_answered_in_one_line(tmp_path, dump, legacy):
    path = tmp_path / "net.pth"
    (write_legacy if legacy else write_zip)(path, dump(STATE, legacy))
    whole = path.read_bytes()
    for cut in (len(whole) - 3, len(whole) // 2, 20, 0):
        path.write_bytes(whole[:cut])
        with pytest.raises(UserError) as caught:
            tensors.read(path)
        assert "\n" not in str(caught.value) and "net.pth" in str(caught.value)


def test_own_files_come_back_and_have_a_digest(tmp_path):
    tree = {"params": {"a": {"kernel": np.arange(6.0).reshape(2, 3).T}, "b": np.ones(2, np.float32), "c": np.float32(3)}}
    path = tmp_path / "a.safetensors"
    tensors.write(path, tree, {"step": 3})
    back = tensors.nest(tensors.read(path))
    np.testing.assert_array_equal(back["params"]["a"]["kernel"], tree["params"]["a"]["kernel"])
    assert back["params"]["c"].shape == () and back["params"]["c"] == 3
    assert tensors.sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    np.savez(tmp_path / "a.npz", x=np.ones(2))
    assert tensors.read(tmp_path / "a.npz")["x"].sum() == 2


@pytest.mark.parametrize("name", ["none.pth", "a.txt"])
def test_missing_and_unknown_files(tmp_path, name):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(UserError, match=name):
        tensors.read(tmp_path / name)
