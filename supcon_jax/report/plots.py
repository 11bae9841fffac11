"""Curves as pictures; the only door to matplotlib (extra `dev`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

MARKS = "osD^vP*X"


def loglog(panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], *, x: str, guides: Sequence[int] = ()):
    """A figure of panels side by side, each with one line for each named series, both axes logarithmic.

    panels: {label of the upright axis: {name: [(x, y), ...]}}; a name has the same colour and mark in every panel.
    x: label of the level axis. guides: powers of x drawn thin from each panel's first point, to compare slopes with.
    Returns a matplotlib Figure, for `figure.savefig(path)`.
    Raises ValueError: a value that has no logarithm.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8 * len(panels) + 1.6, 4.2), layout="constrained")
    names = list(dict.fromkeys(name for series in panels.values() for name in series))
    for axes, (label, series) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for name, points in series.items():
            if any(min(point) <= 0 for point in points):
                raise ValueError(f"{name}: {label} holds a value that is not positive, which has no logarithm")
            at = names.index(name)
            axes.loglog(*zip(*sorted(points)), marker=MARKS[at % len(MARKS)], color=f"C{at % 10}", label=name)
        flat = sorted(point for points in series.values() for point in points)
        for power in guides:
            first, last = flat[0], flat[-1][0]
            line = [(at, first[1] * (at / first[0]) ** power) for at in (first[0], last)]
            axes.loglog(*zip(*line), color="0.7", linewidth=0.8, linestyle=":", label=f"slope {power}")
        axes.set(xlabel=x, ylabel=label)
        axes.grid(True, which="major", color="0.9")
    shown = {line.get_label(): line for axes in figure.axes for line in axes.lines}
    figure.legend(shown.values(), shown.keys(), loc="outside right center", fontsize="small", frameon=False)
    return figure
