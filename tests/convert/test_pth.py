"""TorchScript archives: what torch.jit.save wrote is read as its state dict, and nothing of it runs."""

import io
import os
import pathlib
import pickle
import sys
import types
import zipfile

import jax
import numpy as np
import pytest

from convert.test_clip import TRANSFORMER, clip_like, flat, openai_names
from supcon_jax.build import foreign as build
from supcon_jax.config import UserError
from supcon_jax.convert import clip, kinds, tensors
from supcon_jax.nets.clip import CLIP

ARCHIVE = pathlib.Path(__file__).with_name("clip_archive.pt")  # clip_archive.py makes it
ONE = CLIP(TRANSFORMER.image.clone(depth=1), TRANSFORMER.text.clone(depth=1))


def state_dict():
    """The names of OpenAI's state dict with one block a tower, which the archive was made of."""
    return {name for name in openai_names(resnet=False) if "resblocks.1." not in name} | {"context_length"}


def test_an_archive_is_read_as_the_state_dict_it_was_made_of():
    """Parameters and buffers by their dotted paths; no attn_mask, no flags, none of the code's constants."""
    given = tensors.read(ARCHIVE)
    assert set(given) == state_dict() and given["context_length"] == 8
    assert given["visual.conv1.weight"].dtype == np.float16 and given["ln_final.weight"].dtype == np.float32
    for name, value in given.items():
        if name != "context_length":  # numbered as clip_archive.numbers does; k follows from the first number
            k = (np.float32(value.flat[0]) + 1) * 32
            want = ((7 * np.arange(value.size) + k) % 64) / 32 - 1
            np.testing.assert_array_equal(value.astype(np.float32).ravel(), want.astype(np.float32), name)
    first = {float(value.flat[0]) for name, value in given.items() if name != "context_length"}
    assert len(first) == len(given) - 1  # each tensor is itself


def test_clip_as_openai_publishes_it():
    """The network is told by the shapes, and its weights are float32 whatever the file's are."""
    given = tensors.read(ARCHIVE)
    assert list(kinds.told(given)) == ["clip"] and clip.network(given, head=4) == ONE
    tree = flat(clip.load(given, clip_like(ONE)))
    assert {leaf.dtype for leaf in tree.values()} == {np.dtype(np.float32)}
    kernel = given["visual.conv1.weight"].astype(np.float32).transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(tree["params/image/trunk/patch/kernel"], kernel)
    np.testing.assert_array_equal(tree["params/text/positions"], given["positional_embedding"])


def test_a_folder_with_the_archive_holds_a_clip(tmp_path):
    (tmp_path / "ViT-B-32.pt").write_bytes(ARCHIVE.read_bytes())
    found = build.look(build.storage.place(str(tmp_path)))
    assert found.one("clip").name == "ViT-B-32.pt" and not found.left


class Named:
    """Something that a pickle asks for by name: module, name."""

    def __init__(self, module, name):
        self.__module__, self.__qualname__ = module, name


class Thing:
    """An object of a class of the archive, with its state."""

    def __init__(self, kind, state):
        self.kind, self.state = kind, state


class Weights:
    """A float32 tensor of so many numbers in the storage of a key."""

    def __init__(self, key, count):
        self.key, self.count = key, count


class Writer(pickle._Pickler):
    """Writes what torch.jit.save would, and what it never would, without torch."""

    def save(self, value, save_persistent_id=True):
        if isinstance(value, Named):
            self.write(f"c{value.__module__}\n{value.__qualname__}\n".encode())
        elif isinstance(value, Thing):
            if id(value) in self.memo:
                return self.write(self.get(self.memo[id(value)][0]))
            self.save(value.kind)
            self.write(b")\x81")
            self.memoize(value)
            self.save(value.state)
            self.write(b"b")
        elif isinstance(value, Weights):
            self.save(Named("torch._utils", "_rebuild_tensor_v2"))
            self.write(b"(")
            self.save(("storage", Named("torch", "FloatStorage"), value.key, "cpu", value.count))
            self.write(b"Q")
            for part in (0, (value.count,), (1,), False, None):
                self.save(part)
            self.write(b"tR")
        elif isinstance(value, types.FunctionType):  # a call: value() -> (what, arguments)
            what, arguments = value()
            self.save(what)
            self.save(arguments)
            self.write(b"R")
        else:
            super().save(value, save_persistent_id)


NET = Named("__torch__.a", "Net")


