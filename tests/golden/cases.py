"""The cases that a directory of reference numbers holds."""

import json
import pathlib
from dataclasses import dataclass

import numpy as np
import pytest


@dataclass(frozen=True)
class Case:
    """One case of one file: `arrays()` reads its numbers, `weights` is the weight file beside it, if there is one."""

    folder: pathlib.Path
    file: str
    name: str
    entry: dict

    @property
    def family(self):
        return self.entry["family"]

    @property
    def weights(self):
        return self.folder / self.entry["weights"] if "weights" in self.entry else None

    def arrays(self):
        """The arrays of this case by name (of the whole file, where it is not divided into cases)."""
        prefix = f"{self.name}/" if self.name else ""
        with np.load(self.folder / self.file) as data:
            return {key[len(prefix) :]: data[key] for key in data.files if key.startswith(prefix)}

    def __str__(self):
        stem = pathlib.PurePath(self.file).stem
        return f"{stem}-{self.name}" if self.name else stem


def read_cases(folder):
    """Every case that a directory of reference numbers holds, in the order of its index."""
    folder = pathlib.Path(folder).absolute()
    if not (folder / "index.json").is_file():
        raise pytest.UsageError(f"no index.json in {folder}: give --fixtures a directory of reference numbers")
    index = json.loads((folder / "index.json").read_text())
    return [Case(folder, file, name, entry) for file, entry in index.items() for name in entry.get("cases") or [""]]
