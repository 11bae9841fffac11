"""The stacked GANs and their frozen encoders at a size that compiles in seconds, and batches of random pairs."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from supcon_jax import core
from supcon_jax.core import About
from supcon_jax.gans.stacked import stacked
from supcon_jax.nets import attngan, dmgan
from supcon_jax.nets.norm import BatchNorm
from supcon_jax.nets.text import TextEncoder
from supcon_jax.ops import rows
from supcon_jax.ops.sharded import gather
from supcon_jax.shard import data_mesh

KINDS = {"attngan": attngan, "dmgan": dmgan}
DMGAN_BY_HAND = ("attngan", pytest.param("dmgan", marks=pytest.mark.long))  # kinds, of tests that compile much
DIM, WORDS, VOCAB, Z, COND, SIZES = 8, 5, 23, 6, 4, (8, 16)


class Trunk(nn.Module):
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, image, *, train: bool):
        h = nn.Conv(DIM, (3, 3), image.shape[1] // 8, use_bias=False, dtype=self.dtype, name="conv")(image)
        return nn.tanh(BatchNorm(name="norm")(h, train=train))


class Encoder(nn.Module):
    """Stands for the image encoder: two convolutions instead of a hundred, 4 x 4 regions, a trunk with BatchNorm."""

    dim: int = DIM
    frozen: bool = False
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, image, *, train: bool = False):
        h = Trunk(self.dtype, name="trunk")(image, train=train and not self.frozen)
        h = jax.lax.stop_gradient(h) if self.frozen else h
        wide = jnp.promote_types(h.dtype, jnp.float32)
        regions = nn.Conv(self.dim, (2, 2), strides=2, dtype=self.dtype, name="regions")(h)
        code = nn.Dense(self.dim, dtype=self.dtype, name="code")(h.reshape(len(h), -1))
        return regions.reshape(len(image), -1, self.dim).astype(wide), code.astype(wide)


def gan_nets(dtype=None, sizes=SIZES, frozen=False, kind="attngan"):
    made = KINDS[kind]
    return {
        "gen": made.Generator(width=4, sizes=sizes, residual=1, cond=COND, dtype=dtype),
        "disc": tuple(made.Discriminator(s, width=2, dtype=dtype) for s in sizes),
        "image": Encoder(frozen=frozen, dtype=dtype),
        "text": TextEncoder(VOCAB, embed=6, width=DIM, dtype=dtype),
    }


def encoders(nets, size=SIZES[-1], seed=5):
    """Frozen encoders with random weights and BatchNorm averages that are not those of a start."""
    shapes = jax.eval_shape(
        lambda key: {
            "image": nets["image"].init(key, jnp.zeros((2, size, size, 3))),
            "text": nets["text"].init(key, jnp.ones((2, WORDS), jnp.int32), jnp.full(2, WORDS)),
        },
        jax.random.key(0),
    )
    made = fill(shapes, seed)
    stats = jax.tree.map(lambda x: x + np.float32(0.1), made["image"]["batch_stats"])
    params = {name: tree["params"] for name, tree in made.items()}
    return {"damsm": {"params": params, "stats": {"image": stats}}}


def task(nets=None, tx=None, devices=1, **options):
    """The stacked GANs' task over the tiny nets."""
    options = {"z": Z, "flip": False, "ema": 0.9} | options
    return stacked(nets or gan_nets(), tx or keeping(), about(devices), **options)


