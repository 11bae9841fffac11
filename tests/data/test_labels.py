"""Labels as training is told them: wrong, missing, or made from captions."""

import dataclasses

import numpy as np
import pytest

from supcon_jax.config import UserError
from supcon_jax.data import labels
from supcon_jax.data.synthetic import shapes


@pytest.fixture(scope="module")
def single():
    return shapes("train", size=24, records=1000)


@pytest.fixture(scope="module")
def multi():
    return shapes("train", size=24, records=1000, labels="multi")


def test_nothing_changes_by_default(single):
    assert labels.taught(single) is single


def test_shuffled_pairs(single):
    twin = labels.shuffle_pairs(single, 7)
    assert twin.image is single.image and twin.known is single.known and twin.keys == single.keys
    place = {captions: i for i, captions in enumerate(single.captions)}
    takes = np.array([place[captions] for captions in twin.captions])
    assert (takes != np.arange(1000)).all() and (np.sort(takes) == np.arange(1000)).all()
    np.testing.assert_array_equal(twin.labels, single.labels[takes])
    assert labels.shuffle_pairs(single, 7).captions == twin.captions != labels.shuffle_pairs(single, 8).captions


def test_a_share_of_single_labels_is_another_class_of_the_split(single):
    told = labels.taught(single, noise=0.3, seed=5)
    changed = told.labels != single.labels
    assert changed.sum() == 300 and told.labels.dtype == single.labels.dtype and told.classes == single.classes
    assert set(told.labels) == set(single.labels)  # 13 pairs never occur in training: they are no label there either
    new = np.bincount(told.labels[changed], minlength=64)
    assert new[np.unique(single.labels)].min() >= 1 and new.max() < 20  # every class, none preferred: 5.9 expected
    again, other = (labels.taught(single, noise=0.3, seed=seed).labels for seed in (5, 6))
    np.testing.assert_array_equal(again, told.labels)
    assert ((other != single.labels) & changed).sum() == pytest.approx(90, abs=40)
    less = labels.taught(single, noise=0.1, seed=5).labels
    wrong = less != single.labels
    assert wrong.sum() == 100 and (less[wrong] == told.labels[wrong]).all()  # a part of what is wrong at 30 %


def test_a_share_of_several_labels_moves_and_their_number_stays(multi):
    told = labels.taught(multi, noise=0.2, seed=1).labels
    np.testing.assert_array_equal(told.sum(1), multi.labels.sum(1))
    assert ((multi.labels == 1) & (told == 0)).sum() == round(0.2 * multi.labels.sum()) and told.dtype == np.uint8
    everything = np.ones((4, 3), np.uint8)
    np.testing.assert_array_equal(labels.wrong(everything, 1.0, 0), everything)  # there is nowhere to go
    rare = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0]], np.uint8)
    assert not labels.wrong(rare, 1.0, 0)[:, 2].any()  # nobody has the third class


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_a_share_of_records_loses_its_labels(kind, request):
    source = request.getfixturevalue(kind)
    told = labels.taught(source, missing=0.4, seed=2).labels
    none = told < 0 if kind == "single" else ~told.any(1)
    assert none.sum() == 400
    np.testing.assert_array_equal(told[~none], source.labels[~none])
    both = labels.taught(source, noise=0.5, missing=0.4, seed=2).labels
    np.testing.assert_array_equal(both < 0 if kind == "single" else ~both.any(1), none)
    assert (both[~none] != source.labels[~none]).any()
    # of those that are left as many are wrong as before: the two are drawn apart
    wrong = (both != source.labels)[~none] if kind == "single" else (both != source.labels).any(1)[~none]
    assert abs(wrong.mean() - (0.5 if kind == "single" else 1 - 0.5**5)) < 0.08


