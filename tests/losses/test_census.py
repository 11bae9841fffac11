"""What a watching door tells of a batch, against the loops; that it changes no loss and makes no logit twice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from dress import door
from supcon_jax.losses import census, contrast, match, negatives, pairwise
from supcon_jax.losses.census import Watch
from supcon_jax.ops import rows, sharded
from supcon_jax.ops.rows import Rows

N, D = 12, 5
RNG = np.random.default_rng(0)
X, Y = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in RNG.normal(size=(2, N, D)))
LABEL = np.array([9, -1, 0, 0, 0, 1, 1, 2, 2, 2, 2, 1])
HOT = (RNG.random((N, 4)) < 0.4).astype(np.uint8)
SELF = np.eye(N, dtype=bool)


def slow(q, k, w, out, alike, scale=4.0):
    """The same numbers, pair by pair."""
    lse, pos, wgt, cnt, top, rival = oracles.row_sums(q, k, scale, w, out)
    has = [i for i in range(N) if wgt[i] > 0]
    negatives = [(i, j) for i in range(N) for j in range(N) if not out[i, j] and w[i, j] == 0]
    return {
        "contrast_nats": np.mean([lse[i] - pos[i] / wgt[i] for i in has]),
        "chance_nats": np.mean([np.log(np.sum(~out[i])) for i in has]),
        "positives_per_anchor": cnt.mean(),
        "no_positive_percent": 100 * (1 - len(has) / N),
        "top1_percent": 100 * np.mean([top[i] > rival[i] for i in has]),
        "false_negative_percent": 100 * np.mean([alike[i, j] for i, j in negatives]),
    }


SETTINGS = {  # the loss, the labels, what it treats as positives and leaves out, and the doors that it goes through
    "supervised": (
        lambda q, k, sums: contrast.supcon(q, scale=4.0, sums=sums), LABEL, oracles.same_label, True,
        (rows.dense, sharded.tiled(tile=(4, 8)), sharded.tiled(tile=(4, 8), classes=10)),
    ),
    "pairs": (
        lambda q, k, sums: contrast.info_nce(q, k, scale=4.0, sums=sums), LABEL, lambda a, b: np.eye(N), False, (door(8),),
    ),
    "jaccard": (
        lambda q, k, sums: contrast.supcon(q, k, scale=4.0, weights=rows.jaccard(0.6), sums=sums), HOT,
        lambda a, b: oracles.jaccard(a, b, 0.6), False, (rows.dense,),
    ),
    "idf": (
        lambda q, k, sums: contrast.supcon(q, scale=4.0, weights=rows.idf(), sums=sums), HOT, oracles.idf, True,
        (sharded.tiled(tile=(4, 8)),),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_equals_the_loops(name):
    loss, label, weigh, own, doors = SETTINGS[name]
    alike = (oracles.same_label if label.ndim == 1 else oracles.any_label)(label, label)
    want = slow(X, X if own else Y, weigh(label, label), SELF if own else SELF & False, alike)
    assert 0 < want["top1_percent"] < 100
    assert want["false_negative_percent"] > 0 or name in ("supervised", "idf")

    def run(x, y, sums):
        def both(x, y):
            q = Rows(x, jnp.asarray(label), jnp.arange(N))
            watch = Watch(sums, jnp.asarray(label))
            return (loss(q, q.replace(x=y), watch), loss(q, q.replace(x=y), sums)), watch.metrics("it")

        (watched, plain), seen = both(x, y)
        return watched, plain, seen, *(jax.grad(lambda x, i=i: both(x, y)[0][i])(x) for i in (0, 1))

    for sums in doors:
        watched, plain, seen, *grads = jax.jit(run, static_argnums=2)(jnp.asarray(X), jnp.asarray(Y), sums)
        assert seen.keys() == {f"it/{what}" for what in want}
        for what, number in want.items():
            np.testing.assert_allclose(seen[f"it/{what}"], number, rtol=2e-5, atol=1e-4, err_msg=what)
        np.testing.assert_allclose(watched, plain, rtol=1e-6)
        np.testing.assert_allclose(*grads, atol=1e-6)


def test_both_directions_and_several_calls_are_averaged():
    def run(x, y):
        q, k = Rows(x), Rows(y)
        watch = Watch(sharded.tiled())
        two = contrast.info_nce_both(q, k, scale=4.0, sums=watch)
        pairwise.siglip(q, k, scale=4.0, bias=-1.0, sums=watch)  # has no chance level
        return two, watch.metrics("it")

    two, seen = jax.jit(run)(jnp.asarray(X), jnp.asarray(Y))
    np.testing.assert_allclose(seen["it/contrast_nats"], sum(two) / 2, rtol=1e-5)
    np.testing.assert_allclose(seen["it/chance_nats"], np.log(N), rtol=1e-6)
    assert "it/false_negative_percent" not in seen and Watch(rows.dense).metrics("it") == {}


@pytest.mark.parametrize("sums", [rows.dense, sharded.tiled(tile=(4, 8), classes=10), sharded.auto()])
def test_of_several_readings_the_first_is_counted_and_scores_are_as_inner_products(sums):
    """Positives and negatives of a loss that reads the negatives apart are those of supcon; a token is a row."""

    def run(x, y):
        q, k = Rows(x, jnp.asarray(LABEL), jnp.arange(N)), Rows(y)
        watches = [Watch(one, jnp.asarray(LABEL)) for one in (rows.dense, sums) * 2]
        contrast.supcon(q, scale=4.0, sums=watches[0])
        negatives.decoupled(q, scale=4.0, sums=watches[1])
        contrast.info_nce(q, k, scale=4.0, sums=watches[2])
        a, b = (rows.replace(x=rows.x[:, None]) for rows in (q, k))
        match.late_interaction(a, b, scale=4.0, sums=watches[3])
        return [watch.metrics("it") for watch in watches]

    supcon, decoupled, pairs, tokens = jax.jit(run)(jnp.asarray(X), jnp.asarray(Y))
    for got, want in ((decoupled, supcon), (tokens, pairs)):
        assert got.keys() == want.keys() and len(want) == 6
        for what, number in want.items():
            np.testing.assert_allclose(got[what], number, rtol=1e-5, err_msg=what)


def test_at_chance_and_collapsed():
    """All rows alike: the loss is at chance, and a tie is no hit."""
    q = Rows(jnp.ones((N, D)) / np.sqrt(D), jnp.arange(N) // 2, jnp.arange(N))
    watch = Watch(rows.dense)
    contrast.supcon(q, scale=10.0, sums=watch)
    seen = watch.metrics("it")
    np.testing.assert_allclose(seen["it/contrast_nats"], np.log(N - 1), rtol=1e-5)
    assert seen["it/chance_nats"] == pytest.approx(np.log(N - 1), rel=1e-6) and seen["it/top1_percent"] == 0


def test_padding_and_lonely_anchors():
    valid = np.arange(N) < 8
    q = Rows(jnp.asarray(X), jnp.asarray(LABEL), jnp.arange(N), jnp.asarray(valid))
    some, whole = Watch(rows.dense, jnp.asarray(LABEL)), Watch(rows.dense, jnp.asarray(LABEL[:8]))
    contrast.supcon(q, scale=4.0, sums=some)
    contrast.supcon(jax.tree.map(lambda a: a[:8], q.replace(valid=None)), scale=4.0, sums=whole)
    for what, number in whole.metrics("it").items():
        np.testing.assert_allclose(some.metrics("it")[what], number, rtol=1e-5, err_msg=what)
    assert whole.metrics("it")["it/no_positive_percent"] == pytest.approx(100 * 3 / 8)  # classes 9, 2 and the unlabelled row


def test_no_product_is_made_twice():
    """The program with the watch has as many products as the one without."""

    def run(x, y, watched):
        watch = Watch(sharded.tiled())
        loss = sum(contrast.info_nce_both(Rows(x), Rows(y), scale=4.0, sums=watch if watched else watch.sums))
        return loss, watch.metrics("it")

    counts = [
        jax.jit(jax.value_and_grad(run, has_aux=True), static_argnums=2).lower(X, Y, w).as_text().count("dot_general")
        for w in (True, False)
    ]
    assert counts[0] == counts[1] > 0


def test_a_large_batch_counts_its_first_anchors(monkeypatch):
    monkeypatch.setattr(census, "SMALL", 4 * N)
    q = Rows(jnp.asarray(X), jnp.asarray(LABEL), jnp.arange(N))
    watch = Watch(rows.dense, jnp.asarray(LABEL))
    contrast.info_nce(q, q, scale=4.0, veto=rows.same_label_other, sums=watch)
    alike = [sum(LABEL[i] == LABEL[j] >= 0 for j in range(N) if j != i) for i in range(4)]
    want = np.mean([np.log(N - a) for a in alike])
    assert watch.metrics("it")["it/chance_nats"] == pytest.approx(want, rel=1e-6)
    assert watch.metrics("it")["it/false_negative_percent"] == 0
