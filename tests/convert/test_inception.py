"""Keras' InceptionV3: its layers by the order of their making, what a file may be called, and Keras' own features."""

import pathlib
import sys
import types

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from supcon_jax.build import inceptions
from supcon_jax.config import UserError
from supcon_jax.convert import inception, rename, tensors
from supcon_jax.nets.inception import Inception

MODULE = Inception(**inceptions.BUILT["keras_inception"])
KERAS = pathlib.Path(__file__).with_name("keras_inception.npz")  # keras_inception.py makes it
LEAVES = {"kernel": ("params", "conv/kernel"), "beta": ("params", "norm/bias"), "moving_mean": ("batch_stats", "norm/mean"),
          "moving_variance": ("batch_stats", "norm/var")}  # fmt: skip


@pytest.fixture(scope="module")
def like():
    return jax.eval_shape(MODULE.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 75, 75, 3), np.float32))


def flat(tree):
    return {"/".join(path): leaf for path, leaf in flatten_dict(tree).items()}


def drawn(number, leaf, shape):
    """What keras_inception.py draws for one tensor of the number-th layer."""
    x = np.random.default_rng([number, list(LEAVES).index(leaf)]).standard_normal(shape, np.float32)
    if leaf == "kernel":
        return (x * (2 / np.prod(shape[:-1])) ** 0.5).astype(np.float32)
    return np.abs(x) * np.float32(0.5) + np.float32(0.5) if leaf == "moving_variance" else x * np.float32(0.3)


def written(like, name=lambda layer, leaf: f"{layer}/{leaf}", start=0, value=drawn):
    """All tensors by Keras' names, the layers numbered from `start`."""
    shapes, out = flat(like), {}
    for i, path in enumerate(inception.order()):
        for leaf, (kind, end) in LEAVES.items():
            layer = "conv2d" if leaf == "kernel" else "batch_normalization"
            number = f"_{i + start}" if i + start else ""
            out[name(layer + number, leaf)] = value(i, leaf, shapes[f"{kind}/{path}/{end}"].shape)
    return out


def small(i, leaf, shape):
    """One number in a whole tensor: layer and kind."""
    return np.broadcast_to(np.float32(i + list(LEAVES).index(leaf) / 4), shape)


def test_94_layers_of_21802784_numbers(like):
    """The count that Keras tells of its network without the last layer, and its table of kernels."""
    file = written(like, value=small)
    assert len(inception.order()) == len(set(inception.order())) == 94 and len(file) == 4 * 94
    assert sum(value.size for value in file.values()) == 21_802_784
    kernels = [file[f"conv2d_{i}/kernel" if i else "conv2d/kernel"].shape for i in range(94)]
    np.testing.assert_array_equal(kernels, np.load(KERAS)["kernels"])


NAMES = {
    "Keras 3": (lambda layer, leaf: f"{layer}/{leaf}", 0),
    "Keras 2": (lambda layer, leaf: f"{layer}/{leaf}:0", 0),
    "its HDF5 files": (lambda layer, leaf: f"model_weights/{layer}/{layer}/{leaf}:0", 1),
    "after other models": (lambda layer, leaf: f"{layer}/{leaf}", 120),
}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_by_keras_names_comes_back(tmp_path, like, name):
    file = written(like, *NAMES[name], value=small)
    np.savez(tmp_path / "keras.npz", **file)
    back = flat(inceptions.from_keras(tmp_path / "keras.npz", like))
    for i, path in enumerate(inception.order()):
        for k, (kind, end) in enumerate(LEAVES.values()):
            assert (back[f"{kind}/{path}/{end}"] == i + k / 4).all()
        assert (back[f"params/{path}/norm/scale"] == 1).all()
    assert back.keys() == flat(like).keys()


def changed(file, **changes):
    """The file with names replaced; None drops a tensor."""
    return {new: value for name, value in file.items() if (new := changes.get(name.replace("/", "__"), name))}


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"conv2d_40__kernel": None}, "it has 93 layers named conv2d, conv2d_1, .* has 94 in a row: export its weights by name"),
     ({"conv2d__kernel": "conv2d_94/kernel"}, r"tensor conv2d_94/kernel gives .* shape \(3, 3, 3, 32\) where"),
     ({"conv2d_93__kernel": "conv2d_95/kernel"}, "has 94 in a row"),
     ({"conv2d_5__kernel": "conv2d_6/kernel", "conv2d_6__kernel": "conv2d_5/kernel"}, "gives params/mixed5b/branch"),
     ({"batch_normalization_3__beta": "batch_normalization_3/gamma"}, "1 tensors of the file that the network has no place")],
)  # fmt: skip
def test_another_file_is_refused_in_one_line(tmp_path, like, changes, said):
    np.savez(tmp_path / "keras.npz", **changed(written(like, value=small), **changes))
    with pytest.raises(UserError, match=said) as caught:
        inceptions.from_keras(tmp_path / "keras.npz", like)
    assert "\n" not in str(caught.value) and "keras.npz" in str(caught.value)


def test_a_tensor_that_is_there_twice_and_a_last_layer(tmp_path, like):
    file = written(like, value=small)
    top = {"predictions/kernel": np.zeros((8, 4)), "predictions/bias:0": np.zeros(4)}
    rename.load(file | top, inception.keras(file | top), like)
    np.savez(tmp_path / "keras.npz", **file, **{"m/conv2d_7/kernel": file["conv2d_7/kernel"]})
    with pytest.raises(UserError, match="m/conv2d_7/kernel"):
        inceptions.from_keras(tmp_path / "keras.npz", like)


class Dataset:
    """An HDF5 data set as h5py gives it."""

    def __init__(self, value):
        self.value, self.dtype = np.asarray(value), np.asarray(value).dtype

    def __getitem__(self, index):
        return self.value[index]


@pytest.fixture
def hdf5(monkeypatch):
    """h5py in little: files are what is put into the dictionary."""
    files = {}

    class File:
        def __init__(self, path, mode):
            assert mode == "r"
            self.items = files[pathlib.Path(path).name]

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def visititems(self, visit):
            assert all(visit(name, item) is None for name, item in self.items.items())

    monkeypatch.setitem(sys.modules, "h5py", types.SimpleNamespace(Dataset=Dataset, File=File))
    return files


def test_hdf5_is_read_where_h5py_is_installed(tmp_path, hdf5):
    hdf5["a.h5"] = {"conv2d": object(), "conv2d/kernel:0": Dataset(np.ones((2, 3), "f4")), "note": Dataset(np.array(["x"]))}
    (tmp_path / "a.h5").touch()
    got = tensors.read(tmp_path / "a.h5")
    assert list(got) == ["conv2d/kernel:0"] and got["conv2d/kernel:0"].shape == (2, 3)


def test_without_h5py_an_hdf5_file_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "a.h5").touch()
    with pytest.raises(UserError, match=r"a\.h5: .*\(pip install h5py\): or export its weights as \.npz$") as caught:
        tensors.read(tmp_path / "a.h5")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_features_are_those_of_keras(like):
    """The same drawn weights and pictures gave these in Keras; pools that count their padding are far away."""
    tree = rename.load(file := written(like), inception.keras(file), like)
    images = np.random.default_rng(1000).uniform(-1, 1, (2, 75, 75, 3)).astype(np.float32)
    want = np.load(KERAS)["features"]
    np.testing.assert_allclose(jax.jit(MODULE.apply)(tree, images)["2048"], want, atol=1e-4)
