"""Projection and prediction heads: the general one, and what each method published."""

import flax.linen as nn
import jax.numpy as jnp

from supcon_jax.nets import init
from supcon_jax.nets.blocks import DType
from supcon_jax.nets.norm import BatchNorm, LayerNorm

NORMS = ("batch", "layer", "none")
LAST = ("none", "batch", "batch_plain", "batch_nobias")
STARTS = ("uniform", "normal", "lecun")


class Mlp(nn.Module):
    """Linear layers, each but the last with a norm and ReLU.

    widths: of each layer's output; 0 stands for the width of the head's input. (): what comes in passes through.
    norm: of the hidden layers: "batch", "layer" or "none". last: of the last layer's output: "none", or "batch", and without a
    learned scale and bias ("batch_plain") or without the bias ("batch_nobias").
    biases: of the linear layers: one for all, or one for each.
    start: kernels and biases uniform within 1 / sqrt(inputs), as PyTorch's ("uniform"); kernels normal with a deviation of 0.01
    ("normal") or 1 / sqrt(inputs) ("lecun"), biases 0.
    groups: of every BatchNorm, see there.
    kept: only so many of the layers are there, with their norm and ReLU (SimCLR v2 fine-tunes from the first one's output);
        all of them if left out.
    h: [n, f].
    Returns f32[n, d], or wider; not normalised to unit length.
    Raises ValueError: an unknown norm or start, biases that do not fit the widths.
    """

    widths: tuple[int, ...]
    norm: str = "batch"
    last: str = "none"
    biases: bool | tuple[bool, ...] = True
    start: str = "uniform"
    groups: int = 1
    dtype: DType = None
    kept: int | None = None

    @nn.compact
    def __call__(self, h, *, train: bool = False):
        biases = self.checked()
        width = h.shape[-1]
        for i, features in enumerate(self.widths[: self.kept]):
            h = self.linear(i, features or width, h.shape[-1], biases[i])(h)
            kind = self.last if i == len(self.widths) - 1 else self.norm
            if kind.startswith("batch"):
                h = BatchNorm(affine=kind != "batch_plain", bias=kind != "batch_nobias", groups=self.groups, name=f"norm{i}")(
                    h, train=train
                )
            elif kind == "layer":
                h = LayerNorm(name=f"norm{i}")(h)
            if i < len(self.widths) - 1:
                h = nn.relu(h)
        return h.astype(jnp.promote_types(h.dtype, jnp.float32))

    def linear(self, i, features, inputs, bias):
        """Layer i, begun as `start` says."""
        near = init.uniform(inputs**-0.5)
        kernel = {"uniform": near, "normal": init.normal(0.01), "lecun": init.lecun}[self.start]
        zero = near if self.start == "uniform" else nn.initializers.zeros
        return nn.Dense(features, use_bias=bias, kernel_init=kernel, bias_init=zero, dtype=self.dtype, name=f"dense{i}")

    def checked(self):
        """One bias for each layer."""
        for value, known in ((self.norm, NORMS), (self.last, LAST), (self.start, STARTS)):
            if value not in known:
                raise ValueError(f"a head's {value!r} is not known; use one of: {', '.join(known)}")
        biases = (self.biases,) * len(self.widths) if isinstance(self.biases, bool) else self.biases
        if len(biases) != len(self.widths):
            raise ValueError(f"a head of {len(self.widths)} layers has {len(biases)} biases: give one for each, or one for all")
        return biases


class PatchHead(nn.Module):
    """Each patch through one linear layer, all of a picture side by side through another: [n, p, f] -> f32[n, dim], or wider.

    PIRL's head of jigsaw pictures: nine patches of 2048 features to 128 each, 1152 to 128. Misra and van der Maaten 2020,
    arXiv 1912.01991, section 3.2.
    """

    dim: int = 128
    dtype: DType = None

    @nn.compact
    def __call__(self, h, *, train: bool = False):
        each = init.uniform(h.shape[-1] ** -0.5)
        h = nn.Dense(self.dim, kernel_init=each, bias_init=each, dtype=self.dtype, name="patch")(h)
        both = init.uniform((h.shape[1] * self.dim) ** -0.5)
        h = nn.Dense(self.dim, kernel_init=both, bias_init=both, dtype=self.dtype, name="picture")(h.reshape(len(h), -1))
        return h.astype(jnp.promote_types(h.dtype, jnp.float32))


