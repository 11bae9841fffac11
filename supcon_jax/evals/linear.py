"""Linear classifiers on fixed features: all rates or penalties of a sweep at once, the choice made on training rows."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from supcon_jax.evals.knn import average_precision, hits, labelled_rows
from supcon_jax.evals.protocol import Protocol, record
from supcon_jax.evals.robustness import calibration

HELD = 10  # one row of so many is held out for the choice
ROOM = 2**27  # logits of a full batch that are held at once, over all heads


@dataclasses.dataclass(frozen=True)
class Preset:
    """How a published linear evaluation is optimised: stochastic gradients with momentum 0.9.

    lr: rate, of a batch of 256 where `scaled` (then it grows with the batch). drops: epochs after which the rate is
    multiplied by `factor`; (): half a cosine down to zero. decay: added to gradients, times weights. trust: of LARC, without
    its clipping; 0: none. init: standard deviation of the first weights. rates: multiples of the rate that are tried.
    """

    lr: float
    batch: int
    epochs: int
    scaled: bool = False
    drops: tuple[int, ...] = ()
    factor: float = 0.1
    nesterov: bool = False
    decay: float = 0.0
    trust: float = 0.0
    init: float = 0.01
    rates: tuple[float, ...] = (1.0,)


PRESETS = {
    "simclr": Preset(0.1, 4096, 90, scaled=True, nesterov=True, init=0.0),
    "moco": Preset(30.0, 256, 100, drops=(60, 80)),
    "mocov3": Preset(0.1, 1024, 90, scaled=True),
    "byol": Preset(0.2, 4096, 80, scaled=True, nesterov=True, rates=(0.25, 0.5, 1.0, 1.5, 2.0)),
    "simsiam": Preset(0.1, 4096, 90, scaled=True, trust=1e-3),
    "swav": Preset(0.3, 256, 100, decay=1e-6),
    "barlow": Preset(0.3, 256, 100, decay=1e-6),
    "vicreg": Preset(0.02, 256, 100, decay=1e-6),
    "supcon_cifar": Preset(5.0, 512, 100, drops=(60, 75, 90), factor=0.2),
}
LBFGS = "lbfgs"
GAIN, STILL = 1e-6, 3  # L-BFGS ends where so many steps in a row each lower the loss by no larger share,
FLAT = 3e-6  # or where the gradient is no longer: float32 sees little more


@dataclasses.dataclass(frozen=True)
class Probe:
    """A fitted head. mean, spread: f32[f] taken from features first; w: f32[f, c]; b: f32[c]; said: how it was fitted."""

    mean: np.ndarray
    spread: np.ndarray
    w: np.ndarray
    b: np.ndarray
    said: str

    def __call__(self, features):
        """f32[n, f] -> logits f32[n, c]."""
        x = (jnp.asarray(features, jnp.float32) - self.mean[None]) / self.spread[None]
        return jnp.dot(x, self.w, precision="highest") + self.b[None]


jax.tree_util.register_dataclass(Probe, ["mean", "spread", "w", "b"], ["said"])


def linear(
    x, label, query, truth, *, classes, preset=LBFGS, standardise=None, rates=(), sweep=12, steps=500, seed=0,
    protocol=Protocol(), name="linear",  # noqa: B008  (frozen)
):  # fmt: skip
    """Accuracy of a linear classifier fitted to training features, on the test features, after its last epoch.

    x, label: f[n, f] and i[n], or [n, c] multi-hot, of the training split; query, truth: the same of the test split.
    Rows without a label (-1) are left out. The other arguments: as `fit`.
    Returns {metric: {"value", "protocol", "line"}}: NAME_top1, NAME_top5 and NAME_ece (see `calibration`) in percent,
    NAME_map of several labels.
    Raises ValueError: features that are not finite, an unknown preset, no labelled rows.
    """
    (x, label), (query, truth) = labelled_rows(x, label, "train"), labelled_rows(query, truth, "test")
    how = {"rates": rates, "sweep": sweep, "steps": steps, "seed": seed}
    probe = fit(x, label, classes=classes, preset=preset, standardise=standardise, **how)
    own = protocol.replace(real_number=len(query), train_number=len(x), settings=probe.said, seed=seed)
    return record({f"{name}_{key}": value for key, value in scored(probe(query), truth).items()}, own)


def scored(logits, truth):
    """What logits [n, c] are worth: {"top1", "top5", "ece"}, or {"map"} of several labels, in percent."""
    logits = np.asarray(logits, np.float64)
    if truth.ndim == 2:
        return {"map": 100 * average_precision(logits, truth)}
    return hits(logits, truth) | {"ece": calibration(logits, truth)}


def fit(x, label, *, classes, preset=LBFGS, standardise=None, rates=(), sweep=12, steps=500, seed=0) -> Probe:
    """Fits a linear classifier: the best of a sweep on held-out training rows, then again on all of them.

        L = mean_i -log softmax(W x_i + b)_{y_i}  [+ |W|^2 / (2 C n) with lbfgs],  several labels: sum_c of binary entropies

    preset: a name in PRESETS, which says rates and epochs (of batches that are no larger than the rows), or "lbfgs": the
    whole set at once, over `sweep` values of C (see `penalties`; 45 are usual), `steps` iterations at most.
    standardise: features to mean 0 and deviation 1 over the training rows; None: with lbfgs only, as published.
    rates: multiples of the preset's rate to try; (): its own. A sweep of one is fitted at once, and no row held out.
    seed: of the rows held out, the batches' order and the first weights.
    Returns a Probe, whose `said` tells all of this.
    Raises ValueError: as `linear`.
    Differs from: the published evaluations, which crop and flip training pictures anew in each epoch (features are made
    once here), and which name the best of several runs on the test split (which is never looked at here).
    """
    x, label = labelled_rows(x, label, "train")
    plan = preset if isinstance(preset, Preset) else PRESETS.get(preset)
    if plan is None and preset != LBFGS:
        raise ValueError(f"preset: {preset!r} is none of {', '.join(PRESETS)}, {LBFGS}")
    standardise = plan is None if standardise is None else standardise
    mean, spread = (x.mean(0), x.std(0)) if standardise else (np.zeros(x.shape[1]), np.ones(x.shape[1]))
    spread = np.where(spread > 0, spread, 1)
    rows, label = np.float32((x - mean) / spread), np.float32(label) if label.ndim == 2 else np.int32(label)
    values = penalties(sweep) if plan is None else np.asarray(rates or plan.rates)
    solve = functools.partial(penalised, classes=classes, steps=steps) if plan is None else functools.partial(
        descended, plan=plan, classes=classes, seed=seed
    )  # fmt: skip
    said = described(preset, plan, len(rows), steps) + (", standardised" if standardise else ", not standardised")
    best, held = 0, len(rows) // HELD
    if len(values) > 1 and held:
        order = np.random.default_rng(seed).permutation(len(rows))
        out, rest = order[:held], order[held:]
        best = choose(solve(rows[rest], label[rest], values), rows[out], label[out])
        said += f", the best of {len(values)} on {held} training rows"
    w, b = solve(rows, label, values[best : best + 1])
    what = "C" if plan is None else "rate times"
    w, b = np.asarray(w[0]), np.asarray(b[0])
    return Probe(np.float32(mean), np.float32(spread), w, b, f"{said}, {what} {values[best]:.3g}, no augmentation")


def penalties(sweep):
    """Values of C, the inverse of the penalty: from 1e-6 to 1e5 at equal ratios; 1 where there is one alone."""
    return np.logspace(-6, 5, sweep) if sweep > 1 else np.ones(1)


def described(preset, plan, rows, steps):
    """The fit in words."""
    if plan is None:
        return f"lbfgs, {steps} steps at most"
    own = preset if isinstance(preset, str) else "own preset"
    batch = min(plan.batch, rows)
    return f"{own}, rate {rate(plan, batch):.3g}, batch {batch}, {plan.epochs} epochs"


def rate(plan, batch):
    return plan.lr * batch / 256 if plan.scaled else plan.lr


def choose(heads, x, label):
    """The head that is best on held-out rows, by accuracy (or mean average precision), then by its loss."""
    w, b = heads
    keys = []
    for i in range(len(w)):
        logits = jnp.dot(x, w[i], precision="highest") + b[i][None]
        right = scored(logits, label).get("top1") if label.ndim == 1 else precision(logits, label)
        keys.append((right, -float(entropy(logits, label))))
    return max(range(len(keys)), key=lambda i: keys[i])


def precision(logits, label):
    return average_precision(np.asarray(logits, np.float64), label) if label.any() else 0.0


def entropy(logits, label):
    """Mean cross entropy of rows, f32[]; of several labels the sum over classes of their binary ones."""
    if label.ndim == 1:
        return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()
    return optax.sigmoid_binary_cross_entropy(logits, label).sum(-1).mean()


def objective(head, x, label):
    return entropy(jnp.dot(x, head["w"], precision="highest") + head["b"][None], label)


def penalised(x, label, values, *, classes, steps):
    """Heads of all penalties C (values [k]) by L-BFGS on all rows: (w f32[k, f, c], b f32[k, c])."""
    at_once = max(1, min(len(values), ROOM // (len(x) * classes)))
    penalty = jnp.float32(1 / (np.asarray(values) * len(x)))
    heads = _penalised(jnp.asarray(x), jnp.asarray(label), penalty, classes, steps, at_once)
    return heads["w"], heads["b"]


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
def _penalised(x, label, penalty, classes, steps, at_once):
    search = optax.scale_by_backtracking_linesearch(max_backtracking_steps=8, store_grad=True)
    tx = optax.lbfgs(memory_size=10, linesearch=search)

    def solve(strength):
        def loss(head):
            return objective(head, x, label) + 0.5 * strength * jnp.sum(head["w"] ** 2)

        value_and_grad = optax.value_and_grad_from_state(loss)
        begin = {"w": jnp.zeros((x.shape[1], classes), jnp.float32), "b": jnp.zeros((classes,), jnp.float32)}

        def going(carry):
            _, state, slope, _, still = carry
            return (optax.tree.get(state, "count") < steps) & (slope > FLAT) & (still < STILL)

        def move(carry):
            head, state, _, before, still = carry
            value, grad = value_and_grad(head, state=state)
            updates, state = tx.update(grad, state, head, value=value, grad=grad, value_fn=loss)
            still = jnp.where(before - value > GAIN * value, 0, still + 1)
            return optax.apply_updates(head, updates), state, optax.tree.norm(grad), value, still

        far = jnp.float32(jnp.inf)
        return jax.lax.while_loop(going, move, (begin, tx.init(begin), far, far, jnp.int32(0)))[0]

    return jax.lax.map(solve, penalty, batch_size=at_once)


def descended(x, label, values, *, plan, classes, seed):
    """Heads of all rates (multiples `values` [k]) after the last epoch: (w f32[k, f, c], b f32[k, c])."""
    batch = min(plan.batch, len(x))
    rates = jnp.float32(rate(plan, batch) * np.asarray(values))
    heads = _descended(jnp.asarray(x), jnp.asarray(label), rates, jax.random.key(seed), plan, classes, batch)
    return heads["w"], heads["b"]


@functools.partial(jax.jit, static_argnums=(4, 5, 6))
def _descended(x, label, rates, key, plan, classes, batch):
    n, k = len(x), len(rates)
    steps = n // batch
    first, order = jax.random.split(key)
    w = plan.init * jax.random.normal(first, (x.shape[1], classes), jnp.float32)
    heads = {"w": jnp.broadcast_to(w[None], (k, *w.shape)), "b": jnp.zeros((k, classes), jnp.float32)}
    slopes = jax.vmap(jax.grad(objective), (0, None, None))

    def move(carry, at):
        number, chosen = at
        heads, momentum = carry
        grads = jax.vmap(functools.partial(pulled, plan))(slopes(heads, x[chosen], label[chosen]), heads)
        momentum = jax.tree.map(lambda m, g: 0.9 * m + g, momentum, grads)
        ahead = jax.tree.map(lambda m, g: 0.9 * m + g, momentum, grads) if plan.nesterov else momentum
        now = rates * decayed(plan, number, steps)
        heads = jax.tree.map(lambda p, m: p - now.reshape(-1, *[1] * (p.ndim - 1)) * m, heads, ahead)
        return (heads, momentum), None

    def epoch(carry, number):
        shuffled = jax.random.permutation(jax.random.fold_in(order, number), n)[: steps * batch].reshape(steps, batch)
        return jax.lax.scan(move, carry, (number * steps + jnp.arange(steps), shuffled))

    begin = heads, jax.tree.map(jnp.zeros_like, heads)
    return jax.lax.scan(epoch, begin, jnp.arange(plan.epochs))[0][0]


def pulled(plan, grads, head):
    """Gradients with weight decay, and of LARC each times trust |p| / (|g| + decay |p|), where neither is zero."""

    def one(g, p):
        decayed = g + plan.decay * p
        if not plan.trust:
            return decayed
        size, slope = jnp.linalg.norm(p), jnp.linalg.norm(g)
        local = plan.trust * size / jnp.maximum(slope + plan.decay * size, 1e-8)
        return decayed * jnp.where((size > 0) & (slope > 0), local, 1)

    return jax.tree.map(one, grads, head)


def decayed(plan, number, steps):
    """The rate of step `number` as a share of the first."""
    if not plan.drops:
        return 0.5 * (1 + jnp.cos(jnp.pi * number / (steps * plan.epochs)))
    return plan.factor ** jnp.sum(number // steps >= jnp.asarray(plan.drops)).astype(jnp.float32)
