"""Batches: partners, order, resume, shares of processes, bad records."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from supcon_jax.config import UserError
from supcon_jax.data import DATA
from supcon_jax.data.source import BadRecord, Skipped, Source, batches, chosen
from supcon_jax.data.synthetic import shapes
from supcon_jax.data.vocab import Vocab


@pytest.fixture(scope="module")
def single():
    return shapes("train", size=24, records=200)


@pytest.fixture(scope="module")
def vocab(single):
    return Vocab.from_captions(single.captions)


def take(source, vocab, count, **options):
    options = {"batch": 8, "size": 24, "words": 12, "seed": 3, **options}
    it = batches(source, vocab, **options)
    out = list(itertools.islice(it, count))
    it.close()
    return out


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def joined(items, name):
    return np.concatenate([item[name] for item in items])


def test_fields(single, vocab):
    (item,) = take(single, vocab, 1, partner="same_label")
    shapes_ = {name: (value.dtype.name, value.shape) for name, value in item.items()}
    assert shapes_ == {
        "image": ("uint8", (8, 2, 24, 24, 3)), "text": ("int32", (8, 2, 12)), "text_len": ("int32", (8, 2)),
        "label": ("int32", (8, 2)), "index": ("int32", (8, 2)),
    }  # fmt: skip
    for row, view in np.ndindex(8, 2):
        record = item["index"][row, view]
        np.testing.assert_array_equal(item["image"][row, view], single.image(record))
        assert item["label"][row, view] == single.labels[record]
        assert vocab.decode(item["text"][row, view]) in single.captions[record]
        assert (item["text"][row, view] > 0).sum() == item["text_len"][row, view]


def test_epochs_are_permutations_and_differ(single, vocab):
    index = joined(take(single, vocab, 50), "index")[:, 0].reshape(2, 200)
    assert (np.sort(index, 1) == np.arange(200)).all()
    assert (index[0] != index[1]).mean() > 0.9 and (index[0] != np.arange(200)).mean() > 0.9
    other = joined(take(single, vocab, 50, seed=4), "index")[:, 0].reshape(2, 200)
    for order in other:  # neither epoch of another seed repeats one of ours
        assert (order != index).mean() > 0.9


@pytest.mark.parametrize("partner", ["none", "same_image", "same_label"])
def test_order_does_not_depend_on_threads(single, vocab, partner):
    runs = [take(single, vocab, 12, partner=partner, threads=threads) for threads in (0, 1, 3)]
    for other in runs[1:]:
        for a, b in zip(runs[0], other, strict=True):
            same(a, b)


def test_resume_in_the_middle(single, vocab):
    options = {"batch": 8, "size": 20, "words": 6, "seed": 3, "partner": "same_label", "crop": "resize_crop"}
    whole = batches(single, vocab, **options)
    first = [next(whole) for _ in range(30)]
    state = json.loads(json.dumps(whole.state()))
    after = [next(whole) for _ in range(30)]  # over the end of the epoch
    again = batches(single, vocab, **options, threads=0)
    again.restore(state)
    for a in after:
        same(a, next(again))
    same(first[7], next(batches(single, vocab, **options, start=7)))
    halves = batches(single, vocab, **{**options, "batch": 4})  # the same records in smaller batches
    halves.restore(state)
    np.testing.assert_array_equal(joined([next(halves), next(halves)], "index"), after[0]["index"])
    for wrong in ({"seed": 4}, {"batch": 7}, {"train": False}):
        with pytest.raises(UserError, match="go on with"):
            batches(single, vocab, **{**options, **wrong}).restore(state)
    with pytest.raises(UserError, match="records="):
        batches(shapes("train", size=24, records=100), vocab, **options).restore(state)


@pytest.mark.parametrize("train", [True, False])
def test_shares_of_processes_make_the_same_batch(single, vocab, train):
    options = {"partner": "same_label", "crop": "resize_crop", "size": 20, "batch": 12, "train": train, "words": 6}
    whole = take(single, vocab, 17, **options)
    assert len(whole) == 17  # in evaluation 17 are all
    for count in (2, 3):
        shares = [take(single, vocab, 17, shard=(i, count), **options) for i in range(count)]
        for k, item in enumerate(whole):
            same(item, {name: np.concatenate([share[k][name] for share in shares]) for name in item})
    with pytest.raises(UserError, match="multiple of 5"):
        take(single, vocab, 1, shard=(0, 5))


def test_partner_shares_the_class_and_is_another(single, vocab):
    items = take(single, vocab, 250, partner="same_label")
    index, label = joined(items, "index"), joined(items, "label")
    sizes = np.bincount(single.labels, minlength=64)[label[:, 0]]
    assert (label[:, 0] == label[:, 1]).all()
    assert ((index[:, 0] != index[:, 1]) == (sizes > 1)).all() and (sizes > 1).mean() > 0.95
    seen = {}
    for a, b in index:
        seen.setdefault(a, []).append(b)
    for a, partners in seen.items():  # ten draws: of several possible ones more than one comes up
        assert len(set(partners)) > 1 or (single.labels == single.labels[a]).sum() <= 3


def test_partner_is_uniform(vocab):
    """One class of 5: chi-squared of 4 partners of record 0 under 16.3 (p = 0.001, 3 degrees of freedom)."""
    world = shapes("train", size=24, records=5)
    source = dataclasses.replace(world, labels=np.zeros(5, np.int32))
    index = joined(take(source, vocab, 1000, batch=5, partner="same_label"), "index")
    counts = np.bincount(index[index[:, 0] == 0, 1], minlength=5)
    assert counts[0] == 0 and ((counts[1:] - 250) ** 2 / 250).sum() < 16.3
    items = take(source, vocab, 1000, batch=5)
    picks, index = joined(items, "text")[:, 0], joined(items, "index")[:, 0]
    for record in range(5):  # each of 5 captions of each record
        _, counts = np.unique(picks[index == record], axis=0, return_counts=True)
        assert len(counts) == 5 and ((counts - 200) ** 2 / 200).sum() < 18.5


def test_multi_label_partner(vocab):
    """Label first, record then: 0 has labels {0, 1}, held by 1 and by 3 others: record 1 comes half the time."""
    labels = np.zeros((7, 4), np.uint8)
    labels[0, [0, 1]] = labels[1, 0] = labels[2:5, 1] = labels[5, 3] = 1  # 5 is alone in its class, 6 has none
    source = dataclasses.replace(shapes("train", size=24, records=7), labels=labels, classes=tuple("abcd"))
    items = take(source, vocab, 1000, batch=7, partner="same_label")
    index, text = joined(items, "index"), joined(items, "text")
    counts = np.bincount(index[index[:, 0] == 0, 1], minlength=7)
    assert abs(counts[1] - 500) < 60 and (np.abs(counts[2:5] - 167) < 45).all() and counts.sum() == 1000
    assert counts[[0, 5, 6]].sum() == 0
    assert (index[index[:, 0] == 1, 1] == 0).all()
    for lone in (5, 6):
        rows = index[:, 0] == lone
        assert (index[rows, 1] == lone).all() and (text[rows, 0] != text[rows, 1]).any(1).all()
    label = joined(items, "label")
    assert label.dtype == np.float32 and label.shape[1:] == (2, 4)
    np.testing.assert_array_equal(label, labels[index])


def test_same_image_has_another_caption_and_its_own_crop(single, vocab):
    items = take(single, vocab, 20, partner="same_image", crop="resize_crop", size=20)
    index, text, image = (joined(items, name) for name in ("index", "text", "image"))
    assert (index[:, 0] == index[:, 1]).all()
    assert (text[:, 0] != text[:, 1]).any(1).all()
    assert (image[:, 0] != image[:, 1]).any((1, 2, 3)).mean() > 0.8
    bare = dataclasses.replace(single, labels=None)
    items = take(bare, vocab, 3, partner="same_label")
    assert (joined(items, "label") == -1).all()
    assert (joined(items, "index")[:, 0] == joined(items, "index")[:, 1]).all()


def test_evaluation_goes_through_once_and_fills_up(single, vocab):
    items = take(single, vocab, None, batch=48, train=False)
    assert len(items) == 5
    valid, index = joined(items, "valid"), joined(items, "index")[:, 0]
    assert valid.dtype == np.float32 and valid.sum() == 200 and (valid[200:] == 0).all()
    assert index.tolist() == [*range(200), *[-1] * 40]
    one_by_one = take(single, vocab, None, batch=1, train=False)
    np.testing.assert_array_equal(joined(one_by_one, "text"), joined(items, "text")[:200])
    assert len(take(single, vocab, None, batch=512, train=False)) == 1


def test_evaluation_sees_the_middle_and_training_all(single, vocab):
    whole, seen = (take(single, vocab, 2, train=False, middle=share) for share in (1.0, 0.75))
    assert seen[0]["image"].shape == (8, 1, 18, 18, 3)
    for a, b in zip(whole, seen, strict=True):
        same({**a, "image": a["image"][:, :, 3:21, 3:21]}, b)
    same(take(single, vocab, 1)[0], take(single, vocab, 1, middle=0.75)[0])


def test_evaluation_says_the_caption_as_it_was_written(single, vocab):
    """The one whose tokens stand there, also where captions without a known word are left out before it."""
    captions = [("quux", *said) for said in single.captions]
    source = dataclasses.replace(single, captions=captions)
    for item in take(source, vocab, 20, train=False, words=12):
        for row, (said,) in enumerate(item["caption"].tolist()):
            assert said in captions[item["index"][row, 0]] or item["index"][row, 0] < 0
            np.testing.assert_array_equal(vocab.encode(said, 12, None)[0], item["text"][row, 0])
    assert "caption" not in take(single, vocab, 1)[0]


def test_long_captions_and_no_text(single, vocab):
    items = take(single, vocab, 25, words=5)
    text, index = joined(items, "text")[:, 0], joined(items, "index")[:, 0]
    assert (joined(items, "text_len") == 5).all()
    firsts = 0
    for ids, record in zip(text, index, strict=True):
        known = [[vocab.ids[w] for w in caption.split()] for caption in single.captions[record]]
        fits = [all(word in it for word in ids) for it in map(iter, known)]  # a subsequence of some caption
        assert any(fits)
        firsts += any(list(ids) == caption[:5] for caption in known)
    assert firsts < 100
    assert "text" not in take(single, None, 1)[0]


def broken(source, bad):
    def image(record):
        if record in bad:
            raise BadRecord("cut short")
        return source.image(record)

    return dataclasses.replace(source, image=image)


@pytest.mark.parametrize("threads", [0, 3])
def test_bad_records_are_replaced_and_listed_once(single, vocab, tmp_path, threads):
    path = tmp_path / "skipped.jsonl"
    captions = [list(c) for c in single.captions]
    captions[11] = ["", "   "]
    source = dataclasses.replace(broken(single, {5, 90}), captions=captions)
    runs = []
    for _ in range(2):  # a restart does not list them again
        bad = Skipped(path, 0.02, len(source))
        items = take(source, vocab, 100, partner="same_label", threads=threads, bad=bad)
        index = joined(items, "index")
        assert not np.isin(index, [5, 11, 90]).any()
        runs.append(index)
        clean = joined(take(single, vocab, 100, partner="same_label"), "index")
        good = ~np.isin(clean, [5, 11, 90]).any(1)
        np.testing.assert_array_equal(index[good], clean[good])  # the others do not notice
        for item, view in itertools.product(items, (0, 1)):
            np.testing.assert_array_equal(item["label"][:, view], single.labels[item["index"][:, view]])
    np.testing.assert_array_equal(*runs)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted(line["key"] for line in lines) == ["train-000005", "train-000011", "train-000090"]
    assert {line["reason"] for line in lines} == {"cut short", "no caption with a known word"}
    assert all(line["split"] == "train" for line in lines)


def test_bad_records_do_not_count_in_evaluation(single, vocab):
    items = take(broken(single, {5}), vocab, None, train=False)
    index, valid = joined(items, "index")[:, 0], joined(items, "valid")
    assert valid[5] == 0 and index[5] == -1 and valid.sum() == 199
    np.testing.assert_array_equal(np.delete(index, 5), np.delete(np.arange(200), 5))


@pytest.mark.parametrize("threads", [0, 2])
def test_too_many_bad_records_are_refused(single, vocab, threads):
    take(broken(single, {5}), vocab, 50, threads=threads)  # one is always allowed
    with pytest.raises(UserError, match="2 of 200 records of split train are unusable, more than the 1 allowed"):
        take(broken(single, {5, 6}), vocab, 50, threads=threads)
    source = dataclasses.replace(single, captions=[[""], [""], *single.captions[2:]])
    with pytest.raises(UserError, match="unusable"):  # before the first batch
        batches(source, vocab, batch=8, size=24, words=12)


def test_records_without_a_label_are_their_own_partners(single, vocab):
    """With another caption each; and all of them may be without."""
    some = np.where(np.arange(len(single)) % 2, single.labels, -1).astype(np.int32)
    for labels in (some, np.full_like(some, -1)):
        told = dataclasses.replace(single, labels=labels)
        (item,) = take(told, vocab, 1, partner="same_label")
        bare = item["label"][:, 0] < 0
        assert bare.any() and (item["index"][bare, 0] == item["index"][bare, 1]).all() and (item["label"][bare] == -1).all()
        assert (item["text"][bare, 0] != item["text"][bare, 1]).any()
        assert (item["index"][~bare, 0] != item["index"][~bare, 1]).any() or bare.all()


def source_with(labels, classes=("a", "b"), keys=("x", "y", "z")):
    return Source("set", "train", [["a"]] * 3, labels, classes, lambda i: None, keys)


@pytest.mark.parametrize(
    "labels",
    [[0, 1, 2], [-2, 0, 1], [0.0, 1.0, 0.0], [0, 1], [[1, 0, 0]] * 3, [[2, 0]] * 3, [[[1]]] * 3],
    ids=str,
)
def test_labels_out_of_range(labels):
    source_with(np.array([0, 1, -1])), source_with(np.eye(2, dtype=np.uint8)[[0, 1, 1]]), source_with(None)
    with pytest.raises(UserError, match="set/train"):
        source_with(np.array(labels))


def test_without_captions_batches_carry_no_text(single, vocab):
    bare = dataclasses.replace(single, captions=None)
    for train in (True, False):
        stream = batches(bare, vocab, batch=4, size=24, words=8, train=train, threads=0)
        batch, told = next(stream), next(batches(single, vocab, batch=4, size=24, words=8, train=train, threads=0))
        assert set(told) - set(batch) >= {"text", "text_len"} and "caption" not in batch and stream.unknown == 0
        for name in batch:
            np.testing.assert_array_equal(batch[name], told[name])


def test_some_records_as_a_source_of_their_own(single):
    rows = np.array([5, 0, 3])
    some = chosen(single, rows)
    assert len(some) == 3 and some.keys == [single.keys[i] for i in rows] and some.captions[1] == single.captions[0]
    np.testing.assert_array_equal(some.labels, single.labels[rows])
    np.testing.assert_array_equal(some.image(2), single.image(3))
    bare = chosen(dataclasses.replace(single, captions=None, labels=None), rows)
    assert bare.captions is None and bare.labels is None and len(bare) == 3


def test_mistakes(single, vocab):
    with pytest.raises(UserError, match="no records"):
        Source("set", "train", [], None, (), lambda i: None, [])
    with pytest.raises(UserError, match="same_label"):
        take(single, vocab, 1, partner="same")
    with pytest.raises(UserError, match="resize_crop"):
        take(single, vocab, 1, crop="squash")
    with pytest.raises(UserError, match="data.size"):
        take(single, vocab, 1, size=32)
    assert set(DATA) > {"shapes", "cub", "coco", "folder", "emoji", "blank", "tfds", "image_folder"}
