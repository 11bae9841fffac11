"""Contrastive losses with another denominator: the negatives alone, with one positive, debiased, hard ones first; and
the one whose mean over positives lies inside the logarithm.

All read the same row sums as losses.contrast, several readings of one visit: over all pairs, over the negatives alone.
"""

import jax
import jax.numpy as jnp

from supcon_jax.losses.contrast import mean_over, over_base, with_index
from supcon_jax.ops import rows as rule
from supcon_jax.ops import rules
from supcon_jax.ops.arrays import masked_mean
from supcon_jax.ops.pairs import pairs
from supcon_jax.ops.readings import Reading, read
from supcon_jax.ops.rows import dense


def decoupled(q, k=None, *, scale, sigma=None, empty="drop", base=None, weights=rule.same_label, veto=None, sums=dense):
    """Decoupled contrastive loss (DCL): the denominator holds the negatives alone.

        L = mean_i  -v_i sum_p w_ip s_ip / sum_p w_ip + log sum_{n in Neg(i)} exp s_in

    Yeh et al. 2022, arXiv 2110.06848; with sigma its weighted form (DCLW):
    v_i = 2 - exp(c_i / sigma) / mean_a exp(c_a / sigma), c_i the mean cosine of i's positives, without a gradient.

    Other arguments as for contrast.supcon; w_ij > 0 are the positives, all others the negatives.
    Returns f32[]; rows without a positive or without a negative are empty.
    Differs from: the authors' code, which takes one view's rows alone and lets a gradient into v_i.
    """
    weigh, q, k, veto = _prepared(q, k, weights, veto)
    readings = Reading(weigh, veto), Reading(rules.everyone, rules.either(veto, weigh))
    near, far = read(sums, q, k, scale=scale, readings=readings)
    has = (near.wgt > 0) & (far.cnt > 0)
    attract = _own(near)
    if sigma is not None:
        cosine = jax.lax.stop_gradient(attract / jnp.asarray(scale, attract.dtype))
        share = jnp.where(has, jnp.exp((cosine - 1) / sigma), 0)
        attract = attract * (2 - share / jnp.where(jnp.any(has), masked_mean(share, has), 1))
    return _mean(jnp.where(has, far.lse, 0) - attract, has, q, scale, base, empty)


def one_positive(q, k=None, *, scale, empty="drop", base=None, weights=rule.same_label, veto=None, mean="anchors", sums=dense):
    """Each positive alone among the negatives: the other positives are left out of its denominator.

        L = mean_i  1/|P(i)| sum_{p in P(i)} -log( exp(s_ip) / (exp(s_ip) + sum_{n in Neg(i)} exp(s_in)) )

    Sohn 2016, "Improved deep metric learning with multi-class N-pair loss objective"; what metric-learning
    libraries call NT-Xent where there are labels (mean over all pairs: mean="terms").

    Arguments as for contrast.supcon; w_ij > 0 are the positives, all others the negatives. mean: over "anchors", or
    over "terms": all pairs (i, p) alike.
    Returns f32[]; rows without a positive or without a negative are empty.
    """
    weigh, q, k, veto = _prepared(q, k, weights, veto)
    far = sums(q, k, scale=scale, weigh=rules.everyone, veto=rules.either(veto, weigh))
    # -log(e^s / (e^s + e^lse)) = log(1 + e^(lse - s)): sums of pairs that each stand alone
    lse = jnp.where(far.cnt > 0, far.lse, 0)
    near = pairs(
        sums, q, k, scale=-jnp.asarray(scale), bias=lse, weigh=rules.everyone, veto=rules.either(veto, rules.no(weigh))
    )
    has = (near.cnt > 0) & (far.cnt > 0)
    values = jnp.where(has, near.soft, 0) / jnp.where(has, near.cnt, 1)
    return _mean(values, jnp.where(has, near.cnt, 0) if mean == "terms" else has, q, scale, base, empty, mean)


def debiased(q, k=None, *, scale, prior=0.1, beta=0.0, weights=rule.same_label, veto=None, sums=dense):
    """Debiased contrastive loss, and with beta its hard-negative form: negatives that may be positives are discounted.

        L = mean_i  -log( e_i / (e_i + G_i) ),   e_i = exp s_ip,
        G_i = max( (R_i - prior N_i e_i) / (1 - prior),  N_i exp(-scale) )
        R_i = sum_n exp s_in                                             (beta = 0)
        R_i = sum_n exp((1 + beta) s_in) / mean_n exp(beta s_in)         (beta > 0)

    Chuang et al. 2020, arXiv 2007.00224; Robinson et al. 2021, arXiv 2010.04592. N_i negatives.

    q, k, scale, weights, veto, sums: as for contrast.supcon; w_ij > 0 are the positives, all others the negatives. s_ip
    is the mean over the positives where there are several. prior: the papers' tau+, the share of false negatives, in
    [0, 1). beta: concentration on hard negatives; the importance weights carry a gradient, as in the authors' code.
    Returns f32[]; rows without a positive or without a negative drop out.
    Raises ValueError: prior outside [0, 1), beta < 0.
    """
    if not 0 <= prior < 1 or beta < 0:
        raise ValueError(f"prior is {prior}, beta is {beta}: the prior lies in [0, 1), beta is not negative")
    weigh, q, k, veto = _prepared(q, k, weights, veto)
    only = rules.everyone, rules.either(veto, weigh)
    readings = Reading(weigh, veto), Reading(*only, 1 + beta), Reading(*only, beta)
    near, far, *tilt = read(sums, q, k, scale=scale, readings=readings if beta else readings[:2])
    scale = jnp.asarray(scale, near.lse.dtype)
    has = (near.wgt > 0) & (far.cnt > 0)
    number = jnp.where(has, far.cnt, 1)
    own, log_r = _own(near), jnp.where(has, far.lse, 0)
    if beta:
        log_r = log_r - jnp.where(has, tilt[0].lse, 0) + jnp.log(number)
    # everything relative to e_i and in logarithms: at scale 100 the sums themselves leave float32
    log_r = log_r - own
    left = -jnp.expm1(jnp.minimum(jnp.log(prior * number) - log_r, 0)) if prior else jnp.ones_like(own)
    log_g = log_r + jnp.log(jnp.where(left > 0, left, 1)) - jnp.log1p(-prior)
    least = jnp.log(number) - scale - own
    log_g = jnp.where((left > 0) & (log_g > least), log_g, least)
    return masked_mean(jax.nn.softplus(log_g), has)


