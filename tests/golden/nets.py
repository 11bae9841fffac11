"""What a test of a network's reference numbers needs to know of it and of its pictures."""

from typing import NamedTuple

import numpy as np


class Net(NamedTuple):
    """A network under test. run(module, variables, inputs, train) gives (named outputs, changed state)."""

    module: object
    table: list
    run: object
    # the output that is the objective, or how the names of those in it begin (several in a tuple); all if empty
    objective: str | tuple[str, ...] = ""
    # Inception: in flat parts of a picture the maxima over windows are ties, and its gradient may go to any of them;
    # through 94 layers float32 keeps outputs to 1e-4 of the largest entry, no longer of each one (float64 does)
    deep: bool = False
    rounded: bool = False  # Hugging Face's attention takes its softmax in float32, also where all else is float64
    # what float32 may move outputs by: in DM-GAN's generator, which normalises two vectors by each other, rounding the
    # weights alone (by 6e-8 of themselves, in float64) moves pictures by 1.8e-5
    atol: float = 0.0
    fold: object = dict  # what joins tensors of the file before they are renamed


def pixels(a):
    """Pictures of PyTorch (n, c, h, w) to ours."""
    return a.transpose(0, 2, 3, 1)


def planes(a):
    return a.transpose(0, 3, 1, 2)


def flat(picture):
    """Whether much of a picture is of one colour, so that maxima over windows are ties."""
    return (np.diff(picture, axis=-1) == 0).mean() > 0.01


def summary(a):
    """The four numbers that a file keeps of an array too large to be kept."""
    return np.array([a.mean(), a.std(), np.abs(a).max(), np.linalg.norm(a.ravel())])
