"""Published names of unimodal contrast: every tensor finds its place, and the bias that SimSiam never trains goes."""

import jax
import numpy as np

from supcon_jax.convert import rename, ssl
from supcon_jax.nets import heads
from supcon_jax.nets.backbone import resnet_trunk
from supcon_jax.nets.init import on_host


def foreign(depth):
    """Names and shapes of a ResNet's tensors, without its last layer, as torchvision has them at a sixteenth of the width."""
    made = jax.eval_shape(resnet_trunk(depth, 1 / 16, "imagenet").init, jax.random.key(0), np.zeros((1, 64, 64, 3), np.float32))
    out = {}
    for path, a in jax.tree_util.tree_flatten_with_path(made)[0]:
        words = [key.key for key in path[2:]]
        layer, leaf = "/".join(words[:-1]), words[-1]
        layer = layer.replace("conv_stem", "conv1").replace("norm_stem", "bn1").replace("_block", ".").replace("/", ".")
        layer = layer.replace("conv_short", "downsample.0").replace("norm_short", "downsample.1").replace("norm", "bn")
        leaf = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}.get(leaf, leaf)
        out[f"{layer}.{leaf}"] = a.shape[:-3:-1] + a.shape[:2] if len(a.shape) == 4 else a.shape
    return out


def test_simsiam_loads_through_data_parallel_and_loses_its_still_bias():
    rng = np.random.default_rng(0)
    shapes = {f"encoder.{name}": shape for name, shape in foreign(18).items()}
    for place, kind in enumerate("lnrlnrln"):
        if kind == "l":
            shapes[f"encoder.fc.{place}.weight"] = (32, 32)
        elif kind == "n":
            shapes |= {f"encoder.fc.{place}.{name}": (32,) for name in ("running_mean", "running_var")}
            shapes |= {f"encoder.fc.{place}.{name}": (32,) for name in ("weight", "bias") if place < 7}
    shapes |= {"encoder.fc.6.bias": (32,), "predictor.3.bias": (32,)}
    shapes |= {"predictor.0.weight": (4, 32), "predictor.3.weight": (32, 4)}
    shapes |= {f"predictor.1.{name}": (4,) for name in ("weight", "bias", "running_mean", "running_var")}
    tensors = {f"module.{name}": rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    image, head, predictor = resnet_trunk(18, 1 / 16, "imagenet"), heads.simsiam(32), heads.simsiam_predictor(32, 4)
    made = {"image": on_host(image.init, jax.random.key(0), np.zeros((1, 64, 64, 3), np.float32)),
            "head": on_host(head.init, jax.random.key(0), np.zeros((1, 32), np.float32)),
            "predictor": on_host(predictor.init, jax.random.key(0), np.zeros((1, 32), np.float32))}  # fmt: skip
    like = {kind: {name: part[kind] for name, part in made.items()} for kind in ("params", "batch_stats")}
    tree = rename.load(ssl.folded(tensors), ssl.simsiam(), like)
    mean, bias = tensors["module.encoder.fc.7.running_mean"], tensors["module.encoder.fc.6.bias"]
    np.testing.assert_allclose(tree["batch_stats"]["head"]["norm2"]["mean"], mean - bias, rtol=1e-6)
    kernel = tree["params"]["predictor"]["dense1"]["kernel"]
    np.testing.assert_array_equal(kernel, tensors["module.predictor.3.weight"].T)
    stem = tree["params"]["image"]["trunk"]["conv_stem"]["kernel"]
    np.testing.assert_array_equal(stem, tensors["module.encoder.conv1.weight"].transpose(2, 3, 1, 0))


def test_folding_leaves_other_files_alone():
    tensors = {"encoder.fc.3.bias": np.ones(2), "encoder.conv1.weight": np.ones(3)}
    assert ssl.folded(tensors) == tensors


def test_heads_stand_under_any_name():
    path, _ = rename.place("online_encoder.projector.3.weight", ssl.byol_mlp(r"online_encoder\.projector\.", "head"))
    assert path == "params/head/dense1/kernel"
    assert rename.place("head.1.weight", ssl.supcon()) is None
