"""What the runs of a study say: means by variant, paired differences, curves along an axis, and who goes with whom.

A study is a dict, see supcon_jax.study. found: {variant: {seed: {stage: {metric: value}}}}, finished runs only. A metric is
named as its stage wrote it, with "STAGE:" before it where that is not the study's own stage, and may be a pattern
("generation/fid_*"). Where the study scores the last stage of every variant, stages are called "first" and "last".
"""

from __future__ import annotations

import fnmatch
import math

import numpy as np

from supcon_jax.config import UserError
from supcon_jax.report import plots, tables

LAST = "last"  # in the place of a stage: of every variant its own last one
WIDE = 11  # variants that stand side by side; more of them are rows


def value(study: dict, run: dict, metric: str) -> float:
    stage, name = split(study, metric)
    return run[stage].get(name, math.nan) if name == "seconds" else run[stage][name]


def split(study: dict, metric: str) -> tuple[str, str]:
    """(stage, its own name of the metric)."""
    stage, mark, name = metric.partition(":")
    return (stage, name) if mark else (study["stage"], metric)


def named(study: dict, found: dict) -> tuple[list[str], list[str]]:
    """The study's metrics with patterns filled in (without the spread that some metrics tell of themselves), and those that
    were not measured (only where `lenient` allows it).

    Raises UserError: a metric that no run measured, or that only some did.
    """
    runs = [run for seeds in found.values() for run in seeds.values()]
    out, absent = [], []
    for metric in study["metrics"]:
        stage, name = split(study, metric)
        if stage not in runs[0]:
            raise UserError(f"study: metric {metric!r} is of a stage that was not run; there are {', '.join(runs[0])}")
        known = sorted(set.intersection(*(set(run[stage]) for run in runs)) | {"seconds"})
        matching = [one for one in fnmatch.filter(known, name) if "_std" not in one or one == name]
        if not matching and not study.get("lenient"):
            raise UserError(f"study: metric {metric!r} was not measured; use one of: {', '.join(known)}")
        out += [metric[: len(metric) - len(name)] + one for one in matching]
        absent += [] if matching else [metric]
    return list(dict.fromkeys(out)), absent


def about(study: dict, found: dict, config: dict) -> str:
    """What was run, in words, and what every variant differs by. config: the plain one of the reference."""
    data, seeds = config["data"], list(next(iter(found.values())))
    stages = ", ".join(f"{s} {config[s]['steps']} steps of batch {config[s]['batch']}" for s in config["stages"])
    stages = f"`{study['reference']}` is {stages}" if study["stage"] == LAST else stages
    world = ", ".join(f"{k}={v}" for k, v in data["args"].items() if k != "size")
    rows = [{"variant": name, "differs by": ", ".join(f"{k}={v}" for k, v in changes.items()) or "nothing"}
            for name, changes in study["variants"].items()]  # fmt: skip
    more = f"; in all of them {', '.join(f'{k}={v}' for k, v in study['all'].items())}" if study["all"] else ""
    return (
        f"`{study['config']}`{more}: {stages}; data {data['name']}/{data['train']}, {data['size']} px, {world}. "
        f"{len(found)} variants, seeds {', '.join(map(str, seeds))}, one run each.\n\n{tables.table(rows)}"
    )


def tabulate(study: dict, found: dict) -> str:
    """Means over seeds of every metric by variant, and each variant's paired difference to the reference.

    Raises UserError: see `named`.
    """
    metrics, absent = named(study, found)
    seeds = list(next(iter(found.values())))
    series = {
        (metric, variant): [value(study, runs[seed], metric) for seed in seeds]
        for metric in metrics for variant, runs in found.items()
    }  # fmt: skip
    reference = study["reference"]
    others = [variant for variant in found if variant != reference]
    text = f"Means over seeds:\n\n{across(metrics, found, lambda m, v: float(np.mean(series[m, v])))}\n"
    if study.get("grid"):
        text += "".join(f"`{metric}`:\n\n{cells(*some)}\n" for metric, some in grids(study, found).items())
    if others:
        differences = across(metrics, others, lambda m, v: apart(series[m, v], series[m, reference]))
        text += f"Less `{reference}`, paired by seed, with 95 % intervals:\n\n{differences}"
    for x, y in facing(study, found):
        text += f"\n{together(study, found, x, y)}\n"
    return text + (f"\nNot measured by this config: {', '.join(absent)}\n" if absent else "")


