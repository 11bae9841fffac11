"""CPC: the loss from grids and waves encoded by hand; a context does not see what it predicts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles_unimodal
from methods import unimodal_world as w
from supcon_jax.core import Task
from supcon_jax.methods.cpc import cpc_audio
from supcon_jax.nets.audio import WaveEncoder


def grid(state, batch):
    """Codes and contexts [n, rows, columns, f] of the step that a state is about to make."""
    (x,) = w.drawn(batch, w.key_of(state), "cpc")
    out, _ = w.through(w.nets_of("cpc"), state.params["model"], state.stats["model"], x[:, 0], "image", "context")
    return out["image"], out["context"]


@pytest.mark.parametrize("negatives", ["batch", "sequence", "both"])
def test_the_loss_is_its_formula(negatives):
    batches, task, states, told = w.world("cpc")
    z, c = w.ran(grid, states[1], batches[1])
    assert z.shape == c.shape == (w.N, 3, 3, 6)
    weights = np.asarray(states[1].params["model"]["ahead"], np.float64)
    want = oracles_unimodal.cpc(z.astype(np.float64), c.astype(np.float64), weights, negatives, 2.0)
    loss = w.made("cpc", negatives=negatives, temperature=0.5).players[0].loss
    value, aux = w.ran(lambda s, b: loss(s.params, s, {}, b, w.key_of(s)), states[1], batches[1])
    assert value == pytest.approx(want, rel=2e-5)
    assert aux.stats == {"image": {}, "context": {}} and aux.memory == {}


def test_the_row_below_may_be_skipped():
    batches, _, states, _ = w.world("cpc")
    z, c = w.ran(grid, states[1], batches[1])
    task = w.made("cpc", skip=1)
    assert jax.eval_shape(task.init, jax.random.key(0), batches[0])["params"]["model"]["ahead"].shape == (1, 6, 6)
    own = states[1].params["model"] | {"ahead": states[1].params["model"]["ahead"][:1]}
    value, _ = w.ran(lambda s, b: task.players[0].loss({"model": own}, s, {}, b, w.key_of(s)), states[1], batches[1])
    parts = (np.asarray(a, np.float64) for a in (z, c, own["ahead"]))
    assert value == pytest.approx(oracles_unimodal.cpc(*parts, "both", 1.0, skip=1), rel=2e-5)


def test_skipping_all_rows_is_refused():
    with pytest.raises(ValueError, match="skip=2 leaves none of ahead=2 rows"):
        w.made("cpc", skip=2)


def test_every_weight_learns_and_steps_have_their_own():
    _, _, states, _ = w.world("cpc")
    assert w.idle(states[2]) == set()
    assert states[2].params["model"]["ahead"].shape == (2, 6, 6)
    assert all(np.abs(one).max() > 1e-4 for one in np.asarray(states[2].opt["model"]["ahead"]))


def test_a_context_does_not_see_what_it_predicts():
    batches, _, states, _ = w.world("cpc")
    own = {"params": states[2].params["model"]["context"]}
    z = w.ran(grid, states[1], batches[1])[0][:1]
    context = w.nets_of("cpc")["context"]

    def rows(z):
        return context.apply(own, z, train=True).sum((0, 2, 3))

    slope = np.abs(w.ran(jax.jacobian(rows), jnp.asarray(z))).sum((1, 3, 4))  # of row r's contexts by row s's codes
    assert (slope[np.triu_indices(3, 1)] == 0).all() and (np.diag(slope) > 0).all() and slope[2, 1] > 0


def test_features_are_means_over_patches():
    batches, task, states, _ = w.world("cpc")
    got = w.features_of(task, states[2], batches[0])

    def want(state, batch):
        x = w.recipes.plain(batch["image"][:, 0], size=w.SIZE, norm="half")
        out, _ = w.through(w.nets_of("cpc"), state.params["model"], state.stats["model"], x, "image", "context")
        return {"h": out["image"].mean((1, 2)), "z": out["context"].mean((1, 2))}

    assert w.tiny.far(got, w.ran(want, states[2], batches[0])) < 1e-5


@pytest.fixture(scope="module")
def sound() -> tuple[Task, dict, WaveEncoder]:
    net = WaveEncoder(4, 5, (2, 2), (3, 3))
    wave = np.random.default_rng(0).standard_normal((4, 40)).astype(np.float32)
    return cpc_audio({"audio": net}, w.tiny.keeping(), w.about(), samples=32, ahead=3), {"audio": wave}, net


@pytest.mark.slow
def test_sound(sound):
    task, batch, net = sound
    states, told = w.walk(task, [batch, batch])

    def codes(state, batch):
        start = jax.random.randint(w.key_of(state), (4,), 0, 9)
        window = batch["audio"][jnp.arange(4)[:, None], start[:, None] + jnp.arange(32)[None]]
        return net.apply({"params": state.params["model"]["audio"]}, window)

    z, c = (np.asarray(x, np.float64)[:, :, None] for x in w.ran(codes, states[1], batch))
    want = oracles_unimodal.cpc(z, c, np.asarray(states[1].params["model"]["ahead"], np.float64), "both", 1.0)
    assert told[1]["model/loss"] == pytest.approx(want, rel=2e-5)
    assert w.idle(states[2]) == set()
    found = w.ran(lambda s, b: task.heads["features"](s, {}, b, None), states[2], batch)
    assert found["h"].shape == (4, 5) and found["z"].shape == (4, 4)


def test_short_waves_are_refused(sound):
    task, batch, _ = sound
    with pytest.raises(ValueError, match="samples=32, but the waves have 30"):
        jax.eval_shape(task.init, jax.random.key(0), {"audio": batch["audio"][:, :30]})
