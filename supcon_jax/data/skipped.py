"""Records that cannot be used: how they are told, listed and limited."""

import json
import threading

from etils import epath

from supcon_jax import storage
from supcon_jax.config import UserError


class BadRecord(Exception):
    """One record that cannot be used; the message is the reason. It is replaced and counted, the run goes on."""


class Skipped:
    """The list of unusable records, and how many of them a run puts up with.

    path: file that gets one line {"split", "key", "reason"} for each, once each (also over restarts); None keeps no
        file. Hosts of one run need a file each.
    limit: largest fraction of a split; one record is always allowed.
    records: records of the split.
    """

    def __init__(self, path=None, limit=0.001, records=1):
        self.path, self.allowed = path, max(1, int(limit * records))
        self.records = records
        self.reasons = {}  # (split, key) -> reason, of this run
        self._lock = threading.Lock()
        self._written = set()
        if path is not None and epath.Path(path).exists():
            lines = [json.loads(line) for line in epath.Path(path).read_text().splitlines() if line.strip()]
            self._written = {(line["split"], line["key"]) for line in lines}

    def add(self, split, key, reason):
        """Note one record. Raises UserError when that makes too many."""
        with self._lock:
            if (split, key) in self.reasons:
                return
            self.reasons[split, key] = reason
            if self.path is not None and (split, key) not in self._written:
                storage.append(self.path, json.dumps({"split": split, "key": key, "reason": reason}))
            count = sum(1 for other, _ in self.reasons if other == split)
        if count > self.allowed:
            listed = f"see {self.path}" if self.path is not None else f"the last one is {key}: {reason}"
            raise UserError(
                f"{count} of {self.records} records of split {split} are unusable, more than the {self.allowed} "
                f"allowed ({listed}): mend the files, take them out of the set or raise data.bad_limit"
            )
