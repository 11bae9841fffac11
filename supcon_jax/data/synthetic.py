"""The world of coloured shapes: pictures and captions whose truth is known, made in a moment from a seed.

Latents: 8 shapes x 8 colours x 3 rows x 3 columns x 2 sizes = 1152. Everything else (place within the cell, shade,
background, noise, wording) is nuisance.
"""

import numpy as np

from supcon_jax.config import UserError
from supcon_jax.data.source import Source

SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring", "bar", "frame")
COLOURS = ("red", "green", "blue", "yellow", "purple", "cyan", "pink", "white")
RGB = np.array(
    [(0.9, 0.1, 0.1), (0.1, 0.65, 0.15), (0.15, 0.25, 0.95), (0.95, 0.9, 0.15)]
    + [(0.6, 0.15, 0.75), (0.1, 0.85, 0.9), (1.0, 0.5, 0.7), (0.95, 0.95, 0.95)],
    np.float32,
)
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "centre", "right")
SIZES = ("small", "large")
RELATIONS = ("left of", "above")
PAIRS = tuple(f"{colour} {shape}" for shape in SHAPES for colour in COLOURS)  # single label = 8 * shape + colour
PLACES = tuple(f"{row} {column}" for row in ROWS for column in COLUMNS)
ATTRIBUTES = SHAPES + COLOURS + ROWS + COLUMNS + SIZES  # columns of the multi-hot labels
LABELS = {  # kind -> its classes
    "shape": SHAPES, "single": PAIRS, "placed": tuple(f"{pair} {place}" for pair in PAIRS for place in PLACES),
    "multi": ATTRIBUTES, "pairs": PAIRS,
}  # fmt: skip
SPLITS = ("train", "val", "test", "heldout")
PIXELS = (16, 24, 32, 64)
OBJECTS = 4  # most in a scene
BLOCK = 128  # records drawn together: a record is the same however many others are asked for
PER_RECORD = 5  # captions

ONE = (
    "a {z} {c} {s} at the {r} {q}",
    "{z} {c} {s} in the {r} {q} of the picture",
    "at the {r} {q} there is a {z} {c} {s}",
    "the {r} {q} holds one {z} {s} that is {c}",
    "{c} {s} {r} {q} {z}",
    "a {s} drawn {z} in {c} at {r} {q}",
    "look at the {z} {s} painted {c} near the {r} {q}",
    "this is a {c} {s} of {z} size on the {r} {q}",
)
TWO = (
    ("a {a} left of a {b}", "a {b} right of a {a}", "{a} left of {b}", "the {a} is left of the {b}")
    + ("left of the {b} there is a {a}", "look at the {b} on the right of a {a}"),
    ("a {a} above a {b}", "a {b} below a {a}", "{a} above {b}", "the {a} is above the {b}")
    + ("above the {b} there is a {a}", "look at the {b} painted below a {a}"),
)
MANY = ("{many}", "a picture of {many}", "there are {many}", "the {many}", "look at {many}", "{many} in one picture")


