"""One small input through every convention of the published codes: values and gradient norms, in float64.

The numbers are those of the original codes run on the same input, or of their formulas written down apart from this
library; gradients are with respect to the raw embeddings, before they are made unit rows.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from supcon_jax.losses import bank, contrast, decorrelate, distill, negatives, predict, predictive, prototypes, swapped
from supcon_jax.ops import rows, similar
from supcon_jax.ops.arrays import unit
from supcon_jax.ops.rows import Rows
from supcon_jax.ops.sinkhorn import sinkhorn

LABEL = np.array([0, 1, 2, 0, 1, 2, 0, 3], np.int32)
HOT = np.array([[int(c) for c in row] for row in "1010 0110 1100 0001 1001 0100 1110 0011".split()], np.int32)


def waves(n, d, a, b, c, f):
    """sin(a i + b j + c i j + f), [n, d]: an input that any program can make."""
    i, j = np.arange(n)[:, None], np.arange(d)[None, :]
    return np.sin(a * i + b * j + c * i * j + f)


Z1 = waves(8, 16, 0.7, 1.3, 0.11, 0)
Z2 = waves(8, 16, 0.7, 1.3, 0.11, 0.4) + 1.5 * waves(8, 16, 1.9, 0.5, 0.07, 0)


def units(*wave):
    x = waves(*wave)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


QUEUE, OTHER_QUEUE = units(32, 16, 0.33, 0.9, 0.05, 0.2), units(32, 16, 0.6, 0.35, 0.08, 0)
PROTOTYPES = units(12, 16, 0.21, 1.1, 0.13, 0.6)
CENTRE, CLUSTER = units(6, 16, 0.5, 0.8, 0.2, 0), np.array([0, 1, 2, 0, 1, 3, 2, 0], np.int32)
SPREAD = np.array([0.15, 0.2, 0.25, 0.18, 0.22, 0.2])
BANK = units(20, 16, 0.41, 0.77, 0.09, 0)
DRAWN = np.array([[(3 * i + 7 * k + 1) % 20 for k in range(1, 6)] for i in range(8)], np.int32)
WEIGHT = 0.2 * waves(16, 16, 0.17, 0.29, 0.03, 0)


def both_views(z1, z2, label):
    """Rows of both views, all first views first."""
    return Rows(unit(jnp.concatenate([z1, z2])), jnp.tile(label, (2,) + (1,) * (label.ndim - 1)), jnp.arange(16))


def labelled(loss, label=LABEL, **how):
    return lambda z1, z2: loss(both_views(z1, z2, jnp.asarray(label)), scale=10.0, **how)


def ntxent(t, **how):
    return lambda z1, z2: contrast.ntxent(unit(jnp.stack([z1, z2], axis=1)), scale=1 / t, **how)


def one_view(z1, z2):
    k = both_views(z1, z2, jnp.asarray(LABEL))
    return contrast.supcon(jax.tree.map(lambda a: a[:8], k), k, scale=10.0, veto=rows.same_index)


def one_way(t, **how):
    return lambda z1, z2: contrast.info_nce(Rows(unit(z1)), Rows(unit(z2)), scale=1 / t, **how)


def both_ways(t, **how):
    return lambda z1, z2: sum(contrast.info_nce_both(Rows(unit(z1)), Rows(unit(z2)), scale=1 / t, **how))


def first_views(loss, **how):
    """First views as anchors, their second views as positives, both views of the others as negatives."""

    def one(z1, z2):
        k = both_views(z1, z2, jnp.arange(8))
        return loss(jax.tree.map(lambda a: a[:8], k), k, scale=10.0, veto=rows.same_index, **how)

    return one


def pairs(loss, **how):
    return lambda z1, z2: loss(both_views(z1, z2, jnp.arange(8)), scale=2.0, **how)


def stopped(loss):
    """The keys come from another network."""
    stop = jax.lax.stop_gradient
    return lambda z1, z2: loss(z1, stop(z2)) + loss(z2, stop(z1))


def moco(t):
    return lambda z1, z2: bank.among(Rows(unit(z1)), jax.lax.stop_gradient(unit(z2)), Rows(jnp.asarray(QUEUE)), scale=1 / t)


def swav(eps):
    return lambda z1, z2: swapped.swapped(unit(jnp.stack([z1, z2], axis=1)), jnp.asarray(PROTOTYPES), scale=10.0, eps=eps)


def pcl(negatives, drawn=None):
    def loss(z1, z2):
        one = prototypes.Prototypes(*map(jnp.asarray, (CENTRE, SPREAD, CLUSTER)))
        taken = drawn and [(jnp.asarray(drawn), jnp.ones(len(drawn), bool))]
        return prototypes.proto_nce(Rows(unit(z1)), [one], negatives=negatives, drawn=taken)

    return loss


def cmc(**how):
    def loss(z1, z2):
        given = map(jnp.asarray, (BANK, np.arange(8, dtype=np.int32), DRAWN))
        return bank.contrast(Rows(unit(z1)), *given, scale=1 / 0.07, **how)

    return loss


def seed(t):
    """The student's queue is the teacher's."""

    def loss(z1, z2):
        taught, kept = unit(z2), jnp.asarray(QUEUE)
        return distill.distilled(Rows(unit(z1)), Rows(kept), taught, kept, own=taught, scale=5.0, teacher_scale=1 / t)

    return loss


def compress(queue):
    return lambda z1, z2: distill.compress(Rows(unit(z1)), Rows(jnp.asarray(queue)), unit(z2), jnp.asarray(QUEUE), scale=25.0)


def cancelled(attract):
    """Summed over both views."""

    def loss(z1, z2):
        x = unit(jnp.concatenate([z1, z2]))
        q, rules = similar.cancelled(Rows(x, record=jnp.arange(16) % 8), most=2, threshold=0.2, attract=attract)
        return 2 * contrast.supcon(q, scale=10.0, **rules)

    return loss


def cpc(z1, z2):
    """The first views are the contexts of step 0, the second ones the codes of step 1."""
    z, c = jnp.stack([0 * z2, z2], axis=1), jnp.stack([z1, 0 * z1], axis=1)
    return predictive.cpc(z, c, jnp.asarray(WEIGHT.T)[None], negatives="batch")


CONVENTIONS = {  # the setting, its value, and the norms of the gradients with respect to z1 and z2
    "NT-Xent": (ntxent(0.1), 0.2113508995, 0.3132548, 0.16958102),
    "NT-Xent at 0.5": (ntxent(0.5), 1.7158134000, 0.19514063, 0.11002627),
    "NT-Xent, views summed": (ntxent(0.1, mean="examples"), 0.4227017991, 0.6265096, 0.33916204),
    "NT-Xent at 0.5, views summed": (ntxent(0.5, mean="examples"), 3.4316268001, 0.39028126, 0.22005254),
    "NT-Xent, T/T0": (ntxent(0.1, base=0.07), 0.3019298565, 0.44750686, 0.2422586),
    "L_out": (labelled(contrast.supcon), 2.8960094352, 0.74773686, 0.45920478),
    "L_out, T/T0": (labelled(contrast.supcon, base=0.07), 4.1371563360, 1.06819551, 0.65600683),
    "L_out, times T": (labelled(contrast.supcon, base=1.0), 0.2896009435, 0.07477369, 0.04592048),
    "L_out, first views as anchors": (one_view, 3.2306906888, 1.05945773, 0.40597208),
    "L_in": (labelled(negatives.supcon_in), 1.2771921769, 0.23190365, 0.11321575),
    "L_in, without 1/|P|": (labelled(negatives.supcon_in, norm=1), 0.1243468154, 0.23190365, 0.11321575),
    "one positive": (labelled(negatives.one_positive), 1.4823070142, 0.91950661, 0.46149128),
    "one positive, mean over pairs": (labelled(negatives.one_positive, mean="terms"), 1.6239602601, 1.01026315, 0.51671128),
    "only negatives": (labelled(negatives.decoupled), 0.4623615307, 1.45355225, 0.76023845),
    "any label": (labelled(contrast.supcon, HOT, weights=rows.any_label), 5.5830291547, 0.89525876, 0.46304351),
    "all labels": (labelled(contrast.supcon, HOT, weights=rows.all_labels), 0.2113508995, 0.3132548, 0.16958102),
    "Jaccard": (labelled(contrast.supcon, HOT, weights=rows.jaccard()), 4.8384349979, 0.76590752, 0.39251135),
    "Jaccard by count": (
        labelled(contrast.supcon, HOT, weights=rows.jaccard(), norm="count"), 2.3388273235, 0.37212634, 0.19087746,
    ),
    "a term for each label": (
        labelled(contrast.supcon, HOT, weights=rows.mulsupcon, mean="terms"), 5.3198408414, 0.88638037, 0.44811403,
    ),
    "one direction at 0.2, times 2T": (one_way(0.2, base=0.5), 0.1924701450, 0.11385774, None),
    "one direction at 1, times 2T": (one_way(1.0, base=0.5), 3.2200405597, 0.20083339, None),
    "two directions, times 2T": (both_ways(0.2, base=0.5), 0.3842692025, None, None),
    "two directions, keys of a teacher": (stopped(one_way(0.2, base=0.5)), 0.3842692025, 0.11385774, 0.05588759),
    "label cosine": (labelled(contrast.supcon, HOT, weights=rows.label_cosine), 5.1853453239, 0.83179397, 0.42655743),
    "queue": (moco(0.07), 2.4058828387, 1.57022306, 0),
    "queue at 0.2": (moco(0.2), 2.1636928092, 0.4844922, 0),
    "DCL, both views": (labelled(negatives.decoupled, np.arange(8, dtype=np.int32)), -1.6742269204, 1.42532245, 0.78541422),
    "DCL, first views": (first_views(negatives.decoupled), -1.9483373190, 1.57087231, 0.71996442),
    "DCLW, both views": (
        labelled(negatives.decoupled, np.arange(8, dtype=np.int32), sigma=0.5), -1.6262852793, 1.43863614, 0.79295757,
    ),
    # that code lets a gradient into the weights (its norms: 1.60230329, 0.74456628), this library does not
    "DCLW, first views": (first_views(negatives.decoupled, sigma=0.5), -1.9003956779, None, None),
    "debiased": (pairs(negatives.debiased, prior=0.1), 1.5051106459, 0.26737063, 0.15048152),
    "hard, beta 1": (pairs(negatives.debiased, prior=0.1, beta=1.0), 1.6863681457, 0.28641626, 0.16067511),
    "hard, beta 0.5": (pairs(negatives.debiased, prior=0.1, beta=0.5), 1.6007256450, 0.27528533, 0.15458819),
    "hard, no prior": (pairs(negatives.debiased, prior=0.0, beta=1.0), 1.8518199346, 0.21894951, 0.12311253),
    "attraction": (cancelled(True), 5.5318656876, 1.13825026, 0.81225229),
    "elimination": (cancelled(False), 0.1748093969, 0.25893532, 0.14004679),
    "BYOL, one direction": (predict.byol, 0.9786654973, 0.21482327, 0),
    "BYOL": (stopped(predict.byol), 1.9573309945, 0.21482327, 0.12183676),
    "SimSiam": (stopped(lambda p, z: predict.simsiam(p, z) / 2), -0.5106672514, 0.05370582, 0.03045919),
    "Barlow Twins": (decorrelate.barlow, 4.2538415945, 1.81650478, 1.165393),
    "Barlow Twins at 0.005": (lambda *z: decorrelate.barlow(*z, off=0.005), 4.2505831744, 1.81635747, 1.16545625),
    "VICReg": (decorrelate.vicreg, 39.7285278179, 4.78121201, 6.69399844),
    "VICReg of the paper": (lambda *z: decorrelate.vicreg(*z, form="paper"), 43.0864180107, 5.06009179, 6.67955611),
    "SwAV": (swav(0.05), 2.4377694889, 0.33768789, 0.21900542),
    "SwAV, eps 0.03": (swav(0.03), 2.2907307143, 0.34338346, 0.23778195),
    "ProtoNCE, the code's negatives": (pcl("code", [4, 5]), 3.5689328008, 0.70843191, 0),
    "ProtoNCE, all prototypes": (pcl("paper"), 3.2330250463, 0.72078714, 0),
    "bank, softmax": (cmc(), 6.7396084878, 2.20189525, 0),
    "bank, NCE": (cmc(form="nce", z=99821.84055515), 11.5799561747, 1.82790374, 0),
    "SEED, a sure teacher": (seed(1e-4), 2.1636928092, 0.4844922, 0),
    "SEED": (seed(0.07), 2.1971717646, 0.48472056, 0),
    "CompRess, two queues": (compress(OTHER_QUEUE), 22.6819450203, 2.87171197, 0),
    "CompRess, one queue": (compress(QUEUE), 5.9358323784, 2.32993964, 0),
    "CPC": (cpc, 2.7598733245, 1.61401026, 0.19162234),
    "distilled logits": (distill.soft_labels, 2.6279389306, 0.08960648, 0),
}  # fmt: skip


@pytest.fixture(scope="module")
def measured():
    def numbers(z1, z2):
        found = {}
        for name, (loss, *_) in CONVENTIONS.items():
            value, grads = jax.value_and_grad(loss, (0, 1))(z1, z2)
            found[name] = value, *(jnp.linalg.norm(g) for g in grads)
        return found

    with jax.enable_x64(True):
        return jax.device_get(jax.jit(numbers)(jnp.asarray(Z1), jnp.asarray(Z2)))


def test_the_input_is_the_one_that_the_numbers_are_from():
    some = [0, 0.9635581854, 0.5155013718, 0.3894183423, -0.7895077827]
    np.testing.assert_allclose([*Z1[0, :3], Z2[0, 0], Z2[7, 15]], some, atol=1e-10)
    cosine = np.sum(Z1 * Z2, 1) / np.linalg.norm(Z1, axis=1) / np.linalg.norm(Z2, axis=1)
    np.testing.assert_allclose(cosine, [0.4909, 0.5239, 0.4455, 0.4615, 0.4785, 0.5332, 0.6032, 0.5487], atol=5e-5)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_convention(name, measured):
    _, value, *grads = CONVENTIONS[name]
    got, *norms = measured[name]
    np.testing.assert_allclose(got, value, rtol=1e-9)
    for one, other in zip(norms, grads, strict=True):
        if other is not None:
            np.testing.assert_allclose(one, other, rtol=1e-6)


def test_codes_spreads_and_constants():
    """The numbers that stand between: a code, the temperatures of clusters, the constant of a bank."""
    with jax.enable_x64(True):
        z = jnp.asarray(Z1)
        codes = jax.jit(lambda z: sinkhorn(unit(z) @ jnp.asarray(PROTOTYPES).T))(z)
        np.testing.assert_allclose(codes[0, :2], [0.48071012, 0.49309798], rtol=1e-7)
        square = jnp.array([0.04, 0.09, 0.16, 0.25, 0.01, 0.36, 0.49, 0.64])
        cluster = jnp.array([0, 0, 0, 1, 2, 2, 2, 2])
        got = jax.jit(lambda square: prototypes.concentration(square, cluster, 3, temperature=0.2))(square)
        np.testing.assert_allclose(got, [0.14699396, 0.22650302, 0.22650302], rtol=1e-7)
        index, drawn = jnp.arange(8), jnp.asarray(DRAWN)
        got = jax.jit(lambda z: bank.normaliser(Rows(unit(z)), jnp.asarray(BANK), index, drawn, scale=1 / 0.07))(z)
        np.testing.assert_allclose(got, 99821.84055515, rtol=1e-9)
