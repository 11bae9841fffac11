"""Sliced encoders: gradients of the whole batch, statistics and keys by slice, order of rows, no traffic on devices."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dress import door, mesh, split
from supcon_jax.losses.contrast import supcon
from supcon_jax.nets.norm import BatchNorm
from supcon_jax.ops.arrays import unit
from supcon_jax.ops.rows import Rows, dense
from supcon_jax.ops.slices import sliced

N, FEATURES, HIDDEN, D = 24, 10, 16, 8


class Encoder(nn.Module):
    """Two layers; with BatchNorm and dropout between them, or without."""

    noisy: bool = False

    @nn.compact
    def __call__(self, x):
        h = nn.Dense(HIDDEN, name="first", param_dtype=x.dtype)(x)
        if self.noisy:
            h = nn.Dropout(0.5)(BatchNorm(name="norm")(h, train=True), deterministic=False)
        return nn.Dense(D, use_bias=False, name="second", param_dtype=x.dtype)(nn.tanh(h))


def draw(dtype=np.float32, n=N, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, FEATURES)).astype(dtype)
    params = {
        "first": {"kernel": rng.normal(size=(FEATURES, HIDDEN)) / 3, "bias": rng.normal(size=HIDDEN) / 9},
        "second": {"kernel": rng.normal(size=(HIDDEN, D)) / 4},
    }
    params["norm"] = {"scale": np.ones(HIDDEN), "bias": np.zeros(HIDDEN)}
    params = jax.tree.map(lambda p: jnp.asarray(p, dtype), params)
    stats = {"norm": {"mean": jnp.full(HIDDEN, 0.5), "var": jnp.full(HIDDEN, 2.0)}}
    return params, {"x": x, "index": np.arange(n, dtype=np.int32)}, rng.integers(4, size=n).astype(np.int32), stats


def encoder(params, noisy):
    def encode(rows, stats, key):
        variables = {"params": params if noisy else {k: params[k] for k in ("first", "second")}, "batch_stats": stats}
        z, new = Encoder(noisy).apply(variables, rows["x"], mutable=["batch_stats"], rngs={"dropout": key})
        return {"z": z, "index": rows["index"]}, new.get("batch_stats", stats)

    return encode


def looped(encode, rows, stats, key, *, slices):
    """The definition: a plain loop over slices that keeps everything."""
    n, found = len(rows["x"]), []
    for s in range(slices):
        code, stats = encode(jax.tree.map(lambda x, s=s: x[s::slices], rows), stats, jax.random.fold_in(key, s))
        found.append(code)
    order = np.argsort(np.concatenate([np.arange(n)[s::slices] for s in range(slices)]))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts)[order], *found), stats


def judged(run, slices, noisy, sums=dense):
    """(loss, new statistics), gradients of a label loss over all codes."""

    def loss(params, rows, label, stats):
        code, stats = run(encoder(params, noisy), rows, stats, jax.random.key(7), slices=slices)
        q = Rows(unit(code["z"]), label=label, index=code["index"])
        return supcon(q, scale=5.0, sums=sums), stats

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def gap(got, want):
    pairs = zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True)
    return max(float(np.abs(np.asarray(g, np.float64) - w).max() / max(np.abs(w).max(), 1e-3)) for g, w in pairs)


@pytest.mark.parametrize("dtype,bound", [(np.float32, 1e-5), (np.float64, 1e-12)])
def test_the_loss_and_gradients_of_the_whole_batch(dtype, bound):
    with jax.enable_x64(dtype is np.float64):
        args = draw(dtype)
        want = judged(sliced, 1, False)(*args)
        assert min(float(jnp.abs(g).max()) for g in jax.tree.leaves(want[1]) if g.shape != (HIDDEN,)) > 1e-3
        for slices in (2, 6):
            got = judged(sliced, slices, False)(*args)
            assert gap(got, want) < bound
            assert all(g.dtype == dtype for g in jax.tree.leaves(got[1]))


def test_batchnorm_and_dropout_are_those_of_a_loop_over_slices():
    with jax.enable_x64(True):
        args = draw(np.float64)
        run = judged(sliced, 3, True)
        got, want, again = run(*args), judged(looped, 3, True)(*args), run(*args)
        assert gap(got, want) < 1e-12
        (value, moved), _ = got
        assert gap(moved, args[3]) > 0.05  # three updates, not none
        assert jax.tree.all(jax.tree.map(np.array_equal, got, again))  # the same bits


def test_codes_come_back_in_the_order_of_the_rows():
    rows = {"a": np.arange(12), "b": np.arange(24.0).reshape(12, 2)}

    def encode(rows, stats, key):
        return {"a": rows["a"], "sum": rows["b"].sum(1)}, stats + 1

    codes, count = sliced(encode, rows, jnp.zeros(()), jax.random.key(0), slices=4)
    np.testing.assert_array_equal(codes["a"], rows["a"])
    np.testing.assert_array_equal(codes["sum"], rows["b"].sum(1))
    assert float(count) == 4


def test_one_slice_is_the_encoder_itself():
    key = jax.random.key(3)
    codes, stats = sliced(lambda rows, stats, k: (rows, (stats, k)), np.ones(3), 5, key)
    assert stats == (5, key) and codes.shape == (3,)


def test_rows_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="24 rows cannot be encoded in 5 slices"):
        judged(sliced, 5, False)(*draw())


def moved(run, n=64):
    """Collectives that move rows between devices in the compiled step, the similarity sums left out of it."""
    params, rows, label, stats = draw(n=n)

    def loss(params, rows, stats):
        code, stats = run(encoder(params, True), rows, stats, jax.random.key(7))
        return jnp.square(code["z"]).mean(), (stats, code)

    everywhere = jax.NamedSharding(mesh(8), jax.P())
    args = jax.device_put((params, stats), everywhere)
    rows = {name: split(x, 8) for name, x in rows.items()}
    text = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(args[0], rows, args[1]).compile().as_text()
    return [word for word in ("all-gather", "all-to-all", "collective-permute") if f" {word}" in text], text


def test_nothing_but_sums_travels_between_devices():
    found, text = moved(functools.partial(sliced, slices=4))
    assert found == [] and "all-reduce" in text and "while" in text

    def across(encode, rows, stats, key):
        """The reshape that would send the input around: slices of neighbouring rows."""
        cut = jax.tree.map(lambda x: x.reshape(4, -1, *x.shape[1:]), rows)
        stats, codes = jax.lax.scan(lambda stats, x: encode(x, stats, key)[::-1], stats, cut)
        return jax.tree.map(lambda z: z.reshape(-1, *z.shape[2:]), codes), stats

    assert moved(across)[0] != []  # the check sees what it looks for


def test_eight_devices_give_the_step_of_one():
    params, rows, label, stats = draw(n=64)
    want = judged(sliced, 4, True)(params, rows, label, stats)
    rows = {name: split(x, 8) for name, x in rows.items()}
    got = judged(sliced, 4, True, door(8))(params, rows, split(label, 8), stats)
    assert gap(jax.device_get(got), want) < 1e-4


def test_the_backward_pass_holds_one_slice():
    """Inner values of the encoder: those of all rows without slices, of an eighth with eight."""
    params, _, _, stats = draw()
    rows = {"x": jax.ShapeDtypeStruct((4096, FEATURES), jnp.float32), "index": jax.ShapeDtypeStruct((4096,), jnp.int32)}

    def temp(slices):
        def loss(params, rows):
            code, _ = sliced(encoder(params, True), rows, stats, jax.random.key(0), slices=slices)
            return jnp.square(code["z"]).mean()

        return jax.jit(jax.grad(loss)).lower(params, rows).compile().memory_analysis().temp_size_in_bytes

    assert temp(8) < 0.5 * temp(1)
