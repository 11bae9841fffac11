"""The floors: a file imports only what lies strictly below it, and each outside package has one door."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "supcon_jax"
FLOORS = {
    "main": 8,
    "api": 7, "study": 7,
    "build": 6,
    "train": 5, "evals": 5, "convert": 5, "report": 5,
    "methods": 4, "gans": 4,
    "losses": 3, "nets": 3, "views": 3, "data": 3,
    "ops": 2, "hosts": 2, "storage": 2,
    "core": 1, "shard": 1, "config": 1,
    "ranges": 0, "fits": 0,
}  # fmt: skip
DOORS = {
    "grain": {"data"},
    "tensorflow_datasets": {"data"},
    "orbax": {"train/checkpoint"},
    "clu": {"train/hooks"},
    "tensorboardX": {"train/hooks"},
    "ml_collections": {"config"},
    "matplotlib": {"report"},
    "safetensors": {"convert/tensors"},
    "fsspec": {"storage"},
    "gcsfs": {"storage"},
    "tensorflow": set(),
    "torch": set(),
}
FILES = sorted(PACKAGE.rglob("*.py"))


def room(path: pathlib.Path) -> str:
    inside = path.relative_to(PACKAGE).with_suffix("")
    return "" if inside.parts == ("__init__",) else inside.parts[0]


def imported(path: pathlib.Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            if node.module == "supcon_jax":
                yield from (f"supcon_jax.{alias.name}" for alias in node.names)


def broken(path: pathlib.Path, modules):
    """Every rule that a file breaks, as lines."""
    own = room(path)
    for module in modules:
        first, *rest = module.split(".")
        if first == "supcon_jax" and rest:
            other = rest[0]
            if other != own and FLOORS[other] >= FLOORS.get(own, 0):
                yield f"{own} (floor {FLOORS.get(own, 0)}) imports {module} (floor {FLOORS[other]})"
        if first in DOORS:
            place = path.relative_to(PACKAGE).with_suffix("").as_posix()
            if not any(place == door or place.startswith(f"{door}/") for door in DOORS[first]):
                yield f"{place} imports {first}, whose door is {sorted(DOORS[first]) or 'nowhere'}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_a_file_imports_only_floors_below(path):
    assert not list(broken(path, imported(path)))


def test_every_room_has_a_floor():
    assert {room(path) for path in FILES} - {""} <= set(FLOORS)


def test_a_wrong_import_is_seen():
    path = PACKAGE / "ops" / "rows.py"
    assert list(broken(path, ["supcon_jax.losses.contrast"])) and list(broken(path, ["grain"]))
    assert list(broken(PACKAGE / "nets" / "text.py", ["supcon_jax.losses.match"])), "rooms of one floor"
    assert not list(broken(path, ["supcon_jax.ops.arrays", "supcon_jax.core", "jax"]))


def test_importing_the_package_is_light():
    import subprocess
    import sys

    code = "import supcon_jax, sys; print([m for m in ('jax', 'flax', 'orbax', 'grain') if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


@pytest.mark.slow
def test_no_word_of_tensorflow_is_needed():
    """Every module imports while tensorflow is blocked."""
    import subprocess
    import sys

    names = [p.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for p in FILES if p.stem != "__init__"]
    made = ("data.prepared", "data.cub_captions", "data.coco_captions")  # tfds builders, which tfds itself cannot import so
    names = [name for name in names if not name.endswith(made)]
    code = f"import sys; sys.modules['tensorflow'] = None\nimport importlib\nfor n in {names!r}: importlib.import_module(n)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
