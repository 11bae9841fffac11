"""Losses against the published PyTorch code: value and gradient of every case, in float32 and with float64 enabled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dress import mesh
from supcon_jax.losses import adversarial, contrast, hierarchy, match, negatives, pairwise
from supcon_jax.ops import rows, rules, sharded
from supcon_jax.ops.arrays import unit
from supcon_jax.ops.rows import Rows


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    with jax.enable_x64(request.param == "float64"), jax.default_matmul_precision("highest"):
        yield jnp.dtype(request.param)


def judge(loss, c, names, dtype, *, extra=None, value=1e-9, grads=1e-7, stress=False):
    """Compares loss(*arrays) -> (value, {name: expected-by-name}) and its gradients with a case's numbers.

    value, grads: tolerances with float64 enabled. extra: more outputs of the loss, by the names that the case uses.
    """
    arrays = [jnp.asarray(c[name], dtype) for name in names]
    (got, more), got_grads = jax.jit(jax.value_and_grad(loss, tuple(range(len(names))), has_aux=True))(*arrays)
    double = dtype == jnp.float64
    rtol, atol = (value, 1e-10) if double else (1e-4 if stress else 1e-5, 1e-6)
    np.testing.assert_allclose(got, c["loss"], rtol=rtol, atol=atol)
    for name, one in more.items():
        if name in c:
            np.testing.assert_allclose(one, c[name], rtol=rtol, atol=atol, err_msg=name)
    for name, grad in zip(names, got_grads, strict=True):
        assert np.isfinite(grad).all()
        want = c.get(f"grad_{name}")
        if want is None:
            continue
        bound = (grads if double else 1e-4) * np.abs(want).max() + (1e-10 if double else 1e-6)
        np.testing.assert_allclose(grad, want, rtol=0, atol=bound, err_msg=f"gradient of {name}")


def numbers(c, name):
    return tuple(float(value) for value in np.ravel(c[name]))


def ids(array):
    return None if array is None else jnp.asarray(np.asarray(array), jnp.int32)


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
    """One query row for each ordered positive pair (a, p): p is its own key, all others of a's label are left out."""
    c = case.arrays()
    label = np.asarray(c["labels"])
    a, p = np.nonzero((label[:, None] == label[None, :]) & ~np.eye(len(label), dtype=bool))

    def loss(embeddings):
        k = contrast.with_index(Rows(unit(embeddings), ids(label)))
        q = Rows(k.x[a], k.label[a], ids(p))
        return contrast.info_nce(q, k, scale=1 / float(c["temperature"]), veto=rows.same_label_other), {}

    judge(loss, c, ["embeddings"], dtype)


def regions_of(images):
    """[B, E, H, W] -> [B, H W, E]."""
    return images.reshape(*images.shape[:2], -1).swapaxes(1, 2)


@pytest.mark.golden("damsm", only="words_*")
def test_damsm_words(case, dtype):
    c = case.arrays()
    h, w = c["img_features"].shape[2:]

    def loss(img_features, words_emb):
        loss0, loss1, alpha = match.words(
            regions_of(img_features),
            words_emb.swapaxes(1, 2),
            ids(c["cap_lens"]),
            ids(c.get("class_ids")),
            gammas=numbers(c, "gammas"),
            attention=True,
        )
        maps = {f"att{i}": one.reshape(-1, h, w) for i, one in enumerate(alpha)}
        maps = {name: one[: c["cap_lens"][int(name[3:])]] for name, one in maps.items()}
        return loss0 + loss1, {"loss0": loss0, "loss1": loss1} | maps

    judge(loss, c, ["img_features", "words_emb"], dtype)


@pytest.mark.golden("damsm", only="sent_*")
def test_damsm_sentences(case, dtype):
    c = case.arrays()

    def loss(cnn_code, sent_emb):
        loss0, loss1 = match.sentences(cnn_code, sent_emb, ids(c.get("class_ids")), gamma=numbers(c, "gammas")[2])
        return loss0 + loss1, {"loss0": loss0, "loss1": loss1}

    judge(loss, c, ["cnn_code", "sent_emb"], dtype)