def across(metrics, variants, entry) -> str:
    """A table of entry(metric, variant): variants side by side, or below each other if there are many."""
    if len(variants) > WIDE:
        return tables.table([{"variant": v} | {m: entry(m, v) for m in metrics} for v in variants])
    return tables.table([{"metric": m} | {v: entry(m, v) for v in variants} for m in metrics])


def apart(a: list[float], b: list[float]) -> str:
    return str(tables.paired(a, b)) if np.isfinite([a, b]).all() else "not finite"


def pairs(study: dict, found: dict, x: str, y: str) -> dict[str, list[tuple[float, float]]]:
    """{variant: [(x, y) of each run]}."""
    return {v: [(value(study, run, x), value(study, run, y)) for run in runs.values()] for v, runs in found.items()}


def facing(study: dict, found: dict) -> list[tuple[str, str]]:
    """The study's pairs of metrics; where `lenient` allows it, without those that some run did not measure."""
    runs = [run for seeds in found.values() for run in seeds.values()]

    def measured(metric):
        stage, name = split(study, metric)
        return all(name in run.get(stage, ()) for run in runs)

    return [pair for pair in study.get("against", ()) if not study.get("lenient") or all(map(measured, pair))]


def together(study: dict, found: dict, x: str, y: str) -> str:
    """Whether two metrics order the runs alike: Spearman's rank correlation, over runs and over the variants' means."""
    from scipy import stats  # slow to import

    points = pairs(study, found, x, y)
    every = [point for some in points.values() for point in some]
    means = [tuple(np.mean(some, axis=0)) for some in points.values()]
    said = []
    for what, some in (("runs", every), ("means of variants", means)):
        if len(some) > 2 and all(len(set(column)) > 1 for column in zip(*some, strict=True)):
            said.append(f"{float(stats.spearmanr(*zip(*some, strict=True)).statistic):+.2f} over {len(some)} {what}")
    return f"Rank correlation of `{x}` with `{y}`: {', '.join(said) or 'not defined'}"


def curves(study: dict, found: dict) -> dict[str, dict[str, list[tuple[float, float, float]]]]:
    """{metric: {series: [(place on the axis, mean, half width of the mean's 95 % interval)]}} for report.plots.curves; without
    the seconds."""
    out = {}
    for metric in named(study, found)[0]:
        if split(study, metric)[1] == "seconds":
            continue
        out[metric] = {}
        for series, places in axis(study).items():
            points = []
            for variant, place in places.items():
                if variant in found:
                    values = [value(study, run, metric) for run in found[variant].values()]
                    mean = tables.paired(values, np.zeros(len(values))) if np.isfinite(values).all() else None
                    points += [(place, mean.mean, mean.half if math.isfinite(mean.half) else 0.0)] if mean else []
            out[metric][series] = sorted(points)
    return out


def grids(study: dict, found: dict) -> dict[str, tuple[list[str], list[str], np.ndarray]]:
    """{metric: (rows, columns, means f64[rows, columns])} of the study's grid, NaN in empty cells; without the seconds."""
    places = {variant: place for variant, place in study["grid"].items() if variant in found}
    rows, columns = (list(dict.fromkeys(str(place[i]) for place in places.values())) for i in (0, 1))
    out = {}
    for metric in named(study, found)[0]:
        if split(study, metric)[1] == "seconds":
            continue
        means = np.full((len(rows), len(columns)), np.nan)
        for variant, (row, column) in places.items():
            values = [value(study, run, metric) for run in found[variant].values()]
            means[rows.index(str(row)), columns.index(str(column))] = np.mean(values)
        out[metric] = rows, columns, means
    return out


def cells(rows, columns, means) -> str:
    """A map as a table."""
    return tables.table([
        {"": row} | {column: None if math.isnan(x) else float(x) for column, x in zip(columns, line, strict=True)}
        for row, line in zip(rows, means, strict=True)
    ])  # fmt: skip


def axis(study: dict) -> dict[str, dict[str, float]]:
    """{series: {variant: number}}: one series without a name where the study gives {variant: number}."""
    given = study.get("axis", {})
    return given if any(isinstance(places, dict) for places in given.values()) else {"": given}


def figures(study: dict, found: dict) -> dict:
    """{"axis": curves over the study's axis, "grid": maps, "against": clouds of its pairs of metrics}: matplotlib figures, as
    it asks."""
    out = {}
    if study.get("axis"):
        out["axis"] = plots.curves(curves(study, found), x=study.get("axis_title", ""))
    if study.get("grid"):
        out["grid"] = plots.maps(grids(study, found))
    if facing(study, found):
        out["against"] = plots.clouds({pair: pairs(study, found, *pair) for pair in facing(study, found)})
    return out
