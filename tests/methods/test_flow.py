"""Flow matching's task: the exact velocity of toys, what is drawn, guidance, heads, and that it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gans import tiny
from supcon_jax import core
from supcon_jax.build.model import Model
from supcon_jax.methods import flow
from supcon_jax.nets.flow import Velocity

SIZE = 8


def nets_of(net=None):
    return tiny.gan_nets() | {"gen": net or Velocity(width=4, sizes=(SIZE,), most=2)}


def made(net=None, tx=None, **options):
    options = {"flip": False, "sampling": 3, "ema": 0.9, "text_norm": True} | options
    return flow.flow(nets_of(net), {"gen": tx or optax.adam(1e-2)}, tiny.about(), **options)


class Field:
    """Stands for the network: a given velocity, without parameters."""

    sizes = (SIZE,)

    def __init__(self, velocity):
        self.velocity = velocity

    def apply(self, variables, x, t, sentence):
        return self.velocity(x, t.reshape(-1, 1, 1, 1), sentence)


@pytest.fixture(scope="module")
def world():
    """(task, frozen, batch, state): red pictures and blue ones, each with a caption of its own."""
    task, batch = made(), tiny.pairs(n=8, size=SIZE)
    blue = np.arange(8) % 2
    batch["image"][:] = np.where(blue[:, None, None, None, None], [[[[30, 30, 220]]]], [[[[220, 30, 30]]]])
    batch["text"][:], batch["text_len"][:] = np.where(blue[:, None, None], [[[3, 4, 0, 0, 0]]], [[[9, 8, 0, 0, 0]]]), 2
    state = tiny.start(task, batch)
    return task, tiny.encoders(nets_of(), size=SIZE), batch, state


def losses_of(tasks, frozen, batch):
    """The loss of each task, in one program."""
    state = core.State(*[None] * 6, memory={})

    def losses(frozen, batch):
        return [task.players[0].loss({"gen": {}}, state, frozen, batch, jax.random.key(5)) for task in tasks]

    return jax.device_get(tiny.compiled(losses, frozen, batch)(frozen, batch))


def test_the_exact_velocity_of_linear_toys_costs_nothing_more_than_it_must(world):
    """All pictures alike: (c - x) / (1 - t) is exact and draws just that picture; another velocity costs its distance."""
    _, frozen, batch, _ = world
    c = 0.25
    one = batch | {"image": np.full(batch["image"].shape, c, np.float32)}

    def exact(x, t, s):
        return (c - x) / (1 - t)

    tasks = made(Field(exact)), made(Field(lambda *a: exact(*a) + 0.5))
    (value, aux), (other, _) = losses_of(tasks, frozen, one)
    assert float(value) < 1e-8 and 0.5 < float(aux.metrics["mean_velocity"]) < 1.2  # the noise that a mean cannot know
    assert float(other) == pytest.approx(0.25, rel=1e-4)
    how = {"guidance": 1.0, "sampling": 4, "solver": "euler"}
    drawn = flow.draw(Field(exact), {}, jnp.zeros((2, tiny.DIM)), jax.random.key(0), **how)
    assert float(jnp.abs(drawn - c).max()) < 1e-5


def test_regression_finds_the_velocity_of_gaussians():
    """x_1 ~ N(2, 0.5^2): at each time the best straight line through velocities is the known one."""
    rng = np.random.default_rng(0)
    x0, x1 = rng.normal(size=200_000), 2 + 0.5 * rng.normal(size=200_000)
    for t in (0.1, 0.5, 0.9):
        x, velocity = flow.straight(x0, x1, np.full(200_000, t))
        slope, start = np.polyfit(np.asarray(x, np.float64), np.asarray(velocity, np.float64), 1)
        want = (t * 0.25 - (1 - t)) / ((1 - t) ** 2 + t**2 * 0.25)
        assert slope == pytest.approx(want, abs=0.02) and start == pytest.approx(2 - want * t * 2, abs=0.03)


def test_guidance_goes_beyond_the_sentence():
    """Velocities 1 without a sentence and 1 + s with it: with guidance g the pictures move by 1 + g s."""
    field = Field(lambda x, t, s: jnp.full_like(x, 0.1) * (1 + s[:, :1, None, None]))
    s, key = jnp.ones((3, 4)), jax.random.key(1)
    noise = jax.random.normal(key, (3, SIZE, SIZE, 3))
    inside = jnp.abs(noise) < 0.3
    for g in (0.0, 1.0, 3.0):
        moved = flow.draw(field, {}, s, key, guidance=g, solver="euler", sampling=2)
        np.testing.assert_allclose(moved[inside], (noise + 0.1 * (1 + g))[inside], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="drop > 0"):
        made(drop=0.0, guidance=2.0)


@pytest.mark.slow
def test_it_learns_what_its_sentence_says(world):
    """In 150 steps: under half of what the mean velocity costs; and pictures are of the colour that their caption has."""
    task, frozen, batch, state = world
    move = tiny.stepper(task, state, frozen, batch)
    first, found = None, []
    for _ in range(150):
        state, metrics = move(state, frozen, batch)
        first = metrics if first is None else first
        found.append((float(metrics["gen/loss"]), float(metrics["gen/mean_velocity"])))
    assert set(first) == {"gen/loss", "gen/grad_norm", "gen/mean_velocity", "skipped", "skipped_in_a_row"}
    loss, mean = np.mean(found[-10:], axis=0)
    assert loss < 0.5 * mean and int(state.skipped[0]) == 0, found
    flat = {name: batch[name][:, 0] for name in ("text", "text_len", "image")}
    heads = tiny.compiled(lambda s, f, b: [task.heads[n](s, f, b, jax.random.key(2)) for n in ("generate", "image", "text")],
                          state, frozen, flat)(state, frozen, flat)  # fmt: skip
    pictures, (regions, code), (words, sentence) = heads
    assert pictures.shape == (8, SIZE, SIZE, 3) and float(jnp.abs(pictures).max()) <= 1
    blueness = np.asarray(pictures[..., 2] - pictures[..., 0]).mean((1, 2))
    assert (blueness[1::2] > 0.3).all() and (blueness[::2] < -0.3).all(), blueness
    assert code.shape == sentence.shape == (8, tiny.DIM) and regions.ndim == words.ndim == 3
    # the weights file draws the same pictures
    about = {"kind": "flow", "stage": "flow", "config": {"flow": {"args": {"guidance": 1.0, "solver": "heun", "sampling": 3,
             "text_norm": True}}}}  # fmt: skip
    tree = {"gen": {"params": state.memory["ema"]}, "text": frozen["damsm"]["params"]["text"]}
    model = Model(nets_of(), tree, about)
    np.testing.assert_allclose(model._flow(flat["text"], flat["text_len"], jax.random.key(2)), pictures, atol=1e-4)


def test_sentences_are_dropped_and_the_average_follows(world):
    """With all sentences dropped the loss does not hear them; the average moves by its decay; the encoders stay."""
    _, frozen, batch, state = world
    heard = Field(lambda x, t, s: jnp.zeros_like(x) + s[:, :1, None, None])
    drops = (0.0, 0.5, 0.999999)
    tasks = [made(heard, drop=drop) for drop in drops] + [made(Field(lambda x, t, s: jnp.zeros_like(x)))]
    *values, silent = (float(value) for value, _ in losses_of(tasks, frozen, batch))
    free = dict(zip(drops, values, strict=True))
    assert free[0.999999] == pytest.approx(silent, rel=1e-6) and len({*free.values()}) == 3
    moved = state.replace(params={"gen": jax.tree.map(lambda x: x + 1, state.params["gen"])})
    after = made().after(moved)
    want = jax.tree.map(lambda x: x + 0.1, state.memory["ema"])
    assert tiny.far(after.memory["ema"], jax.device_get(want)) < 1e-5
