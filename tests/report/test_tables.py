"""Markdown tables and paired intervals."""

import math

import numpy as np
import pytest

from supcon_jax.report.tables import Paired, paired, scores, table


def test_paired_by_hand():
    """Differences 1, 2, 3: mean 2, s = 1, t(0.975, 2) = 4.302653."""
    got = paired([2, 4, 6], [1, 2, 3])
    assert got.mean == 2 and got.n == 3
    assert got.half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert paired([1.0], [3.0]) == Paired(-2.0, math.inf, 1)
    assert str(got).startswith("+2 ± 2.5 (n=3)")


def test_the_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        got = paired(rng.normal(size=5) + 1, rng.normal(size=5))
        hits += abs(got.mean - 1) <= got.half
    assert 0.92 <= hits / 400 <= 0.98


def test_paired_refuses():
    with pytest.raises(ValueError, match="one length"):
        paired([1, 2], [1])
    with pytest.raises(ValueError, match="not finite"):
        paired([1, math.nan], [1, 2])


def test_table():
    rows = [{"run": "a|b", "fid": 12.34567, "n": 30000, "ok": True}, {"run": "c", "fid": None}]
    assert table(rows).splitlines() == [
        "| run | fid | n | ok |",
        "|---|---:|---:|---:|",
        "| a\\|b | 12.35 | 30000 | yes |",
        "| c |  |  |  |",
    ]
    assert table(rows, {"fid": "FID", "run": None}, digits=3).splitlines()[0::2] == [
        "| FID | run |",
        "| 12.3 | a\\|b |",
    ]
    assert "| 123457 |" in table([{"x": 123456.7}])


def test_scores_number_their_protocols():
    def entry(name, value, seed):
        return {"value": value, "protocol": {}, "line": f'metric="{name}" seed={seed}'}

    text = scores({"fid": entry("fid", 1.0, 0), "kid": entry("kid", 2.0, 0), "is": entry("is", 3.0, 1)})
    assert [line.split("|")[-2].strip() for line in text.splitlines()[2:5]] == ["1", "1", "2"]
    assert text.endswith("1. `seed=0`\n2. `seed=1`\n")
