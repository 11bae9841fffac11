"""Randomness by counter: in which order records come, and who is whose partner.

Each draw is a hash of (seed, place in the global order, lane): it depends neither on threads nor on the number of
processes, and a whole batch is drawn at once.
"""

import functools

import numpy as np


def draws(seed, position, lane, attempt=0):
    """u64[n] random bits for positions [n] (splitmix64's finaliser, twice)."""
    bits = position.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for salt in (seed, lane + 8 * attempt + 1):
        bits = bits + np.full(1, salt, np.uint64) * np.uint64(0xD1B54A32D192ED03)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        bits = bits ^ (bits >> np.uint64(31))
    return bits


def below(bits, count):
    """Random bits u64[n] -> i64[n] in 0 .. count - 1; count: an integer or [n], under 2^32."""
    return ((bits >> np.uint64(32)) * np.asarray(count, np.uint64) >> np.uint64(32)).astype(np.int64)


class Order:
    """Which record stands at a place of the endless order: every epoch is a permutation of its own.

    Differs from grain's shuffle: that walks a fixed block of indices and takes milliseconds for each record of a set of
    ten (measured), and its epoch 1 of seed 0 is epoch 0 of seed 1.
    """

    def __init__(self, seed, records, lane):
        self.records = records
        self.epoch = functools.lru_cache(maxsize=4)(
            lambda epoch: np.argsort(draws(seed, epoch * records + np.arange(records), lane), kind="stable")
        )

    def __call__(self, position):
        """Places i64[n] -> records i64[n]."""
        epoch, place = np.divmod(position, self.records)
        out = np.empty_like(place)
        for e in np.unique(epoch).tolist():
            out[epoch == e] = self.epoch(e)[place[epoch == e]]
        return out


class Partners:
    """For each record another one that shares a label with it, uniformly."""

    def __init__(self, labels):
        if labels.ndim == 1:
            labels = labels[:, None] == np.arange(labels.max() + 1)
        held = labels.astype(bool)
        shared = held & (held.sum(0) > 1)  # a label that nobody else has gives no partner
        record, label = np.nonzero(shared)
        self.count = np.bincount(record, minlength=len(held))  # labels of each record
        self.start = np.cumsum(self.count) - self.count
        self.label = label
        self.rank = (np.cumsum(shared, axis=0, dtype=np.int32) - 1)[record, label]  # place among the label's holders
        self.members = np.nonzero(shared.T)[1]
        self.size = shared.sum(0)
        self.first = np.cumsum(self.size) - self.size

    def __call__(self, records, label_bits, bits):
        """records [n] -> partners [n]; the record itself where there is none."""
        alone = self.count[records] == 0
        entry = self.start[records] + below(label_bits, np.maximum(self.count[records], 1))
        entry = np.where(alone, 0, entry)
        if not len(self.label):
            return records
        label = self.label[entry]
        other = below(bits, self.size[label] - 1)
        other += other >= self.rank[entry]  # leaves the record itself out
        return np.where(alone, records, self.members[self.first[label] + other])
