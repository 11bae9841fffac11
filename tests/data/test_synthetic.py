"""The world of shapes: what the latents say is what the pixels show."""

import numpy as np
import pytest

from supcon_jax.config import UserError
from supcon_jax.data import synthetic
from supcon_jax.data.synthetic import ATTRIBUTES, COLOURS, COLUMNS, RGB, ROWS, SHAPES, SIZES, shapes
from supcon_jax.data.vocab import Vocab, tokenise


def pictures(source):
    return np.stack([source.image(i) for i in range(len(source))]).astype(np.float64) / 255


def object_mask(images):
    """Pixels that stand out from the background, which is the median of the picture's rim and inside."""
    background = np.median(images, axis=(1, 2), keepdims=True)
    return np.linalg.norm(images - background, axis=-1) > 0.35


@pytest.mark.parametrize("size", [24, 32, 64])
def test_colour_and_place_match_the_latents(size):
    source = shapes("train", size=size, records=400)
    images = pictures(source)
    mask = object_mask(images)
    y, x = np.mgrid[:size, :size] + 0.5
    count = mask.sum((1, 2))
    assert images.shape == (400, size, size, 3) and (count > 3).all()
    row = (mask * y).sum((1, 2)) / count // (size / 3)
    col = (mask * x).sum((1, 2)) / count // (size / 3)
    assert (row == source.known["row"]).mean() > 0.99 and (col == source.known["col"]).mean() > 0.99
    distance = np.linalg.norm(images - np.median(images, axis=(1, 2), keepdims=True), axis=-1)
    core = distance > 0.75 * distance.max((1, 2), keepdims=True)  # not the mixed pixels of the rim
    colour = (images * core[..., None]).sum((1, 2)) / core.sum((1, 2))[:, None]
    nearest = np.linalg.norm(colour[:, None] - RGB, axis=-1).argmin(1)
    assert (nearest == source.known["colour"]).mean() > 0.97
    for shape in range(8):  # a large one covers (5.2 / 3.4)^2 = 2.3 times as many pixels
        those = source.known["shape"] == shape
        ratio = count[those & (source.known["size"] == 1)].mean() / count[those & (source.known["size"] == 0)].mean()
        assert 1.5 < ratio < 3.2


