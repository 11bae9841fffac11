"""GAN losses from logits: equal to the loops, finite where a sigmoid saturates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from dress import dress
from supcon_jax.losses import adversarial

RNG = np.random.default_rng(0)
LOGITS = [RNG.normal(size=8) for _ in range(5)]
LOGITS[2] = LOGITS[2][:-1]


def test_kl():
    mu, logvar = RNG.normal(size=(8, 3)), RNG.normal(size=(8, 3))
    value, _ = dress(adversarial.kl, [mu, logvar], sums=False, full=True)
    np.testing.assert_allclose(value, oracles.kl(mu, logvar), rtol=1e-12)
    assert adversarial.kl(jnp.zeros((2, 3)), jnp.zeros((2, 3))) == 0


@pytest.mark.parametrize("count", [3, 5], ids=["cond", "both"])
def test_discriminator(count):
    value, _ = dress(lambda *a: adversarial.discriminator(*a)[0], LOGITS[:count], sums=False, full=count == 5)
    np.testing.assert_allclose(value, oracles.discriminator(*LOGITS[:count]), rtol=1e-12)
    parts = adversarial.discriminator(*map(jnp.asarray, LOGITS[:count]))[1]
    assert set(parts) == {"real_cond", "fake_cond", "wrong_cond"} | ({"real", "fake"} if count == 5 else set())
    np.testing.assert_allclose(parts["wrong_cond"], oracles.bce(LOGITS[2], False), rtol=1e-5)


@pytest.mark.parametrize("count", [1, 2], ids=["cond", "both"])
def test_generator(count):
    value, _ = dress(lambda *a: adversarial.generator(*a)[0], LOGITS[:count], sums=False, full=count == 2)
    np.testing.assert_allclose(value, sum(oracles.bce(x, True) for x in LOGITS[:count]), rtol=1e-12)
    assert len(adversarial.generator(*map(jnp.asarray, LOGITS[:count]))[1]) == count


@pytest.mark.parametrize("real", [True, False])
def test_hinge(real):
    x = 2 * LOGITS[0]
    value, _ = dress(lambda x: adversarial.hinge(x, real), [x], sums=False, full=real)
    np.testing.assert_allclose(value, oracles.hinge(x, real), rtol=1e-12)


@pytest.mark.parametrize("real", [True, False])
def test_saturated_logits(real):
    value, grad = jax.value_and_grad(adversarial.bce)(jnp.array([-200.0, 200.0]), real)
    np.testing.assert_allclose(value, 100)
    np.testing.assert_allclose(grad, [-0.5, 0] if real else [0, 0.5], atol=1e-6)
