"""Contrastive losses: equal to the loops in float64, the same in every dress, and with the properties that
they must have."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from dress import cases, door, dress
from supcon_jax.losses import contrast
from supcon_jax.ops import rows, sharded
from supcon_jax.ops.rows import Rows

N, D, C = 12, 5, 4


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def draw(seed=0, n=N, m=None):
    """Unit rows, class ids with a singleton and an unlabelled row, multi-hot labels with an empty row."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, n)
    label[:2] = 9, -1
    hot = (rng.random((n, C)) < 0.4).astype(np.uint8)
    hot[1] = 0
    hot[2] = hot[3] = [1, 1, 0, 0]
    return unit(rng.normal(size=(n, D))), unit(rng.normal(size=(m or n, D))), label, hot


X, Y, LABEL, HOT = draw()
SELF, NOTHING = np.eye(N, dtype=bool), np.zeros((N, N), bool)


def both(rule, oracle, label, **how):
    """One setting of supcon: the library's function of (x, y, sums), and the loops' number."""
    own = how.pop("own", True)

    def fn(x, y, scale, sums=rows.dense):
        q = Rows(x, jnp.asarray(label), jnp.arange(len(x)))
        return contrast.supcon(q, None if own else q.replace(x=y), scale=scale, weights=rule, sums=sums, **how)

    slow = {name: value for name, value in how.items() if name in ("empty", "base", "norm")}
    return fn, lambda: oracles.supcon(X, X if own else Y, oracle(label, label), 7.0, SELF if own else NOTHING, **slow)


def mulsupcon(weighted, own=True):
    fn, _ = both(rows.mulsupcon, None, HOT, own=own, mean="anchors" if weighted else "terms")
    return fn, lambda: oracles.mulsupcon(X, X if own else Y, HOT, HOT, 7.0, SELF if own else NOTHING, weighted)


SETTINGS = {
    "single": both(rows.same_label, oracles.same_label, LABEL),
    "single_zero_base": both(rows.same_label, oracles.same_label, LABEL, empty="zero", base=0.07),
    "single_keys": both(rows.same_label, oracles.same_label, LABEL, own=False),
    "any": both(rows.any_label, oracles.any_label, HOT),
    "all": both(rows.all_labels, oracles.all_labels, HOT, own=False),
    "jaccard": both(rows.jaccard(), oracles.jaccard, HOT),
    "jaccard_count": both(rows.jaccard(0.5), lambda a, b: oracles.jaccard(a, b, 0.5), HOT, norm="count", empty="zero"),
    "idf": both(rows.idf(), oracles.idf, HOT),
    "mulsupcon": mulsupcon(False),
    "mulsupcon_weighted": mulsupcon(True),
    "mulsupcon_keys": mulsupcon(False, own=False),
}


@pytest.mark.parametrize("name, devices", cases(SETTINGS, ["single", "jaccard_count", "mulsupcon_weighted"]))
def test_supcon(name, devices):
    fn, slow = SETTINGS[name]
    value, _ = dress(fn, [X, Y, np.float64(7.0)], full="wide" if name == "single" else False, devices=devices)
    np.testing.assert_allclose(value, slow(), rtol=1e-12)


def test_per_row_scale_and_given_norm():
    scale = np.linspace(3, 9, N)
    values = oracles.supcon_rows(X, Y, oracles.same_label(LABEL, LABEL), scale, NOTHING)
    with jax.enable_x64(True):
        q = Rows(jnp.asarray(X), jnp.asarray(LABEL))
        got, has = contrast.supcon_rows(q, q.replace(x=jnp.asarray(Y)), scale=jnp.asarray(scale), base=0.5)
        given = contrast.supcon(q, q.replace(x=jnp.asarray(Y)), scale=jnp.asarray(scale), norm=jnp.full(N, 2.0), empty="zero")
    np.testing.assert_array_equal(has, ~np.isnan(values))
    np.testing.assert_allclose(got, np.nan_to_num(values) / (scale * 0.5), rtol=1e-12)
    count = oracles.same_label(LABEL, LABEL).sum(1)
    np.testing.assert_allclose(given, np.nan_to_num(values * count / 2).mean(), rtol=1e-12)


