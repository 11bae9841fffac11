"""configs/shapes.py, its GANs scored by the attributes of their pictures alone: the others take as long as the training."""

import pathlib

from supcon_jax import config

SHAPES = pathlib.Path(__file__).parents[2] / "configs" / "shapes.py"


def get_config(word=""):
    c = config.load(f"{SHAPES}:{word}")
    c.evals = {"attributes": c.evals.attributes}
    return c
