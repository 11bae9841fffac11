"""BERT: a bidirectional transformer over word pieces, the trunk of pretrained sentence encoders."""

import flax.linen as nn
import jax.numpy as jnp

from supcon_jax.nets import init
from supcon_jax.nets.blocks import DType
from supcon_jax.nets.vit import ACTS, Attention, layer_norm


class Layer(nn.Module):
    """norm(x + attention(x)), then norm(x + mlp(x)): [n, t, d] -> [n, t, d]. The norms stand behind the sums."""

    heads: int
    hidden: int
    act: str
    eps: float
    dtype: DType = None

    @nn.compact
    def __call__(self, x, mask):
        near = init.normal(0.02)
        h = Attention(self.heads, 0, 0.02, self.dtype, name="attention")(x, mask=mask)
        x = layer_norm(self.eps, self.dtype, "norm0")(x + h)
        h = nn.Dense(self.hidden, kernel_init=near, dtype=self.dtype, name="expand")(x)
        h = nn.Dense(x.shape[-1], kernel_init=near, dtype=self.dtype, name="project")(ACTS[self.act](h))
        return layer_norm(self.eps, self.dtype, "norm1")(x + h)


class Bert(nn.Module):
    """BERT without its pooler and heads.

    Devlin et al. 2019, arXiv 1810.04805; the sentence is the mean of the tokens, as Sentence-BERT has it: Reimers and
    Gurevych 2019, arXiv 1908.10084.

    vocab: number of word pieces; length: longest text in tokens; width, depth, heads, hidden: of the layers; act: "gelu" is
    the exact one. All tokens are of the first segment. No dropout, in training neither.
    text: i32[n, t], t <= length, with the tokens that begin and end it; text_len: i32[n], 1..t.
    Returns (words [n, t, width], zero past text_len, sentence [n, width]), float32 or wider.
    Raises ValueError: a text longer than `length`.
    """

    vocab: int
    length: int
    width: int
    depth: int
    heads: int
    hidden: int
    act: str = "gelu"
    eps: float = 1e-12
    dtype: DType = None

    @nn.compact
    def __call__(self, text, text_len):
        t, near = text.shape[1], init.normal(0.02)
        if t > self.length:
            raise ValueError(f"texts of {t} tokens where the network has {self.length} positions")
        h = nn.Embed(self.vocab, self.width, embedding_init=near, dtype=self.dtype, name="embed")(text)
        positions = self.param("positions", near, (self.length, self.width), jnp.float32)
        segment = self.param("segment", near, (2, self.width), jnp.float32)
        h = h + (positions[:t] + segment[:1])[None].astype(h.dtype)
        h = layer_norm(self.eps, self.dtype, "first_norm")(h)
        inside = jnp.arange(t)[None] < text_len[:, None]
        for i in range(self.depth):
            layer = Layer(self.heads, self.hidden, self.act, self.eps, self.dtype, name=f"block{i}")
            h = layer(h, inside[:, None, :])
        words = jnp.where(inside[:, :, None], h, 0).astype(jnp.promote_types(h.dtype, jnp.float32))
        return words, words.sum(axis=1) / text_len[:, None].astype(words.dtype)
