"""The figures of a collapse against plain loops, on pictures and codes that are collapsed and on such as are not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from supcon_jax.evals import spectrum
from supcon_jax.losses import vitals
from supcon_jax.shard import data_mesh

RNG = np.random.default_rng(0)
REAL, FAKES = (RNG.uniform(-1, 1, (6, 2, 16, 24, 3)).astype(np.float32) for _ in range(2))


def looks(fakes, real=REAL):
    return {name: float(x) for name, x in jax.jit(vitals.looks)(fakes, real).items()}


def deviation(images):
    """Of each place of an 8 x 8 grid over the rows, then their root mean square."""
    x = np.asarray(images, np.float64)
    squares = []
    for b in range(2):
        for i in range(8):
            for j in range(8):
                for c in range(3):
                    place = [x[n, b, 2 * i : 2 * i + 2, 3 * j : 3 * j + 3, c].mean() for n in range(6)]
                    squares.append(np.var(place))
    return np.sqrt(np.mean(squares))


def test_diversity_is_the_fakes_spread_beside_that_of_the_reals():
    seen = looks(0.3 * FAKES)
    assert seen["diversity"] == pytest.approx(deviation(0.3 * FAKES) / deviation(REAL), rel=1e-4)
    alike = np.broadcast_to(FAKES[:1], FAKES.shape)
    assert looks(alike)["diversity"] < 1e-3 and looks(REAL)["diversity"] == pytest.approx(1)
    noise = alike * 0.5 + 0.02 * RNG.choice([-1, 1], FAKES.shape).astype(np.float32)  # alike but for single pixels
    assert looks(noise)["diversity"] < 0.1
    assert np.isfinite(looks(FAKES, np.zeros_like(REAL))["diversity"])


def test_saturation_counts_both_ends():
    fakes = np.zeros_like(FAKES)
    fakes[0], fakes[1] = 1, -0.995
    real = np.zeros_like(REAL)
    real[:, 0, 0, 0, 0] = -1
    seen = looks(fakes, real)
    assert seen["saturated_percent"] == pytest.approx(100 / 3)
    assert seen["real_saturated_percent"] == pytest.approx(100 / (2 * 16 * 24 * 3), rel=1e-5)


def test_spread_is_that_of_the_mean_cosine():
    codes = RNG.normal(size=(9, 2, 5)) + np.array([1, 0, 0, 0, 0])
    u = (codes / np.linalg.norm(codes, axis=-1, keepdims=True)).reshape(18, 5)
    cosine = np.mean([a @ b for a in u for b in u])
    spread = jax.jit(vitals.spread)
    assert float(spread(np.float32(codes))) == pytest.approx(np.sqrt(1 - cosine), rel=1e-5)
    assert float(spread(np.float32(codes[:1, :1]) * np.ones((9, 2, 1), np.float32))) < 1e-3
    assert float(spread(np.concatenate([np.eye(4), -np.eye(4)]).astype(np.float32))) == pytest.approx(1)


def test_pair_distance_is_within_rows_beside_all():
    codes = RNG.normal(size=(6, 2, 5)) + np.array([1, 0, 0, 0, 0])
    index = np.array([[0, 1], [2, 2], [3, 4], [5, 0], [6, 6], [1, 7]])
    u = codes / np.linalg.norm(codes, axis=-1, keepdims=True)
    within = np.mean([np.sum((u[i, 0] - u[i, 1]) ** 2) for i in (0, 2, 3, 5)])
    flat = u.reshape(12, 5)
    want = np.sqrt(within / np.mean([np.sum((a - b) ** 2) for a in flat for b in flat]))
    seen = jax.jit(vitals.spreads)(index, image=jnp.asarray(codes, jnp.float32))
    assert set(seen) == {"image_pair_distance", "image_spread"}
    assert float(seen["image_pair_distance"]) == pytest.approx(want, rel=1e-5)
    classes, distance = np.repeat(np.eye(6, dtype=np.float32), 2, axis=0).reshape(6, 2, 6), jax.jit(vitals.pair_distance)
    assert float(distance(classes, index)) < 1e-3  # each class one point
    assert float(distance(classes, np.repeat(index[:, :1], 2, 1))) == 1  # two captions of one picture, no class
    assert float(distance(np.ones((6, 2, 6), np.float32), index)) < 1e-3
    assert set(jax.eval_shape(vitals.spreads, index[:, :1], text=jnp.ones((6, 1, 3)))) == {"text_spread"}


def loops(codes):
    """The figures of health from their definitions, in loops."""
    n, v, d = codes.shape
    u = codes / np.linalg.norm(codes, axis=-1, keepdims=True)
    flat = u.reshape(n * v, d)
    l = np.linalg.eigvalsh(np.cov(flat.T))
    rows = [(i, a) for i in range(n) for a in range(v)]
    same = [u[i, a] @ u[j, b] for i, a in rows for j, b in rows if i == j and a != b]
    other = [u[i, a] @ u[j, b] for i, a in rows for j, b in rows if i != j]
    return {
        "std": np.sqrt(d) * np.mean([np.std(flat[:, j], ddof=1) for j in range(d)]),
        "participation": l.sum() ** 2 / (l**2).sum(),
        "positive_cosine": np.mean(same), "negative_cosine": np.mean(other),
        "alignment": np.mean([np.sum((u[i, a] - u[j, b]) ** 2) for i, a in rows for j, b in rows if i == j and a != b]),
        "uniformity": np.log(np.mean([np.exp(-2 * np.sum((u[i, 0] - u[j, 0]) ** 2)) for i in range(n) for j in range(i)])),
    }  # fmt: skip


health = jax.jit(vitals.health)
ONE_VIEW = {"std", "participation", "negative_cosine", "uniformity"}


@pytest.mark.parametrize("shape", [(6, 2, 5), (3, 2, 9), (4, 3, 4)])
def test_health_is_that_of_the_loops(shape):
    codes = RNG.normal(size=shape) + np.eye(shape[2])[0] + 0.7 * RNG.normal(size=(shape[0], 1, shape[2]))
    seen = {name: float(x) for name, x in health(np.float32(codes)).items()}
    assert seen == pytest.approx(loops(codes), rel=1e-4)
    positive = RNG.normal(size=(shape[0], shape[2]))
    u, p = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (codes[:, 0], positive))
    told = health(np.float32(codes[:, :1]), np.float32(positive))
    assert float(told["positive_cosine"]) == pytest.approx(np.mean([a @ b for a, b in zip(u, p)]), rel=1e-4)
    assert float(told["alignment"]) == pytest.approx(np.mean([np.sum((a - b) ** 2) for a, b in zip(u, p)]), rel=1e-4)
    assert float(told["uniformity"]) == pytest.approx(loops(codes)["uniformity"], rel=1e-4)


def test_health_of_codes_that_are_collapsed_and_of_few():
    dead = health(np.ones((4, 2, 8), np.float32))
    assert float(dead["std"]) < 1e-3 and float(dead["participation"]) == 0
    assert float(dead["positive_cosine"]) == pytest.approx(1) and float(dead["negative_cosine"]) == pytest.approx(1)
    assert abs(float(dead["alignment"])) < 1e-6 and abs(float(dead["uniformity"])) < 1e-5
    line = health(np.float32([[[1.0, 0.0]], [[-1.0, 0.0]], [[1.0, 0.0]]]))
    assert float(line["participation"]) == pytest.approx(1) and set(line) == ONE_VIEW
    even = health(np.concatenate([np.eye(4), -np.eye(4)]).astype(np.float32)[:, None])
    assert float(even["participation"]) == pytest.approx(4) and float(even["std"]) == pytest.approx(np.sqrt(8 / 7))
    assert set(jax.eval_shape(vitals.health, jnp.ones((1, 1, 3)))) == {"participation"}


def test_alignment_and_uniformity_are_those_of_the_evaluation_and_of_so_many_rows():
    """The first ROWS rows stand for the batch, on any number of devices; what lies behind them changes nothing."""
    u = RNG.normal(size=(vitals.ROWS + 44, 2, 6))
    u /= np.linalg.norm(u, axis=-1, keepdims=True)
    seen = health(np.float32(u))
    assert float(seen["alignment"]) == pytest.approx(spectrum.alignment(u[:, 0], u[:, 1]), rel=1e-5)
    want = spectrum.uniformity(u[: vitals.ROWS, 0])
    assert want != pytest.approx(spectrum.uniformity(u[:, 0]), rel=1e-4)  # else this could not fail
    assert float(seen["uniformity"]) == pytest.approx(want, rel=1e-5)
    split = jax.device_put(np.float32(u[:296]), NamedSharding(data_mesh(8), PartitionSpec("data")))
    assert float(health(split)["uniformity"]) == pytest.approx(want, rel=1e-5)


def test_nothing_is_taught_by_them():
    records = np.arange(12).reshape(6, 2)

    def told(x, y):
        codes = y[..., 0, 0, :]
        health = sum(vitals.health(codes).values()) + vitals.pair_distance(codes, records)
        return sum(vitals.looks(x, x).values()) + vitals.spread(y) + health

    grads = jax.jit(jax.grad(told, (0, 1)))(FAKES, REAL)
    assert not any(np.any(g) for g in grads)
