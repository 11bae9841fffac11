"""The stacked GANs' step on the global batch: any number of devices, half precision, fakes made once for both players."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gans import tiny
from supcon_jax import core, shard
from supcon_jax.gans import game


def on_devices(devices, nets, state, frozen, batch, **options):
    """One step with the batch split over so many devices: (state, metrics) on the host, and the compiled program's text."""
    task = tiny.task(nets, devices=devices, scl=0.2, **options)
    mesh = shard.data_mesh(devices)
    state, frozen = shard.replicate((state, frozen), mesh)
    split = shard.place(batch, mesh)
    step = tiny.stepper(task, state, frozen, split)
    return jax.device_get(step(state, frozen, split)), step.as_text()


@pytest.fixture(scope="session")
def eight(world):
    nets, frozen, batch, _, state, _ = world
    return on_devices(8, nets, state, frozen, batch)


def assert_same_step(got, want, rtol=1e-5, grad_rtol=2e-4):
    """Metrics relative to their size, gradients, parameters and averages relative to each leaf's largest entry."""
    for name, value in want[1].items():
        np.testing.assert_allclose(got[1][name], value, rtol=grad_rtol if "grad_norm" in name else rtol, err_msg=name)
    for name in ("disc", "gen"):
        assert tiny.far(got[0].opt[name], want[0].opt[name]) < grad_rtol, name  # the gradients themselves
        assert tiny.far(got[0].params[name], want[0].params[name]) < grad_rtol
        assert tiny.far(got[0].stats[name], want[0].stats[name]) < rtol
    assert tiny.far(got[0].memory, want[0].memory) < grad_rtol


@pytest.mark.slow
@pytest.mark.parametrize("kind", tiny.DMGAN_BY_HAND, indirect=True, scope="session")
def test_eight_devices(eight, one):
    assert_same_step(eight[0], one)


@pytest.mark.long
def test_four_devices(world, one):
    nets, frozen, batch, _, state, _ = world
    assert_same_step(on_devices(4, nets, state, frozen, batch)[0], one)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["attngan"], indirect=True, scope="session")
def test_a_batch_that_devices_split_unevenly(kind):
    """Six rows on two devices: the discriminators' five wrong pairs and the rows of one branch do not divide."""
    nets = tiny.gan_nets(kind=kind)
    frozen, batch = tiny.encoders(nets), tiny.pairs(n=6, v=1)
    state = tiny.start(tiny.task(nets), batch)
    one, two = (on_devices(devices, nets, state, frozen, batch, branches=1)[0] for devices in (1, 2))
    assert_same_step(two, one)


@pytest.mark.long
def test_half_precision(kind, world, one):
    """Computing in bfloat16: finite, parameters still float32, both losses within 2 % of float32."""
    _, _, batch, _, state, _ = world
    nets = tiny.gan_nets(dtype=jnp.bfloat16, kind=kind)
    frozen = tiny.encoders(nets)
    after, metrics = jax.device_get(tiny.stepper(tiny.task(nets, scl=0.2), state, frozen, batch)(state, frozen, batch))
    assert after.skipped[0] == 0
    assert {x.dtype for x in jax.tree.leaves((after.params, after.stats, after.memory))} == {np.dtype(np.float32)}
    for name in ("disc/loss", "gen/loss"):
        assert metrics[name] == pytest.approx(one[1][name], rel=0.02), name
    assert not np.array_equal(metrics["gen/loss"], one[1]["gen/loss"])


@pytest.mark.slow
def test_players_share_the_fakes(world):
    """Both players play the same fakes, and on one device the compiler makes them once.

    Each player's loss holds the generator's forward pass (twelve convolutions here); the compiled step has twelve fewer
    than was asked for. On several devices the partitioned program keeps both passes (the all-reduces of BatchNorm
    probably keep them apart).
    """
    nets, frozen, batch, task, state, step = world
    lowered = jax.jit(functools.partial(core.step, task)).lower(state, frozen, batch).as_text()
    latent = [x[:, 0] for x in game.noise(jax.random.key(0), 8, 1, tiny.Z, tiny.COND, False)]
    words, sentence, valid = jnp.ones((8, tiny.WORDS, tiny.DIM)), jnp.ones((8, tiny.DIM)), jnp.ones((8, tiny.WORDS), bool)
    variables = {"params": state.params["gen"], "batch_stats": state.stats["gen"]}
    forward = jax.jit(functools.partial(nets["gen"].apply, train=True, mutable=["batch_stats"]))
    one = forward.lower(variables, latent[0], sentence, words, valid, latent[1]).as_text().count("stablehlo.convolution")
    assert one == 12
    assert len(re.findall(r" convolution\(", step.as_text())) == lowered.count("stablehlo.convolution") - one


@pytest.mark.slow
@pytest.mark.parametrize("kind", tiny.DMGAN_BY_HAND, indirect=True, scope="session")
def test_no_device_gathers_the_pictures(eight):
    """What a device gathers is codes, labels and keys of the sums, never the rows of a convolution."""
    gathered = re.findall(r"= \(?\w+\[([\d,]*)\][^=]* all-gather(?:-start)?\(", eight[1])
    assert gathered and max(len(shape.split(",")) for shape in gathered) <= 3
