"""Losses of text-conditional GANs from their logits: matching-aware cross entropies, hinge, conditioning KL."""

import jax
import jax.numpy as jnp

from supcon_jax.ops.arrays import wide


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

    Xu et al. 2018, arXiv 1711.10485, eq. 6, with the mismatched pairs of Reed et al. 2016, arXiv 1605.05396,
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

    Xu et al. 2018, arXiv 1711.10485, eq. 5 (without its factor 1/2, as the authors' code).

    fake_cond, fake: logits [n]. Returns (total f32[], {"fake_cond"} and, if given, {"fake"}).
    """
    parts = {"fake_cond": bce(fake_cond, True)}
    if fake is not None:
        parts["fake"] = bce(fake, True)
    return sum(parts.values()), parts


def hinge(logits, real):
    """Hinge loss of a one-stage GAN's discriminator, mean( max(0, 1 - x) ) for real pairs, max(0, 1 + x) for others.

    Tao et al. 2022, arXiv 2008.05865, eq. 2. logits: any shape. real: whether they should be above 1 or below -1.
    Returns f32[].
    """
    logits = logits.astype(wide(logits))
    return jnp.mean(jax.nn.relu(1 - logits if real else 1 + logits))
