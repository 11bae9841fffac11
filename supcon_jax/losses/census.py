"""Whether a contrastive loss is normal: its chance level, positives, false negatives and in-batch top-1."""

import jax
import jax.numpy as jnp

from supcon_jax.ops import rows as rule
from supcon_jax.ops.arrays import masked_mean
from supcon_jax.ops.pairs import pairs
from supcon_jax.ops.readings import read
from supcon_jax.ops.rows import Rows, live_pairs
from supcon_jax.ops.scores import by
from supcon_jax.ops.sharded import SMALL


class Watch:
    """A door that looks on: it hands every call to the door `sums` and keeps what the sums tell of the batch.

        watch = Watch(about.sums, label)
        loss = info_nce(q, k, scale=scale, sums=watch)
        metrics = watch.metrics("contrast")

    No logit is made a second time. Keys and false negatives are counted by the rules alone, on the first anchors where
    all would make more than SMALL pairs. Of several readings of one visit the first is counted, which is the one over all
    that a loss contrasts. Sigmoid pairs pass through uncounted: they have no chance level.

    sums: a door. label: of the batch's rows, i32[n] class ids or [n, c] multi-hot, for the share of false negatives; not
    counted if left out, or where the keys are other rows.
    Make, call and read it within one traced function: what it keeps are arrays of that trace.
    """

    def __init__(self, sums, label=None, kept=None):
        self.sums, self.label, self.kept = sums, label, [] if kept is None else kept

    def of(self, label):
        """The same watch for rows with other labels."""
        return Watch(self.sums, label, self.kept)

    def by(self, score):
        """The same watch on the door for another score."""
        return Watch(by(self.sums, score), self.label, self.kept)

    def __call__(self, q, k, *, scale, weigh, veto=None):
        found = self.sums(q, k, scale=scale, weigh=weigh, veto=veto)
        self._keep(found, q, k, weigh, veto)
        return found

    def both(self, q, k, *, scale, weigh, back=None, veto=None):
        back = back or weigh
        if hasattr(self.sums, "both"):
            found = self.sums.both(q, k, scale=scale, weigh=weigh, back=back, veto=veto)
        else:
            found = self.sums(q, k, scale=scale, weigh=weigh, veto=veto), self.sums(k, q, scale=scale, weigh=back, veto=veto)
        self._keep(found[0], q, k, weigh, veto)
        self._keep(found[1], k, q, back, veto)
        return found

    def read(self, q, k, *, scale, readings):
        found = read(self.sums, q, k, scale=scale, readings=readings)
        self._keep(found[0], q, k, readings[0].weigh, readings[0].veto)
        return found

    def pairs(self, q, k, **how):
        return pairs(self.sums, q, k, **how)

    def metrics(self, name):
        """Means over all calls so far, by f"{name}/{what}"; see `numbers`."""
        shared = [what for what in (self.kept[0] if self.kept else ()) if all(what in one for one in self.kept)]
        return {f"{name}/{what}": sum(one[what] for one in self.kept) / len(self.kept) for what in shared}

    def _keep(self, found, q, k, weigh, veto):
        found, q, k, label = jax.lax.stop_gradient((found, q, k, self.label))
        self.kept.append(numbers(found, q, k, weigh, veto, label))


def numbers(s, q, k, weigh, veto=None, label=None):
    """What the sums s of queries q over keys k tell, f32[] each, over valid anchors:

    contrast_nats: mean over anchors with a positive of log sum exp minus their positives' mean logit, the plain loss
    without a factor. chance_nats: what it is where all logits are alike, the mean of ln(number of keys).
    positives_per_anchor. no_positive_percent of anchors. top1_percent: anchors with a positive whose best key is a
    positive; a tie is a miss. false_negative_percent: of the negatives, those that share a label with the anchor.
    """
    valid = jnp.ones(s.wgt.shape, bool) if q.valid is None else q.valid.astype(bool)
    has = s.wgt > 0
    mean = jnp.where(has, s.lse, 0) - s.pos / jnp.where(has, s.wgt, 1)
    n, m = q.x.shape[0], k.x.shape[0]
    counted = min(n, max(1, SMALL // m))
    some = jax.tree.map(lambda a: a[:counted], q)
    live = live_pairs(some, k, veto)
    keys = jnp.sum(live, axis=1).astype(s.wgt.dtype)
    out = {
        "contrast_nats": masked_mean(mean, has),
        "chance_nats": masked_mean(jnp.log(jnp.maximum(keys, 1)), has[:counted]),
        "positives_per_anchor": masked_mean(s.cnt, valid),
        "no_positive_percent": _percent(~has, valid),
        "top1_percent": _percent(s.top > s.rival, has),
    }
    if label is not None and label.shape[0] == n == m:
        a, b = Rows(q.x[:counted], label[:counted]), Rows(k.x, label)
        alike = rule.same_label(a, b) if label.ndim == 1 else rule.any_label(a, b)
        out["false_negative_percent"] = _percent(alike, live & ~weigh(some, k).astype(bool))
    return {name: value.astype(jnp.float32) for name, value in out.items()}


def _percent(what, among):
    return 100 * masked_mean(what.astype(jnp.float32), among)
