"""Text encoder of DAMSM: word vectors and one sentence vector from token ids."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from supcon_jax.nets import init
from supcon_jax.nets.blocks import DType

GATES = {"lstm": 4, "gru": 3}


def lstm_cell(projected, carry, weight, bias):
    """One step, gates in PyTorch's order i, f, g, o. projected: [..., 4h], the input's share, made outside the loop."""
    h, c = carry
    gates = projected + hidden(h, weight, bias)
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def gru_cell(projected, carry, weight, bias):
    """One step, gates in PyTorch's order r, z, n; the reset gate acts on the hidden share with its bias."""
    (h,) = carry
    ri, zi, ni = jnp.split(projected, 3, axis=-1)
    rh, zh, nh = jnp.split(hidden(h, weight, bias), 3, axis=-1)
    z = jax.nn.sigmoid(zi + zh)
    new = jnp.tanh(ni + jax.nn.sigmoid(ri + rh) * nh)
    return ((1 - z) * new + z * h,)


def hidden(h, weight, bias):
    """The state's share of the gates in float32 or wider: [v, n, h] x [v, h, g] + [v, 1, g]."""
    wide = jnp.promote_types(h.dtype, jnp.float32)
    share = jnp.einsum("vnh,vhg->vng", h.astype(weight.dtype), weight, preferred_element_type=wide)
    return share + bias


class Direction(nn.Module):
    """Parameters of one direction. Both bias vectors of PyTorch are kept, so that an optimiser moves them alike."""

    width: int
    gates: int

    @nn.compact
    def __call__(self, inputs: int):
        start = init.uniform(self.width**-0.5)
        g = self.gates * self.width
        return (self.param("input", start, (inputs, g)), self.param("input_bias", start, (g,)),
                self.param("hidden", start, (self.width, g)), self.param("hidden_bias", start, (g,)))


class TextEncoder(nn.Module):
    """Bidirectional recurrent encoder of captions.

    Xu et al. 2018, arXiv 1711.10485, section 3.2: one layer; the words are the outputs of both directions, the sentence
    their last states. The backward direction starts at each caption's last token.

    vocab: number of tokens, of which 0 pads; embed: length of a token's vector; width: length of words and sentence,
    half of it for each direction; rnn: "lstm" or "gru"; dropout: on the token vectors in training (rng "dropout").
    text: i32[n, t]; text_len: i32[n], 1..t; any order of lengths.
    Returns (words [n, t, width], zero past text_len, sentence [n, width]), float32 or wider; the state is kept so too.
    Differs from the published code: t is fixed, not the longest caption of the batch.
    """

    vocab: int
    embed: int = 300
    width: int = 256
    rnn: str = "lstm"
    dropout: float = 0.5
    bidirectional: bool = True
    dtype: DType = None

    @nn.compact
    def __call__(self, text, text_len, *, train: bool = False):
        n, t = text.shape
        x = nn.Embed(self.vocab, self.embed, embedding_init=init.uniform(0.1), dtype=self.dtype, name="embed")(text)
        x = nn.Dropout(self.dropout)(x, deterministic=not train)
        names = ("forward", "backward")[: 1 + self.bidirectional]
        size = self.width // len(names)
        params = [Direction(size, GATES[self.rnn], name=name)(self.embed) for name in names]
        into, into_bias, weight, bias = (jnp.stack(p).astype(x.dtype) for p in zip(*params, strict=True))
        wide = jnp.promote_types(x.dtype, jnp.float32)
        # the input's share of all steps in one product
        gates = jnp.einsum("nte,veg->tvng", x, into, preferred_element_type=wide) + widen(into_bias, wide)[None]
        inside = jnp.arange(t)[:, None] < text_len[None, :]
        inside = jnp.broadcast_to(inside[:, None, :, None], (t, len(names), n, 1))
        cell = lstm_cell if self.rnn == "lstm" else gru_cell
        hidden_bias = widen(bias, wide)

        def advance(carry, step):
            projected, keep = step
            moved = cell(projected, carry, weight, hidden_bias)
            carry = tuple(jnp.where(keep, new, old) for new, old in zip(moved, carry, strict=True))
            return carry, jnp.where(keep, carry[0], 0)

        start = (jnp.zeros((len(names), n, size), wide),) * (2 if self.rnn == "lstm" else 1)
        # the backward direction reads flipped time: it meets the padding first and stays at zero there
        carry, out = jax.lax.scan(advance, start, (flip_backward(gates), flip_backward(inside)))
        words = flip_backward(out).transpose(2, 0, 1, 3).reshape(n, t, self.width)
        return words, carry[0].transpose(1, 0, 2).reshape(n, self.width)


def widen(bias, dtype):
    """[v, g] -> [v, 1, g] in dtype."""
    return bias[:, None, :].astype(dtype)


def flip_backward(a):
    """Turn the time axis of the second direction, if there is one: [t, v, ...]."""
    return jnp.concatenate([a[:, :1], jnp.flip(a[:, 1:], 0)], axis=1)
