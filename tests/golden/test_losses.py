"""Losses over labels against the published PyTorch code: value and gradient of every case, in both precisions."""

import jax.numpy as jnp
import numpy as np
import pytest

from golden.judging import ids, judge
from supcon_jax.losses import contrast, hierarchy
from supcon_jax.ops import rows
from supcon_jax.ops.rows import Rows


def view_rows(features):
    """[B, V, D] -> rows in the original order, all first views first: the order that per_anchor has."""
    return features.swapaxes(0, 1).reshape(-1, features.shape[-1])


def by_view(c, rule_of, norm="weight", **how):
    """The loss of features [B, V, D]; rule_of(sample) gives (query labels, key labels, weights) of the rows."""
    n, v = c["features"].shape[:2]
    sample = np.tile(np.arange(n), v)
    anchors = n if str(c.get("contrast_mode", "all")) == "one" else n * v
    asked, keyed, weights = rule_of(sample)

    def loss(features):
        x, row = view_rows(features), jnp.arange(n * v)
        q = Rows(x[:anchors], jnp.asarray(asked[:anchors]), row[:anchors])
        values, _ = contrast.supcon_rows(
            q,
            Rows(x, jnp.asarray(keyed), row),
            scale=1 / float(c["temperature"]),
            base=float(c["base_temperature"]),
            weights=weights,
            norm=norm,
            veto=rows.same_index,
            **how,
        )
        whole = contrast.supcon(
            q,
            Rows(x, jnp.asarray(keyed), row),
            scale=1 / float(c["temperature"]),
            base=float(c["base_temperature"]),
            weights=weights,
            norm=norm,
            veto=rows.same_index,
            empty="zero",
            **how,
        )
        return whole, {"per_anchor": values.reshape(-1, n)}

    return loss


@pytest.mark.golden("supcon")
def test_supcon(case, dtype):
    c = case.arrays()

    def rule_of(sample):
        if "mask" in c:
            return np.asarray(c["mask"], dtype)[sample], sample, rows.from_mask
        label = np.asarray(c["labels"])[sample] if "labels" in c else sample
        return label, label, rows.same_label

    judge(by_view(c, rule_of), c, ["features"], dtype, stress=case.name.startswith("stress"))


@pytest.mark.golden("multilabel_supcon", only="mask_*")
def test_multilabel_masks(case, dtype):
    """The explicit mask, and the rule that makes the same mask from the labels."""
    c = case.arrays()
    named = rows.any_label if case.name.startswith("mask_any") else rows.all_labels
    for masked in (True, False):

        def rule_of(sample, masked=masked):
            if masked:
                return np.asarray(c["mask"], dtype)[sample], sample, rows.from_mask
            return c["labels"][sample], c["labels"][sample], named

        judge(by_view(c, rule_of), c, ["features"], dtype, value=1e-6, grads=1e-5)


@pytest.mark.golden("multilabel_supcon", only="jaccard_*")
def test_multilabel_jaccard(case, dtype):
    c = case.arrays()

    def rule_of(sample):
        return c["labels"][sample], c["labels"][sample], rows.jaccard(float(c["threshold"]))

    judge(by_view(c, rule_of, norm="count"), c, ["features"], dtype, value=1e-6, grads=1e-5)


def from_queue(c, weights, **how):
    def loss(query):
        q, k = (
            Rows(query, jnp.asarray(c["labels"])),
            Rows(jnp.asarray(c["keys"], query.dtype), jnp.asarray(c["ref_labels"])),
        )
        return contrast.supcon(q, k, scale=1 / float(c["temperature"]), weights=weights, **how), {}

    return loss


@pytest.mark.golden("multilabel_supcon", only="mulsupcon_*")
def test_mulsupcon(case, dtype):
    mean = "anchors" if case.name.endswith("weighted") else "terms"
    c = case.arrays()
    judge(from_queue(c, rows.mulsupcon, mean=mean, empty="zero"), c, ["query"], dtype, value=1e-6, grads=1e-5)


@pytest.mark.golden("multilabel_supcon", only="queue_*")
def test_multilabel_queue(case, dtype):
    named = rows.any_label if case.name.endswith("any") else rows.all_labels
    c = case.arrays()
    judge(from_queue(c, named, empty="zero"), c, ["query"], dtype, value=1e-6, grads=1e-5)


@pytest.mark.golden("multilabel_supcon", only="hmlc_*")
def test_hierarchical_labels(case, dtype):
    c = case.arrays()
    n, v = c["features"].shape[:2]
    row = jnp.arange(n * v)

    def loss(features):
        q = Rows(features.reshape(n * v, -1), jnp.repeat(ids(c["labels"]), v, axis=0), row, record=row // v)
        how = {"scale": 1 / float(c["temperature"]), "base": float(c["base_temperature"])}
        return hierarchy.hierarchical(q, kind=case.name.split("_")[1], **how), {}

    judge(loss, c, ["features"], dtype, value=1e-6, grads=1e-5)
