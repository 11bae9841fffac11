"""Losses with encoders and teachers around them, against the published PyTorch code."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from golden.judging import ids, judge, numbers
from supcon_jax.losses import contrast, distill
from supcon_jax.ops.arrays import masked_mean
from supcon_jax.ops.rows import Rows
from supcon_jax.train import optim


@pytest.mark.golden("gradcache")
@pytest.mark.parametrize("cached", [False, True], ids=["direct", "cached"])
def test_encoders_in_slices(case, dtype, cached):
    """The step whose encoders run slice by slice, their activations made once more: value and gradients of the whole."""
    c = case.arrays()
    per, size = 1 + int(c["n_hard"]), int(c["chunk"])

    def encode(x, w):
        one = jax.checkpoint(lambda x: jnp.tanh(x @ w.T))
        if not cached:
            return one(x)
        parts = jax.lax.map(one, x.reshape(len(x) // size, size, -1).swapaxes(0, 1))  # row r of slice s: s + r len / size
        return parts.swapaxes(0, 1).reshape(len(x), -1)

    def loss(w_q, w_k):
        x, y = (jnp.asarray(c[name], dtype) for name in "xy")
        own = jnp.arange(len(y)) % per == 0  # a query's own key, followed by its hard negatives
        k = Rows(encode(y, w_k), index=jnp.where(own, jnp.arange(len(y)) // per, -1))
        return contrast.info_nce(Rows(encode(x, w_q)), k, scale=1.0), {}

    judge(loss, c, ["Wq", "Wk"], dtype)


@pytest.mark.golden("coca_distill", only="coca")
def test_contrast_and_captions(case, dtype):
    c = case.arrays()

    def loss(image, text, caption_logits, log_scale):
        clip = sum(contrast.info_nce_both(Rows(image), Rows(text), scale=jnp.exp(log_scale))) / 2
        with jax.numpy_dtype_promotion("standard"):
            token = optax.softmax_cross_entropy_with_integer_labels(caption_logits, ids(c["labels"]))
        caption = masked_mean(token, ids(c["labels"]) != 0)
        (clip_weight,), (caption_weight,) = numbers(c, "clip_weight"), numbers(c, "caption_weight")
        clip, caption = clip_weight * clip, caption_weight * caption
        return clip + caption, {"clip_loss": clip, "caption_loss": caption}

    judge(loss, c, ["image", "text", "caption_logits", "log_scale"], dtype)


@pytest.mark.golden("coca_distill", only="distill")
def test_distillation_of_two_towers(case, dtype):
    """The teacher's own gradients, which that code leaves to its caller, are none here."""
    c = case.arrays()
    t_image, t_text = c["t_image"], c["t_text"]

    def loss(image, text, log_scale):
        scale = jnp.exp(log_scale)
        q, k, t_q, t_k = Rows(image), Rows(text), jnp.asarray(t_image, dtype), jnp.asarray(t_text, dtype)
        own = sum(contrast.info_nce_both(q, k, scale=scale)) / 2
        how = {"scale": scale, "teacher_scale": jnp.exp(jnp.asarray(c["t_log_scale"], dtype))}
        taught = (distill.distilled(q, k, t_q, t_k, **how) + distill.distilled(k, q, t_k, t_q, **how)) / 2
        return own + taught, {"contrastive_loss": own, "distill_loss": taught}

    judge(loss, c, ["image", "text", "log_scale"], dtype)


@pytest.mark.golden("lars_steps")
def test_lars(case, dtype):
    """Steps of a matrix and a vector, which has neither weight decay nor a ratio of norms."""
    c = case.arrays()
    (lr,), (decay,), (momentum,), (eta,) = (numbers(c, name) for name in ("lr", "weight_decay", "momentum", "eta"))
    options = {"name": "lars_outside", "lr": lr, "weight_decay": decay, "momentum": momentum, "trust": eta}
    tx = optim.optimiser(options, steps=len(c["grads_W"]), epoch=1)
    params = {name: jnp.asarray(c[name], dtype) for name in "Wb"}
    state = tx.init(params)
    for at in range(len(c["grads_W"])):
        grads = {name: jnp.asarray(c[f"grads_{name}"][at], dtype) for name in "Wb"}
        with jax.numpy_dtype_promotion("standard"):
            updates, state = tx.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        for name in "Wb":
            rtol = 1e-9 if dtype == jnp.float64 else 1e-5
            np.testing.assert_allclose(params[name], c[f"{name}_steps"][at], rtol=rtol, atol=rtol / 100, err_msg=f"{name} {at}")
