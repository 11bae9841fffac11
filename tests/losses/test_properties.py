"""What every contrastive loss must keep whatever the draw: order, length, padding, renamed views, its limits.

One compiled program for each loss serves all draws and all properties, in float64 and through a door of uneven tiles.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from supcon_jax.losses import contrast, negatives, pairwise
from supcon_jax.ops import queue, rows, sharded
from supcon_jax.ops.arrays import unit
from supcon_jax.ops.rows import Rows

N, D, C = 9, 6, 4
DRAWS = range(4)
DOOR = sharded.tiled(tile=(4, 7))


def hot(label):
    return jax.nn.one_hot(label, C)


def own(fn, **options):
    """A loss of rows among themselves."""
    return lambda x, y, label, valid: fn(Rows(x, label, None, valid), sums=DOOR, **options)


def pairs(fn, **options):
    """A loss of image rows against text rows that finds partners by index."""

    def loss(x, y, label, valid):
        index = jnp.arange(N, dtype=jnp.int32)
        found = fn(Rows(x, label, index, valid), Rows(y, label, index, valid), sums=DOOR, **options)
        return sum(found) if isinstance(found, tuple) else found

    return loss


LOSSES = {
    "supcon": own(contrast.supcon, scale=5.0),
    "supcon_in": own(negatives.supcon_in, scale=5.0),
    "decoupled": own(negatives.decoupled, scale=5.0, sigma=0.5),
    "one_positive": own(negatives.one_positive, scale=5.0),
    "debiased": own(negatives.debiased, scale=5.0, prior=0.05),
    "hard": own(negatives.debiased, scale=5.0, prior=0.05, beta=0.5),
    "jaccard": lambda x, y, label, valid: own(contrast.supcon, scale=5.0, weights=rows.jaccard())(x, y, hot(label), valid),
    "info_nce": pairs(contrast.info_nce_both, scale=5.0),
    "siglip": pairs(pairwise.siglip, scale=5.0, bias=-2.0),
    "label_supcon": lambda x, y, label, valid: contrast.label_supcon(x, y, label, scale=5.0, valid=valid, sums=DOOR)[0],
}
TWO_TOWERS = ("info_nce", "siglip", "label_supcon")  # the others read the first argument only


@functools.cache
def program(name):
    """(x, y, label, valid) -> value and gradients, rows made unit inside."""

    def loss(x, y, label, valid):
        return LOSSES[name](unit(x), unit(y), label, valid)

    return jax.jit(jax.value_and_grad(loss, (0, 1)))


def draw(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, N, D))
    label = rng.integers(0, C, N).astype(np.int32)
    label[:2] = label[2:4]  # at least one positive
    return x, y, label, np.ones(N, bool), rng


def run(name, *args):
    with jax.enable_x64(True):
        value, grads = program(name)(*args)
        return np.asarray(value), [np.asarray(g) for g in grads]


def same(got, want, rtol=1e-12):
    np.testing.assert_allclose(got, want, rtol=rtol, atol=1e-13)


@pytest.mark.parametrize("seed", DRAWS)
@pytest.mark.parametrize("name", LOSSES)
def test_order_and_length_of_the_rows(name, seed):
    """Examples in another order: the same loss, the gradient in that order. Longer rows: the same loss, and no gradient
    along a row."""
    x, y, label, valid, rng = draw(seed)
    value, grads = run(name, x, y, label, valid)
    assert np.isfinite(value) and np.abs(grads[0]).max() > 1e-3
    order = rng.permutation(N)
    moved, turned = run(name, x[order], y[order], label[order], valid)
    same(moved, value)
    same(turned, [g[order] for g in grads])
    length = 10 ** rng.uniform(-3, 3, (2, N, 1))
    longer, flatter = run(name, x * length[0], y * length[1], label, valid)
    same(longer, value)
    same([g * a for g, a in zip(flatter, length, strict=True)], grads, rtol=1e-9)
    same([np.sum(g * a, axis=1) for g, a in zip(grads, (x, y), strict=True)], 0)


@pytest.mark.parametrize("seed", DRAWS)
@pytest.mark.parametrize("name", LOSSES)
def test_padding_is_as_good_as_gone(name, seed):
    """Whatever stands in rows that are not valid: the same loss, no gradient; and other labels by other names."""
    x, y, label, valid, rng = draw(seed)
    valid = valid & (np.arange(N) < N - 2)
    value, grads = run(name, x, y, label, valid)
    other = np.where(valid[:, None], x, 100 * rng.normal(size=x.shape)), np.where(valid[:, None], y, rng.normal(size=y.shape))
    again, moved = run(name, *other, np.where(valid, label, 0).astype(np.int32), valid)
    same(again, value)
    for one, two in zip(grads, moved, strict=True):
        same(two[valid], one[valid])
        assert not two[~valid].any()
    renamed, _ = run(name, x, y, ((label + 1) % C).astype(np.int32), valid)
    same(renamed, value)


@pytest.mark.parametrize("name", TWO_TOWERS)
def test_images_and_texts_may_change_places(name):
    x, y, label, valid, _ = draw(0)
    value, (dx, dy) = run(name, x, y, label, valid)
    swapped, (dy_again, dx_again) = run(name, y, x, label, valid)
    if name != "siglip":  # its matrix is read along rows once: a transposed one has the same sum
        assert np.abs(dx - dy).max() > 1e-3
    same(swapped, value)
    same(dx_again, dx)
    same(dy_again, dy)


@jax.jit
def becomes(x, y, label, scale):
    views = jnp.stack([x, y], axis=1)
    two = Rows(views.reshape(-1, D), jnp.repeat(jnp.arange(N), 2), jnp.arange(2 * N))
    found = [(contrast.supcon(two, scale=scale, sums=DOOR), contrast.ntxent(views, scale=scale))]
    ids = Rows(x, label, jnp.arange(N))
    want = contrast.supcon(ids, scale=scale, sums=DOOR)
    for rule in (rows.any_label, rows.all_labels, rows.jaccard()):
        found.append((contrast.supcon(ids.replace(label=hot(label)), scale=scale, weights=rule, sums=DOOR), want))
    kept = queue.keys(queue.init(2 * N, ids))
    s = DOOR(ids, ids, scale=scale, weigh=rows.same_label, veto=rows.same_index)
    more = DOOR(ids, kept, scale=scale, weigh=rows.same_label)
    return [*found, (rows.merge(s, more).lse, s.lse)]


@pytest.mark.parametrize("seed", DRAWS)
def test_what_supcon_becomes(seed):
    """One label for each example of two views: NT-Xent. One-hot labels: those ids. A queue without rows: nothing."""
    x, y, label, _, rng = draw(seed)
    with jax.enable_x64(True):
        x, y, scale = unit(jnp.asarray(x)), unit(jnp.asarray(y)), 1 + 9 * rng.random()
        for got, want in becomes(x, y, jnp.asarray(label), jnp.asarray(scale)):
            same(got, want)


@pytest.mark.parametrize("seed", DRAWS)
def test_floors_and_limits(seed):
    """InfoNCE is not below 0, supcon of n positives not below ln n, both ln(keys) where all logits are alike."""
    x, y, label, _, _ = draw(seed)
    with jax.enable_x64(True):
        x, y, n = unit(jnp.asarray(x)), unit(jnp.asarray(y)), np.bincount(label, minlength=C)[label] - 1
        for scale in (1e-9, 1.0, 100.0):
            nce = contrast.info_nce(Rows(x), Rows(y), scale=scale, sums=DOOR)
            each, has = contrast.supcon_rows(Rows(x, jnp.asarray(label)), scale=scale, sums=DOOR)
            assert nce >= 0 and (has == (n > 0)).all()
            assert (np.asarray(each) >= np.log(np.maximum(n, 1)) - 1e-12)[n > 0].all()
            if scale < 1e-6:
                same(nce, np.log(N), rtol=1e-7)
                same(np.asarray(each)[n > 0], np.log(N - 1), rtol=1e-7)
