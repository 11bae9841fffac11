"""PyTorch's own files read without PyTorch: state dicts as torch.save writes them, and TorchScript archives.

Both are pickles, and a pickle can run any code. The reader here admits ordered dictionaries, tensors and their storages,
and nothing else; whatever else a file names is refused before it is imported. Of a TorchScript archive (torch.jit.save; so
OpenAI publishes CLIP) it takes the parameters and buffers of its modules: a class of the archive, "__torch__...", becomes a
dictionary of attributes, and the code of the archive is looked into for the names of these two kinds alone.
"""

import io
import pickle
import re
import struct
import zipfile

import numpy as np

from supcon_jax.config import UserError

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {"Double": "f8", "Float": "f4", "Half": "f2", "BFloat16": "bfloat16", "Long": "i8", "Int": "i4",
            "Short": "i2", "Char": "i1", "Byte": "u1", "Bool": "?"}


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


class Same:
    """Stands for functions that hand on what they are given, such as torch._utils._rebuild_parameter."""

    __slots__ = ()

    def __call__(self, value, *_):
        return value


class Ordered(dict):
    """An ordered dictionary whose attributes (torch's `_metadata`) are dropped."""

    __slots__ = ()

    def __setstate__(self, state):
        pass


class Module(dict):
    """An object of a TorchScript archive: its modules, parameters and buffers by the names of its attributes.

    own: names of its parameters and buffers; None: not known, then every tensor counts as one.
    """

    __slots__ = ()
    own: frozenset[str] | None = None

    def __setstate__(self, state):
        if type(state) is not dict:
            raise UserError("a module keeps a state of its own making: export its state dict alone")
        for name, value in state.items():
            if isinstance(value, Module) or isinstance(value, Tensor) and (self.own is None or name in self.own):
                self[name] = value


class Code:
    """The code of a TorchScript archive, read as text for what its classes declare; none of it runs.

    archive: the open zip; root: path inside it that all its names begin with.
    """

    NAMES = {("torch.jit._pickle", name): Same() for name in (
        "build_intlist", "build_doublelist", "build_boollist", "build_tensorlist", "restore_type_tag")}
    NAMES["torch", "device"] = Same()

    def __init__(self, archive: zipfile.ZipFile, root: str):
        self.archive, self.at, self.names = archive, f"{root}code/", set(archive.namelist())

    def kind(self, module: str, name: str) -> type:
        """The class that stands for one of the archive's: "__torch__.a.b", "C" -> a Module."""
        path, own = f"{self.at}{module.replace('.', '/')}.py", None
        if path in self.names:
            lists = re.search(rf"^class {re.escape(name)}\(.*\n  __parameters__ = \[(.*)\]\n  __buffers__ = \[(.*)\]$",
                              self.archive.read(path).decode(), re.MULTILINE)
            own = lists and frozenset(re.findall(r'"([^"]+)"', f"{lists[1]} {lists[2]}"))
        return type("Module", (Module,), {"__slots__": (), "own": own})


class Reader(pickle.Unpickler):
    """Unpickler that knows tensors and dictionaries, and modules where there is code, and refuses every other name."""

    NAMES = {("collections", "OrderedDict"): Ordered, ("torch._utils", "_rebuild_tensor"): Rebuild(),
             ("torch._utils", "_rebuild_tensor_v2"): Rebuild(), ("torch._utils", "_rebuild_parameter"): Same(),
             ("torch", "Size"): tuple}

    def __init__(self, file, code: Code | None = None):
        super().__init__(file, encoding="latin1")  # files of Python 2 too
        self.storages: dict[str, Storage] = {}
        self.code = code

    def find_class(self, module, name):
        if (module, name) in self.NAMES:
            return self.NAMES[module, name]
        kind = name.removesuffix("Storage")
        if module == "torch" and name.endswith("Storage") and kind in STORAGES:
            return Kind(number(STORAGES[kind]))
        if self.code and module.startswith("__torch__"):
            return self.code.kind(module, name)
        if self.code and (module, name) in Code.NAMES:
            return Code.NAMES[module, name]
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
    """Files of torch.save since 1.6, a zip with NAME/data.pkl and NAME/data/KEY; of torch.jit.save too, which has code beside
    them and NAME/constants.pkl, the code's own numbers, which are no weights."""
    with zipfile.ZipFile(path) as z:
        inside = [name for name in z.namelist() if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(inside) != 1:
            raise UserError("a zip without one data.pkl: not a PyTorch weight file")
        root = inside[0].removesuffix("data.pkl")
        if root + "byteorder" in z.namelist() and z.read(root + "byteorder") != b"little":
            raise UserError("it was written on a big-endian machine: export it again on another")
        code = Code(z, root) if f"{root}constants.pkl" in z.namelist() else None
        reader = Reader(io.BytesIO(z.read(inside[0])), code)
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
