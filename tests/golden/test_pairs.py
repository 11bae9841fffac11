"""Losses over pairs and towers against the published PyTorch code: value and gradient of every case."""

import jax.numpy as jnp
import pytest

from dress import mesh
from golden.judging import ids, judge
from supcon_jax.losses import contrast, negatives, pairwise
from supcon_jax.ops import rows, rules, sharded
from supcon_jax.ops.arrays import unit
from supcon_jax.ops.rows import Rows


@pytest.mark.golden("ntxent", skip=("memory_bank*",))
def test_ntxent(case, dtype):
    c = case.arrays()

    def loss(z0, z1):
        views = jnp.stack([unit(z0), unit(z1)], axis=1)
        return contrast.ntxent(views, scale=1 / float(c["temperature"])), {}

    judge(loss, c, ["z0", "z1"], dtype, stress=case.name.startswith("stress"))


@pytest.mark.golden("ntxent", only="memory_bank*")
def test_ntxent_with_a_memory_bank(case, dtype):
    """Keys are the own other view and the bank: one InfoNCE whose sums over two key sets add."""
    c = case.arrays()

    def loss(z0, z1):
        q = contrast.with_index(Rows(unit(z0)))
        own, bank = q.replace(x=unit(z1)), Rows(jnp.asarray(c["bank"], z0.dtype))
        bank = bank.replace(index=jnp.full(len(bank.x), -1, jnp.int32))
        how = {"scale": 1 / float(c["temperature"]), "weigh": rows.same_index}
        pair = rows.dense(q, own, veto=lambda q, k: ~rows.same_index(q, k), **how)
        values, _ = contrast.out_form(rows.merge(pair, rows.dense(q, bank, **how)))
        return jnp.mean(values), {}

    judge(loss, c, ["z0", "z1"], dtype)


@pytest.mark.golden("t2i_cl_ntxent")
def test_branch_contrast(case, dtype):
    c = case.arrays()

    def loss(z_i, z_j):
        return contrast.ntxent(jnp.stack([unit(z_i), unit(z_j)], axis=1), scale=1 / float(c["temperature"])), {}

    judge(loss, c, ["z_i", "z_j"], dtype)


@pytest.mark.golden("pml_supcon_ntxent", only="supcon*")
def test_metric_learning_supcon(case, dtype):
    c = case.arrays()

    def loss(embeddings):
        return contrast.supcon(Rows(unit(embeddings), ids(c["labels"])), scale=1 / float(c["temperature"])), {}

    judge(loss, c, ["embeddings"], dtype)


@pytest.mark.golden("pml_supcon_ntxent", only="ntxent*")
def test_metric_learning_ntxent(case, dtype):
    c = case.arrays()

    def loss(embeddings):
        q = Rows(unit(embeddings), ids(c["labels"]))
        return negatives.one_positive(q, scale=1 / float(c["temperature"]), mean="terms"), {}

    judge(loss, c, ["embeddings"], dtype)


@pytest.mark.golden("decoupled_debiased_hard")
def test_losses_that_treat_negatives_otherwise(case, dtype):
    """Rows are both views; dcl* come raw."""
    c = case.arrays()
    n, scale = len(c["out1"]), 1 / float(c["temperature"])
    row = jnp.arange(2 * n)

    def loss(out1, out2):
        x = jnp.stack([out1, out2], axis=1).reshape(2 * n, -1)
        if case.name.startswith("dcl"):
            q = Rows(unit(x), row // 2, row)
            return negatives.decoupled(q, scale=scale, sigma=float(c["sigma"]) if "sigma" in c else None), {}
        q = Rows(x, row // 2, row)
        if case.name.startswith("hcl_easy"):  # the code's word for neither prior nor importance
            return negatives.debiased(q, scale=scale, prior=0.0), {}
        return negatives.debiased(q, scale=scale, prior=float(c["tau_plus"]), beta=float(c.get("beta", 0))), {}

    judge(loss, c, ["out1", "out2"], dtype)


def towers(c):
    return [name for name in ("image", "text", "log_scale", "logit_bias") if name in c]


@pytest.mark.golden("clip_infonce")
def test_image_text_contrast(case, dtype):
    c = case.arrays()

    def loss(image, text, log_scale, logit_bias=0.0):
        per_image, per_text = contrast.info_nce_both(Rows(image), Rows(text), scale=jnp.exp(log_scale))
        return (per_image + per_text) / 2 + 0 * logit_bias, {}  # what is added to every logit drops out

    judge(loss, c, towers(c), dtype)


@pytest.mark.golden("siglip_sigmoid")
def test_sigmoid_pairs(case, dtype):
    c = case.arrays()

    def loss(image, text, log_scale, logit_bias):
        return pairwise.siglip(Rows(image), Rows(text), scale=jnp.exp(log_scale), bias=logit_bias), {}

    judge(loss, c, towers(c), dtype)


@pytest.mark.golden("clip_siglip_sharded")
@pytest.mark.parametrize("name", ["gather", "ring"])
def test_split_batches_are_the_whole_batch(case, dtype, name):
    """The published codes' numbers on the whole batch, from rows that are split over as many devices as they had."""
    c = case.arrays()
    used = getattr(sharded, name)(mesh(int(c["ranks"])))

    def loss(image, text, log_scale, logit_bias=None):
        q, k, scale = Rows(image), Rows(text), jnp.exp(log_scale)
        if case.name.startswith("siglip"):
            return pairwise.siglip(q, k, scale=scale, bias=logit_bias, sums=used), {}
        return sum(contrast.info_nce_both(q, k, scale=scale, sums=used)) / 2, {}

    judge(loss, c, towers(c), dtype)


@pytest.mark.golden("moco", skip=("step_*",))
@pytest.mark.parametrize("name", ["dense", "tiled"])
def test_queue_of_keys(case, dtype, name):
    """Keys are the own one and the queue; those of the other rows of the batch are left out (v3: they are the keys)."""
    c = case.arrays()
    scale, used = 1 / float(c["temperature"]), {"dense": rows.dense, "tiled": sharded.tiled(tile=(4, 16))}[name]

    def loss(q):
        q, k = contrast.with_index(Rows(unit(q))), unit(jnp.asarray(c["k"], dtype))
        if "queue" not in c:
            return contrast.info_nce(q, Rows(k), scale=scale, base=0.5, sums=used), {}
        queue = jnp.asarray(c["queue"].T, dtype)
        index = jnp.concatenate([q.index, jnp.full(len(queue), -1, jnp.int32)])
        k = Rows(jnp.concatenate([k, queue]), index=index)
        others = rules.either(lambda q, k: ~rows.same_index(q, k) & (k.index >= 0)[None, :])
        return contrast.info_nce(q, k, scale=scale, veto=others, sums=used), {}

    judge(loss, c, ["q"], dtype)