@pytest.mark.parametrize("part", [0.01, 0.1, 0.5])
def test_a_stratified_share_keeps_its_labels(single, part):
    told = labels.taught(single, share=part, seed=4).labels
    kept = told >= 0
    np.testing.assert_array_equal(told[kept], single.labels[kept])
    for label in np.unique(single.labels):
        count = (single.labels == label).sum()
        assert (told == label).sum() == max(1, round(part * count))
    more = labels.taught(single, share=0.6, seed=4).labels >= 0
    assert (more & kept).sum() == kept.sum() and more.sum() > kept.sum()  # a part of what is kept at 60 %
    assert ((labels.taught(single, share=part, seed=5).labels >= 0) != kept).any()


def test_a_share_of_several_labels_leaves_some_of_each_class(multi):
    rare = multi.labels.copy()
    rare[1:, 3] = 0
    rare[0, 3] = 1  # one record alone has it
    source = dataclasses.replace(multi, labels=rare)
    told = labels.taught(source, share=0.05, seed=2).labels
    some = told.any(1)
    np.testing.assert_array_equal(told[some], rare[some])
    assert told.any(0).all() and 50 <= some.sum() <= 50 + rare.shape[1] and some[0]


def test_noise_falls_on_the_labels_that_are_left(single):
    few = labels.taught(single, share=0.5, seed=1).labels
    told = labels.taught(single, share=0.5, noise=0.2, seed=1).labels
    np.testing.assert_array_equal(told >= 0, few >= 0)
    assert (told != few).sum() == round(0.2 * (few >= 0).sum())


def test_only_labelled_records_are_left(single):
    rows = np.flatnonzero(labels.taught(single, share=0.1, missing=0.2, seed=6).labels >= 0)
    few = labels.taught(single, share=0.1, missing=0.2, only=True, seed=6)
    assert len(few) == len(rows) < 150 and few.keys == [single.keys[i] for i in rows]
    np.testing.assert_array_equal(few.labels, single.labels[rows])
    np.testing.assert_array_equal(few.known["shape"], single.known["shape"][rows])
    assert few.captions == [single.captions[i] for i in rows]
    np.testing.assert_array_equal(few.image(5), single.image(rows[5]))
    with pytest.raises(UserError, match="config.data.only_labelled leaves .* and none has one"):
        labels.taught(single, missing=1.0, only=True)


def test_asymmetric_noise_goes_to_the_class_of_the_map():
    source = shapes("train", size=24, records=1000, labels="shape")  # circle, square, triangle, diamond, ...
    swaps = ("circle->ring", "square -> frame", "2->3")
    told = labels.taught(source, noise=0.4, kind="asymmetric", swaps=swaps, seed=3).labels
    changed = told != source.labels
    mapped = np.isin(source.labels, (0, 1, 2))
    assert changed.sum() == round(0.4 * mapped.sum()) and not changed[~mapped].any()
    for old, new in ((0, 5), (1, 7), (2, 3)):
        mine = source.labels == old
        assert (told[mine & changed] == new).all() and abs(changed[mine].mean() - 0.4) < 0.12
    less = labels.taught(source, noise=0.1, kind="asymmetric", swaps=swaps, seed=3).labels != source.labels
    assert (less & changed).sum() == less.sum() > 20
    chain = labels.taught(source, noise=1.0, kind="asymmetric", swaps=("circle->square", "square->circle")).labels
    np.testing.assert_array_equal(chain[source.labels < 2], 1 - source.labels[source.labels < 2])  # one step, not two


def test_asymmetric_noise_on_several_labels(multi):
    swaps = ("circle->ring", "red->blue")
    told = labels.taught(multi, noise=1.0, kind="asymmetric", swaps=swaps).labels
    names = list(multi.classes)
    for old, new in (("circle", "ring"), ("red", "blue")):
        was = multi.labels[:, names.index(old)] == 1
        assert was.any() and not told[:, names.index(old)].any() and told[was, names.index(new)].all()
    np.testing.assert_array_equal(told.sum(1), multi.labels.sum(1))
    both = np.array([[1, 0, 1], [1, 1, 0]], np.uint8)
    np.testing.assert_array_equal(labels.confused(both, 1.0, {0: 2}, 0), [[1, 0, 1], [0, 1, 1]])
    assert labels.confused(both, 1.0, {0: 2, 1: 2}, 0).sum(1).tolist() == [2, 2]  # two cannot become one


