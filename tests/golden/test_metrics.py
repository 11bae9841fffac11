"""Scores of evals against those of the published evaluation codes."""

import functools

import jax
import numpy as np
import pytest

from supcon_jax.build import inceptions
from supcon_jax.evals.fid import frechet, gaussian, inception_score, kid, mmd2, prdc
from supcon_jax.evals.knn import ranking, scores
from supcon_jax.evals.retrieval import ranks, recalls, summary
from supcon_jax.evals.spectrum import alignment, uniformity
from supcon_jax.ops.resize import antialiased, bilinear, nearest


@pytest.mark.golden("fid")
def test_fid(case):
    x = case.arrays()
    if "features1" in x:
        one, two = gaussian(x["features1"]), gaussian(x["features2"])
        np.testing.assert_allclose(one[0], x["mu1"], rtol=1e-7, atol=1e-10)
        np.testing.assert_allclose(one[1], x["sigma1"], rtol=1e-7, atol=1e-10)
        lacking = min(len(x["features1"]), len(x["features2"])) <= x["features1"].shape[1]
    else:
        one, two, lacking = (x["mu1"], x["sigma1"]), (x["mu2"], x["sigma2"]), False
    rtol, atol = (1e-4, 1e-3) if lacking else (1e-7, 1e-8)
    np.testing.assert_allclose(frechet(*one, *two), x["fid"], rtol=rtol, atol=atol)
    single = [np.float32(a) for a in (*one, *two)]
    np.testing.assert_allclose(frechet(*single), x["fid"], rtol=1e-3, atol=1e-3)


@pytest.mark.golden("inception_score")
def test_inception_score(case):
    x = case.arrays()
    got = inception_score(x["logits"], int(x["splits"]), x.get("permutation"))
    np.testing.assert_allclose(got, (x["mean"], x["std"]), rtol=1e-5, atol=1e-10)


@pytest.mark.golden("kid")
def test_kid(case):
    x = case.arrays()
    f1, f2 = x["features1"], x["features2"]
    for kind in ("unbiased", "biased", "u_statistic"):
        np.testing.assert_allclose(mmd2(f1, f2, kind), x[kind], rtol=1e-6, err_msg=kind)
    rows = x["subset_idx1"], x["subset_idx2"]
    each = [mmd2(f1[i], f2[j]) for i, j in zip(*rows, strict=True)]
    np.testing.assert_allclose(each, x["subset_mmd2"], rtol=1e-6, atol=1e-10)
    np.testing.assert_allclose(kid(f1, f2, rows=rows), (x["kid_mean"], x["kid_std"]), rtol=1e-6)


@pytest.mark.golden("prdc")
def test_prdc(case):
    x = case.arrays()
    for name, value in prdc(x["real"], x["fake"], int(x["k"])).items():
        np.testing.assert_allclose(value, x[name], rtol=1e-12, err_msg=name)


@pytest.mark.golden("retrieval")
def test_retrieval(case):
    x = case.arrays()
    c = int(x["captions_per_image"])
    forth, back, top = ranks(x["image"], x["text"], c, chunk=7)
    np.testing.assert_array_equal(forth, x["i2t_ranks"])
    np.testing.assert_array_equal(back, x["t2i_ranks"])
    if "i2t_top1" in x:
        np.testing.assert_array_equal(top, x["i2t_top1"])
    got = recalls(x["image"], x["text"], c)
    for way in ("i2t", "t2i"):
        values = [got[f"{way}_{name}"] for name in ("r1", "r5", "r10", "median", "mean")]
        np.testing.assert_allclose(values, x[way], rtol=1e-12)
    assert summary(forth)["r1"] == got["i2t_r1"]


@pytest.mark.golden("alignment_uniformity")
def test_alignment_uniformity(case):
    x = {name: np.float64(array) for name, array in case.arrays().items()}
    got = alignment(x["x"], x["y"], float(x["alpha"])) if "alpha" in x else uniformity(x["x"], float(x["t"]))
    np.testing.assert_allclose(got, x["loss"], rtol=1e-9)


