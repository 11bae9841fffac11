"""An encoder under a head of no layers: what is contrasted are its features."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from supcon_jax import core
from supcon_jax.build.names import net
from supcon_jax.methods.simclr import simclr
from supcon_jax.ops.rows import dense

HEADS = ("simclr_head", "moco3_head", "simsiam_head")
SGD = optax.sgd(0.1)


def nets_of(head, layers):
    trunk = net({"net": "conv_trunk", "width": 4, "depth": 2}, "x.nets.image")
    return {"image": trunk, "project": net({"net": head, "dim": 5, "hidden": 6, "layers": layers}, "x.nets.project")}


@pytest.mark.parametrize("head", HEADS)
def test_a_head_of_no_layers_passes_features_through(head):
    x = jnp.arange(12, dtype=jnp.float32).reshape(3, 4)
    for layers, wide in ((0, 4), (1, 5), (2, 5)):
        out, made = nets_of(head, layers)["project"].init_with_output(jax.random.key(0), x)
        assert out.shape == (3, wide) and len([name for name in made.get("params", {}) if "dense" in name]) == layers
    np.testing.assert_array_equal(nets_of(head, 0)["project"].apply({}, x), x)


@pytest.mark.slow
def test_simclr_learns_without_a_head():
    about = core.About(8, 2, None, 2, 1, dense, None)
    task = simclr(nets_of("simclr_head", 0), {"model": SGD}, about, recipe="shapes", size=8, temperature=0.5)
    image = np.random.default_rng(0).integers(0, 256, (4, 1, 8, 8, 3)).astype(np.uint8)
    batch = {
        "image": jnp.asarray(image),
        "label": jnp.zeros((4, 1), jnp.int32),
        "index": jnp.arange(4, dtype=jnp.int32)[:, None],
    }
    state = jax.jit(lambda key: core.init_state(task, key, batch))(jax.random.key(0))
    assert state.params["model"]["project"] == {}
    after, metrics = jax.jit(lambda state: core.step(task, state, {}, batch))(state)
    assert np.isfinite(metrics["model/loss"]) and metrics["model/grad_norm/project"] == 0 < metrics["model/grad_norm"]
    found = task.heads["features"](after, {}, {"image": batch["image"][:, 0]}, jax.random.key(0))
    np.testing.assert_array_equal(found["h"], found["z"])