class LabHead(nn.Module):
    """One linear layer for each kind of channels: features [n, f] of each -> f32[n, dim] of each, or wider, as tuples.

    CMC, Tian et al. 2019, arXiv 1906.05849.
    """

    dim: int = 128
    dtype: DType = None

    @nn.compact
    def __call__(self, h, *, train: bool = False):
        return tuple(Mlp((self.dim,), dtype=self.dtype, name=f"kind{i}")(x) for i, x in enumerate(h))


def first(tree: dict, layers: int) -> dict:
    """The part of an Mlp's parameters or averages that belongs to its first layers."""
    return {name: leaf for name, leaf in tree.items() if int(name.removeprefix("dense").removeprefix("norm")) < layers}


def stacked(dim: int, hidden: int, layers: int) -> tuple[int, ...]:
    """Widths of so many layers, () for none."""
    return (hidden,) * (layers - 1) + (dim,) if layers else ()


def simclr(dim: int = 128, hidden: int = 0, layers: int = 2, groups: int = 1, dtype: DType = None) -> Mlp:
    """SimCLR (arXiv 2002.05709): as wide as the features, a norm after each layer, the last one's without a bias. layers: 3 in
    v2 (arXiv 2006.10029), 1 for a linear head, 0 for none: the features themselves are contrasted."""
    return Mlp(stacked(dim, hidden, layers), "batch", "batch_nobias", False, "normal", groups, dtype)


def simclr2(dim: int = 128, hidden: int = 0, groups: int = 1, dtype: DType = None) -> Mlp:
    """SimCLR v2 (arXiv 2006.10029): three layers."""
    return simclr(dim, hidden, 3, groups, dtype)


def moco(dim: int = 128, dtype: DType = None) -> Mlp:
    """MoCo v1 (arXiv 1911.05722), PIRL and PCL v1: one linear layer."""
    return Mlp((dim,), dtype=dtype)


def moco2(dim: int = 128, hidden: int = 0, dtype: DType = None) -> Mlp:
    """MoCo v2 (arXiv 2003.04297) and SupCon (arXiv 2004.11362): as wide as the features, without a norm."""
    return Mlp((hidden, dim), "none", dtype=dtype)


def moco3(dim: int = 256, hidden: int = 4096, layers: int = 2, groups: int = 1, dtype: DType = None) -> Mlp:
    """MoCo v3's projection (arXiv 2104.02057): a plain norm at the end. layers: 2 on a ResNet, 3 on a ViT,
    0 for none."""
    return Mlp(stacked(dim, hidden, layers), "batch", "batch_plain", False, "uniform", groups, dtype)


def moco3_predictor(dim: int = 256, hidden: int = 4096, last: bool = False, groups: int = 1, dtype: DType = None) -> Mlp:
    """MoCo v3's prediction. last: a plain norm at the end, True on a ViT."""
    return Mlp((hidden, dim), "batch", "batch_plain" if last else "none", False, "uniform", groups, dtype)


def byol(dim: int = 256, hidden: int = 4096, groups: int = 1, dtype: DType = None) -> Mlp:
    """BYOL's projection, and its prediction (arXiv 2006.07733, section 3.2)."""
    return Mlp((hidden, dim), "batch", "none", (True, False), "lecun", groups, dtype)


def simsiam(dim: int = 2048, hidden: int = 0, layers: int = 3, groups: int = 1, dtype: DType = None) -> Mlp:
    """SimSiam's projection (arXiv 2011.10566): as wide as the features, a plain norm at the end. layers: 2 for CIFAR,
    0 for none."""
    return Mlp(stacked(dim, hidden, layers), "batch", "batch_plain", False, "uniform", groups, dtype)


def simsiam_predictor(dim: int = 2048, hidden: int = 512, groups: int = 1, dtype: DType = None) -> Mlp:
    """SimSiam's prediction: narrow in the middle."""
    return Mlp((hidden, dim), "batch", "none", (False, True), "uniform", groups, dtype)


def swav(dim: int = 128, hidden: int = 2048, groups: int = 1, dtype: DType = None) -> Mlp:
    """SwAV's projection (arXiv 2006.09882)."""
    return Mlp((hidden, dim), groups=groups, dtype=dtype)


def barlow(dim: int = 8192, hidden: int = 8192, groups: int = 1, dtype: DType = None) -> Mlp:
    """Barlow Twins (arXiv 2103.03230)."""
    return Mlp((hidden, hidden, dim), "batch", "none", False, "uniform", groups, dtype)


def vicreg(dim: int = 8192, hidden: int = 8192, groups: int = 1, dtype: DType = None) -> Mlp:
    """VICReg's expander (arXiv 2105.04906)."""
    return Mlp((hidden, hidden, dim), "batch", "none", (True, True, False), "uniform", groups, dtype)
