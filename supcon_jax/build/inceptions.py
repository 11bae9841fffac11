"""The Inception networks behind published FIDs and Inception scores: one architecture, and every choice that moves it.

| protocol | weights | resize to 299 | values | codes that use it |
|---|---|---|---|---|
| tf | fid_inception | TensorFlow 1's bilinear, from the left | (x - 128) / 128 | the first FID; "TF FID" of AttnGAN, DM-GAN |
| pt | fid_inception | bilinear, centres | 2 x / 255 - 1 | pytorch-fid since 2019 |
| clean | fid_inception | Pillow's bicubic with antialiasing, in floats | 2 x / 255 - 1 | clean-fid |
| keras | keras_inception | jax.image's bilinear | 2 x / 255 - 1 | XMC-GAN |
| tv_legacy | torchvision_inception | bilinear, corners | see `mistaken` | DM-GAN, DF-GAN, GALIP (pytorch-fid of 2018) |
| imagenet | fid_inception | Pillow's bilinear on bytes | (x - 128) / 128 | Inception score of the 2015 graph; no bias |
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from supcon_jax import storage
from supcon_jax.build import weights
from supcon_jax.config import UserError
from supcon_jax.convert import inception, rename, tensors
from supcon_jax.evals.protocol import Network
from supcon_jax.nets.inception import Inception
from supcon_jax.ops.resize import antialiased, bilinear

SIDE = 299
SIZE = (SIDE, SIDE)
FILES = {  # key in config.networks -> what the user has to give
    "fid_inception": "the torch FID Inception file (pt_inception-2015-12-05, .pth)",
    "torchvision_inception": "torchvision's inception_v3_google weights (.pth or .safetensors)",
    "keras_inception": "the weights of Keras' InceptionV3 by their names (.npz or .safetensors, see README)",
}
BUILT = {  # what the weights of each file were trained in: options of nets.inception.Inception
    "fid_inception": {"count_pad": False, "last_pool": "max", "classes": 1008},
    "torchvision_inception": {},
    "keras_inception": {"count_pad": False},
}
DISTANCES = ("fid", "kid", "prdc", "labels", "diversity")
LAYERS = ("64", "192", "768")  # taps whose maps diversity compares


def mistaken(x):
    """What torchvision's `transform_input` makes of pictures in [0, 1]: it takes them for ImageNet-normalised ones, so that
    the three channels end in [-0.03, 0.43], [-0.09, 0.36] and [-0.19, 0.26]. Scores of that time were measured so.
    """
    channels = zip((0.229, 0.224, 0.225), (0.485, 0.456, 0.406), strict=True)
    return jnp.stack([(x[..., c] * scale + mean - 0.5) / 0.5 for c, (scale, mean) in enumerate(channels)], axis=-1)


SEEN = {  # protocol -> (file, its resize in words, bytes as floats [n, h, w, 3] -> input, what may be measured with it)
    "tf": ("fid_inception", "bilinear, left", lambda x: (bilinear(x, SIZE, place="left") - 128) / 128, DISTANCES),
    "pt": ("fid_inception", "bilinear, centres", lambda x: bilinear(x / 255, SIZE) * 2 - 1, DISTANCES),
    "clean": ("fid_inception", "bicubic, antialiased", lambda x: antialiased(x, SIZE, "bicubic") / 127.5 - 1, DISTANCES),
    "keras": (
        "keras_inception", "bilinear, jax.image",
        lambda x: jax.image.resize(x / 255, (len(x), *SIZE, 3), "bilinear") * 2 - 1, DISTANCES,
    ),
    "tv_legacy": (
        "torchvision_inception", "bilinear, corners", lambda x: mistaken(bilinear(x / 255, SIZE, place="corners")), DISTANCES,
    ),
    "imagenet": (
        "fid_inception", "bilinear, Pillow", lambda x: (antialiased(x, SIZE, "bilinear", levels=True) - 128) / 128, ("is",),
    ),
}  # fmt: skip


def network(name: str, files: dict[str, str]) -> Network:
    """The network of a protocol. Raises UserError: its weight file is missing, or is not its file."""
    file, resize, look, scores = SEEN[name]
    path = files.get(file, "")
    if not path or not storage.place(path).is_file():
        missing = f" ({path} is missing)" if path else ""
        raise UserError(f"network {name} needs {FILES[file]}: give --config.networks.{file}=FILE{missing}")
    module, variables, sha = read(file, str(path))

    @jax.jit
    def features(images):
        pooled = module.apply(variables, look(images.astype(jnp.float32)))["2048"]
        if "is" not in scores:
            return pooled, None
        return pooled, pooled @ variables["params"]["fc"]["kernel"]  # the graph's scores were taken without the bias

    @jax.jit
    def maps(images):
        taps = module.apply(variables, look(images.astype(jnp.float32)))
        return tuple(taps[layer] for layer in LAYERS)

    return Network(name, sha, SIDE, resize, features, scores, maps)


@functools.cache
def read(file: str, path: str):
    """(module, variables, sha256) of a weight file, read once for all protocols that share it."""
    module = Inception(**BUILT[file])
    image = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
    like = jax.eval_shape(module.init, jax.random.key(0), image)
    tree = from_keras(path, like) if file == "keras_inception" else loaded(path, like, module.classes)
    return module, jax.tree.map(jnp.asarray, tree), tensors.sha256(path)


def loaded(path, like, classes: int = 0) -> dict:
    """Variables in the tree `like`, from a file of torchvision's names or one that --mode=convert made of it.

    classes: 0 leaves the last linear layer out. Raises UserError: another network, or wrong shapes.
    """
    return weights.either(path, "inception", inception.torchvision(classes=classes), like, classes)


def from_keras(path, like) -> dict:
    """Variables in the tree `like` from a file of Keras' names. Raises UserError: another network, or wrong shapes."""
    with storage.local(path) as file:
        given = tensors.read(file)
    try:
        return rename.load(given, inception.keras(given), like)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
