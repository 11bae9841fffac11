"""Curves and clouds of points as pictures; the only door to matplotlib (extra `dev`)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np

from supcon_jax import storage

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


def curves(panels: Mapping[str, Mapping[str, Sequence[tuple[float, float, float]]]], *, x: str, columns: int = 3):
    """A figure of panels, each with one line for each named series and its error bars.

    panels: {title: {name: [(x, y, half width of the bar), ...]}}; a name has the same colour and mark in every panel, the
    empty name is not in the legend. x: label of the level axis.
    Returns a matplotlib Figure.
    """
    figure, places = spread(panels, columns)
    names = list(dict.fromkeys(name for series in panels.values() for name in series))
    for axes, (title, series) in zip(places, panels.items(), strict=True):
        for name, points in series.items():
            if points:
                at = names.index(name)
                place, y, half = zip(*sorted(points), strict=True)
                axes.errorbar(place, y, half, marker=MARKS[at % len(MARKS)], color=f"C{at % 10}", capsize=3, label=name)
        axes.set(xlabel=x, title=title)
    return legend(figure, names)


def clouds(panels: Mapping[tuple[str, str], Mapping[str, Sequence[tuple[float, float]]]], columns: int = 3):
    """A figure of panels, each with one point a run, in a colour and mark for each variant.

    panels: {(label of the level axis, label of the upright axis): {name: [(x, y), ...]}}. Returns a matplotlib Figure.
    """
    figure, places = spread(panels, columns)
    names = list(dict.fromkeys(name for series in panels.values() for name in series))
    for axes, ((x, y), series) in zip(places, panels.items(), strict=True):
        for name, points in series.items():
            at = names.index(name)
            axes.plot(*zip(*points, strict=True), MARKS[at % len(MARKS)], color=f"C{at % 10}", label=name)
        axes.set(xlabel=x, ylabel=y)
    return legend(figure, names)


def maps(panels: Mapping[str, tuple[Sequence[str], Sequence[str], object]], columns: int = 3):
    """A figure of panels, each a map with its numbers in the cells.

    panels: {title: (names of rows, names of columns, f64[rows, columns])}; cells of NaN are left white.
    Returns a matplotlib Figure.
    """
    figure, places = spread(panels, columns)
    for axes, (title, (rows, names, cells)) in zip(places, panels.items(), strict=True):
        axes.grid(False)
        axes.imshow(cells, cmap="Blues", aspect="auto")
        middle = np.nanmin(cells) + 0.6 * (np.nanmax(cells) - np.nanmin(cells))
        for (row, column), x in np.ndenumerate(cells):
            if np.isfinite(x):
                colour = "white" if x > middle else "black"
                axes.text(column, row, f"{x:.3g}", ha="center", va="center", fontsize="x-small", color=colour)
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize="x-small")
        axes.set_yticks(range(len(rows)), rows, fontsize="x-small")
        axes.set(title=title)
    return figure


def spread(panels, columns: int):
    """(figure, its axes in rows of so many)."""
    from matplotlib.figure import Figure

    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns + 1.6, 3.2 * rows), layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in places[len(panels) :]:
        axes.remove()
    for axes in places[: len(panels)]:
        axes.grid(True, color="0.9")
        axes.title.set_fontsize("small")
    return figure, places[: len(panels)]


def legend(figure, names):
    if any(names):
        shown = {}
        for axes in figure.axes:
            shown |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True) if label}
        figure.legend(shown.values(), shown.keys(), loc="outside right center", fontsize="small", frameon=False)
    return figure


def save(figure, path) -> None:
    """Writes a figure as what its ending says (.png, .svg); paths may be remote."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=str(path).rpartition(".")[2], dpi=120)
    storage.write(path, buffer.getvalue())
