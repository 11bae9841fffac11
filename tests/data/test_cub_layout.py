"""data/cub_layout.py: archives as a user has them, through the command line."""

import shutil
import tarfile

import pytest

from data.layouts import cub_layout, tar, zipped
from supcon_jax.config import UserError
from supcon_jax.data import cub_layout as layout
from supcon_jax.data import fetch as module
from supcon_jax.data.cub import cub


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    return cub_layout(tmp_path_factory.mktemp("birds"), per_class=2)


def _archives(birds, folder, nested=False):
    """The two archives as published: CUB_200_2011.tgz, and birds.zip with the captions (in a zip of their own) and lists."""
    folder.mkdir()
    with tarfile.open(folder / "CUB_200_2011.tgz", "w:gz") as archive:
        archive.add(birds / "CUB_200_2011", "CUB_200_2011")
    texts = {f"text/{p.relative_to(birds / 'text').as_posix()}": p.read_bytes() for p in (birds / "text").rglob("*.txt")}
    lists = {
        f"birds/{split}/filenames.pickle": (birds / split / "filenames.pickle").read_bytes() for split in ("train", "test")
    }
    junk = {"__MACOSX/text/001.X/a.txt": b"junk", "text/001.Black_footed_Albatross/._b.txt": b"junk"}
    if nested:
        inner = zipped(folder.parent / "text.zip", texts)
        zipped(folder / "birds.zip", {**lists, "birds/text.zip": inner.read_bytes(), **junk})
    else:
        zipped(folder / "birds.zip", {**lists, **{f"birds/{name}": data for name, data in texts.items()}, **junk})
    return folder


@pytest.mark.parametrize("nested", [False, True])
def test_cub_from_archives(birds, tmp_path, capsys, nested):
    command = [
        "cub",
        "--from",
        str(_archives(birds, tmp_path / "down", nested)),
        "--root",
        str(tmp_path / "data"),
        "--small",
    ]
    assert module.main(command) == 0
    out = capsys.readouterr().out
    assert "[found]    CUB_200_2011.tgz, NOT the published file" in out
    assert "[laid out] pictures: 8 new, 0 already there" in out and "[laid out] captions: 8 new" in out
    assert "[ok]       train: 4 pictures of 2 classes" in out and "[ok]       train/filenames.pickle" in out
    assert ("text.zip inside birds.zip" in out) == nested
    for split in ("train", "test"):
        assert cub(split, tmp_path / "data").keys == cub(split, birds).keys
        assert cub(split, tmp_path / "data").captions == cub(split, birds).captions
    assert not list((tmp_path / "data").rglob(".*"))
    assert module.main(command) == 0
    assert "[laid out] pictures: 0 new, 8 already there" in capsys.readouterr().out


def test_cub_from_folders_with_the_other_name_of_the_captions(birds, tmp_path):
    source = shutil.copytree(birds, tmp_path / "down" / "birds")
    (source / "cvpr2016_cub").mkdir()
    (source / "text").rename(source / "cvpr2016_cub" / "text_c10")
    layout.lay_out(tmp_path / "down", tmp_path / "data" / "cub", small=True, say=lambda line: None)
    assert cub("test", tmp_path / "data").captions == cub("test", birds).captions


def test_cub_counts_are_demanded(birds, tmp_path, capsys):
    source = _archives(birds, tmp_path / "down")
    assert module.main(["cub", "--from", str(source), "--root", str(tmp_path / "data")]) == 2
    assert "pictures 8 instead of 11788" in capsys.readouterr().err


def test_cub_says_what_is_missing(birds, tmp_path, capsys):
    source = _archives(birds, tmp_path / "down")
    (source / "birds.zip").unlink()
    assert module.main(["cub", "--from", str(source), "--root", str(tmp_path / "data"), "--small"]) == 2
    out, error = capsys.readouterr()
    assert "[MISSING]  text/: 0 files" in out and "[absent]   test/filenames.pickle" in out
    assert "text/ has no txt files" in error and "images" not in error
    for source, message in ((tmp_path / "no", "is no folder"), (None, "give --from DIR")):
        with pytest.raises(UserError, match=message):
            layout.lay_out(source, tmp_path / "nothing", say=lambda line: None)


def test_cub_notes_other_numbers_of_captions(birds, tmp_path, capsys):
    root = shutil.copytree(birds, tmp_path / "cub")
    next((root / "text").rglob("*.txt")).write_text("one\ntwo\n")
    assert module.main(["cub", "--root", str(tmp_path), "--small"]) == 0
    assert "1 pictures have 2 captions instead of 10" in capsys.readouterr().out


def test_cub_refuses_archives_with_a_way_out(tmp_path, capsys):
    (tmp_path / "down").mkdir()
    tar(tmp_path / "down" / "text.tgz", {"../text/001.A/b.txt": b"x"})
    assert module.main(["cub", "--from", str(tmp_path / "down"), "--root", str(tmp_path / "data"), "--small"]) == 2
    assert "leads out of the folder" in capsys.readouterr().err
    assert not list(tmp_path.rglob("b.txt"))


@pytest.mark.parametrize("name, keep", [("CUB_200_2011.tgz", 0.6), ("CUB_200_2011.tgz", 0.01), ("birds.zip", 0.6)])
def test_cub_archive_cut_short(birds, tmp_path, capsys, name, keep):
    path = _archives(birds, tmp_path / "down") / name
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    assert module.main(["cub", "--from", str(path.parent), "--root", str(tmp_path / "data"), "--small"]) == 2
    error = capsys.readouterr().err
    assert "fetch it" in error or "fetch its archive again" in error
    assert not list((tmp_path / "data").rglob(".*"))


def test_zip_with_a_wrong_sum(birds, tmp_path, capsys):
    path = _archives(birds, tmp_path / "down") / "birds.zip"
    path.write_bytes(path.read_bytes().replace(b"this small red bird", b"this small mad bird", 1))
    assert module.main(["cub", "--from", str(path.parent), "--root", str(tmp_path / "data"), "--small"]) == 2
    assert "could not be unpacked (Bad CRC-32" in capsys.readouterr().err
