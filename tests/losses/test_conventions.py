"""One small input through every convention of the published codes: values and gradient norms, in float64.

The numbers are those of the original codes run on the same input, or of their formulas written down apart from this
library; gradients are with respect to the raw embeddings, before they are made unit rows.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from supcon_jax.losses import contrast, negatives
from supcon_jax.ops import rows
from supcon_jax.ops.arrays import unit
from supcon_jax.ops.rows import Rows

LABEL = np.array([0, 1, 2, 0, 1, 2, 0, 3], np.int32)
HOT = np.array([[int(c) for c in row] for row in "1010 0110 1100 0001 1001 0100 1110 0011".split()], np.int32)


def waves(n, d, a, b, c, f):
    """sin(a i + b j + c i j + f), [n, d]: an input that any program can make."""
    i, j = np.arange(n)[:, None], np.arange(d)[None, :]
    return np.sin(a * i + b * j + c * i * j + f)


Z1 = waves(8, 16, 0.7, 1.3, 0.11, 0)
Z2 = waves(8, 16, 0.7, 1.3, 0.11, 0.4) + 1.5 * waves(8, 16, 1.9, 0.5, 0.07, 0)


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
    "DCL, both views": (labelled(negatives.decoupled, np.arange(8, dtype=np.int32)), -1.6742269204, 1.42532245, 0.78541422),
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
