"""Folders and stores behind one set of calls: whole files, files that grow, copies, and what is refused in one line."""

import os
import pathlib

import pytest
from etils import epath

from gcs import store  # noqa: F401  (a fixture)
from supcon_jax import storage
from supcon_jax.config import UserError

CURE = "correct the address, or let this account read and write there"


@pytest.fixture(params=("folder", "store"))
def folder(request, tmp_path):
    """A folder on this machine, and one of the store."""
    if request.param == "folder":
        return tmp_path / "run"
    request.getfixturevalue("store")
    return storage.place("gs://mine/run")


def names(folder):
    return sorted(path.name for path in epath.Path(folder).iterdir())


def test_a_file_is_written_with_its_folders_and_nothing_else_is_left(folder):
    storage.write(folder / "deep" / "one.txt", "wörds")
    storage.write(folder / "deep" / "one.txt", "again")
    storage.write(folder / "deep" / "two", b"\x00\xff\r\n--==0==")
    assert names(folder / "deep") == ["one.txt", "two"] and names(folder) == ["deep"]
    assert (folder / "deep" / "one.txt").read_text() == "again"
    assert (folder / "deep" / "two").read_bytes() == b"\x00\xff\r\n--==0=="


def test_a_large_file_goes_in_pieces(store):  # noqa: F811
    data = os.urandom(12 * 2**20 + 5)
    storage.write(storage.place("gs://mine/large"), data)
    assert store.files["mine"]["large"] == data and store.started  # a resumable upload
    with storage.local("gs://mine/large") as copy:
        assert copy.read_bytes() == data and copy.name == "large"
    assert not copy.exists()


def test_a_kill_before_the_end_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    storage.write(tmp_path / "DONE", "old")
    monkeypatch.setattr(type(epath.Path("x")), "write_bytes", lambda path, data: path.write_text("ne") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        storage.write(tmp_path / "DONE", "new")
    assert (tmp_path / "DONE").read_text() == "old"


def test_lines_are_added_to_what_is_there(folder):
    storage.write(folder / "skipped.jsonl", "first\n")
    storage.append(folder / "skipped.jsonl", "second")
    storage.append(folder / "skipped.jsonl", "thïrd")
    assert (folder / "skipped.jsonl").read_text() == "first\nsecond\nthïrd\n"


def test_a_local_file_is_its_own_copy(tmp_path):
    (tmp_path / "x").write_text("a")
    with storage.local(tmp_path / "x") as path:
        assert path == tmp_path / "x"
    assert path.exists()


def test_a_mistake_in_a_copy_names_the_address(store):  # noqa: F811
    store.put("mine", "run/w.safetensors", b"x")
    with pytest.raises(UserError, match="^gs://mine/run/w.safetensors is damaged$"):
        with storage.local("gs://mine/run/w.safetensors") as path:
            raise UserError(f"{path} is damaged")


def test_files_that_grow(folder):
    """An earlier run's lines are fetched; what was written since is there after `send`, and after `close`."""
    storage.write(folder / "log", "old\n")
    mirror = storage.Mirror(folder)
    path = mirror.fetch("log")
    with path.open("a") as file:
        file.write("new\n")
    mirror.send()
    assert (folder / "log").read_text() == "old\nnew\n"
    (mirror.local / "deep").mkdir()
    (mirror.local / "deep" / "trace").write_bytes(b"\x00")
    mirror.close()
    assert (folder / "deep" / "trace").read_bytes() == b"\x00" and names(folder) == ["deep", "log"]
    assert mirror.local.exists() == (not storage.kind(folder))  # the copy goes, the folder stays


def test_only_what_changed_is_sent_again(store):  # noqa: F811
    mirror = storage.Mirror(storage.place("gs://mine/run"))
    for name in ("a", "b"):
        (mirror.local / name).write_text("x")
    mirror.send()
    (mirror.local / "b").write_text("xy")
    mirror.send()
    mirror.close()
    assert store.uploads == ["run/a", "run/b", "run/b"] and store.under("run") == {"a": b"x", "b": b"xy"}


def test_what_others_write_is_seen_at_once(store):  # noqa: F811
    """No listing is remembered: the processes of a run wait for each other's files."""
    folder = storage.place("gs://mine/run")
    storage.write(folder / "a", "x")
    assert names(folder) == ["a"] and not (folder / "b").exists()
    store.put("mine", "run/b", b"x")
    assert names(folder) == ["a", "b"] and (folder / "b").exists()


REFUSED = {  # address, what its line says
    "bucket": ("gs://mime/run", "gs://mime/run: there is no such bucket; " + CURE),
    "permission": ("gs://closed/run", "somebody does not have storage.objects access to the bucket.); " + CURE),
    "no bucket": ("gs:///run", "the name of the bucket is missing, as in gs://BUCKET/run"),
    "kind": ("ftp://mine/run", "give a folder, or an address that begins with gs:// or s3:// or az:// or hf://"),
    "package": ("s3://mine/run", "s3fs is not installed, which reads such addresses: pip install s3fs"),
}


@pytest.mark.parametrize("address,said", REFUSED.values(), ids=REFUSED)
def test_a_bad_address_is_refused_in_one_line(store, address, said, caplog):  # noqa: F811
    with pytest.raises(UserError) as caught:
        storage.place(address)
    assert str(caught.value).startswith(address) and said in str(caught.value) and "\n" not in str(caught.value)
    assert not caplog.text  # the clients log what they raise


def test_a_missing_client_is_named_with_the_extra(monkeypatch):
    monkeypatch.setattr(storage.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'^gs://mine/run: gcsfs is not installed.* -c constraints.txt -e "\.\[gcs\]"$'):
        storage.place("gs://mine/run")


def test_a_bucket_that_can_only_be_read_is_refused_at_the_first_file(store, caplog):  # noqa: F811
    folder = storage.place("gs://readonly/run")
    for refused in (lambda: storage.write(folder / "a", "x"), lambda: storage.append(folder / "a", "x")):
        with pytest.raises(UserError, match="somebody does not have storage.objects access.*let this account read and write"):
            refused()
    assert not caplog.text and not store.files["readonly"]


def test_a_folder_is_only_a_path(tmp_path):
    assert storage.place(tmp_path) == epath.Path(tmp_path) and not storage.kind(tmp_path)
    assert storage.kind(pathlib.Path("a/b")) == "" and storage.kind("gs://mine") == "gs"
    storage.reach(tmp_path / "none")
