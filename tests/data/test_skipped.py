"""The list of records that cannot be read."""

import threading

from supcon_jax.data.source import Skipped


def test_skipped_is_safe_in_threads(tmp_path):
    bad = Skipped(tmp_path / "s.jsonl", 1.0, 100)
    workers = [threading.Thread(target=lambda: [bad.add("t", f"k{i}", "r") for i in range(50)]) for _ in range(8)]
    [worker.start() for worker in workers]
    [worker.join() for worker in workers]
    assert len((tmp_path / "s.jsonl").read_text().splitlines()) == 50 == len(bad.reasons)
