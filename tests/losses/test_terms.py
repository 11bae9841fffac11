"""The label terms by name: values and slopes of the loops in float64, the same on one device and eight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
import oracles_matching
from dress import cases, dress
from supcon_jax import config, ranges
from supcon_jax.losses import terms

N, V, D, R, T, C, SCALE = 8, 2, 5, 3, 4, 3, 4.0
RNG = np.random.default_rng(0)
ARRAYS = {
    name: RNG.normal(size=(N, V, *shape))
    for name, shape in {
        "code": (D,), "sentence": (D,), "regions": (R, D), "words": (T, D), "real": (D,), "logits": (C,),
    }.items()
}  # fmt: skip
LENGTH = RNG.integers(1, T + 1, (N, V))
INDEX = np.arange(N * V).reshape(N, V)
INDEX[:, 1] = np.where(np.arange(N) % 2, INDEX[:, 0], INDEX[:, 1])  # some partners are the record itself
IDS = RNG.integers(0, C, (N, V))
IDS[0] = -1
HOT = (RNG.random((N, V, C)) < 0.4).astype(np.float64)
HOT[0] = 0


def rows(x):
    return np.asarray(x, np.float64).reshape(N * V, *x.shape[2:])


def unit(x):
    return rows(x) / np.linalg.norm(rows(x), axis=-1, keepdims=True)


def with_own(weight, label):
    """Weights by label; rows without one have the views of their own record."""
    empty = label.max(1) <= 0 if label.ndim > 1 else label < 0
    return np.where(empty[:, None], oracles.same_label(*2 * (INDEX.ravel(),)), weight)


def info_nce(a, b):
    return oracles.info_nce(a, b, SCALE) + oracles.info_nce(b, a, SCALE)


def unicl(c, label, oracle):
    w = with_own(oracle(rows(label), rows(label)), rows(label))
    v, t, nothing = unit(c["code"]), unit(c["sentence"]), np.zeros((N * V, N * V), bool)
    return (oracles.supcon(v, t, w, SCALE, nothing) + oracles.supcon(t, v, w, SCALE, nothing)) / 2


def ntxent(codes):
    z = unit(codes).reshape(N, V, -1)
    return oracles.ntxent(z[:, 0], z[:, 1], SCALE)


def xmc(c, fakes):
    value = info_nce(unit(c["code"]), unit(c["sentence"]))
    value += oracles_matching.xmc_words(rows(c["regions"]), rows(c["words"]), LENGTH.ravel(), SCALE)
    return value + (info_nce(unit(c["code"]), unit(c["real"])) if fakes else 0)


# case: term, whether the pictures are fakes, labels, label mode, what learns, the loops
CASES = {
    "ntxent of texts": ("ntxent", False, IDS, "single", ("sentence",), lambda c: ntxent(c["sentence"])),
    "ntxent of fakes": ("ntxent", True, IDS, "single", ("code",), lambda c: ntxent(c["code"])),
    "unicl": ("unicl", False, IDS, "single", ("code", "sentence"), lambda c: unicl(c, IDS, oracles.same_label)),
    "unicl, several labels": (
        "unicl", True, HOT, "jaccard", ("code", "sentence"), lambda c: unicl(c, HOT, oracles.jaccard)),
    "label_head": (
        "label_head", True, IDS, "single", ("logits",),
        lambda c: oracles_matching.label_entropy(rows(c["logits"]), IDS.ravel())),
    "label_head, several labels": (
        "label_head", False, HOT, "jaccard", ("logits",),
        lambda c: oracles_matching.label_entropy(rows(c["logits"]), rows(HOT))),
    "xmc": ("xmc", True, IDS, "single", ("code", "sentence", "regions", "words"), lambda c: xmc(c, True)),
}  # fmt: skip


def seen(arrays, label, fakes=True):
    given = dict(arrays) if fakes else {**arrays, "real": None}
    label, index, length = (jnp.asarray(x, jnp.float32 if x is HOT else jnp.int32) for x in (label, INDEX, LENGTH))
    return terms.Seen(label=label, index=index, text_len=length, **given)


@pytest.mark.parametrize("case, devices", cases(CASES, ["unicl", "xmc"]))
def test_values_and_slopes_of_the_loops(case, devices):
    term, fakes, label, mode, moving, slow = CASES[case]

    def fn(*arrays, sums):
        codes = {name: jnp.asarray(x, arrays[0].dtype) for name, x in ARRAYS.items()}
        codes |= dict(zip(moving, arrays, strict=True))
        how = {"term": term, "temperature": 1 / SCALE, "label_mode": mode, "fakes": fakes, "sums": sums}
        value, parts = terms.label_term(seen(codes, label, fakes), **how)
        assert parts["scl"] is value
        return value

    value, grads = dress(fn, [ARRAYS[name] for name in moving], grad_rtol=3e-4, devices=devices)
    assert value == pytest.approx(slow(ARRAYS), rel=1e-10)
    way = {name: np.random.default_rng(1).normal(size=ARRAYS[name].shape) for name in moving}
    ahead, behind = (slow({**ARRAYS, **{n: ARRAYS[n] + s * 1e-5 * x for n, x in way.items()}}) for s in (1, -1))
    slope = sum((g * way[name]).sum() for g, name in zip(grads, moving, strict=True))
    assert slope == pytest.approx((ahead - behind) / 2e-5, rel=1e-6)


def test_without_fakes_xmc_has_no_real_pictures_and_with_them_they_are_constants():
    arrays = {name: jnp.asarray(x, jnp.float32) for name, x in ARRAYS.items()}

    def loss(real, fakes):
        return terms.label_term(seen({**arrays, "real": real}, IDS, fakes), term="xmc", temperature=1 / SCALE, fakes=fakes)

    value, parts = jax.jit(loss, static_argnums=1)(arrays["real"], False)
    assert set(parts) >= {"sentence", "word"} and "real" not in parts
    assert float(value) == pytest.approx(xmc(ARRAYS, False), rel=1e-5)
    grad = jax.jit(jax.grad(lambda x: loss(x, True)[0]))(arrays["real"])
    assert not np.any(grad)


def test_what_is_missing_or_unknown_is_named():
    bare = seen(jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), ARRAYS), IDS)._replace(regions=None, logits=None)
    one = bare._replace(code=bare.code[:, :1], sentence=bare.sentence[:, :1], label=bare.label[:, :1])
    for term, codes, said in (("xmc", bare, "regions"), ("label_head", bare, "logits"), ("ntxent", one, "two branches"),
                              ("clip", bare, "choose one of supcon, ntxent")):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            terms.label_term(codes, term=term, temperature=0.5)


def test_the_config_knows_the_terms():
    assert set(ranges.TERMS) == set(terms.TERMS) and config.base().term == ranges.TERMS[0]