def archive(path, tree, root="net/", code="", constants=True):
    """A TorchScript archive with the storage "0" of three numbers; its code, if any, is __torch__/a.py."""
    out = io.BytesIO()
    Writer(out, 2).dump(tree)
    with zipfile.ZipFile(path, "w") as z:
        z.writestr(f"{root}data.pkl", out.getvalue())
        z.writestr(f"{root}data/0", np.float32([1, 2, 3]).tobytes())
        z.writestr(f"{root}constants/1", np.float32([4, 5, 6]).tobytes())
        if constants:
            z.writestr(f"{root}constants.pkl", pickle.dumps(()))
        if code:
            z.writestr(f"{root}code/__torch__/a.py", code)
    return path


@pytest.mark.parametrize("root", ["", "net/"])
def test_attributes_that_are_no_weights_are_left_out(tmp_path, root):
    script = lambda name, value: lambda: (Named("torch.jit._pickle", name), (value,))  # noqa: E731
    inner = Thing(NET, {"weight": Weights("0", 3), "sizes": script("build_intlist", [1, 2]), "none": None})
    more = {"training": True, "named": {"x": Weights("0", 3)}, "listed": script("build_tensorlist", [Weights("0", 3)])}
    got = tensors.read(archive(tmp_path / "a.pt", Thing(NET, {"0": inner, "again": inner, "b": Weights("0", 2), **more}), root))
    assert {name: value.tolist() for name, value in got.items()} == {
        "0.weight": [1, 2, 3], "again.weight": [1, 2, 3], "b": [1, 2]}  # fmt: skip


def test_the_code_says_which_tensors_are_weights(tmp_path):
    tree = Thing(NET, {name: Weights("0", 3) for name in ("weight", "mean", "plain")})
    lists = '  __parameters__ = ["weight", ]\n  __buffers__ = ["mean", ]\n'
    code = f"class Netto(Module):\n  __parameters__ = []\n  __buffers__ = []\nclass Net(Module):\n{lists}  plain : Tensor\n"
    assert set(tensors.read(archive(tmp_path / "a.pt", tree, code=code))) == {"weight", "mean"}
    old = code.replace('  __buffers__ = ["mean", ]\n', "")  # before buffers were told apart: a tensor too many is no loss
    assert set(tensors.read(archive(tmp_path / "b.pt", tree, code=old))) == {"weight", "mean", "plain"}


def deep(levels):
    """2 ** levels paths through so many modules."""
    thing = Thing(NET, {})
    for _ in range(levels):
        thing = Thing(NET, {"a": thing, "b": thing})
    return thing


def turning():
    """A module that is its own attribute."""
    thing = Thing(NET, {})
    thing.state["again"] = thing
    return thing


HOSTILE = {
    "another global": (lambda mark: Thing(NET, {"a": lambda: (Named("os", "mkdir"), (mark,))}), "asks for os.mkdir, and only"),
    "a builtin": (lambda mark: lambda: (Named("builtins", "eval"), ("1",)), "asks for builtins.eval, and only"),
    "torch's own loader": (lambda mark: lambda: (Named("torch.jit._pickle", "load"), (mark,)), "asks for torch.jit._pickle"),
    "a state of its own": (lambda mark: Thing(NET, (1, 2)), "a state of its own making"),
    "a place outside": (lambda mark: Thing(NET, {"w": Weights("../../etc/passwd", 3)}), "no item named 'net/data/../../etc/"),
    "the code's numbers": (lambda mark: Thing(NET, {"w": Weights("1", 3)}), "no item named 'net/data/1'"),
    "more than there is": (lambda mark: Thing(NET, {"w": Weights("0", 4)}), "cut off"),
    "a circle": (lambda mark: turning(), "recursion"),
    "a thicket": (lambda mark: deep(60), "more than"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused_in_one_line(tmp_path, monkeypatch, name):
    monkeypatch.setattr(tensors, "MOST", 2000)
    make, said = HOSTILE[name]
    mark = tmp_path / "ran"
    with pytest.raises(UserError, match=said) as caught:
        tensors.read(archive(tmp_path / "a.pt", make(str(mark))))
    assert not mark.exists() and "\n" not in str(caught.value) and "a.pt" in str(caught.value)
    assert "__torch__.a" not in sys.modules and os.path.exists(tmp_path / "a.pt")


def test_a_file_that_is_no_archive_has_no_modules(tmp_path):
    with pytest.raises(UserError, match=r"asks for __torch__\.a\.Net, and only tensors are read"):
        tensors.read(archive(tmp_path / "a.pt", Thing(NET, {"w": Weights("0", 3)}), constants=False))


def test_the_towers_of_an_archive_run(tmp_path):
    """The weights are where the network looks for them: shapes and all."""
    tree = clip.load(tensors.read(ARCHIVE), clip_like(ONE))
    codes = jax.eval_shape(ONE.apply, tree, np.zeros((2, 16, 16, 3), np.float32), np.zeros((2, 8), np.int32))
    assert jax.tree.leaves(codes)
