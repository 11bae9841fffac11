"""The rule of the candidates, what chance gives, and ties."""

import numpy as np
import pytest

from supcon_jax.evals.r_precision import candidates, chance, folds, r_precision, usable

LABEL = np.random.default_rng(0).integers(0, 6, 300)
HOT = (np.random.default_rng(1).random((120, 4)) < 0.4).astype(np.float32)


def drawn(rows):
    return [(i, row[1:][row[1:] >= 0]) for i, row in enumerate(rows)]


def test_other_never_holds_the_same_class():
    rows = candidates(LABEL, np.arange(300))
    assert rows.shape == (300, 100) and (rows >= 0).all() and (rows[:, 0] == np.arange(300)).all()
    for i, wrong in drawn(rows):
        assert (LABEL[wrong] != LABEL[i]).all() and len(set(wrong)) == 99


def test_within_always_holds_the_same_class_and_as_many_as_there_are():
    rows = candidates(LABEL, np.arange(300), rule="within")
    for i, wrong in drawn(rows):
        assert (LABEL[wrong] == LABEL[i]).all() and i not in wrong
        assert len(wrong) == len(set(wrong)) == min(99, (LABEL == LABEL[i]).sum() - 1)


def test_several_labels():
    for i, wrong in drawn(candidates(HOT, np.arange(120), count=20)):
        assert not (HOT[wrong] * HOT[i]).any()
        assert len(wrong) == min(20, (HOT @ HOT[i] == 0).sum() - (not HOT[i].any()))
    rows = candidates(HOT, np.arange(120), rule="within", count=20)
    for i, wrong in drawn(rows):
        assert (HOT[wrong] == HOT[i]).all() and i not in wrong
    assert not usable(rows)[~HOT.any(1)].any()  # no label at all is no class


@pytest.mark.parametrize("label", [None, np.full(60, -1)])
def test_without_labels_other_pictures_are_taken(label):
    index = np.repeat(np.arange(20), 3)
    for i, wrong in drawn(candidates(label, index, count=30)):
        assert (index[wrong] != index[i]).all() and len(wrong) == 30
    assert not usable(candidates(label, index, rule="within")).any()


def test_a_candidate_that_says_the_same_is_left_out():
    same = np.arange(300) // 2
    for rule in ("other", "within"):
        for i, wrong in drawn(candidates(np.zeros(300) if rule == "within" else None, np.arange(300), rule=rule, same=same)):
            assert (same[wrong] != same[i]).all()


def test_candidates_are_seeded():
    one = candidates(LABEL, np.arange(300), seed=1)
    np.testing.assert_array_equal(one, candidates(LABEL, np.arange(300), seed=1))
    assert (one != candidates(LABEL, np.arange(300), seed=2)).any()
    with pytest.raises(ValueError, match="neither other nor within"):
        candidates(LABEL, np.arange(300), rule="inside")


def test_random_codes_hit_one_in_a_hundred():
    rng = np.random.default_rng(0)
    n = 6000
    candidate = np.concatenate([np.arange(n)[:, None], rng.integers(0, n, (n, 99))], 1)
    hits = r_precision(rng.normal(size=(n, 8)), rng.normal(size=(n, 8)), candidate)
    assert abs(100 * hits.mean() - 1) < 0.4  # three standard deviations
    assert chance(candidate) == pytest.approx(1.0)


def test_perfect_codes_hit_always_and_length_does_not_matter():
    rng = np.random.default_rng(0)
    text = rng.normal(size=(300, 8))
    image = text * rng.uniform(0.1, 10, (300, 1))
    assert r_precision(image, text, candidates(LABEL, np.arange(300)), chunk=7).all()
    assert not r_precision(-image, text, candidates(LABEL, np.arange(300))).any()


def test_a_tie_is_a_miss():
    rows = candidates(LABEL, np.arange(300))
    for value in (1.0, 0.1, 0.0):
        assert not r_precision(np.full((300, 37), value), np.full((300, 37), value), rows).any()


def test_hits_against_a_loop_with_missing_candidates():
    rng = np.random.default_rng(3)
    image, text = rng.normal(size=(300, 5)), rng.normal(size=(300, 5))
    rows = candidates(LABEL, np.arange(300), rule="within", count=60)
    assert (rows < 0).any()

    def cos(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    hits = r_precision(image, text, rows)
    for i, wrong in drawn(rows):
        assert hits[i] == all(cos(image[i], text[i]) > cos(image[i], text[j]) for j in wrong)
    assert 0 < hits.sum() < 300
    number = (rows >= 0).sum(1)
    assert chance(rows) == pytest.approx(100 * np.mean(1 / number))


def test_a_missing_candidate_is_not_the_last_text():
    text = np.array([[1, 0.1], [1, 0.5], [1, 0]])
    assert r_precision([[1, 0]], text, [[0, 1, -1]]).all()


def test_folds_lose_no_row():
    hits = np.arange(23) % 3 == 0
    parts = [hits[:6], hits[6:12], hits[12:18], hits[18:]]
    means = [100 * p.mean() for p in parts]
    assert folds(hits, 4) == pytest.approx((np.mean(means), np.std(means)))
    with pytest.raises(ValueError, match="24 folds of 23"):
        folds(hits, 24)