def test_info_nce():
    def fn(x, y, scale, sums):
        return contrast.info_nce(Rows(x), Rows(y), scale=scale, sums=sums)

    value, _ = dress(fn, [X, Y, np.float64(7.0)], full=True)
    np.testing.assert_allclose(value, oracles.info_nce(X, Y, 7.0), rtol=1e-12)


@pytest.mark.parametrize("weights", [rows.same_label, rows.idf(), rows.mulsupcon], ids=["single", "idf", "mulsupcon"])
def test_both_ways_are_two_losses(weights):
    label = LABEL if weights is rows.same_label else HOT
    valid = np.arange(N) != 3, np.arange(N) < 8
    q, k = (Rows(jnp.asarray(x), jnp.asarray(label), valid=jnp.asarray(v)) for x, v in zip((X, Y), valid, strict=True))
    how = {"scale": 7.0, "weights": weights, "empty": "zero", "base": 0.5, "norm": "count"}
    doors = rows.dense, sharded.tiled(tile=(4, 6)), door(8)

    @jax.jit
    def run(q, k):
        want = contrast.supcon(q, k, **how), contrast.supcon(k, q, **how)
        return want, [contrast.supcon_both(q, k, sums=sums, **how) for sums in doors]

    want, found = run(q, k)
    assert abs(want[0] - want[1]) > 1e-2
    for got in found:
        np.testing.assert_allclose(got, want, rtol=1e-5)


def test_ntxent():
    value, _ = dress(
        lambda v, scale, sums: contrast.ntxent(v, scale=scale, sums=sums),
        [np.stack([X, Y], 1), np.float64(5)],
    )
    np.testing.assert_allclose(value, oracles.ntxent(X, Y, 5.0), rtol=1e-12)


def test_ntxent_leaves_padding_out():
    views = jnp.asarray(np.stack([X, Y], 1))
    valid = jnp.arange(N) < 8
    run = jax.jit(contrast.ntxent)
    np.testing.assert_allclose(run(views, scale=5.0, valid=valid), run(views[:8], scale=5.0), rtol=1e-6)


