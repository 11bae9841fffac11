"""Losses of one modality and their memories against the published PyTorch code: value and gradient of every case."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from golden.judging import ids, judge
from supcon_jax.losses import bank, decorrelate, predict, prototypes, swapped
from supcon_jax.ops import queue
from supcon_jax.ops.arrays import average, unit
from supcon_jax.ops.rows import Rows
from supcon_jax.ops.sinkhorn import sinkhorn

WEIGHTS = {"invariance": "sim", "variance": "std", "covariance": "cov"}


def close(got, want, dtype, double=1e-9, single=1e-5):
    rtol = double if dtype == jnp.float64 else single
    np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol / 10)


@pytest.mark.golden("barlow_vicreg", only="barlow*")
def test_cross_correlation(case, dtype):
    c = case.arrays()
    judge(lambda z1, z2: (decorrelate.barlow(z1, z2, off=float(c["lambd"])), {}), c, ["z1", "z2"], dtype)


@pytest.mark.golden("barlow_vicreg", only="vicreg*")
def test_variance_and_covariance(case, dtype):
    c = case.arrays()
    how = {word: float(c[f"{theirs}_coeff"]) for word, theirs in WEIGHTS.items()}
    judge(lambda z1, z2: (decorrelate.vicreg(z1, z2, **how), {}), c, ["z1", "z2"], dtype)


@pytest.mark.golden("byol_simsiam", skip=("ema",))
def test_prediction(case, dtype):
    """Both directions; no gradient reaches the targets."""
    c = case.arrays()
    names = ("t1", "t2") if case.name.startswith("byol") else ("z1", "z2")
    targets = [jnp.asarray(c[name], dtype) for name in names]

    def loss(p1, p2, z1, z2):
        if case.name.startswith("byol"):
            each = jax.vmap(lambda p1, p2, z1, z2: predict.byol(p1, z2) + predict.byol(p2, z1))(p1, p2, z1, z2)
            return predict.byol(p1, z2) + predict.byol(p2, z1), {"per_sample": each}
        return (predict.simsiam(p1, z2) + predict.simsiam(p2, z1)) / 2, {}

    judge(lambda p1, p2: loss(p1, p2, *targets), c, ["p1", "p2"], dtype)
    moved = jax.jit(jax.grad(lambda *z: loss(*(jnp.asarray(c[p], dtype) for p in ("p1", "p2")), *z)[0], (0, 1)))(*targets)
    assert not any(np.any(grad) for grad in moved)


@pytest.mark.golden("byol_simsiam", only="ema")
def test_the_target_follows(case, dtype):
    c = case.arrays()
    target, online = (jnp.asarray(c[name], dtype) for name in ("target", "online"))
    close(average(target, online, float(c["beta"])), c["target_after"], dtype)


@pytest.mark.golden("swav", only="sinkhorn*")
def test_codes(case, dtype):
    c = case.arrays()
    how = {"eps": float(c["epsilon"]), "rounds": int(c["iterations"])}
    codes = jax.jit(functools.partial(sinkhorn, **how))(jnp.asarray(c["scores"], dtype))
    close(codes, c["codes"], dtype, single=1e-4)


@pytest.mark.golden("swav", only="loss*")
def test_swapped_prediction(case, dtype):
    """Crops come crop by crop; the gradient of the prototypes is that of the unit ones."""
    c = case.arrays()
    c["grad_centre"], c["centre"] = c["grad_prototypes"], c["prototypes_normalised"]
    kept = None
    if "queue" in c:
        kept = Rows(jnp.asarray(c["queue"].swapaxes(0, 1), dtype))

    def loss(features, centre):
        z = unit(features).swapaxes(0, 1)
        how = {"scale": 1 / float(c["temperature"]), "eps": float(c["epsilon"]), "rounds": int(c["iterations"])}
        return swapped.swapped(z, centre, queue=kept, **how), {}

    np.testing.assert_allclose(unit(jnp.asarray(c["prototypes"], dtype)), c["centre"], rtol=1e-6, atol=1e-7)
    judge(loss, c, ["features", "centre"], dtype)
    if "queue" in c:  # theirs is one list, newest first; slots of one batch hold the same rows
        n, z = c["features"].shape[1], unit(jnp.asarray(c["features"], dtype)).swapaxes(0, 1)
        held = queue.init(len(kept.x), Rows(z))
        for at in reversed(range(0, len(kept.x), n)):  # the oldest are last
            held = queue.enqueue(held, Rows(kept.x[at : at + n]))
        after = queue.enqueue(held, Rows(z)).rows.x.reshape(-1, *z.shape[1:])
        want = c["queue_after"].swapaxes(0, 1)
        order = np.lexsort(np.round(want[:, 0, :2], 5).T), np.lexsort(np.round(np.asarray(after)[:, 0, :2], 5).T)
        close(np.asarray(after)[order[1]], want[order[0]], dtype)


@pytest.mark.golden("pcl_protonce", only="protonce")
def test_prototypes_of_several_clusterings(case, dtype):
    c = case.arrays()
    scale, numbers = 1 / float(c["temperature"]), [name[9:] for name in c if name.startswith("centroids")]
    clusterings, drawn = [], []
    for m in numbers:
        centre, spread = (jnp.asarray(c[f"{name}{m}"], dtype) for name in ("centroids", "density"))
        clusterings.append(prototypes.Prototypes(centre, spread, ids(c[f"im2cluster{m}"][c["index"]])))
        drawn.append((ids(c[f"neg_ids{m}"]), jnp.ones(len(c[f"neg_ids{m}"]), bool)))

    def loss(q):
        q = Rows(unit(q))
        own, others = unit(jnp.asarray(c["k"], dtype)), Rows(jnp.asarray(c["queue"].T, dtype))
        instance = bank.among(q, own, others, scale=scale)
        proto = prototypes.proto_nce(q, clusterings, drawn=drawn)
        return instance + proto, {"loss_infonce": instance, "loss_proto": proto}

    judge(loss, c, ["q"], dtype)


@pytest.mark.golden("pcl_protonce", only="concentration")
def test_concentration_of_clusters(case, dtype):
    """The numbers come from float32."""
    c = case.arrays()
    cluster, k = ids(c["im2cluster"]), len(c["centroids"])
    x, centre = (jnp.asarray(c[name], dtype) for name in ("features", "centroids"))
    square = jnp.sum((x - centre[cluster]) ** 2, axis=1)
    got = prototypes.concentration(square, cluster, k, temperature=float(c["temperature"]))
    close(got, c["density"], dtype, double=1e-6)


@pytest.mark.golden("cmc_nce")
def test_memory_banks_of_two_views(case, dtype):
    """Each query with its own draw of bank rows; the constant of the NCE form is that of the first batch."""
    c = case.arrays()
    scale, form = 1 / float(c["temperature"]), case.name.split("_")[0]
    y, drawn = ids(c["y"]), ids(c["idx"][:, 1:])
    banks = {name: jnp.asarray(c[f"memory_{name}"], dtype) for name in ("l", "ab")}

    def loss(l, ab):
        parts = []
        for x, other, z in ((l, "ab", c["Z"][0]), (ab, "l", c["Z"][1])):
            how = {"form": "nce", "z": float(z)} if form == "nce" else {}
            parts.append(bank.contrast(Rows(x), banks[other], y, drawn, scale=scale, **how))
        return sum(parts), dict(zip(("loss_l", "loss_ab"), parts, strict=True))

    judge(loss, c, ["l", "ab"], dtype)
    for (name, other), z in zip((("l", "ab"), ("ab", "l")), c["Z"], strict=True):
        x = jnp.asarray(c[name], dtype)
        if form == "nce":
            close(bank.normaliser(Rows(x), banks[other], y, drawn, scale=scale), z, dtype)
        moved = bank.update(banks[name], y, x, momentum=float(c["momentum"]))
        close(moved, c[f"memory_{name}_after"], dtype, single=1e-5)


@pytest.mark.golden("moco", only="T*")
def test_queue_of_negatives(case, dtype):
    """Own keys apart from the queue, and the queue after the step: the oldest slot is written."""
    c = case.arrays()
    k = unit(jnp.asarray(c["k"], dtype))
    n, held = len(k), jnp.asarray(c["queue"].T, dtype)
    kept = queue.init(len(held), Rows(k))
    for at in range(0, len(held), n):
        kept = queue.enqueue(kept, Rows(held[at : at + n]))
    kept = kept.replace(next=jnp.int32(int(c["ptr"]) // n))

    def loss(q):
        return bank.among(Rows(unit(q)), k, queue.keys(kept), scale=1 / float(c["temperature"])), {}

    judge(loss, c, ["q"], dtype)
    after = queue.enqueue(kept, Rows(k))
    close(after.rows.x.reshape(len(held), -1), c["queue_after"].T, dtype)
    assert int(after.next) * n == int(c["ptr_after"][0])


@pytest.mark.golden("moco", only="step_*")
def test_step_of_two_encoders(case, dtype):
    """The key encoder moves first; its keys are then enqueued; the gradient is the query encoder's."""
    c = case.arrays()

    def of(prefix):
        names = {key[len(prefix) :] for key in c if key.startswith(prefix)}
        return {name: jnp.asarray(c[prefix + name], dtype) for name in names if not name.startswith("queue")}

    def encode(p, x):
        for layer in ("l1", "fc.0"):
            x = jax.nn.relu(x @ p[f"{layer}.weight"].T + p[f"{layer}.bias"][None])
        return unit(x @ p["fc.2.weight"].T + p["fc.2.bias"][None])

    teacher = average(of("before.encoder_k."), of("before.encoder_q."), float(c["momentum"]))
    for name, moved in teacher.items():
        close(moved, c[f"after.encoder_k.{name}"], dtype)
    k = encode(teacher, jnp.asarray(c["im_k"], dtype))
    others = Rows(jnp.asarray(c["before.queue"].T, dtype))

    def loss(p):
        q = Rows(encode(p, jnp.asarray(c["im_q"], dtype)))
        return bank.among(q, k, others, scale=1 / float(c["temperature"]))

    value, grads = jax.jit(jax.value_and_grad(loss))(of("before.encoder_q."))
    close(value, c["loss"], dtype)
    for name, grad in grads.items():
        want = c[f"grad.{name}"]
        tight = dtype == jnp.float64
        atol = (1e-7 if tight else 1e-4) * np.abs(want).max() + (1e-10 if tight else 1e-6)
        np.testing.assert_allclose(grad, want, rtol=0, atol=atol)
    written = c["after.queue"].T[: len(k)]
    close(k, written, dtype, single=1e-5)
    assert int(c["after.queue_ptr"][0]) == len(k)