def fill(shapes, seed=0):
    """Random leaves for a tree of shapes: drawing by the initialisers would take longer to compile than a step.

    Kernels as 1 / sqrt(fan in), token vectors of length one or so, spectral vectors of length one, the rest as BatchNorm
    and biases begin, shaken a little.
    """
    rng = np.random.default_rng(seed)

    def leaf(path, shape):
        name = path[-1].key
        noise = rng.standard_normal(shape.shape)
        if name in ("scale", "var"):
            return jnp.asarray(np.abs(1 + 0.05 * noise), shape.dtype)
        if name in ("u", "v"):
            return jnp.asarray(noise / np.linalg.norm(noise), shape.dtype)
        if len(shape.shape) < 2:
            return jnp.asarray(0.05 * noise, shape.dtype)
        return jnp.asarray(noise / np.sqrt(np.prod(shape.shape[:-1])) ** (name != "embedding"), shape.dtype)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def start(task, batch, seed=0):
    """The state before the first step, its parameters from `fill`; averages and queues of parameters are copies."""
    made = fill(jax.eval_shape(task.init, jax.random.key(0), batch), seed)
    if "ema" in made.get("memory", {}):
        made["memory"]["ema"] = jax.tree.map(jnp.copy, made["params"]["gen"])
    return core.init_state(dataclasses.replace(task, init=lambda key, batch: made), jax.random.key(seed), batch)


QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def compiled(fn, *args):
    """The function compiled for these arguments, with little optimising: most of a tiny test is the compiler's time."""
    return jax.jit(fn).lower(*args).compile(QUICK)


def stepper(task, state, frozen, batch):
    """The task's step, compiled."""
    return compiled(functools.partial(core.step, task), state, frozen, batch)


def pairs(n=8, v=2, size=SIZES[-1], classes=3, seed=0, multi=False, unlabelled=False):
    """A batch of random pictures, captions and labels as the data room makes them."""
    rng = np.random.default_rng(seed)
    text_len = rng.integers(2, WORDS + 1, (n, v)).astype(np.int32)
    text = rng.integers(1, VOCAB, (n, v, WORDS)).astype(np.int32)
    text = np.where(np.arange(WORDS) < text_len[..., None], text, 0)
    label = np.repeat(rng.integers(classes, size=(n, 1)), v, 1).astype(np.int32)
    if multi:
        label = (rng.random((n, v, classes)) < 0.5).astype(np.float32)
    index = rng.permutation(4 * n * v)[: n * v].reshape(n, v).astype(np.int32)
    return {
        "image": rng.integers(0, 256, (n, v, size, size, 3)).astype(np.uint8),
        "text": text,
        "text_len": text_len,
        "label": np.full((n, v), -1, np.int32) if unlabelled else label,
        "index": index,
    }


def about(devices=1):
    mesh = data_mesh(devices)
    return About(64, 3, None, 10, 8, gather(mesh) if devices > 1 else rows.dense, mesh)


def adam(rate=1e-2, b1=0.5, b2=0.999):
    return {name: optax.adam(rate, b1=b1, b2=b2) for name in ("disc", "gen", "model")}


def keeping(rate=0.05):
    """Plain descent that keeps the last gradient as its state, so that a test can read it."""

    def update(grads, state, params=None):
        return jax.tree.map(lambda g: -rate * g, grads), grads

    tx = optax.GradientTransformation(lambda params: jax.tree.map(jnp.zeros_like, params), update)
    return {name: tx for name in ("disc", "gen", "model")}


def far(got, want, floor=1e-3):
    """The largest difference of two trees, each leaf relative to its largest entry (or to `floor`)."""
    pairs = zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True)
    gap = [np.abs(np.asarray(g, np.float64) - w).max() / max(np.abs(w).max(), floor) for g, w in pairs if np.size(w)]
    return max(gap, default=0.0)


def same(a, b):
    """Whether two trees are equal bit for bit."""
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        np.array_equal(np.asarray(x), np.asarray(y)) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b))
    )


LOOKS = {"diversity", "saturated_percent", "real_saturated_percent"}  # what D tells of the pictures that it was shown
SPREADS = {f"{code}_{what}" for code in ("image", "text") for what in ("spread", "pair_distance")}  # what stage 1 tells


def census(name):
    """The names of what a watched loss tells of the batch."""
    what = ("contrast_nats", "chance_nats", "positives_per_anchor")
    shares = ("no_positive", "top1", "false_negative")
    return {f"{name}/{one}" for one in (*what, *(f"{share}_percent" for share in shares))}