@pytest.mark.golden("damsm", only="func_attention*")
def test_damsm_attention(case, dtype):
    c = case.arrays()
    query, context = (jnp.asarray(c[name], dtype) for name in ("query", "context"))
    valid = jnp.ones(query.shape[2], bool)
    one = jax.vmap(lambda h, e: match.attend(h, e, valid, float(c["gamma1"])))
    got, alpha = one(regions_of(context), query.swapaxes(1, 2))
    rtol, atol = (1e-9, 1e-10) if dtype == jnp.float64 else (1e-4, 1e-6)
    np.testing.assert_allclose(got.swapaxes(1, 2), c["weighted_context"], rtol=rtol, atol=atol)
    np.testing.assert_allclose(alpha.reshape(c["attn"].shape), c["attn"], rtol=rtol, atol=atol)


@pytest.mark.golden("gan_losses", only="kl")
def test_kl(case, dtype):
    judge(lambda mu, logvar: (adversarial.kl(mu, logvar), {}), case.arrays(), ["mu", "logvar"], dtype)


def heads(w_uncond, w_cond):
    """The discriminator of these cases: linear heads on the flat image, and on image and sentence."""

    def cond(x, sentence):
        return jnp.concatenate([x.reshape(len(x), -1), sentence], axis=1) @ w_cond

    return cond, lambda x: x.reshape(len(x), -1) @ w_uncond


@pytest.mark.golden("gan_losses", only="disc_*")
def test_discriminator(case, dtype):
    c = case.arrays()
    names = ["real", "cond", "w_uncond", "w_cond"]

    def loss(real, sentence, w_uncond, w_cond):
        cond, uncond = heads(w_uncond, w_cond)
        fake = jnp.asarray(c["fake"], dtype)
        logits = [cond(real, sentence), cond(fake, sentence), cond(real[:-1], sentence[1:])]
        if "grad_w_uncond" in c:
            logits += [uncond(real), uncond(fake)]
        return adversarial.discriminator(*logits)[0], {}

    judge(loss, c, names, dtype)


@pytest.mark.golden("gan_losses", only="gen_*")
def test_generator(case, dtype):
    """Every scale's discriminator, and DAMSM on the last scale."""
    c = case.arrays()
    scales = sorted(name for name in c if name.startswith("fake"))
    names = [*scales, "words", "cond", "w_uncond", "w_cond"]

    def loss(*arrays):
        fakes, (words, sentence, w_uncond, w_cond) = arrays[: len(scales)], arrays[len(scales) :]
        cond, uncond = heads(w_uncond, w_cond)
        with_uncond = "grad_w_uncond" in c
        total = sum(adversarial.generator(cond(x, sentence), uncond(x) if with_uncond else None)[0] for x in fakes)
        gammas, label = numbers(c, "gammas"), ids(c["class_ids"])
        regions = regions_of(fakes[-1])
        matched = match.words(regions, words.swapaxes(1, 2), ids(c["cap_lens"]), label, gammas=gammas)
        matched += match.sentences(jnp.mean(regions, axis=1), sentence, label, gamma=gammas[2])
        return total + float(c["smooth_lambda"]) * sum(matched), {}

    judge(loss, c, names, dtype)


@pytest.mark.golden("gan_losses", only="hinge_*")
def test_hinge(case, dtype):
    real = case.name.endswith("pos")
    judge(lambda logits: (adversarial.hinge(logits, real), {}), case.arrays(), ["logits"], dtype)


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
            return contrast.info_nce(q, Rows(k), scale=scale, sums=used) * 2 / scale, {}
        queue = jnp.asarray(c["queue"].T, dtype)
        index = jnp.concatenate([q.index, jnp.full(len(queue), -1, jnp.int32)])
        k = Rows(jnp.concatenate([k, queue]), index=index)
        others = rules.either(lambda q, k: ~rows.same_index(q, k) & (k.index >= 0)[None, :])
        return contrast.info_nce(q, k, scale=scale, veto=others, sums=used), {}

    judge(loss, c, ["q"], dtype)
