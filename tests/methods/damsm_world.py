"""The tiny DAMSM that its tests share: networks, task, codes of a batch, one step on several devices."""

import functools

import jax
import numpy as np

from gans import tiny
from supcon_jax import shard
from supcon_jax.methods.damsm import damsm
from supcon_jax.nets.text import TextEncoder
from supcon_jax.views.image import signed


def nets_of(dtype=None, frozen=False):
    """Without dropout, so that a test can make the same codes."""
    return {
        "image": tiny.Encoder(frozen=frozen, dtype=dtype),
        "text": TextEncoder(tiny.VOCAB, embed=6, width=tiny.DIM, dropout=0.0, dtype=dtype),
    }


def made(nets=None, devices=1, **options):
    return damsm(nets or nets_of(), tiny.keeping(), tiny.about(devices), **{"flip": False} | options)


@functools.cache
def coder(image, text):
    """Both encoders in training mode, compiled once for each shape."""

    def run(variables, pictures, own, *captions):
        seen = image.apply(variables, signed(pictures), train=True, mutable=["batch_stats"])
        return seen, text.apply(own, *captions)

    return jax.jit(run, compiler_options=tiny.QUICK)


def codes(state, batch, nets):
    """Codes of every pair in training mode, float64, [n, v, ...]: regions, code, words, sentence; and new statistics."""
    params, stats = state.params["model"], state.stats["model"]["image"]
    n, v = batch["label"].shape[:2]
    variables = {"params": params["image"], "batch_stats": stats}
    pictures = batch["image"].reshape(n * v, *batch["image"].shape[2:])
    text = batch["text"].reshape(n * v, -1), batch["text_len"].ravel()
    both = coder(nets["image"], nets["text"])(variables, pictures, {"params": params["text"]}, *text)
    ((regions, code), new), (words, sentence) = jax.device_get(both)
    rows = [np.asarray(x, np.float64).reshape(n, v, *x.shape[1:]) for x in (regions, code, words, sentence)]
    return *rows, new["batch_stats"]


def on_devices(devices, state, batch):
    task, mesh = made(devices=devices), shard.data_mesh(devices)
    state, split = shard.replicate(state, mesh), shard.place(batch, mesh)
    return jax.device_get(tiny.stepper(task, state, {}, split)(state, {}, split))


def assert_same_step(got, want):
    for name, value in want[1].items():
        np.testing.assert_allclose(got[1][name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    assert tiny.far(got[0].opt, want[0].opt) < 1e-4  # the gradients themselves
    assert tiny.far(got[0].params, want[0].params) < 1e-5
    assert tiny.far(got[0].stats, want[0].stats) < 1e-5
