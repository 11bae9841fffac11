"""Markdown tables, and the one comparison they hold most: two variants run with the same seeds."""

import math
from typing import NamedTuple

import numpy as np


class Paired(NamedTuple):
    """Mean of a - b, half width of its 95 % interval, number of pairs."""

    mean: float
    half: float
    n: int

    def __str__(self):
        return f"{self.mean:+.4g} ± {self.half:.2g} (n={self.n})"


def paired(a, b, confidence=0.95):
    """Mean difference of paired runs and its t interval.

        mean(a - b) +- t_{(1 + confidence) / 2, n - 1} s / sqrt(n)

    a, b: [n] the same metric of two variants, run i of both with the same seed.
    Returns Paired; the half width is infinite for one pair.
    Raises ValueError: lengths disagree, none, or values that are not finite.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(f"paired: needs two lists of one length, got {a.shape} and {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("paired: values that are not finite")
    d, n = a - b, len(a)
    if n == 1:
        return Paired(float(d[0]), math.inf, 1)
    from scipy import stats  # slow to import, and needed here alone

    t = stats.t.ppf((1 + confidence) / 2, n - 1)
    return Paired(float(d.mean()), float(t * d.std(ddof=1) / math.sqrt(n)), n)


def cell(value, digits=4):
    """Text of one cell: numbers with `digits` figures, nothing for None, | escaped."""
    if value is None:
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        text = f"{value:.{digits}g}"  # whole numbers above the digits are written out, not as 1e+05
        return f"{value:.0f}" if "e+" in text and abs(value) < 1e15 else text
    return str(value).replace("|", "\\|").replace("\n", " ")


def table(rows, columns=None, digits=4):
    """A markdown table.

    rows: list of dicts; columns: their keys in order, or {key: title}; those of the first appearance if left out.
    Numbers are flushed right. Returns str that ends with a newline.
    """
    if not isinstance(columns, dict):
        columns = dict.fromkeys(columns or (key for row in rows for key in row))
    titles = {key: title or key for key, title in columns.items()}
    numeric = {
        key: all(row.get(key) is None or isinstance(row[key], int | float | np.number) for row in rows) for key in titles
    }
    lines = [
        "| " + " | ".join(cell(title) for title in titles.values()) + " |",
        "|" + "|".join("---:" if numeric[key] else "---" for key in titles) + "|",
    ]
    lines += ["| " + " | ".join(cell(row.get(key), digits) for key in titles) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def scores(records, digits=4):
    """An evaluation's records ({metric: {"value", "line"}}) as a table, protocols numbered below it."""
    lines, rows = [], []
    for name, entry in records.items():
        said = entry["line"].split(" ", 1)[-1]  # without the metric's own name, which stands first
        if said not in lines:
            lines.append(said)
        rows.append({"metric": name, "value": float(entry["value"]), "protocol": lines.index(said) + 1})
    return table(rows, digits=digits) + "\n" + "".join(f"{i}. `{line}`\n" for i, line in enumerate(lines, 1))
