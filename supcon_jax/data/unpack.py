"""Archives from elsewhere, read without trusting the paths in them."""

import hashlib
import pathlib
import shutil
import tarfile
import zipfile
import zlib

from supcon_jax.config import UserError
from supcon_jax.data.folder import outside

ENDINGS = (".tgz", ".tar.gz", ".tar", ".zip", ".whl")
DAMAGE = (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, zlib.error)  # gzip's own error is an OSError


def members(path, lenient=False):
    """The files of a tar or zip archive, one at a time: (name in the archive, function that opens it for reading).

    A name is a POSIX path that stays inside; writing below a folder of one's own is safe. Folders are left out.
    lenient: links are left out too, as published sets may hold some, instead of refused.
    Raises UserError: no archive, damaged, a name that leads out of the folder, a link or a device.
    """
    path = pathlib.Path(path)
    try:
        yield from _zip(path) if path.name.endswith((".zip", ".whl")) else _tar(path, lenient)
    except DAMAGE as error:
        raise UserError(f"{path} cannot be read as an archive ({error}): fetch it again") from None


def write(opened, path):
    """Copy a file that `members` found to a path; it appears there whole or not at all.

    Raises UserError: the archive ends too early or is damaged there, or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        with opened() as read, part.open("wb") as file:
            shutil.copyfileobj(read, file)
        part.replace(path)
    except DAMAGE as error:
        part.unlink(missing_ok=True)
        raise UserError(f"{path} could not be unpacked ({error}): fetch its archive again, or make room") from None


def sha256(path):
    """Hex digest of a file."""
    with pathlib.Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tar(path, lenient):
    with tarfile.open(path) as archive:  # in the order of the file: a compressed one must not be wound back
        for member in archive:
            _check(path, member.name)
            if member.isfile():
                yield _clean(member.name), lambda member=member: archive.extractfile(member)
            elif not member.isdir() and not lenient:
                raise UserError(f"{path} holds {member.name!r}, a link or a device: it was not unpacked")


def _zip(path):
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            _check(path, member.filename)
            if (member.external_attr >> 16) & 0o170000 == 0o120000:
                raise UserError(f"{path} holds {member.filename!r}, a link or a device: it was not unpacked")
            if not member.is_dir():
                yield _clean(member.filename), lambda member=member: archive.open(member)


def _check(path, name):
    if outside(name):
        raise UserError(f"{path} holds {name!r}, which leads out of the folder: it was not unpacked")


def _clean(name):
    return str(pathlib.PurePosixPath(name))
