"""Weight files as dictionaries of numpy arrays: safetensors, npz, and PyTorch's own files read without PyTorch.

A .pth file is a pickle, and a pickle can run any code. The reader here admits ordered dictionaries, tensors and their
storages, and nothing else; whatever else a file names is refused before it is imported.
"""

import collections
import hashlib
import io
import pathlib
import pickle
import struct
import zipfile

import numpy as np
from etils import epath

from supcon_jax import storage
from supcon_jax.config import UserError

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {"Double": "f8", "Float": "f4", "Half": "f2", "BFloat16": "bfloat16", "Long": "i8", "Int": "i4",
            "Short": "i2", "Char": "i1", "Byte": "u1", "Bool": "?"}
TORCH = (".pth", ".pt", ".tar", ".bin", ".pkl")
SUFFIXES = (".safetensors", ".npz", *TORCH)


def read(path) -> dict[str, np.ndarray]:
    """All tensors of a .safetensors, .npz or .pth file by name; names of nested dictionaries are joined by ".".

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
        if path.suffix in TORCH:
            return flatten(read_zip(path) if zipfile.is_zipfile(path) else read_legacy(path))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:  # a damaged file fails anywhere in the pickle machine, the zip reader or numpy
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} is damaged or not a weight file ({reason}): fetch or export it again") from None
    raise UserError(f"{path}: unknown kind of weight file: use .safetensors, .npz or .pth")


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
    """Arrays of nested dictionaries and lists by joined names; numbers, strings and None are left out."""
    if isinstance(tree, Tensor):
        return {prefix: tree.array()}
    if hasattr(tree, "shape") and hasattr(tree, "dtype"):
        return {prefix: np.asarray(tree)}
    if isinstance(tree, collections.abc.Mapping):
        items = tree.items()
    elif isinstance(tree, list | tuple):
        items = enumerate(tree)
    else:
        return {}
    out = {}
    for name, value in items:
        out.update(flatten(value, join, f"{prefix}{join}{name}" if prefix else str(name)))
    return out


class Kind:
    """A storage type's name, such as torch.FloatStorage."""

    __slots__ = ("dtype",)

    def __init__(self, dtype):
        self.dtype = dtype


class Storage:
    """Flat memory of one or more tensors; filled when its bytes have been read."""

    __slots__ = ("dtype", "numel", "data")

    def __init__(self, dtype, numel):
        self.dtype, self.numel, self.data = dtype, int(numel), None

    def fill(self, raw: bytes):
        if len(raw) != self.numel * self.dtype.itemsize:
            raise UserError(f"a tensor's data is cut off ({len(raw)} of {self.numel * self.dtype.itemsize} bytes)")
        self.data = np.frombuffer(raw, self.dtype)


class Tensor:
    """A view of a storage, made into an array once all is read."""

    __slots__ = ("storage", "offset", "shape", "stride")

    def __init__(self, storage, offset, shape, stride):
        if not isinstance(storage, Storage):
            raise UserError("a tensor without a storage")
        self.storage, self.offset = storage, int(offset)
        self.shape, self.stride = tuple(int(s) for s in shape), tuple(int(s) for s in stride)

    def array(self) -> np.ndarray:
        size = 1
        for s in self.shape:
            size *= s
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True))
        low = min((self.offset, *self.shape, *self.stride))
        if low < 0 or size > self.storage.numel or (size and last >= self.storage.numel):
            raise UserError("a tensor reaches outside its storage")
        if not size:
            return np.zeros(self.shape, self.storage.dtype)
        data, step = self.storage.data[self.offset:], self.storage.dtype.itemsize
        return np.lib.stride_tricks.as_strided(data, self.shape, [s * step for s in self.stride]).copy()


class Rebuild:
    """Stands for torch's functions that put a tensor together; keeps storage, offset, shape and stride."""

    __slots__ = ()

    def __call__(self, storage, offset, shape, stride, *_):
        return Tensor(storage, offset, shape, stride)


class Parameter:
    """Stands for torch._utils._rebuild_parameter: the tensor itself."""

    __slots__ = ()

    def __call__(self, tensor, *_):
        return tensor


class Ordered(dict):
    """An ordered dictionary whose attributes (torch's `_metadata`) are dropped."""

    __slots__ = ()

    def __setstate__(self, state):
        pass


class Reader(pickle.Unpickler):
    """Unpickler that knows tensors and dictionaries and refuses every other name."""

    NAMES = {("collections", "OrderedDict"): Ordered, ("torch._utils", "_rebuild_tensor"): Rebuild(),
             ("torch._utils", "_rebuild_tensor_v2"): Rebuild(), ("torch._utils", "_rebuild_parameter"): Parameter(),
             ("torch", "Size"): tuple}

    def __init__(self, file):
        super().__init__(file, encoding="latin1")  # files of Python 2 too
        self.storages: dict[str, Storage] = {}

    def find_class(self, module, name):
        if (module, name) in self.NAMES:
            return self.NAMES[module, name]
        kind = name.removesuffix("Storage")
        if module == "torch" and name.endswith("Storage") and kind in STORAGES:
            return Kind(number(STORAGES[kind]))
        raise UserError(f"it asks for {module}.{name}, and only tensors are read: export its state dict alone")

    def persistent_load(self, token):
        what, kind, key, _, numel, *view = token
        if what != "storage" or not isinstance(kind, Kind) or (view and view[0] is not None):
            raise UserError("it refers to something that is no plain storage: export its state dict alone")
        return self.storages.setdefault(str(key), Storage(kind.dtype, numel))


def number(name: str) -> np.dtype:
    if name == "bfloat16":
        import ml_dtypes
        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name).newbyteorder("<")


def read_zip(path):
    """Files of torch.save since 1.6: a stored zip with NAME/data.pkl and NAME/data/KEY."""
    with zipfile.ZipFile(path) as z:
        inside = [name for name in z.namelist() if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(inside) != 1:
            raise UserError("a zip without one data.pkl: not a PyTorch weight file")
        root = inside[0].removesuffix("data.pkl")
        if root + "byteorder" in z.namelist() and z.read(root + "byteorder") != b"little":
            raise UserError("it was written on a big-endian machine: export it again on another")
        reader = Reader(io.BytesIO(z.read(inside[0])))
        tree = reader.load()
        for key, storage in reader.storages.items():
            storage.fill(z.read(f"{root}data/{key}"))
    return tree


def read_legacy(path):
    """Files of older torch: magic, version, machine, the object, the storages' keys, each storage's count and bytes."""
    with open(path, "rb") as f:
        if Reader(f).load() != LEGACY_MAGIC:
            raise UserError("not a PyTorch weight file")
        Reader(f).load()
        machine = Reader(f).load()
        if not machine.get("little_endian", True):
            raise UserError("it was written on a big-endian machine: export it again on another")
        reader = Reader(f)
        tree = reader.load()
        for key in Reader(f).load():
            storage = reader.storages[str(key)]
            (count,) = struct.unpack("<q", f.read(8))
            if count != storage.numel:
                raise UserError(f"storage {key} holds {count} numbers where {storage.numel} were announced")
            storage.fill(f.read(count * storage.dtype.itemsize))
    return tree
