"""A generator that hears nothing is told of on the console, one that hears is not."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from gans import tiny
from gans.test_onestage import nets_of, task_of
from supcon_jax.train import alarms


class Hearing(nn.Module):
    """A generator that hears its noise and its text as loudly as `gain` says; with 0 it ignores both."""

    inner: nn.Module
    gain: jax.Array

    @property
    def sizes(self):
        return self.inner.sizes

    def __call__(self, latent, sentence, **how):
        return self.inner(self.gain * latent, self.gain * sentence, **how)


def test_a_deaf_generator_is_told_of():
    """The discriminator's metrics of five batches, as they are logged."""
    nets = nets_of("dfgan", size=8)

    def made(gain):
        return task_of("dfgan", nets | {"gen": Hearing(nets["gen"], gain)}, scl=0.0, magp_weight=0.0, branches=1)

    def look(gain, state, frozen, batch, key):
        return made(gain).players[0].loss(state.params, state, frozen, batch, key)[1].metrics

    batches = [tiny.pairs(n=4, v=1, size=8, seed=log) for log in range(alarms.PATIENCE)]
    state, frozen = tiny.start(made(1.0), batches[0]), tiny.encoders(nets, size=8)
    run = tiny.compiled(look, jnp.float32(1), state, frozen, batches[0], jax.random.key(0))
    for gain in (0, 1):
        signs, said = alarms.Signs(), []
        for log, batch in enumerate(batches):
            seen = run(jnp.float32(gain), state, frozen, batch, jax.random.key(log))
            said += signs.lines({f"disc/{name}": float(seen[name]) for name in tiny.LOOKS})
        assert [line.split()[1] for line in said] == (["disc/diversity"] if gain == 0 else [])
