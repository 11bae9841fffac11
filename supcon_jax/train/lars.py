"""LARS and LARC: rates that follow the norms of each layer; and SGD with coupled weight decay."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from supcon_jax.config import UserError
from supcon_jax.train import parts


def layerwise(rates: parts.Rates, *, weight_decay: float, trust: float, ratio: str, clip_ratio: bool, exclude: Sequence[str]):
    """Gradients with weight decay, times the ratio of a layer's norms.

        d = g + decay * w
        q = trust * |w| / |d|                             ("joint")
        q = trust * |w| / (|g| + decay * |w| + 1e-8)      ("apart")
        q <- min(q / rate, 1)                             (clip_ratio)
        d <- q d

    You et al. 2017, arXiv 1708.03888, eqs. 5 and 6. Where a norm is zero q = 1, and "apart" leaves the decay out too.
    Raises UserError: another ratio.
    """
    if ratio not in ("joint", "apart"):
        raise UserError(f"optimiser's ratio {ratio!r} is not known; use joint or apart")

    def init(params):
        return optax.ScaleByScheduleState(jnp.zeros((), jnp.int32))

    def update(updates, state, params):
        def one(path, g, w):
            if any(parts.fits(rule, path, w) for rule in exclude):
                return g
            d = g + weight_decay * w
            size, slope, both = (jnp.linalg.norm(a.astype(jnp.promote_types(a.dtype, jnp.float32))) for a in (w, g, d))
            below = both if ratio == "joint" else slope + weight_decay * size + 1e-8
            some = (size > 0) & ((both if ratio == "joint" else slope) > 0)
            q = trust * size / jnp.where(some, below, 1)
            if clip_ratio:
                q = jnp.minimum(q / jnp.maximum(rates.of(path, w)(state.count), 1e-30), 1)
            return jnp.where(some, q * d, d if ratio == "joint" else g).astype(g.dtype)

        updates = jax.tree_util.tree_map_with_path(one, updates, params)
        return updates, optax.ScaleByScheduleState(optax.safe_increment(state.count))

    return optax.GradientTransformation(init, update)


def lars(
    rates: parts.Rates,
    *,
    inside: bool = True,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    trust: float = 1e-3,
    ratio: str = "joint",
    clip_ratio: bool = False,
    exclude: Sequence[str] = (parts.VECTORS,),
):
    """LARS with momentum, in either order.

        v <- momentum * v + rate * q d,   w <- w - v          (inside)
        v <- momentum * v + q d,          w <- w - rate * v   (outside)

    You et al. 2017, arXiv 1708.03888. Inside is the order of Google's SimCLR and optax.lars, outside that of the codes of BYOL,
    Barlow Twins, VICReg and MoCo v3; they differ where the rate moves.

    exclude: rules for what has neither weight decay nor a ratio (see parts.fits); LARC as SwAV uses it excludes nothing.
    trust, ratio, clip_ratio: see `layerwise`.
    """
    options = {"weight_decay": weight_decay, "trust": trust, "ratio": ratio, "clip_ratio": clip_ratio, "exclude": exclude}
    steps = [parts.paced(rates), optax.trace(momentum, nesterov)]
    return optax.chain(layerwise(rates, **options), *(steps if inside else steps[::-1]), optax.scale(-1.0))


def sgd(
    rates: parts.Rates, *, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0, exclude: Sequence[str] = ()
):
    """SGD with weight decay in the gradient, before the momentum, as PyTorch's. exclude: rules for what does not decay."""
    decay = optax.add_decayed_weights(weight_decay, lambda tree: parts.chosen(tree, exclude))
    return optax.chain(decay, optax.trace(momentum, nesterov), parts.paced(rates), optax.scale(-1.0))
