"""Weight files of this library: a tree of arrays as safetensors, with what is needed to rebuild its nets beside it."""

from __future__ import annotations

import json

import jax
import numpy as np
from etils import epath

from supcon_jax import storage
from supcon_jax.config import UserError
from supcon_jax.convert import rename, tensors


def save(path: epath.Path, tree, about: dict) -> None:
    """Writes {"a": {"b": array}} as "a/b" with `about` (plain, JSON-ready) in the file's metadata."""
    tensors.write(path, jax.device_get(tree), {"about": json.dumps(about)})


def load(path: epath.Path, kind: str | None = None) -> tuple[dict, dict, str]:
    """(tree, about, sha256) of a weight file. kind: what it must hold ("damsm", "attngan", ...); anything if left out.

    Raises UserError: it is missing, or holds something else.
    """
    path = storage.place(path)
    if not path.is_file():
        raise UserError(f"{path} is missing: train that stage first or give a weight file")
    with storage.local(path) as file:
        about = json.loads(tensors.metadata(file).get("about", "{}"))
        if "kind" not in about or kind not in (None, about["kind"]):
            have = about.get("kind", "foreign weights")
            raise UserError(f"{path} holds {have!r}, not {kind or 'weights of this library'!r}")
        wide = {k: x.astype(np.float32) if x.dtype == np.float16 else x for k, x in tensors.read(file).items()}
        return tensors.nest(wide), about, tensors.sha256(file)


def either(path, kind: str, table, like, classes: int = 0) -> dict:
    """Variables in the tree `like`, from a file of foreign names or from one that --mode=convert made of it.

    kind: of the latter; table: rules of the former. classes: 0 leaves the last linear layer, "fc", out.
    Raises UserError: another network, or wrong shapes.
    """
    with storage.local(path) as file:
        if "about" not in tensors.metadata(file):
            return rename.load(tensors.read(file), table, like)
    found = tensors.flatten(load(path, kind)[0], "/")
    return rename.load(found, [*([] if classes else [rename.Rule("params/fc/.*", None)]), *rename.OWN], like)