def test_colour_and_place_can_be_seen_at_16_pixels():
    """Small bars are a few mixed pixels there: nearly all of the rest is plain."""
    source = shapes("train", size=16, records=400)
    images = pictures(source)
    distance = np.linalg.norm(images - np.median(images, axis=(1, 2), keepdims=True), axis=-1)
    brightest = distance.reshape(400, -1).argmax(1)
    assert (brightest // 16 * 3 // 16 == source.known["row"]).mean() > 0.97
    assert (brightest % 16 * 3 // 16 == source.known["col"]).mean() > 0.97
    colour = images.reshape(400, -1, 3)[np.arange(400), brightest]
    assert (np.linalg.norm(colour[:, None] - RGB, axis=-1).argmin(1) == source.known["colour"]).mean() > 0.9


def test_small_shapes_can_be_told_apart():
    """The best fitting of 8 shapes x 49 places names the shape: what a network could reach."""
    source = shapes("test", size=32, records=300)
    images = pictures(source)
    small = np.flatnonzero(source.known["size"] == 0)
    offsets = np.stack(np.meshgrid(*[np.linspace(-1.5, 1.5, 7)] * 2), -1).reshape(-1, 2).astype(np.float32)
    right = 0
    for i in small:
        errors = []
        for shape in range(8):
            jitter = offsets.T[..., None, None]
            many = np.full(len(offsets), shape)
            place = [np.full(len(offsets), source.known[name][i]) for name in ("row", "col")]
            radius = np.full((len(offsets), 1, 1), 3.4, np.float32)
            mask = synthetic._mask(many, *place, radius, jitter, 32)[..., None]
            back = np.median(images[i], (0, 1))
            fitted = mask * (RGB[source.known["colour"][i]] - back) + back
            errors.append(((fitted - images[i]) ** 2).sum((1, 2, 3)).min())
        right += np.argmin(errors) == source.known["shape"][i]
    assert right / len(small) > 0.95


def test_captions_tell_the_latents_and_nothing_else():
    source = shapes("train", size=24, records=300)
    vocab = Vocab.from_captions(source.captions)
    assert len(vocab) < 64
    orders = set()
    for i, captions in enumerate(source.captions):
        assert len(set(captions)) == len(captions) >= 4
        named = {
            SHAPES[source.known["shape"][i]], COLOURS[source.known["colour"][i]], ROWS[source.known["row"][i]],
            COLUMNS[source.known["col"][i]], SIZES[source.known["size"][i]],
        }  # fmt: skip
        for caption in captions:
            words = tokenise(caption)
            assert len(words) <= 12
            assert {word for word in words if word in ATTRIBUTES} == named
            orders.add(tuple("*" if word in ATTRIBUTES else word for word in words))
    assert len(orders) >= 6 and len({len(order) for order in orders}) >= 4


def test_labels_are_the_latents():
    single = shapes("train", size=24, records=200)
    multi = shapes("train", size=24, records=200, labels="multi")
    np.testing.assert_array_equal(single.known["shape"], multi.known["shape"])
    for i in range(200):
        assert single.classes[single.labels[i]] in (
            f"{COLOURS[single.known['colour'][i]]} {SHAPES[single.known['shape'][i]]}"
        )
        named = {word for word in tokenise(multi.captions[i][0]) if word in ATTRIBUTES}
        assert {multi.classes[c] for c in np.flatnonzero(multi.labels[i])} == named


def test_reproducible_and_independent_of_records():
    many, few = shapes("val", size=24, records=300), shapes("val", size=24, records=130)
    assert len(few) == 130 and few.captions == many.captions[:130]
    np.testing.assert_array_equal(pictures(few), pictures(many)[:130])
    other = shapes("val", size=24, records=130, seed=1)
    train = shapes("train", size=24, records=130)
    for unlike in (other, train):
        assert (unlike.labels != few.labels).mean() > 0.9
    np.testing.assert_array_equal(shapes("val", size=64, records=130).labels, few.labels)


@pytest.mark.parametrize("seed", range(4))
def test_heldout_pairs_never_appear_elsewhere(seed):
    held = set(shapes("heldout", size=24, records=500, seed=seed).labels.tolist())
    assert len(held) == 13
    for split in ("train", "val", "test"):
        seen = shapes(split, size=24, records=1500, seed=seed)
        assert set(seen.labels.tolist()) == set(range(64)) - held
        assert set(seen.known["shape"]) == set(range(8)) and set(seen.known["colour"]) == set(range(8))


def test_scenes():
    source = shapes("train", size=32, records=300, labels="multi", scenes=True)
    known, images = source.known, pictures(source)
    left = known["relation"] == 0
    assert 100 < left.sum() < 200
    assert (known["col"] < known["col2"])[left].all() and (known["row"] == known["row2"])[left].all()
    assert (known["row"] < known["row2"])[~left].all() and (known["col"] == known["col2"])[~left].all()
    assert ((known["shape"] != known["shape2"]) | (known["colour"] != known["colour2"])).all()
    held = synthetic.heldout(0)
    assert not held[known["shape"], known["colour"]].any() and not held[known["shape2"], known["colour2"]].any()
    hits = 0
    for i in range(300):
        first = f"{COLOURS[known['colour'][i]]} {SHAPES[known['shape'][i]]}"
        second = f"{COLOURS[known['colour2'][i]]} {SHAPES[known['shape2'][i]]}"
        for caption in source.captions[i]:
            words = tokenise(caption)
            assert len(words) <= 12 and first in caption and second in caption
            forward = "left" in words if left[i] else "above" in words
            assert forward != ("right" in words if left[i] else "below" in words)
            begins = caption.index(first) < caption.index(second)
            turned = caption.startswith(("left of", "above"))  # "left of the B there is a A"
            assert begins == (forward != turned)
        named = {SHAPES[known["shape"][i]], SHAPES[known["shape2"][i]], COLOURS[known["colour"][i]]}
        assert named <= {source.classes[c] for c in np.flatnonzero(source.labels[i])}
        for end in ("", "2"):  # the named colour stands in the named cell
            y, x = (int((known[k + end][i] + 0.5) * 32 / 3) for k in ("row", "col"))
            cell = images[i, max(y - 5, 0) : y + 6, max(x - 5, 0) : x + 6].reshape(-1, 3)
            hits += (np.linalg.norm(cell - RGB[known["colour" + end][i]], axis=-1) < 0.25).sum() >= 4
    assert hits >= 0.97 * 600
    vocab = Vocab.from_captions([*source.captions, *shapes("train", size=24, records=200).captions])
    assert len(vocab) < 64


@pytest.mark.parametrize("objects", [3, 4])
def test_scenes_of_more_objects(objects):
    source = shapes("train", size=32, records=200, labels="pairs", scenes=True, objects=objects)
    known, images, held = source.known, pictures(source), synthetic.heldout(0)
    ends = ("", "2", "3", "4")[:objects]
    assert set(known) == {k + end for k in ("shape", "colour", "row", "col", "size") for end in ends}
    assert (source.labels.sum(1) == objects).all() and source.classes == synthetic.PAIRS
    hits, orders = 0, set()
    for i in range(200):
        things = [f"{COLOURS[known['colour' + e][i]]} {SHAPES[known['shape' + e][i]]}" for e in ends]
        assert {source.classes[c] for c in np.flatnonzero(source.labels[i])} == set(things)
        assert len({(known["row" + e][i], known["col" + e][i]) for e in ends}) == objects
        for caption in source.captions[i]:
            assert len(tokenise(caption)) <= 12 and all(caption.count(thing) == 1 for thing in things)
            orders.add(tuple(np.argsort([caption.index(thing) for thing in things])))
        for end in ends:  # the named colour stands in the named cell
            assert not held[known["shape" + end][i], known["colour" + end][i]]
            y, x = (int((known[k + end][i] + 0.5) * 32 / 3) for k in ("row", "col"))
            cell = images[i, max(y - 5, 0) : y + 6, max(x - 5, 0) : x + 6].reshape(-1, 3)
            hits += (np.linalg.norm(cell - RGB[known["colour" + end][i]], axis=-1) < 0.25).sum() >= 4
    assert hits >= 0.97 * 200 * objects and len(orders) == {3: 6, 4: 24}[objects]


def test_label_vocabularies_are_coarse_and_fine():
    sources = {kind: shapes("train", size=16, records=400, labels=kind) for kind in synthetic.LABELS}
    known = sources["single"].known
    assert [len(sources[kind].classes) for kind in ("shape", "single", "placed", "multi", "pairs")] == [8, 64, 576, 24, 64]
    for i in range(400):
        named = {kind: source.classes[source.labels[i]] for kind, source in sources.items() if source.labels.ndim == 1}
        shape, colour = SHAPES[known["shape"][i]], COLOURS[known["colour"][i]]
        place = f"{ROWS[known['row'][i]]} {COLUMNS[known['col'][i]]}"
        assert named == {"shape": shape, "single": f"{colour} {shape}", "placed": f"{colour} {shape} {place}"}
    np.testing.assert_array_equal(sources["pairs"].labels.argmax(1), sources["single"].labels)
    np.testing.assert_array_equal(sources["pairs"].labels.sum(1), 1)


@pytest.mark.parametrize(
    "options",
    [{"size": 20}, {"labels": "both"}, {"scenes": True}, {"objects": 3}, {"scenes": True, "labels": "multi", "objects": 5},
     {"scenes": True, "labels": "multi", "objects": 1}],
)  # fmt: skip
def test_mistakes(options):
    with pytest.raises(UserError):
        shapes("train", records=10, **options)
    with pytest.raises(UserError, match="heldout"):
        shapes("training", records=10)