def shapes(split, root=None, *, size=32, records=6000, seed=0, labels="single", scenes=False, objects=2):
    """Coloured shapes: one split, rendered at once.

    split: "train", "val", "test" (each its own stream of draws) or "heldout": the 13 of the 64 (shape, colour) pairs
        that never occur in the others.
    root: not used; all sets are called alike.
    size: pixels, 16, 24, 32 or 64. records: how many; the first ones do not depend on the number. seed: of everything.
    labels: one for each record: "shape", 8 classes; "single": the (shape, colour) pair, 64; "placed": that pair in its cell,
        576. Multi-hot: "multi" over shape, colour, row, column and size, 24; "pairs": over the 64 pairs.
    scenes: several objects; labels, which must be multi-hot, unite those of all.
    objects: how many of them, 2 to 4. Two: "a red circle left of a blue square". More: "a red circle, a blue square and
        a green ring" in any order, each in a cell of its own, no pair twice.
    Returns Source; `known` holds i32[records] shape, colour, row, col, size, with scenes shape2, colour2, ... of each
    other object, and of two relation (0: the first is left of the second, 1: above).
    Raises UserError: an unknown split, size or kind of labels; single labels for scenes; too few or many objects.
    """
    if split not in SPLITS:
        raise UserError(f"shapes has no split {split!r}: use one of {', '.join(SPLITS)}")
    if size not in PIXELS:
        raise UserError(f"data.size={size} is not rendered by shapes: use one of {', '.join(map(str, PIXELS))}")
    if labels not in LABELS or (scenes and labels not in ("multi", "pairs")):
        known = f"use one of {', '.join(LABELS)}, and multi or pairs for scenes"
        raise UserError(f"shapes with labels={labels!r} and scenes={scenes}: {known}")
    if not 2 <= objects <= OBJECTS or (objects != 2 and not scenes):
        raise UserError(f"shapes with objects={objects} and scenes={scenes}: a scene has 2 to {OBJECTS} objects")
    ends = tuple(str(i) if i > 1 else "" for i in range(1, 1 + (objects if scenes else 1)))  # of the names of latents
    known, captions, blocks = [], [], []
    for block in range(-(-records // BLOCK)):
        stream = np.random.SeedSequence([seed, SPLITS.index(split), len(ends) - 1, block])
        latents, words, pixels = (np.random.Generator(np.random.Philox(child)) for child in stream.spawn(3))
        drawn = _latents(latents, split, seed, scenes) if len(ends) < 3 else _many(latents, split, seed, ends)
        known.append(drawn)
        captions += _captions(drawn, words, scenes) if len(ends) < 3 else _listed(drawn, words, ends)
        blocks.append(_render(drawn, pixels, size, ends))
    known = {name: np.concatenate([drawn[name] for drawn in known])[:records] for name in known[0]}
    pictures = np.concatenate(blocks)[:records]
    return Source(
        name="shapes",
        split=split,
        captions=captions[:records],
        labels=_labels(known, labels, ends),
        classes=LABELS[labels],
        image=pictures.__getitem__,
        keys=[f"{split}-{i:06d}" for i in range(records)],
        known=known,
    )


def heldout(seed):
    """The (shape, colour) pairs kept out of train, val and test: bool[8, 8], 13 of them.

    At most two for each shape and for each colour, so that every shape and every colour is seen in training.
    """
    rng = np.random.default_rng([seed, len(SPLITS)])
    shape, colour = rng.permutation(8), rng.permutation(8)
    held = np.zeros((8, 8), bool)
    held[shape, colour] = True
    held[shape[:5], np.roll(colour, -3)[:5]] = True
    return held


def _latents(rng, split, seed, scenes):
    """Latents of one block of records: dict of i32[BLOCK]."""
    allowed = np.flatnonzero(heldout(seed).ravel() == (split == "heldout"))
    first = rng.integers(len(allowed), size=BLOCK)
    other = (first + 1 + rng.integers(len(allowed) - 1, size=BLOCK)) % len(allowed)  # never the same pair twice
    row, col, row2, col2 = rng.integers(3, size=(4, BLOCK))
    size, size2 = rng.integers(2, size=(2, BLOCK))
    relation = rng.integers(2, size=BLOCK)
    near = rng.integers(3, size=BLOCK)  # cells (0, 1), (0, 2) or (1, 2) along the relation
    known = {"shape": allowed[first] // 8, "colour": allowed[first] % 8, "row": row, "col": col, "size": size}
    if scenes:
        before, behind = np.array([0, 0, 1])[near], np.array([1, 2, 2])[near]
        known["row"], row2 = np.where(relation == 0, (row, row), (before, behind))
        known["col"], col2 = np.where(relation == 0, (before, behind), (col, col))
        known |= {"shape2": allowed[other] // 8, "colour2": allowed[other] % 8, "row2": row2, "col2": col2}
        known |= {"size2": size2, "relation": relation}
    return {name: values.astype(np.int32) for name, values in known.items()}


def _captions(known, rng, scenes):
    """Some of the wordings for each record of a block, in random order."""
    order = rng.permuted(np.tile(np.arange(len(TWO[0]) if scenes else len(ONE)), (BLOCK, 1)), axis=1)[:, :PER_RECORD]
    out = []
    for i, chosen in enumerate(order.tolist()):
        shape, colour = SHAPES[known["shape"][i]], COLOURS[known["colour"][i]]
        if scenes:
            a, b = f"{colour} {shape}", f"{COLOURS[known['colour2'][i]]} {SHAPES[known['shape2'][i]]}"
            out.append(tuple(TWO[known["relation"][i]][k].format(a=a, b=b) for k in chosen))
        else:
            row, col, size = ROWS[known["row"][i]], COLUMNS[known["col"][i]], SIZES[known["size"][i]]
            out.append(tuple(ONE[k].format(s=shape, c=colour, r=row, q=col, z=size) for k in chosen))
    return out


def _many(rng, split, seed, ends):
    """Latents of one block of records with three objects or more: other pairs, in other cells."""
    allowed = np.flatnonzero(heldout(seed).ravel() == (split == "heldout"))
    pairs, cells = (rng.permuted(np.tile(x, (BLOCK, 1)), axis=1) for x in (allowed, np.arange(9)))
    known = {}
    for i, end in enumerate(ends):
        known |= {"shape" + end: pairs[:, i] // 8, "colour" + end: pairs[:, i] % 8}
        known |= {"row" + end: cells[:, i] // 3, "col" + end: cells[:, i] % 3, "size" + end: rng.integers(2, size=BLOCK)}
    return {name: values.astype(np.int32) for name, values in known.items()}


def _listed(known, rng, ends):
    """Captions of one block that name three objects or more, in a random order each time."""
    wordings = rng.permuted(np.tile(np.arange(len(MANY)), (BLOCK, 1)), axis=1)[:, :PER_RECORD]
    out = []
    for i, chosen in enumerate(wordings.tolist()):
        things = [f"{COLOURS[known['colour' + end][i]]} {SHAPES[known['shape' + end][i]]}" for end in ends]
        orders = [[things[k] for k in rng.permutation(len(things))] for _ in chosen]
        lists = [f"{', '.join(order[:-1])} and {order[-1]}" for order in orders]
        out.append(tuple(MANY[k].format(many=many) for k, many in zip(chosen, lists, strict=True)))
    return out


def _labels(known, kind, ends):
    """i32[records], or u8[records, c] multi-hot that unite those of all objects."""
    if kind == "shape":
        return known["shape"]
    pair = {end: 8 * known["shape" + end] + known["colour" + end] for end in ends}
    if kind in ("single", "placed"):
        return pair[""] if kind == "single" else 9 * pair[""] + 3 * known["row"] + known["col"]
    out = np.zeros((len(known["shape"]), len(LABELS[kind])), np.uint8)
    starts = np.cumsum([0, len(SHAPES), len(COLOURS), len(ROWS), len(COLUMNS)])
    for end in ends:
        found = [pair[end]] if kind == "pairs" else [
            start + known[name + end] for name, start in zip(("shape", "colour", "row", "col", "size"), starts, strict=True)
        ]  # fmt: skip
        for columns in found:
            out[np.arange(len(out)), columns] = 1
    return out


def _render(known, rng, size, ends):
    """Pictures of one block: u8[BLOCK, size, size, 3]."""
    unit = size / 32
    picture = np.broadcast_to(rng.uniform(0, 0.45, (BLOCK, 1, 1, 1)), (BLOCK, size, size, 3)).astype(np.float32)
    for end in ends:
        jitter = rng.uniform(-1, 1, (2, BLOCK, 1, 1)).astype(np.float32) * np.float32((0.7 if len(ends) > 1 else 1.5) * unit)
        radius = np.array([3.4, 5.2], np.float32)[known["size" + end]][:, None, None] * np.float32(unit)
        mask = _mask(known["shape" + end], known["row" + end], known["col" + end], radius, jitter, size)[..., None]
        colour = RGB[known["colour" + end]] + rng.normal(0, 0.04, (BLOCK, 3)).astype(np.float32)
        picture += mask * (colour[:, None, None] - picture)
    picture += np.float32(0.06) * rng.standard_normal(picture.shape, np.float32)
    return np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8)


def _mask(shape, row, col, radius, jitter, size):
    """Share of each pixel that the shape covers, f32[n, size, size], from the signed distance to its outline."""
    centre = (np.stack([row, col]).astype(np.float32)[..., None, None] + 0.5) * np.float32(size / 3) + jitter
    pixel = np.arange(size, dtype=np.float32) + np.float32(0.5)
    y, x = pixel[:, None] - centre[0], pixel[None, :] - centre[1]  # [n, size, 1], [n, 1, size]
    mask = np.empty((len(shape), size, size), np.float32)
    for kind in range(len(SHAPES)):
        those = np.flatnonzero(shape == kind)
        distance = _distance(kind, x[those], y[those], radius[those])
        mask[those] = np.clip(0.5 - distance, 0, 1)
    return mask


def _distance(kind, x, y, r):
    """Signed distance in pixels from (x, y) to one kind of outline of radius r, negative inside (exact near it)."""
    ax, ay = np.abs(x), np.abs(y)
    match SHAPES[kind]:
        case "circle":
            return np.hypot(x, y) - r
        case "square":
            return np.maximum(ax, ay) - 0.86 * r
        case "triangle":  # equal sides, one corner up; y points down
            return np.maximum(0.866 * ax - 0.5 * y, y) - 0.56 * r
        case "diamond":
            return (ax + ay - 1.15 * r) * np.float32(np.sqrt(0.5))
        case "cross":
            arm, reach = 0.3 * r, 1.05 * r
            return np.minimum(np.maximum(ax - arm, ay - reach), np.maximum(ax - reach, ay - arm))
        case "ring":
            return np.abs(np.hypot(x, y) - 0.78 * r) - 0.22 * r
        case "bar":
            return np.maximum(ax - 1.1 * r, ay - 0.36 * r)
        case "frame":
            return np.abs(np.maximum(ax, ay) - 0.74 * r) - 0.2 * r
