"""Vetoes by similarity: pairs that look too much alike to be negatives."""

from supcon_jax.ops.rows import logits
from supcon_jax.ops.rules import two_sided, ways


def false_negatives(threshold, weigh):
    """Veto: pairs that `weigh` does not join although <q_i, k_j> >= threshold.

    Between the rows of a batch, of all devices, and between them and keys of a queue. A row that is its own key is such
    a pair unless `weigh` joins it; where it is to be left out, rules.either(same_index, ...) says so. The similarity is
    a constant: no gradient flows through it. It is one more product in each tile.

    threshold: a cosine where the rows are unit, at any scale of the logits. weigh: the rule for positives, not Counted.
    """

    @two_sided
    def veto(q, k):
        alike = logits(q, k, 1.0) >= threshold
        return tuple(alike & ~w.astype(bool) for w in ways(weigh, q, k))

    return veto
