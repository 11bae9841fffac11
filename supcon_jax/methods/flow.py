"""Flow matching from noise to pictures under the frozen text encoder: what the GANs are compared with."""

from __future__ import annotations

import types

import jax
import jax.numpy as jnp

from supcon_jax.core import Aux, Player, Task
from supcon_jax.methods import damsm
from supcon_jax.ops.arrays import average, unit_rms
from supcon_jax.ops.integrate import integrate
from supcon_jax.views import image as views


def flow(
    nets,
    tx,
    about,
    *,
    drop=0.1,
    guidance=1.0,
    solver="heun",
    sampling=16,
    text_norm=False,
    ema=0.999,
    flip=True,
) -> Task:
    """Rectified flow: one network learns the straight way from noise to the picture of a sentence.

        x_t = (1 - t) x_0 + t x_1,   L = E |v(x_t, t, s) - (x_1 - x_0)|^2,   x_0 ~ N(0, 1), t ~ U(0, 1)

    Liu et al. 2022, arXiv 2209.03003, and Lipman et al. 2022, arXiv 2210.02747. Pictures are drawn by following v from
    noise, t = 0, to t = 1; with guidance (Ho and Salimans 2022, arXiv 2207.12598) v(0) + guidance (v(s) - v(0)).

    nets: "gen" (nets.flow.Velocity), and the frozen encoders "image" and "text" (frozen["damsm"]). A batch's partners are
        not looked at.
    drop: share of the rows that learn without their sentence. guidance: 1 follows the sentence as it was learned and asks
        the network once; other values ask it twice and need drop > 0.
    solver, sampling: how pictures are drawn, and in how many steps; see ops.integrate.
    text_norm: the sentence gets unit root mean square.
    ema: decay of the averaged network, which sampling and scores use; 0 for the live one.
    Returns a Task: player "gen", heads "generate", "image", "text". Metric "mean_velocity": what the batch's mean velocity
        in place of v would cost.
    Raises ValueError: guidance without drop.
    """
    if guidance != 1 and not drop:
        raise ValueError(f"guidance {guidance} needs rows that learn without their sentence: drop > 0")
    net, read = nets["gen"], frozen_heads(nets)

    def init(key, batch):
        pictures = views.signed(batch["image"][:, 0])
        params = net.init(key, pictures, jnp.zeros(len(pictures)), jnp.zeros((len(pictures), nets["text"].width)))["params"]
        return {"params": {"gen": params}, "memory": {"ema": jax.tree.map(jnp.copy, params)}}

    def sentences(frozen, batch):
        return heard(read["text"](None, frozen, batch, None)[1], text_norm)

    def gen(params, state, frozen, batch, key):
        mirror, noise, time, silence = jax.random.split(jax.random.fold_in(key, 1), 4)
        x1 = views.signed(batch["image"][:, :1])
        x1 = (views.flip(x1, mirror) if flip else x1)[:, 0]
        s = sentences(frozen, {name: batch[name][:, 0] for name in ("text", "text_len")})
        told = ~jax.random.bernoulli(silence, drop, (len(x1), 1)) if drop else True
        t = jax.random.uniform(time, (len(x1),), x1.dtype)
        xt, velocity = straight(jax.random.normal(noise, x1.shape, x1.dtype), x1, t)
        found = net.apply({"params": params["gen"]}, xt, t, jnp.where(told, s, 0))
        mean = jnp.square(velocity - velocity.mean(0, keepdims=True)).mean()
        return jnp.square(found - velocity).mean(), Aux({"mean_velocity": mean}, {}, state.memory)

    def generate(state, frozen, batch, key):
        how = {"guidance": guidance, "solver": solver, "sampling": sampling}
        return draw(net, state.memory["ema"], sentences(frozen, batch), key, **how)

    def after(state):
        return state.replace(memory={"ema": average(state.memory["ema"], state.params["gen"], ema)})

    return Task(init, (Player("gen", gen, tx["gen"]),), after=after, heads={"generate": generate, **read})


def straight(x0, x1, t):
    """(x_t, velocity) on the straight way from x0 to x1, both [n, ...], at times t [n]."""
    t = t.reshape(-1, *(1,) * (x1.ndim - 1))
    return (1 - t) * x0 + t * x1, x1 - x0


def heard(sentence, text_norm):
    """Sentences [n, d] as the network reads them."""
    return unit_rms(sentence) if text_norm else sentence


def draw(net, params, sentence, key, *, guidance, solver, sampling):
    """Pictures [n, h, w, 3] in [-1, 1] of sentences [n, d], as the network reads them; the noise is that of the key."""
    n, side = len(sentence), net.sizes[-1]

    def field(x, t):
        def ask(x, s):
            return net.apply({"params": params}, x, jnp.broadcast_to(t, len(x)), s)

        if guidance == 1:
            return ask(x, sentence)
        free = ask(x, jnp.zeros_like(sentence))
        return free + guidance * (ask(x, sentence) - free)

    noise = jax.random.normal(key, (n, side, side, 3))
    return jnp.clip(integrate(field, noise, steps=sampling, solver=solver), -1, 1)


def frozen_heads(nets):
    """"image" and "text" of the frozen encoders, as their own stage has them."""

    def of(head):
        def read(state, frozen, batch, key):
            tower = frozen["damsm"]
            trained = types.SimpleNamespace(params={"model": tower["params"]}, stats={"model": tower["stats"]})
            return head(trained, {}, batch, key)

        return read

    return {name: of(head) for name, head in damsm.heads(nets).items()}
