"""The vote of neighbours against loops, and label accuracy on classes that are known."""

import numpy as np
import pytest

from supcon_jax.evals import knn
from supcon_jax.evals.knn import average_precision, label_accuracy, neighbours, ranking, scores
from supcon_jax.evals.protocol import Protocol, numbers


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


def test_the_nearest_of_blocks_are_the_nearest_of_all():
    """Whatever the blocks, also where rows are equal: then the earlier one is nearer."""
    bank, _ = clusters(37, 4, 0, spread=2)
    bank[30], bank[31], bank[5] = bank[2], bank[3], bank[2]
    query = np.concatenate([bank[:4], clusters(7, 4, 1, spread=2)[0]])
    want = np.argsort(-np.round(np.float32(query) @ np.float32(bank).T, 3), axis=1, kind="stable")[:, :6]
    for chunk, block in ((256, 8192), (4, 10), (3, 6), (256, 37)):
        found = list(knn.nearest(query, bank, 6, chunk, block))
        np.testing.assert_array_equal(np.concatenate([place for _, place in found]), want)
        cosine = np.concatenate([value for value, _ in found])
        np.testing.assert_allclose(cosine, np.take_along_axis(query @ bank.T, want, 1), rtol=1e-5)


def test_hits_count_the_best_and_the_best_five():
    score = np.array([[6, 5, 4, 3, 2, 1], [6, 5, 4, 3, 2, 1], [1, 1, 1, 1, 1, 1.0], [0, 9, 0, 0, 0, 0]])
    assert knn.hits(score, [0, 4, 5, 2]) == {"top1": 25.0, "top5": 75.0}
    assert knn.hits(score[:, :5], [0, 4, 4, 2]) == {"top1": 25.0}


def test_false_negatives_are_among_the_nearest_others():
    x, label = clusters(30, 3, 0, spread=1.5)
    x[4] = x[7] = x[1]  # twins, more than there are neighbours to take
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cos = unit @ unit.T
    for k in (1, 5):
        shares = []
        for i in range(30):
            near = sorted((j for j in range(30) if j != i), key=lambda j: -np.round(cos[i, j], 6))[:k]
            shares += [label[j] == label[i] for j in near]
        share, chance = knn.false_negatives(x, label, k)
        assert share == pytest.approx(100 * np.mean(shares)) and chance == pytest.approx(100 * 9 / 29)
    with pytest.raises(ValueError, match="k: 30 of 29"):
        knn.false_negatives(x, label, 30)


def test_classification_has_its_protocol():
    bank, label = clusters(120, 6, 0)
    query, truth = clusters(36, 6, 1)
    out = knn.knn(query, np.where(np.arange(36) < 6, -1, truth), bank, label, classes=6, protocol=Protocol(network="net h"))
    kinds = ("top1", "top5", "false_negative", "false_negative_chance")
    assert set(out) == {f"knn_{kind}" for kind in kinds}
    assert out["knn_top1"]["value"] == out["knn_top5"]["value"] == 100 and out["knn_false_negative"]["value"] > 35
    own = out["knn_top1"]["protocol"]
    assert (own["neighbours"], own["real_number"], own["train_number"]) == (10, 30, 120)
    assert own["settings"] == "cosine, weights exp(cos / 0.1)" and own["network"] == "net h"
    assert (
        out["knn_false_negative"]["protocol"]["neighbours"] == 10 and out["knn_false_negative"]["protocol"]["train_number"] == 0
    )
    other = knn.knn(query, truth, bank, label, classes=6, k=7, temperature=0.07)["knn_top1"]["protocol"]
    assert other["neighbours"] == 7 and "0.07" in other["settings"]
    bits = (np.arange(6)[:, None] >> np.arange(3)) & 1
    bits[0] = [1, 1, 1]
    several = numbers(knn.knn(query, bits[truth], bank, bits[label], classes=3))
    assert several == {"knn_map": pytest.approx(label_accuracy(query, bits[truth], bank, bits[label]))}
