"""Positives up to a number, against the loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from dress import door
from supcon_jax.losses import contrast
from supcon_jax.ops.cap import capped
from supcon_jax.ops.rows import Rows

N = 16
LABEL = np.array([5, 5, 2, 2, 5, 5, 5, 5, 2, 2, 5, 5, -1, -1, 7, 7])
X = np.random.default_rng(0).normal(size=(N, 4))
X /= np.linalg.norm(X, axis=1, keepdims=True)
INTERLEAVED, BLOCKS = np.arange(N) // 2, np.tile(np.arange(N // 2), 2)


def sides(label, record, most, valid):
    """(weights, left out) by walking through the rows of each anchor's class in order."""
    weight, out = np.zeros((2, N, N), bool)
    for i in range(N):
        others = []
        for j in range(N):
            if valid[j] and label[j] == label[i] >= 0 and record[j] != record[i] and record[j] not in others:
                others.append(record[j])
        for j in range(N):
            weight[i, j] = record[j] == record[i] or record[j] in others[:most]
            out[i, j] = i == j or record[j] in others[most:] or not valid[i] or not valid[j]
    return weight & ~out, out


@pytest.mark.parametrize("record", [INTERLEAVED, BLOCKS], ids=["by example", "by view"])
@pytest.mark.parametrize("most", [0, 1, 2, 9])
def test_the_first_examples_of_the_class(record, most):
    label = LABEL if record is INTERLEAVED else np.tile(LABEL[::2], 2)
    valid = np.arange(N) != 4
    weight, out = sides(label, record, most, valid)
    q = Rows(jnp.asarray(X), jnp.asarray(label), valid=jnp.asarray(valid), record=jnp.asarray(record))
    with jax.enable_x64(True):
        q, rules = capped(q.replace(x=jnp.asarray(X)), most)
        veto, joined = (np.asarray(rules[name](q, q)) for name in ("veto", "weights"))
        np.testing.assert_array_equal(veto | ~valid | ~valid[:, None], out)
        np.testing.assert_array_equal(joined & ~out, weight)
        got = contrast.supcon(q, scale=5.0, sums=door(1), **rules)
        np.testing.assert_allclose(got, oracles.supcon(X, X, weight.astype(float), 5.0, out), rtol=1e-12)


def test_what_it_reads_is_named():
    with pytest.raises(ValueError, match="record"):
        capped(Rows(jnp.asarray(X), jnp.asarray(LABEL)), 1)
