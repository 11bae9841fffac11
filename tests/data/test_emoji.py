"""data/emoji.py on a generated folder, and on the real one where it was fetched."""

import json
import pathlib

import numpy as np
import pytest

from data.layouts import emoji_layout
from supcon_jax.config import UserError
from supcon_jax.data.emoji import concept, emoji, sentences
from supcon_jax.data.fetch import home


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return emoji_layout(tmp_path_factory.mktemp("sets") / "emoji")


@pytest.fixture(scope="module")
def real():
    if not (pathlib.Path(home()) / "emoji" / "fetched.json").exists():
        pytest.skip("the emoji are not here: python -m supcon_jax.data.fetch emoji")
    return home()


def test_single_labels(made):
    train, test = emoji("train", made, test=30), emoji("test", made, test=30)
    assert len(train) + len(test) == 40 and len(test) > 3 and not set(train.keys) & set(test.keys)
    assert train.classes == test.classes == ("animals-0", "animals-1", "food-0", "food-1")
    for source in (train, test):
        for key, label in zip(source.keys, source.labels, strict=True):
            i = int(key[2:5], 16) - 0x400
            assert source.classes[label] == f"{('animals', 'food')[i // 20]}-{i % 2}"


def test_group_labels(made):
    train, single = emoji("train", made, labels="group"), emoji("train", made)
    assert train.classes == ("Animals", "Food") and train.keys == single.keys
    np.testing.assert_array_equal(train.labels, single.labels // 2)


def test_multi_labels(made):
    source = emoji("train", made, labels="multi", uses=5)
    assert source.labels.shape == (len(source), len(source.classes)) and source.labels.dtype == np.uint8
    assert {"group/Animals", "subgroup/food-1", "tag/red", "tag/food"} < set(source.classes)
    assert "tag/rare" not in source.classes and "tag/rare" in emoji("train", made, labels="multi", uses=1).classes
    row = source.keys.index("1f408-fe0f")  # colours go round after eight
    assert {source.classes[c] for c in np.flatnonzero(source.labels[row])} == {
        "group/Animals", "subgroup/animals-0", "tag/red", "tag/animals",
    }  # fmt: skip


def test_captions(made):
    source = emoji("train", made)
    for captions in source.captions:
        assert 5 <= len(captions) <= 10 and len(set(captions)) == len(captions)
        assert all(caption.isascii() for caption in captions)
    everything = [caption for split in ("train", "test") for caption in sum(emoji(split, made).captions, [])]
    assert not any(caption.count("thing 5") > 1 for caption in everything)  # a tag that only repeats the name is none
    assert "red thing 8" in source.captions[source.keys.index("1f408-fe0f")]


def test_sentences_without_tags_and_with_tone():
    assert sentences(["fish"], [])[0] == "fish" and len(set(sentences(["fish"], []))) == len(sentences(["fish"], []))
    assert sentences(["elf", "imp"], ["fairy"], "dark")[1] == "an emoji of elf with dark skin"


def test_transparent_pixels_are_white(made):
    image = emoji("train", made).image(0)
    assert image.shape == (64, 64, 3) and image.dtype == np.uint8
    np.testing.assert_array_equal(image[:8], 255)  # another colour hides there below full transparency
    assert (image[32, 32] != 255).any()


def test_skin_tones_stay_with_their_emoji(made):
    plain = {split: emoji(split, made, test=30) for split in ("train", "test")}
    toned = {split: emoji(split, made, test=30, skin_tones=True) for split in ("train", "test")}
    assert len(toned["train"]) + len(toned["test"]) == 40 + 4 * 2
    for split in ("train", "test"):
        assert {concept(key) for key in toned[split].keys} == {concept(key) for key in plain[split].keys}
        assert not any("1f3f" in key for key in plain[split].keys)
    key = next(key for split in toned.values() for key in split.keys if key.endswith("-1f3ff"))
    source = next(split for split in toned.values() if key in split.keys)
    assert "dark skin" in source.captions[source.keys.index(key)][0]
    assert source.image(source.keys.index(key)).shape == (64, 64, 3)


def test_concept():
    same = ("1F3C3", "1F3C3-1F3FB", "1F3C3-200D-2640-FE0F", "1f3c3-1f3ff-200d-2642-fe0f-200d-27a1-fe0f")
    assert {concept(code) for code in same} == {"1F3C3"}
    assert concept("1F468-200D-2695-FE0F") == concept("1F469-1F3FB-200D-2695-FE0F") == concept("1F9D1-200D-2695-FE0F")
    assert concept("1F468") != concept("1F469") and concept("1F1E9-1F1EA") != concept("1F1EB-1F1F7")


def test_root_may_be_the_folder_above(made, monkeypatch):
    assert emoji("test", made.parent).keys == emoji("test", made).keys
    monkeypatch.setenv("SUPCON_DATA", str(made.parent))
    assert emoji("test").keys == emoji("test", made).keys


def test_mistakes(made, tmp_path):
    for call, message in (
        (lambda: emoji("val", made), "no split 'val'"),
        (lambda: emoji("train", made, labels="both"), "no labels 'both'"),
        (lambda: emoji("train", made, test=0), "test=0"),
        (lambda: emoji("train", tmp_path), "neither emoji.json.*fetch emoji"),
    ):
        with pytest.raises(UserError, match=message):
            call()
    own = emoji_layout(tmp_path / "emoji")
    (own / "images" / "1f405.png").unlink()
    with pytest.raises(UserError, match="1f405.png is missing"):
        for split in ("train", "test"):
            emoji(split, own)
    more = (own / "openmoji.json").read_text()
    (own / "openmoji.json").unlink()
    with pytest.raises(UserError, match="openmoji.json is missing"):
        emoji("train", own)
    (own / "openmoji.json").write_text(more[:-5])
    with pytest.raises(UserError, match="openmoji.json is not JSON"):
        emoji("train", own)
    (own / "openmoji.json").write_text(json.dumps([{"code": 1}]))
    with pytest.raises(UserError, match="of another layout"):
        emoji("train", own)


@pytest.mark.data
def test_real_emoji(real):
    train, test = emoji("train", real), emoji("test", real)
    assert len(train) + len(test) == 1911 and 150 < len(test) < 230 and len(train.classes) == 99
    assert not {concept(key) for key in train.keys} & {concept(key) for key in test.keys}
    assert min(map(len, train.captions)) >= 8
    for record in range(0, len(train), 100):
        assert train.image(record).shape == (64, 64, 3)
    group = emoji("train", real, labels="group")
    assert len(group.classes) == 10 and "Food & Drink" in group.classes and np.bincount(group.labels).min() == 5
    multi = emoji("train", real, labels="multi")
    assert 200 < len(multi.classes) < 400 and multi.labels.sum(1).min() >= 2
    both = emoji("train", real, skin_tones=True), emoji("test", real, skin_tones=True)
    assert len(both[0]) + len(both[1]) == 3786
    fish = train.captions[train.keys.index("1f42c")] if "1f42c" in train.keys else test.captions[test.keys.index("1f42c")]
    assert fish[0] == "dolphin"