def hardened(q, k=None, *, scale, alpha, empty="drop", base=None, weights=rule.same_label, veto=None, sums=dense):
    """Negatives count the more the harder they are: each is weighed by exp(alpha cos), which has no gradient.

        L = mean_i  -mean_{p in P(i)} s_ip + log( sum_{p in P(i)} exp s_ip + sum_{n in Neg(i)} exp(s_in + alpha sg(c_in)) )

    s = scale c, c the cosine; the negatives' logits as Lan et al. 2025, arXiv 2503.04812. alpha = 0 is contrast.supcon.

    Other arguments as for contrast.supcon; w_ij > 0 are the positives, all others the negatives. scale: f32[]. alpha: f32[].
    Returns f32[]; rows without a positive are empty.
    Raises ValueError: a scale for each row.
    """
    scale = jnp.asarray(scale, jnp.float32 if q.x.dtype != jnp.float64 else jnp.float64)
    if scale.ndim:
        raise ValueError("hardened takes one scale for all rows")
    weigh, q, k, veto = _prepared(q, k, weights, veto)
    near = sums(q, k, scale=scale, weigh=weigh, veto=rules.either(veto, rules.no(weigh)))
    share = jax.lax.stop_gradient(scale / (scale + alpha))  # of the logit's slope that is left

    def slow(rows):
        x = rows.x
        part = share.astype(x.dtype)
        return rows.replace(x=part * x + (1 - part) * jax.lax.stop_gradient(x))

    a = slow(q)
    far = sums(a, a if k is q else slow(k), scale=scale + alpha, weigh=rules.everyone, veto=rules.either(veto, weigh))
    has = near.wgt > 0
    lse = jnp.where(has, jnp.logaddexp(near.lse, far.lse), 0)
    return _mean(lse - _own(near), has, q, scale, base, empty)


def supcon_in(q, k=None, *, scale, empty="drop", base=None, weights=rule.same_label, norm="count", veto=None, sums=dense):
    """Supervised contrastive loss, mean over positives inside the log (L_in).

        L = mean_i  -log( 1/norm_i sum_{p in P(i)} exp(s_ip) / sum_{a != i} exp(s_ia) )

    Khosla et al. 2020, arXiv 2004.11362 (norm = number of positives), which finds it worse than L_out
    (contrast.supcon) and is there for comparison. Never larger than L_out.

    Arguments as for contrast.supcon; w_ij > 0 are the positives. norm: "count", or a number or an array [n]; it adds a
    constant and moves no gradient. Returns f32[]; rows without a positive are empty.
    """
    weigh, q, k, veto = _prepared(q, k, weights, veto)
    readings = Reading(weigh, veto), Reading(weigh, rules.either(veto, rules.no(weigh)))
    whole, near = read(sums, q, k, scale=scale, readings=readings)
    has = whole.cnt > 0
    if isinstance(norm, str):
        if norm != "count":
            raise ValueError(f'norm is {norm!r}: say "count", or give a number or an array [n]')
        norm = whole.cnt
    inside = jnp.where(has, near.lse, 0) - jnp.log(jnp.where(has, norm, 1).astype(near.lse.dtype))
    return _mean(jnp.where(has, whole.lse, 0) - inside, has, q, scale, base, empty)


def _prepared(q, k, weights, veto):
    """(rule, q, k, veto) with supcon's defaults: without keys the queries are the keys, each without itself."""
    if weights is rule.same_label and q.label is None:
        raise ValueError("the rows carry no labels: give Rows(x, label=...) or another rule for the positives")
    if k is None:
        q = with_index(q)
        k, veto = q, veto or rule.same_index
    return (*rule.ready(weights, q, k, veto), veto)


def _own(near):
    """The mean logit of each row's positives, 0 where there are none."""
    return near.pos / jnp.where(near.wgt > 0, near.wgt, 1)


def _mean(values, weight, q, scale, base, empty, mean="anchors"):
    """The mean of anchors' losses [n], scaled by T/T0 where there is a base; 0 where the anchor is empty."""
    values = jnp.where(weight.astype(bool), values, 0)
    if base is not None:
        values = values * over_base(scale, base).astype(values.dtype)
    return mean_over(values, weight, q, empty, mean)
