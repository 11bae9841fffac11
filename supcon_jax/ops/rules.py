"""Rules seen from both sides, and rules made from rules. A rule is a function of two sets of rows that gives [n, m]."""

import jax.numpy as jnp


def ways(rule, q, k, back=None):
    """A rule as the queries and as the keys see it, both [n, m]: (rule(q, k), back(k, q).T); back: `rule` if left out."""
    if back in (None, rule) and hasattr(rule, "ways"):
        return rule.ways(q, k)
    return rule(q, k), (back or rule)(k, q).T


def mutual(rule):
    """Marks a rule that says the same from either side: doors that need both views evaluate it once."""
    rule.ways = lambda q, k: (rule(q, k),) * 2
    return rule


def two_sided(views):
    """The rule whose two views the function gives at once."""

    def rule(q, k):
        return views(q, k)[0]

    rule.ways = views
    return rule


@mutual
def everyone(q, k):
    """w = 1: all that no veto leaves out."""
    return jnp.ones((q.x.shape[0], k.x.shape[0]), bool)


def either(*rules):
    """Veto: pairs that any of the rules joins (w > 0, or True); a rule that is None joins nobody."""
    present = [rule for rule in rules if rule is not None]

    @two_sided
    def veto(q, k):
        seen = zip(*(ways(rule, q, k) for rule in present), strict=True)
        return tuple(jnp.any(jnp.stack([w.astype(bool) for w in view]), axis=0) for view in seen)

    return veto


def no(rule):
    """Veto: pairs that the rule does not join."""

    @two_sided
    def veto(q, k):
        return tuple(~w.astype(bool) for w in ways(rule, q, k))

    return veto
