"""Features of many pictures, batch by batch; those of real pictures are kept on disk between evaluations."""

import hashlib
import io
import json
import re

import numpy as np
from etils import epath

from supcon_jax import storage
from supcon_jax.config import UserError
from supcon_jax.evals.fid import finite
from supcon_jax.evals.streams import Content, labelled, reals


def extract(networks, parts):
    """One pass over pictures through every network.

    networks: of evals.protocol; parts: of evals.streams.
    Returns ({network name: (features f32[n, d], logits f32[n, c] or None)}, label [n, ...] or None, sizes (h, w),
    number of bad rows, hash of the pictures).
    Raises ValueError: no pictures, or features that are not finite.
    """
    found = {network.name: ([], []) for network in networks}
    label, bad, size, content = [], 0, None, Content()
    for part in parts:
        bad, size = bad + part.bad, part.images.shape[1:3]
        content.add(part)
        for network in networks:
            for rows, x in zip(found[network.name], network.features(part.images), strict=True):
                if x is not None:
                    rows.append(np.asarray(x, np.float32)[part.keep])
        if "label" in part.batch:
            label.append(part.batch["label"][:, 0][part.keep])
    if size is None:
        raise ValueError("no pictures to measure: the batches are empty")
    stacked = {name: tuple(np.concatenate(rows) if rows else None for rows in pair) for name, pair in found.items()}
    for name, pair in stacked.items():
        for rows in pair:
            if rows is not None:
                finite(f"features of {name}", rows)
    return stacked, labelled(np.concatenate(label)) if label else None, size, bad, str(content)


def digest(features, label, meta):
    """sha256 over what a cache file holds: values, shapes, types and the line that says what they are."""
    h = hashlib.sha256(meta.encode())
    for x in (features, label):
        h.update(f"{x.dtype} {x.shape}".encode())
        h.update(np.ascontiguousarray(x).tobytes())
    return h.hexdigest()


def save(path, features, label, meta):
    """Write a cache file in one move: a half-written one never bears the name."""
    label = np.zeros((0,), np.int32) if label is None else np.asarray(label)
    features, buffer = np.asarray(features, np.float32), io.BytesIO()
    sha = digest(features, label, meta)
    np.savez(buffer, features=features, label=label, meta=np.array(meta), sha256=np.array(sha))
    storage.write(path, buffer.getvalue())


def load(path, meta):
    """Read a cache file back: (features, label or None).

    Raises UserError: it cannot be read, holds other values than were written, or was written for something else.
    """
    try:
        with np.load(io.BytesIO(epath.Path(path).read_bytes()), allow_pickle=False) as file:
            features, label = file["features"], file["label"]
            said, sha = str(file["meta"]), str(file["sha256"])
    except Exception as error:  # zip, npy and zlib each raise their own kinds for a damaged file
        raise UserError(f"features cache cannot be read: {path} ({error}); delete the file") from error
    if sha != digest(features, label, said):
        raise UserError(f"features cache is damaged (its hash does not match): {path}; delete the file")
    if said != meta:
        raise UserError(f"features cache is of something else: {path} says {said}; delete the file")
    return features, label if len(label) else None


def real_features(network, batches, *, origin, limit=None, cache=None):
    """Features of real pictures, from the cache if the same were measured before.

    origin: data set and split, for names and messages. limit: how many pictures, None for all. cache: folder, or None.
    batches: a list, or something else that can be passed over again: once for the hash, once for the features.
    The cache is keyed by origin, limit, the network's weights and resize rule, and the hash of all the pictures and
    labels, so that a data set in which anything changed is measured anew.
    Returns (features f32[n, d], label or None, (h, w), hash of the pictures).
    """
    content, labels = Content(), hashlib.sha256()
    for part in reals(batches, limit):
        content.add(part)
        labels.update(np.ascontiguousarray(part.batch["label"][:, 0][part.keep]) if "label" in part.batch else b"")
    if content.size is None:
        raise ValueError(f"no pictures in {origin}")
    size = content.size[:2]
    meta = json.dumps(
        {"origin": origin, "limit": limit, "size": size, "network": network.name, "weights": network.sha256}
        | {"resize": f"{network.size} {network.resize}", "content": str(content), "labels": labels.hexdigest()[:16]}
    )
    name = f"{origin}_{network.name}_{'all' if limit is None else limit}_{size[0]}"
    key = hashlib.sha256(meta.encode()).hexdigest()[:16]
    path = cache and epath.Path(cache) / f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', name)}_{key}.npz"
    if path and path.exists():
        return *load(path, meta), size, str(content)
    stacked, label, size, *_ = extract([network], reals(batches, limit))
    if path:
        save(path, stacked[network.name][0], label, meta)
    return stacked[network.name][0], label, size, str(content)
