"""Distillation of a trained encoder into a small one: by similarities to other pictures, or by a classifier's answers."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from supcon_jax.core import Aux, Player, Task
from supcon_jax.losses import distill
from supcon_jax.methods import towers
from supcon_jax.methods.finetune import HEAD, blank, entropy
from supcon_jax.methods.probe import logits
from supcon_jax.methods.towers import ENCODER, PROJECTION
from supcon_jax.ops import queue as queues
from supcon_jax.ops.arrays import unit
from supcon_jax.ops.rows import Rows

NETS = (ENCODER, PROJECTION)
KINDS = ("seed", "compress")
ABOVE = "teacher/"  # before the names of the teacher's nets


def student(
    nets,
    tx,
    about,
    *,
    recipe="moco_v2",
    change=(),
    size=224,
    norm="",
    kind="seed",
    temperature=0.2,
    teacher_temperature=0.01,
    queue=65536,
) -> Task:
    """A small encoder whose similarities to a queue of pictures follow those of a large one.

        L = mean_i  -sum_j p_ij log softmax_j( <s_i, k_j> / T ),   p_i = softmax_j( <t_i, k'_j> / T' )

    "seed": keys are a queue of the teacher's codes and the teacher's own code of the picture; Fang et al. 2021, arXiv
    2101.04731, eq. 3. "compress": each has a queue of its own codes, the picture itself is not among the keys, T = T';
    Abbasi Koohpayegani et al. 2020, arXiv 2010.14713, eq. 2 (less the teacher's entropy, a constant).

    nets: "image" and "project" of the student, "teacher/image" and "teacher/project" of frozen["teacher"], codes of one length
        with "seed".
    recipe, change, size, norm: of the one view that both see. temperature: T; teacher_temperature: T'. queue: keys.
    Returns a Task with the player "model" and the head "features"; "queue", and with "compress" "teacher_queue", in memory.
    Raises ValueError: an unknown kind; codes of two lengths with "seed".
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}: use seed or compress")
    seed = kind == "seed"
    above = {name: nets[f"{ABOVE}{name}"] for name in NETS}

    def view(batch, key):
        return towers.views(batch, key, recipe=recipe, size=size, norm=norm, change=change)[0][:, 0]

    def taught(frozen, x):
        return jax.lax.stop_gradient(unit(through(above, frozen["teacher"], x, NETS)))

    def init(key, batch):
        x = view(batch, key)
        params, stats = towers.begin(nets, key, x, NETS)
        z = jax.eval_shape(lambda: towers.run(nets, params, stats, x, NETS)[0][PROJECTION])
        t = jax.eval_shape(lambda: codes(above, x))
        if seed and z.shape != t.shape:
            raise ValueError(f"nets.project gives codes of {z.shape[1]} numbers, the teacher's have {t.shape[1]}: use as many")
        held = {"queue": queues.init(queue, Rows(jnp.zeros((t if seed else z).shape)))}
        held |= {} if seed else {"teacher_queue": queues.init(queue, Rows(jnp.zeros(t.shape)))}
        return {"params": {"model": params}, "stats": {"model": stats}, "memory": held}

    def loss(params, state, frozen, batch, key):
        x, memory = view(batch, key), state.memory
        out, stats = towers.run(nets, params["model"], state.stats["model"], x, NETS)
        s, t = unit(out[PROJECTION]), taught(frozen, x)
        how = {"scale": 1 / temperature, "sums": about.sums}
        if seed:
            keys = queues.keys(memory["queue"])
            how["teacher_scale"] = 1 / teacher_temperature
            value = distill.distilled(Rows(s), keys, t, keys.x, own=t, **how)
            memory = {**memory, "queue": queues.enqueue(memory["queue"], Rows(t))}
        else:
            mine, theirs = (queues.keys(memory[name]) for name in ("queue", "teacher_queue"))
            value = distill.compress(Rows(s), mine, t, theirs.x, **how)
            memory = {**memory, "queue": queues.enqueue(memory["queue"], Rows(jax.lax.stop_gradient(s))),
                      "teacher_queue": queues.enqueue(memory["teacher_queue"], Rows(t))}  # fmt: skip
        return value, Aux(towers.health(out[ENCODER][:, None], s[:, None]), stats, memory)

    head = towers.features(nets, size=size, recipe=recipe, norm=norm)
    return Task(init, (Player("model", loss, tx["model"], parts=NETS),), heads={"features": head})


