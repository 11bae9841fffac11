"""Heads: the published layers of each method, norms, first layers alone, prototypes, heads of several inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dress import split
from supcon_jax.build.names import NETS, net
from supcon_jax.nets import heads
from supcon_jax.nets.heads import LabHead, Mlp, PatchHead

ROWS = np.random.default_rng(0).normal(2, 3, (8, 6)).astype(np.float32)
F = 24  # width of features

# widths, which linear layers have a bias, what the norms have: "sb" scale and bias, "s", "" plain, None no norm
PUBLISHED = {
    "simclr_head": ({"dim": 8}, (F, 8), (0, 0), ("sb", "s")),
    "simclr2_head": ({"dim": 8}, (F, F, 8), (0, 0, 0), ("sb", "sb", "s")),
    "moco_head": ({"dim": 8}, (8,), (1,), (None,)),
    "moco2_head": ({"dim": 8}, (F, 8), (1, 1), (None, None)),
    "supcon_head": ({"dim": 8}, (F, 8), (1, 1), (None, None)),
    "moco3_head": ({"dim": 8, "hidden": 40}, (40, 8), (0, 0), ("sb", "")),
    "moco3_predictor": ({"dim": 8, "hidden": 40}, (40, 8), (0, 0), ("sb", None)),
    "byol_head": ({"dim": 8, "hidden": 40}, (40, 8), (1, 0), ("sb", None)),
    "simsiam_head": ({"dim": 8}, (F, F, 8), (0, 0, 0), ("sb", "sb", "")),
    "simsiam_predictor": ({"dim": 8, "hidden": 4}, (4, 8), (0, 1), ("sb", None)),
    "swav_head": ({"dim": 8, "hidden": 40}, (40, 8), (1, 1), ("sb", None)),
    "barlow_head": ({"dim": 8, "hidden": 40}, (40, 40, 8), (0, 0, 0), ("sb", "sb", None)),
    "vicreg_head": ({"dim": 8, "hidden": 40}, (40, 40, 8), (1, 1, 0), ("sb", "sb", None)),
}


def test_every_named_head_is_told_here():
    named = {name for name in NETS if name.endswith(("_head", "_predictor"))}
    assert named == {*PUBLISHED, "patch_head", "lab_head"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_layers(name):
    options, widths, biases, norms = PUBLISHED[name]
    module = net({"net": name, **options}, "stage.nets.head", "bf16")
    x = jax.ShapeDtypeStruct((4, F), jnp.float32)
    out, made = jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x, train=True), x)
    assert out.shape == (4, widths[-1]) and out.dtype == jnp.float32
    params, stats = made["params"], made.get("batch_stats", {})
    for i, (width, bias, norm) in enumerate(zip(widths, biases, norms, strict=True)):
        layer = params.pop(f"dense{i}")
        assert layer["kernel"].shape == ((F, *widths)[i], width) and ("bias" in layer) == bool(bias)
        assert (f"norm{i}" in stats) == (norm is not None)
        assert sorted(params.pop(f"norm{i}", {})) == {"sb": ["bias", "scale"], "s": ["scale"]}.get(norm, [])
    assert not params


def test_defaults_are_the_published_widths():
    x = jax.ShapeDtypeStruct((4, 2048), jnp.float32)
    shapes = {"simclr_head": (2048, 128), "moco3_head": (4096, 256), "byol_head": (4096, 256), "simsiam_head": (2048,) * 3,
              "simsiam_predictor": (512, 2048), "swav_head": (2048, 128), "barlow_head": (8192,) * 3,
              "vicreg_head": (8192,) * 3, "supcon_head": (2048, 128)}  # fmt: skip
    for name, widths in shapes.items():
        params = jax.eval_shape(net({"net": name}, "x").init, jax.random.key(0), x)["params"]
        assert tuple(params[f"dense{i}"]["kernel"].shape[1] for i in range(len(widths))) == widths, name


def normalised(h):
    return (h - h.mean(0)) / np.sqrt(h.var(0) + 1e-5)


def test_layers_norms_and_relu_in_numpy():
    """A head of every kind of norm, in training, and the first layer alone."""
    net = Mlp((5, 4), "batch", "batch_nobias", (True, False))
    v = net.init(jax.random.key(0), ROWS)
    rng = np.random.default_rng(1)
    v = jax.tree.map(lambda a: jnp.asarray(a + rng.normal(size=a.shape), a.dtype), v)
    p = jax.tree.map(np.float64, v["params"])
    h = ROWS @ p["dense0"]["kernel"] + p["dense0"]["bias"]
    h = np.maximum(normalised(h) * p["norm0"]["scale"] + p["norm0"]["bias"], 0)
    z = normalised(h @ p["dense1"]["kernel"]) * p["norm1"]["scale"]
    out, moved = net.apply(v, ROWS, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(out, z, rtol=1e-4, atol=1e-4)
    first, kept = net.clone(kept=1).apply(v, ROWS, train=True, mutable=["batch_stats"])
    alone = net.clone(kept=1).init(jax.random.key(0), ROWS)
    assert {kind: set(tree) for kind, tree in alone.items()} == {"params": {"dense0", "norm0"}, "batch_stats": {"norm0"}}
    assert {kind: set(heads.first(tree, 1)) for kind, tree in v.items()} == {kind: set(tree) for kind, tree in alone.items()}
    np.testing.assert_allclose(first, h, rtol=1e-4, atol=1e-4)
    for part in (moved, kept):
        np.testing.assert_allclose(part["batch_stats"]["norm0"]["mean"], moved["batch_stats"]["norm0"]["mean"])
    still = Mlp((5, 4), "batch", "batch_plain", (True, False)).apply(v, ROWS, train=False)
    s = jax.tree.map(np.float64, v["batch_stats"])
    h = (ROWS @ p["dense0"]["kernel"] + p["dense0"]["bias"] - s["norm0"]["mean"]) / np.sqrt(s["norm0"]["var"] + 1e-5)
    h = np.maximum(h * p["norm0"]["scale"] + p["norm0"]["bias"], 0) @ p["dense1"]["kernel"]
    want = (h - s["norm1"]["mean"]) / np.sqrt(s["norm1"]["var"] + 1e-5)
    np.testing.assert_allclose(still, want, rtol=1e-3, atol=1e-4)


def test_layer_norm_knows_only_its_row():
    net = Mlp((5, 4), "layer")
    v = net.init(jax.random.key(0), ROWS)
    assert "batch_stats" not in v
    p = jax.tree.map(np.float64, v["params"])
    h = ROWS @ p["dense0"]["kernel"] + p["dense0"]["bias"]
    h = (h - h.mean(1, keepdims=True)) / np.sqrt(h.var(1, keepdims=True) + 1e-5)
    want = np.maximum(h, 0) @ p["dense1"]["kernel"] + p["dense1"]["bias"]
    np.testing.assert_allclose(net.apply(v, ROWS, train=True), want, rtol=1e-4, atol=1e-4)


def test_weights_begin_as_asked():
    wide = np.zeros((1, 100), np.float32)
    for start, spread in (("uniform", 0.1 / 3**0.5), ("normal", 0.01), ("lecun", 0.1)):
        layer = Mlp((400,), start=start).init(jax.random.key(0), wide)["params"]["dense0"]
        assert layer["kernel"].std() == pytest.approx(spread, rel=0.03)
        assert (np.abs(layer["bias"]).max() > 0.09) == (start == "uniform")


@pytest.mark.parametrize("groups", [1, 4])
def test_groups_have_their_own_statistics_on_any_number_of_devices(groups):
    net = Mlp((5, 4), "batch", "batch", False, groups=groups)
    rows = np.random.default_rng(1).normal(2, 3, (32, 6)).astype(np.float32)
    v = net.init(jax.random.key(0), rows)

    def run(v, x):
        def number(params, x):
            out, new = net.apply({**v, "params": params}, x, train=True, mutable=["batch_stats"])
            return (out * jnp.arange(4.0)[None] * jnp.arange(32.0)[:, None]).sum(), (out, new)

        return jax.value_and_grad(number, (0, 1), has_aux=True)(v["params"], x)

    one, eight = jax.jit(run)(v, rows), jax.jit(run)(v, split(rows, 8))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * max(1, np.abs(a).max()))
    size = 32 // groups
    alone = jax.jit(Mlp((5, 4), "batch", "batch", False).apply, static_argnames=("train", "mutable"))
    for g in range(groups):
        own = rows[g * size : (g + 1) * size]
        want = alone(v, own, train=True, mutable=("batch_stats",))[0]
        np.testing.assert_allclose(one[0][1][0][g * size : (g + 1) * size], want, rtol=1e-4, atol=1e-4)


def test_patches_go_through_one_layer_each_and_one_together():
    h = np.random.default_rng(0).normal(size=(2, 9, 6)).astype(np.float32)
    net = PatchHead(4)
    v = net.init(jax.random.key(0), h)
    p = jax.tree.map(np.float64, v["params"])
    each = np.stack([h[:, i] @ p["patch"]["kernel"] + p["patch"]["bias"] for i in range(9)], 1)
    want = np.concatenate([each[:, i] for i in range(9)], 1) @ p["picture"]["kernel"] + p["picture"]["bias"]
    np.testing.assert_allclose(net.apply(v, h), want, rtol=1e-4, atol=1e-5)
    full = jax.eval_shape(PatchHead().init, jax.random.key(0), jnp.zeros((1, 9, 2048)))["params"]
    assert full["patch"]["kernel"].shape == (2048, 128) and full["picture"]["kernel"].shape == (1152, 128)


def test_two_inputs_have_two_layers():
    v = LabHead(4).init(jax.random.key(0), (ROWS, ROWS))
    a, b = LabHead(4).apply(v, (ROWS, ROWS))
    assert a.shape == b.shape == (8, 4) and np.abs(a - b).max() > 0.1


WRONG = (({"norm": "group"}, "'group' is not known; use one of: batch"), ({"last": "layer"}, "'layer' is not known"),
         ({"start": "he"}, "'he' is not known"), ({"biases": (True,)}, "2 layers has 1 biases"))  # fmt: skip


@pytest.mark.parametrize("options,said", WRONG)
def test_mistakes_are_named(options, said):
    with pytest.raises(ValueError, match=said):
        Mlp((4, 4), **options).init(jax.random.key(0), ROWS)
