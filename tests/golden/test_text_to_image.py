"""DAMSM's and the GANs' losses against the published PyTorch code: value and gradient of every case."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from golden.judging import ids, judge, numbers
from supcon_jax.losses import adversarial, match


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