def distil(
    nets, tx, about, *, recipe="crop_flip", change=(), size=224, norm="", alpha=1.0, temperature=1.0, smoothing=0.0
) -> Task:
    """An encoder with a classifier that gives the answers of a trained one, also for pictures without a label.

        L = (1 - a) mean_{i with a label} -log P_S(y_i | x_i; 1)  +  a mean_i -sum_c P_T(c | x_i; T) log P_S(c | x_i; T)
        P(c | x; T) = softmax_c( f(x) / T )

    Chen et al. 2020, arXiv 2006.10029 (SimCLR v2), eq. 2 and 3. Self-distillation is a student with the teacher's own nets.

    nets: "image" of the student; "teacher/image" of frozen["teacher"], which `finetune` or this has trained, and its
        "teacher/project" where its classifier reads layers of a projection.
    recipe, change, size, norm: of the one view that both see.
    alpha: a; 1 reads no labels, 0 is supervised learning. temperature: T, of both. smoothing: of the labels, see finetune.
    Returns a Task with the player "model" and the heads "features" and "classes", as of finetune.
    Raises ValueError: with alpha < 1, pictures of several labels.
    Differs from: eq. 3, which sums over pictures: here each term is a mean over those that it reads.
    """
    above = {name: nets[f"{ABOVE}{name}"] for name in NETS if f"{ABOVE}{name}" in nets}

    def view(batch, key):
        return towers.views(batch, key, recipe=recipe, size=size, norm=norm, change=change)[0][:, 0]

    def init(key, batch):
        x = view(batch, key)
        params, stats = towers.begin(nets, key, x, (ENCODER,))
        h = jax.eval_shape(lambda: towers.joined(towers.run(nets, params, stats, x, (ENCODER,))[0][ENCODER]))
        return {"params": {"model": {**params, HEAD: blank(h, about.classes)}}, "stats": {"model": stats}}

    def loss(params, state, frozen, batch, key):
        x, own, tower = view(batch, key), params["model"], frozen["teacher"]
        out, stats = towers.run(nets, own, state.stats["model"], x, (ENCODER,))
        scores = logits(own[HEAD], towers.joined(out[ENCODER]))
        answers = logits(tower["params"][HEAD], through(above, tower, x, tuple(above)))
        value = alpha * distill.soft_labels(scores, answers, temperature=temperature) if alpha else 0.0
        told = {"agree_percent": 100 * jnp.mean(scores.argmax(-1) == answers.argmax(-1))}
        if alpha < 1:
            known, told["right_percent"] = entropy(scores, batch["label"][:, 0], smoothing)
            value += (1 - alpha) * known
        return value, Aux(told, stats, state.memory)

    def classify(state, frozen, batch, key):
        return logits(state.params["model"][HEAD], features(state, frozen, batch, key)["h"])

    features = towers.features(nets, size=size, recipe=recipe, norm=norm, names=(ENCODER,))
    return Task(init, (Player("model", loss, tx["model"]),), heads={"features": features, "classes": classify})


def through(nets, tower, x, names):
    """What the last of a fixed encoder's nets gives for a batch of pictures, a row for each."""
    out, _ = towers.run(nets, tower["params"], tower.get("stats", {}), x, names, train=False)  # files keep no empty ones
    return towers.joined(out[names[-1]])


def codes(nets, x):
    """Codes [n, d] of drawn networks, for their shape."""
    params, stats = towers.begin(nets, jax.random.key(0), x, NETS)
    return through(nets, {"params": params, "stats": stats}, x, NETS)