RECORD = np.arange(N) // 2
MODES = {
    "single": (np.where(RECORD % 2, 7, RECORD // 2), oracles.same_label),
    "any": (HOT[RECORD], oracles.any_label),
    "jaccard": (HOT[RECORD], oracles.jaccard),
    "idf": (HOT[RECORD], oracles.idf),
}


def with_own(label, oracle):
    """The affinities of section "unlabelled rows": by label, or by example where the anchor has none."""
    w = oracle(label, label)
    empty = label < 0 if label.ndim == 1 else ~label.any(axis=1)
    w[empty] = RECORD[empty][:, None] == RECORD[None, :]
    return w


UNLABELLED = {f"{mode}-{unlabelled}": (mode, unlabelled) for mode in MODES for unlabelled in (False, True)}


@pytest.mark.parametrize("name, devices", cases(UNLABELLED, ["single-True"]))
def test_label_supcon(name, devices):
    mode, unlabelled = UNLABELLED[name]
    label, oracle = MODES[mode]
    label = label.copy()
    if unlabelled:
        label[4:6] = -1 if label.ndim == 1 else 0

    def fn(image, text, scale, sums):
        total, terms = contrast.label_supcon(
            image,
            text,
            jnp.asarray(label),
            scale=scale,
            index=jnp.asarray(RECORD),
            inter=0.5,
            inner=2.0,
            label_mode=mode,
            sums=sums,
        )
        assert set(terms) == {"inter", "inner", "image_text", "text_image", "image_image", "text_text"}
        return total

    value, _ = dress(fn, [X, Y, np.float64(7)], full=devices == 8 and mode == "single", devices=devices)
    w = with_own(label, oracle)
    inter, inner = oracles.label_supcon(X, Y, w, w, 7.0)
    np.testing.assert_allclose(value, 0.5 * inter + 2 * inner, rtol=1e-12)


@pytest.mark.parametrize("mode, devices", cases(["mulsupcon", "mulsupcon_weighted"], []))
def test_label_mulsupcon_equals_the_loop_over_labels(mode, devices):
    hot = HOT.copy()
    hot[~hot.any(axis=1), 0] = 1  # all labelled

    def fn(image, text, scale, sums):
        return contrast.label_supcon(image, text, jnp.asarray(hot), scale=scale, label_mode=mode, sums=sums)[0]

    value, _ = dress(fn, [X, Y, np.float64(7)], devices=devices)
    blocks = [(X, Y, NOTHING), (Y, X, NOTHING), (X, X, SELF), (Y, Y, SELF)]
    want = sum(oracles.mulsupcon(a, c, hot, hot, 7.0, out, mode == "mulsupcon_weighted") for a, c, out in blocks) / 2
    np.testing.assert_allclose(value, want, rtol=1e-12)


words_of = ("label_mode", "text_inner", "inter", "inner", "stop_text")
compiled_label_supcon = jax.jit(contrast.label_supcon, static_argnames=words_of)


def label_loss(image, text, label, **how):
    return compiled_label_supcon(jnp.asarray(image), jnp.asarray(text), label, scale=7.0, **how)


def test_rows_and_classes_may_be_renamed():
    order = np.random.default_rng(1).permutation(N)
    base = label_loss(X, Y, jnp.asarray(LABEL))[0]
    moved = label_loss(X[order], Y[order], jnp.asarray(LABEL[order]))[0]
    renamed = label_loss(X, Y, jnp.asarray(np.where(LABEL >= 0, 100 - LABEL, -1)))[0]
    columns = label_loss(X, Y, jnp.asarray(HOT[:, ::-1].copy()), label_mode="jaccard")[0]
    np.testing.assert_allclose([moved, renamed], [base, base], rtol=1e-6)
    np.testing.assert_allclose(columns, label_loss(X, Y, jnp.asarray(HOT), label_mode="jaccard")[0], rtol=1e-6)


def test_all_labels_different_is_symmetric_cross_entropy():
    """Inter: CLIP's loss. Inner: nobody has a positive, so 0; with two views of each example, NT-Xent."""
    clip = (oracles.info_nce(X, Y, 7.0) + oracles.info_nce(Y, X, 7.0)) / 2
    for label in (jnp.arange(N), None):
        total, terms = label_loss(X, Y, label)
        np.testing.assert_allclose([total, terms["inter"]], [clip, clip], rtol=1e-5)
        assert terms["inner"] == 0
    views = np.stack([X, Y], 1).reshape(2 * N, D)
    terms = label_loss(views, views, None, index=jnp.arange(2 * N) // 2)[1]
    np.testing.assert_allclose(terms["image_image"], oracles.ntxent(X, Y, 7.0), rtol=1e-5)


def test_all_labels_equal_and_all_codes_equal():
    ones = np.ones((N, D)) / np.sqrt(D)
    terms = label_loss(ones, ones, jnp.zeros(N, jnp.int32))[1]
    np.testing.assert_allclose([terms["inter"], terms["inner"]], [np.log(N), np.log(N - 1)], rtol=1e-5)


@pytest.mark.parametrize("mode", contrast.LABEL_MODES)
def test_unlabelled_rows_are_finite_and_anchor_nothing(mode):
    """All rows unlabelled: their own pair in inter blocks, nothing within a modality."""
    label = jnp.full(N, -1) if mode == "single" else jnp.zeros((N, C), jnp.uint8)

    def loss(x, y, which):
        how = {"inter": 1.0, "inner": 0.0} if which == "inter" else {"inter": 0.0, "inner": 1.0}
        return contrast.label_supcon(x, y, label, scale=100.0, label_mode=mode, **how)[0]

    run = jax.jit(jax.value_and_grad(loss, (0, 1)), static_argnums=2)
    for which, silent in (("inner", True), ("inter", False)):
        value, grads = run(jnp.asarray(X), jnp.asarray(Y), which)
        assert np.isfinite(value) and all(np.isfinite(g).all() for g in grads)
        assert (value == 0 and not any(np.any(g) for g in grads)) == silent


def test_an_unlabelled_row_among_labelled_ones_drops_out_as_an_anchor():
    values, has = contrast.supcon_rows(Rows(jnp.asarray(X), jnp.asarray(LABEL)), scale=7.0)
    assert not has[0] and not has[1] and values[0] == values[1] == 0 and has[2:].all()


def test_frozen_text_side():
    total, terms = label_loss(X, Y, jnp.asarray(LABEL), text_inner=False)
    assert "text_text" not in terms
    np.testing.assert_allclose(total, terms["inter"] + terms["image_image"] / 2, rtol=1e-6)

    def loss(x, y, stop):
        return contrast.label_supcon(x, y, jnp.asarray(LABEL), scale=7.0, stop_text=stop)[0]

    free, stopped = (
        jax.jit(jax.grad(loss, (0, 1)), static_argnums=2)(jnp.asarray(X), jnp.asarray(Y), stop) for stop in (False, True)
    )
    np.testing.assert_allclose(stopped[0], free[0], rtol=1e-5, atol=1e-7)
    assert not np.any(stopped[1]) and np.any(free[1])


def test_a_term_of_weight_zero_is_not_computed():
    assert set(label_loss(X, Y, jnp.asarray(LABEL), inner=0.0)[1]) == {"inter", "image_text", "text_image"}
    assert set(label_loss(X, Y, jnp.asarray(LABEL), inter=0.0)[1]) == {"inner", "image_image", "text_text"}


def test_padding_rows_change_nothing():
    valid = jnp.asarray(np.arange(N) < 8)
    for mode, label in (("single", LABEL), ("mulsupcon", HOT), ("idf", HOT)):
        got = label_loss(X, Y, jnp.asarray(label), valid=valid, label_mode=mode)[0]
        np.testing.assert_allclose(got, label_loss(X[:8], Y[:8], jnp.asarray(label[:8]), label_mode=mode)[0], rtol=1e-5)


def test_a_mask_of_samples_through_the_gather_door():
    mask = np.random.default_rng(3).random((N, N)).astype(np.float32)
    q, k = Rows(jnp.asarray(X), jnp.asarray(mask), jnp.arange(N)), Rows(jnp.asarray(X), jnp.arange(N), jnp.arange(N))
    got = contrast.supcon(q, k, scale=7.0, weights=rows.from_mask, veto=rows.same_index, sums=door(8))
    np.testing.assert_allclose(got, oracles.supcon(X, X, mask, 7.0, SELF), rtol=1e-5)


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: label_loss(X, Y, jnp.asarray(LABEL), label_mode="jacard"), "choose one of"),
        (lambda: label_loss(X, Y, jnp.asarray(HOT)), "class ids"),
        (lambda: label_loss(X, Y, jnp.asarray(LABEL), label_mode="any"), "multi-hot"),
        (lambda: contrast.supcon(Rows(jnp.asarray(X), jnp.asarray(LABEL)), scale=1.0, empty="keep"), "empty"),
        (lambda: contrast.supcon(Rows(jnp.asarray(X), jnp.asarray(LABEL)), scale=1.0, norm="sum"), "norm"),
        (lambda: contrast.supcon(Rows(jnp.asarray(X), jnp.asarray(LABEL)), scale=1.0, mean="rows"), "mean"),
        (lambda: contrast.supcon(Rows(jnp.asarray(X)), scale=1.0), "labels"),
    ],
)
def test_mistakes_are_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
