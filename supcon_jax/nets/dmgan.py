"""DM-GAN: AttnGAN's stages with a dynamic memory of the words, and discriminators with spectral instead of batch norm."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from supcon_jax.nets import attngan, init
from supcon_jax.nets.blocks import DType, Residual, SpectralConv, Up, attend, leaky


class Memory(nn.Module):
    """Words, as this picture needs them: [n, t, d] and [n, h, w, c] -> keys and values [n, t, c].

        g_t = sigmoid(A w_t + B x),   m_t = g_t relu(M_w w_t) + (1 - g_t) relu(M_r x)
        k_t = relu(K m_t),   v_t = relu(V m_t)

    Zhu et al. 2019, arXiv 1904.01310 (memory writing). x: mean over the picture, without gradient, as in the published
    code. A, B: to one number, no bias; M_w, M_r: to 2 c.
    """

    dtype: DType = None

    @nn.compact
    def __call__(self, words, h):
        c = h.shape[-1]
        picture = jax.lax.stop_gradient(h.mean((1, 2)))[:, None]  # [n, 1, c]
        gate = self.dense(1, "word_gate", bias=False)(words) + self.dense(1, "picture_gate", bias=False)(picture)
        gate = jax.nn.sigmoid(gate)
        word, old = jax.nn.relu(self.dense(2 * c, "word")(words)), jax.nn.relu(self.dense(2 * c, "picture")(picture))
        memory = gate * word + (1 - gate) * old
        return jax.nn.relu(self.dense(c, "key")(memory)), jax.nn.relu(self.dense(c, "value")(memory))

    def dense(self, features: int, name: str, bias: bool = True):
        return nn.Dense(features, use_bias=bias, kernel_init=init.orthogonal, dtype=self.dtype, name=name)


class Stage(nn.Module):
    """One later stage: read the memory, mix what was read into the picture, residual blocks, double the size.

        o_q = sum_t softmax_t(<h_q, k_t>) v_t,   r_q = sigmoid(R [h_q, o_q]),   h'_q = r_q o_q + (1 - r_q) h_q

    Zhu et al. 2019, arXiv 1904.01310 (key addressing, value reading, response gate). The residual blocks take [h', h'],
    as in the published code.
    """

    residual: int
    mask: str
    dtype: DType = None

    @nn.compact
    def __call__(self, h, words, valid, *, train: bool):
        c = h.shape[-1]
        keys, values = Memory(self.dtype, name="memory")(words, h)
        read, attention = attend(h, keys, valid, self.mask, values)
        gate = nn.Dense(1, kernel_init=init.orthogonal, dtype=self.dtype, name="response")
        gate = jax.nn.sigmoid(gate(jnp.concatenate([h, read], axis=-1)))
        h = h + gate * (read - h)  # in this form the compiler sees that both players make the same fakes
        h = jnp.concatenate([h, h], axis=-1)
        for i in range(self.residual):
            h = Residual(self.dtype, name=f"residual{i}")(h, train=train)
        return Up(c, self.dtype, name="up")(h, train=train), attention


class Generator(attngan.Generator):
    """DM-GAN's generator: inputs and outputs are those of `attngan.Generator`.

    Zhu et al. 2019, arXiv 1904.01310. Width 64; 2 residual blocks for CUB, 3 for COCO.

    mask: "correct", or "compat" as in AttnGAN: the published code has the same slip, and its weights were trained so.
    Differs from: the published code, whose biases of the memory and the response gate begin at random values.
    """

    width: int = 64

    def stage(self, name: str):
        return Stage(self.residual, self.mask, self.dtype, name=name)


class Discriminator(attngan.Discriminator):
    """DM-GAN's discriminator of one size: `attngan.Discriminator` with a bias and spectral norm at each convolution.

    Zhu et al. 2019, arXiv 1904.01310, with the layers of their code: no batch norm; the two logits stay as they were.
    Width 32 for CUB and COCO. The vectors of the spectral norm are in the collection "batch_stats" and move at each call
    of `code` and `cond` that trains.
    Differs from: the published code, whose biases begin at random values and whose vectors move in evaluation too.
    """

    width: int = 32

    def layer(self, features: int, name: str, norm: str, halve: bool = False):
        side, stride = (4, 2) if halve else (3, 1)
        conv = SpectralConv(features, side, stride, self.dtype, name=name)
        return lambda h, train: leaky(conv(h, train=train))
