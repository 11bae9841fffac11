"""GAN losses from logits: equal to the loops, finite where a sigmoid saturates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles_matching
from dress import dress
from supcon_jax.losses import adversarial

RNG = np.random.default_rng(0)
LOGITS = [RNG.normal(size=8) for _ in range(5)]
LOGITS[2] = LOGITS[2][:-1]


def test_kl():
    mu, logvar = RNG.normal(size=(8, 3)), RNG.normal(size=(8, 3))
    value, _ = dress(adversarial.kl, [mu, logvar], sums=False, full=True)
    np.testing.assert_allclose(value, oracles_matching.kl(mu, logvar), rtol=1e-12)
    assert adversarial.kl(jnp.zeros((2, 3)), jnp.zeros((2, 3))) == 0


@pytest.mark.parametrize("count", [3, 5], ids=["cond", "both"])
def test_discriminator(count):
    value, _ = dress(lambda *a: adversarial.discriminator(*a)[0], LOGITS[:count], sums=False, full=count == 5)
    np.testing.assert_allclose(value, oracles_matching.discriminator(*LOGITS[:count]), rtol=1e-12)
    parts = adversarial.discriminator(*map(jnp.asarray, LOGITS[:count]))[1]
    assert set(parts) == {"real_cond", "fake_cond", "wrong_cond"} | ({"real", "fake"} if count == 5 else set())
    np.testing.assert_allclose(parts["wrong_cond"], oracles_matching.bce(LOGITS[2], False), rtol=1e-5)


@pytest.mark.parametrize("count", [1, 2], ids=["cond", "both"])
def test_generator(count):
    value, _ = dress(lambda *a: adversarial.generator(*a)[0], LOGITS[:count], sums=False, full=count == 2)
    np.testing.assert_allclose(value, sum(oracles_matching.bce(x, True) for x in LOGITS[:count]), rtol=1e-12)
    assert len(adversarial.generator(*map(jnp.asarray, LOGITS[:count]))[1]) == count


@pytest.mark.parametrize("real", [True, False])
def test_hinge(real):
    x = 2 * LOGITS[0]
    value, _ = dress(lambda x: adversarial.hinge(x, real), [x], sums=False, full=real)
    np.testing.assert_allclose(value, oracles_matching.hinge(x, real), rtol=1e-12)


@pytest.mark.parametrize("real", [True, False])
def test_saturated_logits(real):
    value, grad = jax.value_and_grad(adversarial.bce)(jnp.array([-200.0, 200.0]), real)
    np.testing.assert_allclose(value, 100)
    np.testing.assert_allclose(grad, [-0.5, 0] if real else [0, 0.5], atol=1e-6)


def test_hinge_discriminator():
    real, fake, wrong = (2 * x for x in LOGITS[:3])
    value, _ = dress(lambda *a: adversarial.hinge_discriminator(*a)[0], [real, fake, wrong], sums=False)
    want = oracles_matching.hinge(real, True) + (oracles_matching.hinge(fake, False) + oracles_matching.hinge(wrong, False)) / 2
    np.testing.assert_allclose(value, want, rtol=1e-12)
    assert set(adversarial.hinge_discriminator(*map(jnp.asarray, LOGITS[:3]))[1]) == {"real_cond", "fake_cond", "wrong_cond"}


def linear(w, v):
    return lambda image, sentence: (image.reshape(len(image), -1) @ w + sentence @ v, "more")


@pytest.mark.parametrize("weight,power", [(2.0, 6.0), (0.7, 2.0), (1.5, 3.0)])
def test_penalty_of_a_linear_discriminator(weight, power):
    """weight |(w, v)|^power, whatever the rows, with the gradient weight power |w|^(power - 2) w."""
    image, sentence, w, v = (RNG.normal(size=s) for s in ((8, 2, 2, 3), (8, 5), 12, 5))
    with jax.enable_x64(True):

        def penalty(w, v):
            value, logits, more = adversarial.matching_penalty(
                linear(w, v), jnp.asarray(image), jnp.asarray(sentence), weight=weight, power=power
            )
            return value, (logits, more == "more")

        (value, (logits, passed)), grads = jax.jit(jax.value_and_grad(penalty, (0, 1), has_aux=True))(
            jnp.asarray(w), jnp.asarray(v)
        )
    norm = np.sqrt(w @ w + v @ v)
    np.testing.assert_allclose(value, weight * norm**power, rtol=1e-12)
    for grad, x in zip(grads, (w, v), strict=True):
        np.testing.assert_allclose(grad, weight * power * norm ** (power - 2) * x, rtol=1e-12)
    np.testing.assert_allclose(logits, image.reshape(8, -1) @ w + sentence @ v, rtol=1e-12)
    assert passed


def test_penalty_averages_over_rows_and_is_flat_at_zero():
    """Of a quadratic discriminator, whose gradient is the row itself: 2 mean |row|^6; no NaN where the gradient is zero."""
    rows = RNG.normal(size=(8, 3))

    def penalty(x):
        return adversarial.matching_penalty(lambda x, s: ((x**2 + s**2).sum(1) / 2, None), x, 0 * x)[0]

    value, _ = dress(penalty, [rows], sums=False, full=True)
    np.testing.assert_allclose(value, 2 * np.mean(np.sum(rows**2, 1) ** 3), rtol=1e-12)
    assert not np.asarray(jax.grad(penalty)(jnp.zeros((2, 3)))).any()
    with pytest.raises(ValueError, match="power must be at least 2, not 1"):
        adversarial.matching_penalty(linear(0, 0), jnp.zeros((1, 1)), jnp.zeros((1, 1)), power=1)
