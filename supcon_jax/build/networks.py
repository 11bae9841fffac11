"""Feature networks that scores are measured with, by name, from their weight files."""

from __future__ import annotations

import functools
import pathlib

import jax
import jax.numpy as jnp

from supcon_jax import storage
from supcon_jax.build import inceptions, weights
from supcon_jax.build.names import net
from supcon_jax.config import UserError
from supcon_jax.convert import efficientnet, rename, tensors
from supcon_jax.data import fetch
from supcon_jax.evals.protocol import Network
from supcon_jax.nets.efficientnet import EfficientNetLite0
from supcon_jax.ops.resize import bilinear

SHIPPED = pathlib.Path(__file__).parent.parent / "weights"
EFFNET_LAYERS = ("block0", "block2", "block4", "block10", "block15")  # the last of each size, 48 to 3 at 96 pixels
SHAPES_LAYERS = ("norm0", "norm1", "norm2")
EFFNET_SIDE = 96  # pixels: depthwise convolutions are slow on CPUs, and the features still tell content apart


def network(name: str, files: dict[str, str]) -> Network:
    """A feature network by its name.

    effnet_lite0: EfficientNet-Lite0 (ImageNet), fetched by `python -m supcon_jax.data.fetch effnet_lite0`.
    tf, pt, clean, keras, tv_legacy, imagenet: published protocols on Inception files that the user supplies, see inceptions.
    cub_ours: the classifier of 200 birds that `configs/cub.py:classifier` trains; measures is_cub_ours and label accuracy.
    shapes_classifier: the shipped classifier of the coloured shapes.
    files: paths by name from the config ("" for the usual place).
    Raises UserError: an unknown name, or a file that is missing.
    """
    if name in inceptions.SEEN:
        return inceptions.network(name, files)
    if name not in NETWORKS:
        raise UserError(f"network {name!r} is not known; use one of: {', '.join([*NETWORKS, *inceptions.SEEN])}")
    return made(name, files.get(name, ""))


@functools.cache
def made(name: str, path: str) -> Network:
    return NETWORKS[name](path)


def effnet_file(path: str, key: str = "networks.effnet_lite0"):
    """The file of EfficientNet-Lite0: the one given, else the fetched one. key: of the config, for messages.

    Raises UserError: it is not there.
    """
    if path and not storage.place(path).is_file():
        raise UserError(f"--config.{key}={path}: no such file; leave it empty for the fetched one")
    found = sorted(pathlib.Path(fetch.home(), "effnet_lite0").glob("**/*.pth")) if not path else [storage.place(path)]
    if not found or not found[0].is_file():
        raise UserError("the EfficientNet-Lite0 weights are missing: python -m supcon_jax.data.fetch effnet_lite0")
    return found[0]


def effnet_lite0(path: str) -> Network:
    file = effnet_file(path)
    module = EfficientNetLite0()
    variables = converted(module, file, efficientnet.lite0(), EFFNET_SIDE)

    @jax.jit
    def features(images):
        taps = module.apply(variables, bilinear(images.astype(jnp.float32), (EFFNET_SIDE, EFFNET_SIDE)))
        return taps["1280"], taps["logits"]

    @jax.jit
    def maps(images):
        x = bilinear(images.astype(jnp.float32), (EFFNET_SIDE, EFFNET_SIDE))
        return layers(module, variables, x, lambda part: part.name in EFFNET_LAYERS)

    sha = tensors.sha256(file)
    return Network("effnet_lite0", sha, EFFNET_SIDE, "bilinear, half-pixel", features, maps=maps)


def layers(module, variables, x, wanted, **more) -> tuple:
    """Outputs [n, h, w, c] of the parts of a network that are wanted, in the order of their size, largest first."""
    keep = lambda part, method: method == "__call__" and wanted(part)  # noqa: E731
    _, kept = module.apply(variables, x, capture_intermediates=keep, mutable=["intermediates"], **more)
    found = jax.tree.leaves(kept["intermediates"])
    return tuple(sorted(found, key=lambda layer: -layer.shape[1]))


def converted(module, path, table, side: int):
    """Variables of a network from a foreign file."""
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    like = jax.eval_shape(module.init, jax.random.key(0), image)
    return jax.tree.map(jnp.asarray, rename.load(tensors.read(path), table, like))


def shapes_classifier(path: str) -> Network:
    module, variables, about, sha = classifier_file(path or SHIPPED / "shapes_classifier.safetensors")
    side = about["config"]["data"]["size"]

    @jax.jit
    def features(images):
        feats, logits = module.apply(variables, prepared(images, side), train=False)
        shape, colour = jax.nn.log_softmax(logits["shape"]), jax.nn.log_softmax(logits["colour"])
        return feats, (shape[:, :, None] + colour[:, None, :]).reshape(len(feats), -1)  # logits of the 64 pairs

    @jax.jit
    def maps(images):
        found = layers(module, variables, prepared(images, side), lambda part: part.name in SHAPES_LAYERS, train=False)
        return tuple(map(jax.nn.relu, found))  # what the next layer sees

    return Network("shapes_classifier", sha, side, "bilinear, half-pixel", features, maps=maps)


def cub_ours(path: str) -> Network:
    if not path or not storage.place(path).is_file():
        missing = f" ({path} is missing)" if path else ""
        raise UserError("network cub_ours needs the weights.safetensors that --config=configs/cub.py:classifier trains: give "
                        f"--config.networks.cub_ours=FILE{missing}")
    module, variables, about, sha = classifier_file(path)
    if about["config"]["data"]["name"] != "cub" or about["nets"]["image"]["net"] != "inception_classifier":
        raise UserError(f"{path} is no classifier of birds: give what --config=configs/cub.py:classifier trains")
    side = module.size

    @jax.jit
    def features(images):
        feats, logits = module.apply(variables, images.astype(jnp.float32) / 127.5 - 1)
        return feats, logits["label"]

    return Network("cub_ours", sha, side, "bilinear, half-pixel", features, ("is", "classes"), classes=tuple(about["classes"]))


def prepared(images, side: int):
    """u8 [n, h, w, 3] -> [-1, 1] at the side that a network was trained with."""
    return bilinear(images.astype(jnp.float32) / 127.5 - 1, (side, side))


@functools.cache
def attribute_net(path: str = ""):
    """(images in [-1, 1] -> (features, {attribute: logits}), what its file says, sha256) of an attribute classifier."""
    module, variables, about, sha = classifier_file(path or SHIPPED / "shapes_classifier.safetensors")
    return lambda images: module.apply(variables, images, train=False), about, sha


def classifier_file(path):
    """(module, variables, what the file says, sha256) of a trained classifier of this library."""
    tree, about, sha = weights.load(path, "classifier")
    more = {"classes": len(about["classes"])} if about["nets"]["image"]["net"] == "inception_classifier" else {}
    module = net(about["nets"]["image"], "nets.image", **more)
    variables = {"params": tree["params"], "batch_stats": tree["stats"]}
    return module, jax.tree.map(jnp.asarray, variables), about, sha


NETWORKS = {"effnet_lite0": effnet_lite0, "cub_ours": cub_ours, "shapes_classifier": shapes_classifier}
