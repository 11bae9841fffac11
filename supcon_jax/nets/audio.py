"""Contrastive predictive coding of sound: a waveform to codes, and a recurrent context of those before."""

import flax.linen as nn
import jax.numpy as jnp

from supcon_jax.nets import init
from supcon_jax.nets.blocks import DType
from supcon_jax.nets.norm import normaliser


class WaveEncoder(nn.Module):
    """Strided convolutions on a waveform, then a recurrent network over their codes.

    van den Oord et al. 2018, arXiv 1807.03748, section 3.1: a code for each 160 samples, which is 10 ms at 16 kHz.

    width: channels of the codes; context: length of the recurrent state. strides, filters: of the convolutions, each with ReLU.
    norm: before each ReLU: "none" as published, "layer", or "batch" with its groups.
    wave: [n, samples], samples a multiple of all strides together.
    Returns (z f32[n, t, width], c f32[n, t, context]), or wider, t = samples / product of strides; c at t knows z up to t.
    Raises ValueError: strides and filters of two lengths, or samples that the strides do not share.
    """

    width: int = 512
    context: int = 256
    strides: tuple[int, ...] = (5, 4, 2, 2, 2)
    filters: tuple[int, ...] = (10, 8, 4, 4, 4)
    norm: str = "none"
    groups: int = 1
    dtype: DType = None

    @nn.compact
    def __call__(self, wave, *, train: bool = False):
        if len(self.strides) != len(self.filters):
            raise ValueError(f"{len(self.strides)} strides and {len(self.filters)} filters: give as many of both")
        h = wave[..., None]
        for i, (stride, side) in enumerate(zip(self.strides, self.filters, strict=True)):
            if h.shape[1] % stride:
                raise ValueError(f"{wave.shape[1]} samples: give a multiple of the strides {self.strides} together")
            h = nn.Conv(self.width, (side,), stride, "SAME", kernel_init=init.he, dtype=self.dtype, name=f"conv{i}")(h)
            h = h if self.norm == "none" else normaliser(self.norm, f"norm{i}", groups=self.groups)(h, train=train)
            h = nn.relu(h)
        cell = nn.GRUCell(
            self.context, kernel_init=init.lecun, recurrent_kernel_init=init.orthogonal, dtype=self.dtype, name="cell"
        )
        c = nn.RNN(cell, name="context")(h)
        wide = jnp.promote_types(h.dtype, jnp.float32)
        return h.astype(wide), c.astype(wide)
