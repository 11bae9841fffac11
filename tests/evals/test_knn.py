"""The vote of neighbours against loops, and label accuracy on classes that are known."""

import numpy as np
import pytest

from supcon_jax.evals.knn import average_precision, label_accuracy, neighbours, ranking, scores


def clusters(n, classes, seed, spread=0.1, d=6):
    centres = np.random.default_rng(9).normal(size=(classes, d))
    rng = np.random.default_rng(seed)
    label = np.arange(n) % classes
    return centres[label] + spread * rng.normal(size=(n, d)), label


def test_scores_against_loops():
    bank, label = clusters(40, 4, 0, spread=2)
    query, _ = clusters(9, 4, 1, spread=2)
    got = scores(query, bank, label, k=7, temperature=0.3, chunk=4)
    for i, q in enumerate(query):
        cos = [q @ b / np.linalg.norm(q) / np.linalg.norm(b) for b in bank]
        want = np.zeros(4)
        for j in sorted(range(40), key=lambda j: -cos[j])[:7]:
            want[label[j]] += np.exp(cos[j] / 0.3)
        np.testing.assert_allclose(got[i], want, rtol=1e-6)
    hot = np.eye(4)[label]
    np.testing.assert_allclose(scores(query, bank, hot, k=7, temperature=0.3), got, rtol=1e-12)
    assert (ranking(got)[:, 0] == got.argmax(1)).all()


def test_neighbours_rule():
    assert [neighbours(n, c) for n, c in ((100000, 10), (1000, 10), (8855, 150), (10, 20))] == [200, 50, 29, 1]


def test_label_accuracy_of_known_classes():
    bank, label = clusters(200, 5, 0)
    query, truth = clusters(50, 5, 1)
    assert label_accuracy(query, truth, bank, label) == 100.0
    assert label_accuracy(query, (truth + 1) % 5, bank, label) == 0.0
    noise = np.random.default_rng(2).normal(size=(2000, 6))
    assert abs(label_accuracy(noise, np.arange(2000) % 5, bank, label) - 20) < 4


def test_average_precision_by_hand():
    score = np.array([[0.9, 0.1], [0.8, 0.1], [0.7, 0.1], [0.6, 0.1]])
    truth = np.array([[1, 1], [0, 0], [1, 0], [0, 0]])
    assert average_precision(score[:, :1], truth[:, :1]) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(score[:, 1:], truth[:, 1:]) == pytest.approx(0.25)  # all equal: no better than the share
    assert average_precision(np.c_[score, score[:, 0]], np.c_[truth, truth[:, :1] * 0]) == pytest.approx(
        ((1 + 2 / 3) / 2 + 0.25) / 2
    )
    with pytest.raises(ValueError, match="no class"):
        average_precision(score, truth * 0)


def test_label_accuracy_of_several_labels():
    bank, label = clusters(240, 6, 0)
    query, truth = clusters(60, 6, 1)
    bits = (np.arange(6)[:, None] >> np.arange(3)) & 1
    bits[0] = [1, 1, 1]
    assert label_accuracy(query, bits[truth], bank, bits[label]) == pytest.approx(100.0)
    shuffled = np.random.default_rng(0).permutation(query)
    assert label_accuracy(shuffled, bits[truth], bank, bits[label]) < 85


def test_mistakes_are_refused():
    bank, label = clusters(20, 4, 0)
    with pytest.raises(ValueError, match="k = 21"):
        scores(bank, bank, label, k=21)
    bank[0] = np.inf
    with pytest.raises(ValueError, match="bank: 1 of 20"):
        label_accuracy(bank[1:], label[1:], bank, label)
