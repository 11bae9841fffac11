"""Makes keras_inception.npz beside it: features that Keras' InceptionV3 gives with drawn weights. To be run by hand where
Keras is installed (3.15.1 on jax 0.10.2; no test runs it): KERAS_BACKEND=jax python keras_inception.py"""

import pathlib

import keras
import numpy as np

LEAVES = "kernel", "beta", "moving_mean", "moving_variance"


def drawn(path, shape):
    """Random numbers for the weight at "conv2d_3/kernel", seeded by the number of its layer and its kind."""
    layer, leaf = path.split("/")
    number = layer.rpartition("_")[2]
    x = np.random.default_rng([int(number) if number.isdigit() else 0, LEAVES.index(leaf)]).standard_normal(shape, np.float32)
    if leaf == "kernel":
        return x * (2 / np.prod(shape[:-1])) ** 0.5
    return np.abs(x) * 0.5 + 0.5 if leaf == "moving_variance" else x * 0.3


model = keras.applications.InceptionV3(weights=None, include_top=False, pooling="avg", input_shape=(75, 75, 3))
model.set_weights([drawn(weight.path, weight.shape).astype(np.float32) for weight in model.weights])
images = np.random.default_rng(1000).uniform(-1, 1, (2, 75, 75, 3)).astype(np.float32)
features = np.asarray(model(images, training=False))
kernels = {
    int(w.path.split("/")[0].removeprefix("conv2d").lstrip("_") or 0): w.shape for w in model.weights if "kernel" in w.path
}
kernels = np.int32([kernels[number] for number in sorted(kernels)])
np.savez_compressed(pathlib.Path(__file__).with_name("keras_inception.npz"), features=features, kernels=kernels)
