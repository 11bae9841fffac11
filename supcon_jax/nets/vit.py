"""Transformer blocks, and the vision transformer as its authors, torchvision, Hugging Face and CLIP build it."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from supcon_jax.nets import init
from supcon_jax.nets.blocks import DType


def quick_gelu(x):
    """x * sigmoid(1.702 x): what OpenAI's CLIP was trained with."""
    return x * jax.nn.sigmoid(1.702 * x)


def exact_gelu(x):
    return jax.nn.gelu(x, approximate=False)


ACTS = {"gelu": exact_gelu, "quick_gelu": quick_gelu}


def layer_norm(eps: float, dtype: DType, name: str) -> nn.LayerNorm:
    """Layer norm with moments in float32 or wider. The variance is taken in two passes, exact where the mean is large;
    flax's own default epsilon is 1e-6, PyTorch's 1e-5."""
    return nn.LayerNorm(eps, dtype=dtype, use_fast_variance=False, name=name)


class Attention(nn.Module):
    """Multi-head scaled dot-product attention.

        out = concat_h( softmax(Q_h K_h^T / sqrt(d_h)) V_h ) W

    Vaswani et al. 2017, arXiv 1706.03762.

    heads: must divide the width of x; features: width of the result, that of x if 0; deviation: standard deviation of
    the initial kernel of the last layer. xavier: all kernels begin by Xavier's rule, each of the three by itself.
    x: [n, t, d], keys and values; query: [n, q, d], x itself if left out; mask: bool[q, t] or bool[n, q, t] (axes of length
    one stand for all), True where a query may look. Returns [n, q, features]. Softmax in float32 or wider.
    """

    heads: int
    features: int = 0
    deviation: float = 0.0
    dtype: DType = None
    xavier: bool = False

    @nn.compact
    def __call__(self, x, query=None, mask=None):
        d = x.shape[-1]
        near, last = init.normal(d**-0.5), init.normal(self.deviation or d**-0.5)
        near, last = (init.xavier, init.xavier) if self.xavier else (near, last)
        if d % self.heads:
            raise ValueError(f"{self.heads} heads cannot share a width of {d}")

        def project(h, name):
            h = nn.Dense(d, kernel_init=near, dtype=self.dtype, name=name)(h)
            return h.reshape(*h.shape[:-1], self.heads, d // self.heads)

        q, k, v = project(x if query is None else query, "query"), project(x, "key"), project(x, "value")
        wide = jnp.promote_types(q.dtype, jnp.float32)
        logits = jnp.einsum("nqhd,nthd->nhqt", q * (d // self.heads) ** -0.5, k, preferred_element_type=wide)
        if mask is not None:
            logits = jnp.where(mask[..., None, :, :], logits, jnp.finfo(wide).min)
        weight = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
        h = jnp.einsum("nhqt,nthd->nqhd", weight, v).reshape(*q.shape[:2], d)
        return nn.Dense(self.features or d, kernel_init=last, dtype=self.dtype, name="out")(h)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): [n, t, d] -> [n, t, d].

    depth: number of blocks in the whole stack; the layers that add to x start smaller by its root, as CLIP's.
    hidden: width inside the mlp; act: "gelu" or "quick_gelu"; eps: of the layer norms. xavier: all kernels begin by
    Xavier's rule instead.
    """

    heads: int
    hidden: int
    depth: int
    act: str = "gelu"
    eps: float = 1e-5
    dtype: DType = None
    xavier: bool = False

    @nn.compact
    def __call__(self, x, mask=None):
        d = x.shape[-1]
        added = (2 * d * self.depth) ** -0.5
        wide, back = init.normal((2 * d) ** -0.5), init.normal(added)
        wide, back = (init.xavier, init.xavier) if self.xavier else (wide, back)
        h = layer_norm(self.eps, self.dtype, "norm0")(x)
        x = x + Attention(self.heads, 0, added, self.dtype, self.xavier, name="attention")(h, mask=mask)
        h = layer_norm(self.eps, self.dtype, "norm1")(x)
        h = nn.Dense(self.hidden, kernel_init=wide, dtype=self.dtype, name="expand")(h)
        return x + nn.Dense(d, kernel_init=back, dtype=self.dtype, name="project")(ACTS[self.act](h))


class ViT(nn.Module):
    """Vision transformer: patches, a class token and learned positions, pre-norm blocks.

    Dosovitskiy et al. 2021, arXiv 2010.11929; with first_norm and without patch_bias the image tower of
    CLIP, Radford et al. 2021, arXiv 2103.00020.

    side: height and width of the pictures in pixels, a multiple of patch. hidden: width inside the mlps, 4 * width if
    0. act, eps: see Block. first_norm: a layer norm before the blocks. dtype: compute type, parameters stay float32.
    image: [n, side, side, 3]. Returns (tokens [n, 1 + p, width] before the last layer norm, the same after it); the
    class token stands first, patches follow in row order. Raises ValueError: another size of picture.
    """

    side: int
    patch: int
    width: int
    depth: int
    heads: int
    hidden: int = 0
    act: str = "gelu"
    eps: float = 1e-6
    patch_bias: bool = True
    first_norm: bool = False
    dtype: DType = None

    def setup(self):
        if self.side % self.patch:
            raise ValueError(f"pictures of {self.side} pixels cannot be cut into patches of {self.patch}")
        near = init.normal(self.width**-0.5)
        self.embed = nn.Conv(self.width, (self.patch, self.patch), self.patch, padding="VALID", kernel_init=init.lecun,
                             use_bias=self.patch_bias, dtype=self.dtype, name="patch")
        self.token = self.param("class", near, (self.width,), jnp.float32)
        self.positions = self.param("positions", near, (1 + (self.side // self.patch) ** 2, self.width), jnp.float32)
        if self.first_norm:
            self.before = layer_norm(self.eps, self.dtype, "first_norm")
        self.blocks = [Block(self.heads, self.hidden or 4 * self.width, self.depth, self.act, self.eps, self.dtype,
                             name=f"block{i}") for i in range(self.depth)]
        self.after = layer_norm(self.eps, self.dtype, "last_norm")

    def __call__(self, image):
        tokens, _ = self.run(self.start(self.patches(image)))
        return tokens, self.after(tokens)

    def patches(self, image):
        """Vectors of the patches [n, p, width], without positions."""
        if image.shape[1:3] != (self.side, self.side):
            raise ValueError(f"pictures of {image.shape[1:3]} pixels where the network has {self.side} x {self.side}")
        h = self.embed(image)
        return h.reshape(len(h), -1, self.width)

    def start(self, patches):
        """Patches [n, p, width] -> what the first block sees, [n, 1 + p, width]."""
        first = jnp.broadcast_to(self.token.astype(patches.dtype), (len(patches), 1, self.width))
        tokens = jnp.concatenate([first, patches], axis=1) + self.positions[None].astype(patches.dtype)
        return self.before(tokens) if self.first_norm else tokens

    def run(self, tokens, prompts=None, keep=()):
        """All blocks, from what `start` gave.

        prompts: {block: [n, width]}, one more token at the end of that block's input, dropped from its output.
        keep: blocks, counted from 0, whose outputs are wanted.
        Returns (tokens [n, 1 + p, width], kept: tuple of the same shape, in the order of `keep`).
        """
        t, kept = tokens.shape[1], {}
        for i, block in enumerate(self.blocks):
            if prompts and i in prompts:
                more = prompts[i][:, None, :].astype(tokens.dtype)
                tokens = block(jnp.concatenate([tokens, more], axis=1))[:, :t]
            else:
                tokens = block(tokens)
            kept[i] = tokens
        return tokens, tuple(kept[i] for i in keep)

    def finish(self, tokens):
        """The class token after the last layer norm, [n, width]."""
        return self.after(tokens[:, 0])


class Headed(nn.Module):
    """A vision transformer and one dense layer on its class token.

    features: classes of a classifier, or the width of Hugging Face's pooler, which ends in act "tanh".
    Returns (tokens after the last layer norm [n, 1 + p, width], [n, features]).
    """

    trunk: ViT
    features: int
    act: str = ""

    @nn.compact
    def __call__(self, image):
        _, tokens = self.trunk(image)
        h = nn.Dense(self.features, kernel_init=init.lecun, dtype=self.trunk.dtype, name="head")(tokens[:, 0])
        return tokens, jnp.tanh(h) if self.act == "tanh" else h
