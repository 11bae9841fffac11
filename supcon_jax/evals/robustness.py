"""How a classifier stands noise and attacks: corruptions, gradient-sign attacks, and whether its confidence is its accuracy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from supcon_jax.evals.protocol import Protocol, record

BATCH = 128
LARGE = 128  # of 255: at this distance any picture can become grey, and an honest attack always wins
FALLEN = 5.0  # percent: accuracy that may be left at LARGE, or that one step may do better than many, before it is said


def calibration(logits, truth, bins=15):
    """Expected calibration error: how far confidence stands from accuracy, in percent; 0 is best.

        ECE = sum_b  n_b / n |accuracy_b - confidence_b|,   bins of equal width over the largest probability

    Guo et al. 2017, arXiv 1706.04599, eq. 3. logits: [n, c]; truth: i[n]. Bins are open below. Returns float in 0..100.
    """
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(1, keepdims=True)
    sure = 1 / np.exp(shifted).sum(1)
    right = logits.argmax(1) == np.asarray(truth)
    place = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(place, right - sure, minlength=bins)
    return float(100 * np.abs(gap).sum() / len(logits))


def errors(logits, images, label, batch=BATCH):
    """Share of pictures u8[n, h, w, 3] that logits(pictures) [b, c] names wrongly, in percent."""
    wrong = 0
    for start in range(0, len(images), batch):
        rows = slice(start, start + batch)
        part = images[rows]
        padded = np.concatenate([part, np.repeat(part[-1:], batch - len(part), 0)]) if start else part
        wrong += int(np.sum(np.asarray(logits(padded))[: len(part)].argmax(1) != label[rows]))
    return 100 * wrong / len(images)


def corruption(
    logits, corrupted, images, label, *, kinds, severities=(1, 2, 3, 4, 5), baseline=None,
    protocol=Protocol(), name="corruption", batch=BATCH,  # noqa: B008  (frozen)
):  # fmt: skip
    """Error on corrupted pictures, by kind and on average.

        mCE = mean_kind ( sum_severity E / sum_severity E_baseline )

    Hendrycks & Dietterich 2019, arXiv 1903.12261, section 3.2.

    logits: u8[b, h, w, 3] -> [b, c], fitted on clean pictures. corrupted: (u8 pictures, kind, severity) -> u8 pictures.
    images: u8[n, h, w, 3]; label: i[n]. baseline: kind -> mean error of the baseline over the same severities, in percent.
    Returns {metric: {"value", "protocol", "line"}} in percent: NAME_clean, NAME_error (mean over kinds and severities),
    NAME_KIND, and NAME_mce where there is a baseline.
    Raises ValueError: no kinds, a baseline that lacks one or has no errors there, other shapes back than given.
    """
    if not kinds or not severities:
        raise ValueError("kinds, severities: name at least one of each")
    lacking = [kind for kind in kinds if baseline and not baseline.get(kind)]
    if lacking:
        raise ValueError(f"baseline: no error of {', '.join(lacking)}; give one of every kind, in percent")
    found = {}
    for kind in kinds:
        each = []
        for severity in severities:
            noisy = np.asarray(corrupted(images, kind, severity))
            if noisy.shape != images.shape or noisy.dtype != np.uint8:
                raise ValueError(f"corrupted: {kind} gave {noisy.dtype} {noisy.shape} for uint8 {images.shape}")
            each.append(errors(logits, noisy, label, batch))
        found[kind] = float(np.mean(each))
    values = {"clean": errors(logits, images, label, batch), "error": float(np.mean(list(found.values()))), **found}
    own = protocol.replace(real_number=len(images), subsets=f"{len(kinds)} kinds x severities {tuple(severities)}")
    out = record({f"{name}_{key}": value for key, value in values.items()}, own)
    if baseline:
        relative = 100 * float(np.mean([found[kind] / baseline[kind] for kind in kinds]))
        told = ", ".join(f"{kind} {baseline[kind]:g}" for kind in kinds)
        out |= record({f"{name}_mce": relative}, own.replace(subsets=f"{own.subsets} over baseline {told}"))
    return out


def adversarial(
    logits, images, label, *, eps=(1, 2, 4, 8), steps=20, restarts=1, seed=0,
    protocol=Protocol(), name="adversarial", batch=BATCH,  # noqa: B008  (frozen)
):  # fmt: skip
    """Accuracy under gradient-sign attacks that move each value by eps / 255 at most.

    logits: f32[b, h, w, 3] in [0, 1] -> [b, c], differentiable, which normalises by itself; a jax.tree_util.Partial keeps
    weights out of the compiled program. images: u8[n, h, w, 3]; label: i[n].
    FGSM: one step of eps from the picture (Goodfellow et al. 2015, arXiv 1412.6572). PGD: steps of eps / 4 from a random
    start, the worst of the restarts for each picture (Madry et al. 2018, arXiv 1706.06083).
    Returns {metric: {"value", "protocol", "line"}}: NAME_clean, NAME_fgsm_EPS, NAME_pgd_EPS in percent right;
    NAME_pgd_128, which must be near zero; NAME_masked: 1 if it is not, or if one step does better than many: then gradients
    are masked, the numbers flatter the network, and the protocol says so.
    """
    if not isinstance(logits, jax.tree_util.Partial):
        logits = jax.tree_util.Partial(logits)
    measure = functools.partial(right, logits, images, np.int32(label), seed=seed, batch=batch)
    one, many = {"steps": 1, "restarts": 1, "stride": 1.0, "random": False}, {"steps": steps, "restarts": restarts}
    clean = measure(0.0, **one)
    fgsm = {e: measure(e / 255, **one) for e in eps}
    pgd = {e: measure(e / 255, **many, stride=0.25, random=True) for e in dict.fromkeys((*eps, LARGE))}
    why = [f"{pgd[LARGE]:.3g} % are still right at {LARGE} / 255"] if pgd[LARGE] > FALLEN else []
    why += [f"one step of {e} / 255 harms more than {steps}" for e in eps if pgd[e] > fgsm[e] + FALLEN]
    own = protocol.replace(real_number=len(images), seed=seed)
    said = f"PGD {steps} steps of eps / 4, random start, {restarts} restarts"
    out = record({f"{name}_clean": clean}, own)
    out |= record({f"{name}_fgsm_{e}": value for e, value in fgsm.items()}, own.replace(subsets="FGSM"))
    out |= record({f"{name}_pgd_{e}": value for e, value in pgd.items()}, own.replace(subsets=said))
    masked = f"gradients are masked: {'; '.join(why)}" if why else "no sign of masked gradients"
    return out | record({f"{name}_masked": float(bool(why))}, own.replace(subsets=f"{said}; {masked}"))


def right(logits, images, label, eps, *, seed, batch, **how):
    """Share of pictures that stay rightly named whatever the attack finds, in percent."""
    kept = 0
    for start in range(0, len(images), batch):
        rows = slice(start, start + batch)
        x, y = np.float32(images[rows]) / np.float32(255), label[rows]
        key = jax.random.fold_in(jax.random.key(seed), start)
        kept += int(survivors(logits, x, y, np.float32(eps), key, **how))
    return 100 * kept / len(images)


@functools.partial(jax.jit, static_argnames=("steps", "restarts", "random"))
def survivors(logits, x, label, eps, key, *, steps, restarts, stride, random):
    """Number of rows that no restart, nor the picture as it is, gets wrong, i32[]."""

    def stays(z):
        return logits(z).argmax(-1) == label

    def restart(number, alive):
        begin = jax.random.uniform(jax.random.fold_in(key, number), x.shape, x.dtype, -1, 1) * eps if random else 0.0
        return alive & stays(perturbed(logits, x, label, eps, x + begin, steps, stride))

    return jnp.sum(jax.lax.fori_loop(0, restarts, restart, stays(x)))


def perturbed(logits, x, label, eps, begin, steps, stride):
    """Pictures within eps of x, in [0, 1], after `steps` steps of stride * eps up the cross entropy from `begin`."""

    def loss(z):
        return optax.softmax_cross_entropy_with_integer_labels(logits(z), label).sum()

    def step(_, z):
        z = z + stride * eps * jnp.sign(jax.grad(loss)(z))
        return jnp.clip(jnp.clip(z, x - eps, x + eps), 0, 1)

    return jax.lax.fori_loop(0, steps, step, jnp.clip(begin, 0, 1))
