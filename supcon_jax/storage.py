"""Where a run reads and writes: folders, and addresses in object stores such as gs://bucket/run, through etils.epath.

In a store a file appears when all of it is there, and it cannot grow. Whatever differs from a folder stands here.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import pathlib
import secrets
import shutil
import tempfile
import threading

from etils import epath

from supcon_jax.config import UserError

BACKENDS = {  # kind of address -> (the module that reads and writes it, how to get that)
    "gs": ("gcsfs", 'pip install -c constraints.txt -e ".[gcs]"'),
    "s3": ("s3fs", "pip install s3fs"),
    "az": ("adlfs", "pip install adlfs"),
    "hf": ("huggingface_hub", "pip install huggingface_hub"),
}
ALL = tuple(BACKENDS)
CHECKPOINTS = ("gs",)  # orbax would take any other address for the name of a local folder
GROWING = threading.Lock()


def kind(path) -> str:
    """"gs" of gs://bucket/run; empty for a folder."""
    before, mark, _ = os.fspath(path).partition("://")
    return before if mark else ""


def place(path, kinds: tuple[str, ...] = ALL) -> epath.Path:
    """A path as given by the user, ready to be read and written.

    kinds: of addresses that may be used here.
    Raises UserError: an address of another kind, its package is not installed, or the store cannot be reached.
    """
    if kind(path):
        if kind(path) not in kinds:
            known = " or ".join(f"{name}://" for name in kinds)
            raise UserError(f"{path}: give a folder, or an address that begins with {known}")
        reach(path)
    return epath.Path(path)


def reach(path) -> None:
    """Whether there is such a bucket and a way into it; nothing for a folder.

    Raises UserError: there is not, or the package that reads it is not installed.
    """
    name = kind(path)
    if not name:
        return
    module, cure = BACKENDS[name]
    if name == "gs":  # the plain JSON API; what it also offers asks another service about every bucket
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        for client in ("gcsfs", "google.auth"):
            logging.getLogger(client).setLevel(logging.CRITICAL)  # what fails is told below, in one line
    if importlib.util.find_spec(module) is None:
        raise UserError(f"{path}: {module} is not installed, which reads such addresses: {cure}")
    import fsspec

    fsspec.config.conf.setdefault(name, {}).setdefault("use_listings_cache", False)  # others write there too
    bucket = os.fspath(path).partition("://")[2].partition("/")[0]
    if not bucket:
        raise UserError(f"{path}: the name of the bucket is missing, as in {name}://BUCKET/run")
    with told(path):
        if name == "gs":
            fsspec.filesystem("gcs", finalize_on_close=True).ls(bucket, max_results=1)
        else:
            epath.Path(path).exists()


@contextlib.contextmanager
def told(path):
    """Turns what a store refuses into one line. Raises UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # every client has kinds of its own
        if not kind(path):
            raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        missing = isinstance(error, FileNotFoundError)
        what = "there is no such bucket" if missing else f"the store refuses it or cannot be reached ({reason})"
        cure = "correct the address, or let this account read and write there"
        raise UserError(f"{path}: {what}; {cure}") from error


def write(path, data: bytes | str) -> None:
    """Puts a file there, and the folders above it. A kill leaves the whole file, the one that was there before, or none."""
    path, data = epath.Path(path), data.encode() if isinstance(data, str) else data
    if kind(path):
        with told(path):
            path.write_bytes(data)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except BaseException:  # a full disk is not filled further
        part.unlink(missing_ok=True)
        raise


def append(path, line: str) -> None:
    """Adds a line to a file of few lines: in a store the file is written anew, so many lines belong into a Mirror."""
    path = epath.Path(path)
    if not kind(path):
        with path.open("a") as file:
            file.write(line + "\n")
        return
    with GROWING, told(path):
        before = path.read_bytes() if path.exists() else b""
        path.write_bytes(before + line.encode() + b"\n")


@contextlib.contextmanager
def held(path):
    """Holds a lock file while the block runs: True, or False where another process of this machine holds it. It is let go
    when its holder ends, however that ends. A store has no locks: always True."""
    if kind(path):
        yield True
        return
    import fcntl

    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


@contextlib.contextmanager
def local(path):
    """A file as a path on this machine: itself, or a copy that is removed afterwards. A UserError inside names the
    address, not the copy."""
    if not kind(path):
        yield pathlib.Path(path)
        return
    path = epath.Path(path)
    with tempfile.TemporaryDirectory(prefix="supcon_jax_") as folder:
        copy = pathlib.Path(folder, path.name)
        with told(path), path.open("rb") as there, copy.open("wb") as here:
            shutil.copyfileobj(there, here, 2**24)
        try:
            yield copy
        except UserError as error:
            raise UserError(str(error).replace(str(copy), str(path))) from None


class Mirror:
    """Files of a folder that grow while a run goes on: write them below `local`, and `send` what must not be lost.

    local: the folder itself; of a store, a folder on this machine from which `send` copies whole files there.
    """

    def __init__(self, folder):
        self.folder, self.sent = epath.Path(folder), {}
        self.own = tempfile.TemporaryDirectory(prefix="supcon_jax_") if kind(folder) else None
        self.local = pathlib.Path(self.own.name if self.own else folder)

    def fetch(self, name: str) -> pathlib.Path:
        """The local path of a file, with what an earlier run has sent of it."""
        there, here = self.folder / name, self.local / name
        if self.own and there.exists():
            with told(there):
                here.write_bytes(there.read_bytes())
        return here

    def send(self) -> None:
        """Copies the files that changed since the last time."""
        for file in sorted(self.local.rglob("*")) if self.own else ():
            if file.is_file():
                now = file.stat()
                if self.sent.get(file) != (now.st_size, now.st_mtime_ns):
                    write(self.folder / file.relative_to(self.local).as_posix(), file.read_bytes())
                    self.sent[file] = now.st_size, now.st_mtime_ns

    def close(self) -> None:
        self.send()
        if self.own:
            self.own.cleanup()