@pytest.mark.golden("knn")
def test_knn(case):
    x = case.arrays()
    k, classes, temperature = int(x["k"]), int(x["num_classes"]), float(x["temperature"])
    got = scores(x["query"], x["bank"], x["bank_labels"], k=k, classes=classes, temperature=temperature, chunk=11)
    np.testing.assert_allclose(got, x["scores"], rtol=1e-5, atol=1e-10)
    order = ranking(got)
    np.testing.assert_array_equal(order, x["predicted"])
    truth = x["query_labels"][:, None]
    np.testing.assert_allclose(100 * np.mean((order[:, :1] == truth).any(1)), x["top1"], rtol=1e-12)
    np.testing.assert_allclose(100 * np.mean((order[:, :5] == truth).any(1)), x["top5"], rtol=1e-12)


RESIZES = {
    "torch_bilinear": bilinear,
    "torch_bilinear_corners": lambda x, size: bilinear(x, size, place="corners"),
    "torch_bilinear_antialias": lambda x, size: antialiased(x, size, "bilinear"),
    "torch_bicubic_antialias": lambda x, size: antialiased(x, size, "bicubic"),
    "torch_nearest": nearest,
    "tf1_bilinear": lambda x, size: bilinear(x, size, place="left"),
    "clean_bicubic_f32": lambda x, size: antialiased(x, size, "bicubic"),
    "pil_nearest_u8": lambda x, size: nearest(x, size, place="centres"),
}
for kernel in ("bilinear", "bicubic", "lanczos", "box"):
    RESIZES[f"pil_{kernel}_u8"] = functools.partial(antialiased, kernel=kernel, levels=True)


@functools.partial(jax.jit, static_argnums=1)
def resized(image, size):
    """By every rule, compiled at once."""
    return {name: rule(image, size)[0] for name, rule in RESIZES.items()}


@pytest.mark.golden("resize")
def test_resize(case):
    x = case.arrays()
    size = tuple(int(side) for side in x["size"])
    assert set(x) == {"image", "size", *RESIZES}
    for dtype in (np.float32, np.float64):
        with jax.enable_x64(dtype == np.float64):
            found = jax.device_get(resized(x["image"][None].astype(dtype), size))
        for name, got in found.items():
            want = x[name].astype(np.float64)
            if name.endswith("u8"):
                off = np.abs(np.float64(got) - want)
                assert off.max() <= 1 and np.mean(off > 0) <= 0.005, (name, off.max(), np.mean(off > 0))
            elif dtype == np.float64 and name != "clean_bicubic_f32":
                np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9, err_msg=name)
            else:
                np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-2, err_msg=name)


SHOWN = {  # protocol of a published score -> (the resize of its code, levels as what its network is shown)
    "tf": ("tf1_bilinear", lambda x: (x - 128) / 128),
    "pt": ("torch_bilinear", lambda x: 2 * x / 255 - 1),
    "clean": ("clean_bicubic_f32", lambda x: 2 * x / 255 - 1),
    "keras": ("torch_bilinear_antialias", lambda x: 2 * x / 255 - 1),
    "tv_legacy": (
        "torch_bilinear_corners", lambda x: (x / 255 * [0.229, 0.224, 0.225] + [0.485, 0.456, 0.406] - 0.5) / 0.5,
    ),
    "imagenet": ("pil_bilinear_u8", lambda x: (x - 128) / 128),
}  # fmt: skip


@pytest.mark.golden("resize")
def test_each_protocol_takes_its_own_resize(case, monkeypatch):
    x = case.arrays()
    monkeypatch.setattr(inceptions, "SIZE", tuple(int(side) for side in x["size"]))
    assert set(SHOWN) == set(inceptions.SEEN)
    look = {name: seen[2] for name, seen in inceptions.SEEN.items()}
    found = jax.jit(lambda image: {name: rule(image)[0] for name, rule in look.items()})(x["image"][None].astype(np.float32))
    for name, (resize, values) in SHOWN.items():
        off = np.abs(np.float64(found[name]) - values(x[resize].astype(np.float64)))
        if name == "imagenet":
            assert off.max() <= 1.001 / 128 and np.mean(off > 1e-6) <= 0.005, (off.max(), np.mean(off > 1e-6))
        else:
            assert off.max() <= 1e-2 / 127.5, (name, off.max())
