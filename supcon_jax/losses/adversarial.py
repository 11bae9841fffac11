"""Losses of text-conditional GANs from their logits: matching-aware cross entropies, hinge, penalty, conditioning KL."""

import math

import jax
import jax.numpy as jnp

from supcon_jax.ops.arrays import wide

# what `discriminator` and `hinge_discriminator` give where all logits are 0: a discriminator that sees no difference
BLIND, HINGE_BLIND = 2 * math.log(2), 2.0


def kl(mu, logvar):
    """Divergence of the conditioning distribution from a standard normal one, mean over rows and dimensions.

        L = -1/2 mean( 1 + logvar - mu^2 - exp(logvar) )

    Zhang et al. 2017, arXiv 1612.03242, eq. 2 (up to the mean over dimensions instead of the sum, as the
    authors' code).

    mu, logvar: [n, c]. Returns f32[].
    """
    acc = wide(mu, logvar)
    mu, logvar = mu.astype(acc), logvar.astype(acc)
    return -0.5 * jnp.mean(1 + logvar - mu * mu - jnp.exp(logvar))


def bce(logits, real):
    """Binary cross entropy against all real (1) or all fake (0), mean. logits: any shape. Returns f32[].

    Differs from: the authors' code, which takes the log of a sigmoid and so stops at 100 for logits beyond it.
    """
    logits = logits.astype(wide(logits))
    return jnp.mean(jax.nn.softplus(-logits if real else logits))


def discriminator(real_cond, fake_cond, wrong_cond, real=None, fake=None):
    """Loss of one discriminator with a conditional and, if given, an unconditional head.

        L = (CE(real, 1) + CE(real | s, 1)) / 2 + (CE(fake, 0) + CE(fake | s, 0) + CE(real | wrong s, 0)) / 3
        L = CE(real | s, 1) + (CE(fake | s, 0) + CE(real | wrong s, 0)) / 2            without unconditional logits

    Xu et al. 2018, arXiv 1711.10485, section 3.1, with the mismatched pairs of Reed et al. 2016, arXiv 1605.05396,
    algorithm 1.

    real_cond, fake_cond: logits [n] of images with their own sentences. wrong_cond: logits [m] of real
    images with other
    sentences (real features [:-1] with sentences [1:]). real, fake: logits [n] of the unconditional head, or None.
    Returns (total f32[], {"real_cond", "fake_cond", "wrong_cond"} and, if given, {"real", "fake"}).
    """
    parts = {
        "real_cond": bce(real_cond, True),
        "fake_cond": bce(fake_cond, False),
        "wrong_cond": bce(wrong_cond, False),
    }
    if real is None:
        return parts["real_cond"] + (parts["fake_cond"] + parts["wrong_cond"]) / 2, parts
    parts |= {"real": bce(real, True), "fake": bce(fake, False)}
    good = parts["real"] + parts["real_cond"]
    return good / 2 + (parts["fake"] + parts["fake_cond"] + parts["wrong_cond"]) / 3, parts


def generator(fake_cond, fake=None):
    """What one discriminator asks of the generator: L = CE(fake | s, 1), plus CE(fake, 1) if it has that head.

    Xu et al. 2018, arXiv 1711.10485, section 3.1 (without its factor 1/2, as the authors' code).

    fake_cond, fake: logits [n]. Returns (total f32[], {"fake_cond"} and, if given, {"fake"}).
    """
    parts = {"fake_cond": bce(fake_cond, True)}
    if fake is not None:
        parts["fake"] = bce(fake, True)
    return sum(parts.values()), parts


def hinge(logits, real):
    """Hinge loss of a one-stage GAN's discriminator, mean( max(0, 1 - x) ) for real pairs, max(0, 1 + x) for others.

    Tao et al. 2022, arXiv 2008.05865. logits: any shape. real: whether they should be above 1 or below -1.
    Returns f32[].
    """
    logits = logits.astype(wide(logits))
    return jnp.mean(jax.nn.relu(1 - logits if real else 1 + logits))


def hinge_discriminator(real_cond, fake_cond, wrong_cond):
    """Loss of a one-way discriminator, which only judges images with sentences.

        L = H(real | s, 1) + (H(fake | s, -1) + H(real | wrong s, -1)) / 2,   H the hinge

    Tao et al. 2022, arXiv 2008.05865; the penalty is `matching_penalty`.

    real_cond, fake_cond: logits [n] of images with their own sentences. wrong_cond: logits [m] of real images with the
    sentences of others. Returns (total f32[], {"real_cond", "fake_cond", "wrong_cond"}).
    """
    parts = {
        "real_cond": hinge(real_cond, True),
        "fake_cond": hinge(fake_cond, False),
        "wrong_cond": hinge(wrong_cond, False),
    }
    return parts["real_cond"] + (parts["fake_cond"] + parts["wrong_cond"]) / 2, parts


def matching_penalty(judge, image, sentence, *, weight=2.0, power=6.0):
    """Matching-aware zero-centred gradient penalty: a flat discriminator around real images with their own sentences.

        L = weight mean_i ( |df/dx_i|^2 + |df/ds_i|^2 )^(power / 2),   f = sum_i judge(x_i, s_i)

    Tao et al. 2022, arXiv 2008.05865 (weight 2, power 6).

    judge: (image, sentence) -> (logits [n], anything), free of normalisation over the batch, which would mix the rows'
    gradients. image: [n, ...] real ones; sentence: [n, d]. power: at least 2; the norm itself has no gradient at zero.
    Returns (f32[], logits, anything): the forward pass is shared with whoever needs its logits.
    Raises ValueError: power below 2.
    """
    if power < 2:
        raise ValueError(f"the penalty's power must be at least 2, not {power}")

    def total(image, sentence):
        logits, more = judge(image, sentence)
        return logits.sum(), (logits, more)

    (_, (logits, more)), grads = jax.value_and_grad(total, (0, 1), has_aux=True)(image, sentence)
    square = sum(jnp.sum(jnp.square(g.astype(wide(g))), axis=tuple(range(1, g.ndim))) for g in grads)
    return weight * jnp.mean(square ** (power / 2)), logits, more