def test_labels_that_are_missing_from_the_start_stay_so(single):
    bare = dataclasses.replace(single, labels=np.where(np.arange(1000) < 500, single.labels, -1).astype(np.int32))
    told = labels.taught(bare, noise=0.2, missing=0.5, seed=3).labels
    assert (told[500:] == -1).all() and (told[:500] == -1).sum() == 250


def test_clusters_and_leaders_put_the_same_captions_together():
    """Six things said in several ways, and words that all of them share."""
    things = ("red robin", "blue jay", "green finch", "white owl", "black crow", "pink flamingo")
    ways = ("a picture of a {}", "this is a {}", "the {} sits")
    rng = np.random.default_rng(0)
    truth = rng.integers(6, size=240)
    captions = [[ways[k].format(things[t]) for k in rng.permutation(3)[:2]] for t in truth]
    source = dataclasses.replace(shapes("train", size=24, records=240), captions=captions, labels=None, classes=())
    for made in (
        labels.taught(source, origin="clusters", clusters=6, seed=1),
        labels.taught(source, origin="captions", similar=0.5),
    ):
        pairs = set(zip(truth.tolist(), made.labels.tolist(), strict=True))
        assert len(pairs) == len(made.classes) == 6
    strict = labels.taught(source, origin="captions", similar=0.999).labels
    assert 6 < strict.max() + 1 <= 18  # other wordings are other groups then
    assert set(labels.taught(source, origin="clusters", clusters=6, seed=1, missing=0.5).labels) == {*range(6), -1}


def test_every_member_is_as_similar_to_its_leader_as_asked():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(3000, 4)).astype(np.float32)  # more than one block
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    found = labels.leaders(x, 0.9)
    first = np.array([np.flatnonzero(found == group)[0] for group in range(found.max() + 1)])
    assert (np.diff(first) > 0).all()
    assert ((x * x[first[found]]).sum(1) >= 0.9 - 1e-6).all()
    apart = x[first] @ x[first].T - 2 * np.eye(len(first), dtype=np.float32)
    assert apart.max() < 0.9  # leaders would have joined each other
    for row in rng.integers(3000, size=50):  # the most similar of the leaders that stood there already
        there = first[first <= row]
        assert found[row] == (x[row] @ x[there].T).argmax()


def test_mistakes(single):
    with pytest.raises(UserError, match="labels_from='names': must be one of set, clusters, captions"):
        labels.taught(single, origin="names")
    bare = dataclasses.replace(single, labels=None)
    with pytest.raises(UserError, match="the records have none"):
        labels.taught(bare, noise=0.1)
    for kind, swaps, said in (
        ("pairwise", (), "label_noise_kind='pairwise': must be one of symmetric, asymmetric"),
        ("asymmetric", (), "needs config.data.label_map"),
        ("asymmetric", ("red circle->car",), "label_map: 'car' in 'red circle->car' is no class; they are red circle"),
        ("asymmetric", ("1->1",), "'1->1' must lead from one class to another"),
        ("asymmetric", ("1->2", "1->3"), "'1->3' must lead .* each class once"),
    ):
        with pytest.raises(UserError, match=said):
            labels.taught(single, noise=0.1, kind=kind, swaps=swaps)
    with pytest.raises(UserError, match="config.data.labels_from='captions' reads captions, and shapes has none"):
        labels.taught(dataclasses.replace(single, captions=None), origin="captions")
    with pytest.raises(UserError, match="one class only"):
        labels.wrong(np.zeros(5, np.int32), 0.1, 0)
    with pytest.raises(UserError, match=r"config.data.clusters=9 is too many .*only \d rows differ"):
        labels.taught(dataclasses.replace(bare, captions=[["red"]] * 500 + [["blue"]] * 500), origin="clusters", clusters=9)
