"""Weight files as dictionaries of numpy arrays: safetensors, npz, and PyTorch's own files read without PyTorch."""

import hashlib
import pathlib
import zipfile
from collections.abc import Iterator, Mapping

import numpy as np
from etils import epath

from supcon_jax import storage
from supcon_jax.config import UserError
from supcon_jax.convert.pth import Tensor, read_legacy, read_zip

TORCH = (".pth", ".pt", ".tar", ".bin", ".pkl")
SUFFIXES = (".safetensors", ".npz", *TORCH)
HDF5 = (".h5", ".hdf5")  # read where h5py is installed
MOST = 1_000_000


def read(path) -> dict[str, np.ndarray]:
    """All tensors of a .safetensors, .npz, .pth or .h5 file by name; names of nested dictionaries are joined by ".".

    A .pth, or .pt, may be a TorchScript archive: its parameters and buffers have the names of its state dict, see pth.
    Raises UserError: no such file, a damaged one, another kind, or a .pth that holds more than tensors.
    """
    if not epath.Path(path).is_file():
        raise UserError(f"no weight file at {path}: check the path")
    with storage.local(path) as file:
        return unpacked(file)


def unpacked(path: pathlib.Path) -> dict[str, np.ndarray]:
    """`read` of a file on this machine."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.numpy import load_file
            return load_file(path)
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as z:
                return {name: z[name] for name in z.files}
        if path.suffix in HDF5:
            return read_hdf5(path)
        if path.suffix in TORCH:
            return flatten(read_zip(path) if zipfile.is_zipfile(path) else read_legacy(path))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:  # a damaged file fails anywhere in the pickle machine, the zip reader or numpy
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} is damaged or not a weight file ({reason}): fetch or export it again") from None
    raise UserError(f"{path}: unknown kind of weight file: use .safetensors, .npz or .pth")


def read_hdf5(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Arrays of numbers of an HDF5 file by their paths in it. Raises UserError: h5py is not installed."""
    try:
        import h5py
    except ImportError:
        raise UserError("an HDF5 file is read only where h5py is installed (pip install h5py): or export its weights as "
                        ".npz") from None
    found = {}

    def keep(name, item):
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiub":
            found[name] = item[()]

    with h5py.File(path, "r") as file:
        file.visititems(keep)
    return found


def write(path, tree, meta: dict[str, str] | None = None) -> None:
    """Write a nested dictionary of arrays as safetensors, names joined by "/"; meta is kept in the header.

    A kill leaves the whole file, the one that was there before, or none.
    """
    from safetensors.numpy import save  # its save_file leaves a file that only its owner may read
    flat = {name: np.asarray(a, order="C") for name, a in flatten(tree, "/").items()}
    storage.write(path, save(flat, {k: str(v) for k, v in (meta or {}).items()}))


def metadata(path) -> dict[str, str]:
    """What the header of a .safetensors file says beside the tensors; nothing for other kinds.

    Raises UserError: a damaged file.
    """
    if pathlib.Path(path).suffix != ".safetensors":
        return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            return file.metadata() or {}
    except SafetensorError as error:
        raise UserError(f"{path} is damaged or not a weight file ({error}): fetch or export it again") from None


def nest(tensors: dict[str, np.ndarray]) -> dict:
    """The tree that `write` flattened."""
    tree: dict = {}
    for name, value in tensors.items():
        *parents, leaf = name.split("/")
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
        node[leaf] = value
    return tree


def sha256(path) -> str:
    """Digest of a file's bytes in hexadecimal."""
    with epath.Path(path).open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def flatten(tree, join: str = ".", prefix: str = "") -> dict[str, np.ndarray]:
    """Arrays of nested dictionaries and lists by joined names; numbers, strings and None are left out.

    Raises UserError: more than MOST things, as those that refer to one another in the same file may come to.
    """
    out = {}
    for count, (name, value) in enumerate(walk(tree, join, prefix)):
        if count == MOST:
            raise UserError(f"it holds more than {MOST} things: export its state dict alone")
        if value is not None:
            out[name] = value
    return out


def walk(tree, join: str, prefix: str) -> Iterator[tuple[str, np.ndarray | None]]:
    """(joined name, array or None) of a tree and of all that is in it."""
    items = ()
    if isinstance(tree, Tensor):
        yield prefix, tree.array()
    elif hasattr(tree, "shape") and hasattr(tree, "dtype"):
        yield prefix, np.asarray(tree)
    else:
        yield prefix, None
        items = tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    for name, value in items:
        yield from walk(value, join, f"{prefix}{join}{name}" if prefix else str(name))
