"""Paired comparisons: a config run under several variants and seeds, tabulated with intervals and side-by-side pictures.

    python -m supcon_jax.study --study=configs/studies/scl_shapes.py --workdir=runs/scl_shapes
"""

from __future__ import annotations

import argparse
import json
import logging
import sys

import numpy as np
from etils import epath

from supcon_jax import config as configs
from supcon_jax import shard, storage
from supcon_jax.build.run import train_stage
from supcon_jax.config import UserError
from supcon_jax.report import pictures, tables

log = logging.getLogger("supcon_jax")


def run(study: dict, workdir: epath.Path) -> dict[str, list[dict]]:
    """Trains what is not finished yet. Returns {variant: [final numbers of each seed]}.

    study: config (file and words), seeds, variants {name: {config key: value}}, metrics, pair (a, b), stage, prompts.
    Equal seeds give equal initial weights, data order and noise. Raises UserError: as training does.
    """
    found = {}
    for seed in study["seeds"]:
        for name, changes in study["variants"].items():
            folder = workdir / name / f"seed{seed}"
            shared = {"cache": workdir / "features", **study.get("all", {})}  # the reals are measured once for all runs
            settings = {key: str(value) for key, value in {**shared, **changes, "seed": seed}.items()}
            log.info("study: %s, seed %d", name, seed)
            config = configs.plain(configs.override(configs.load(study["config"]), settings))
            if study["stage"] not in config["stages"]:
                raise UserError(f"study: stage {study['stage']!r} is not among those run: {', '.join(config['stages'])}")
            numbers = {stage: train_stage(config, stage, folder) for stage in config["stages"]}
            found.setdefault(name, []).append(numbers[study["stage"]])
    return found


def tabulate(study: dict, found: dict[str, list[dict]]) -> str:
    """Mean of every metric by variant, and the paired difference of the study's pair with its 95 % interval.

    Raises UserError: a metric that some run did not measure.
    """
    first, second = study["pair"]
    rows = []
    for metric in study["metrics"]:
        for numbers in (numbers for runs in found.values() for numbers in runs):
            if metric not in numbers:
                raise UserError(f"study: metric {metric!r} was not measured; use one of: {', '.join(sorted(numbers))}")
        values = {name: [numbers[metric] for numbers in runs] for name, runs in found.items()}
        rows.append(
            {"metric": metric}
            | {name: float(np.mean(x)) for name, x in values.items()}
            | {f"{first} - {second} (95 %)": str(tables.paired(values[first], values[second]))}
        )
    seeds = ", ".join(map(str, study["seeds"]))
    return f"{study['config']}, seeds {seeds}, one run each; means over seeds.\n\n{tables.table(rows)}"


def side_by_side(study: dict, workdir: epath.Path):
    """Pictures of every variant for the study's prompts, first seed, from the same noise."""
    from supcon_jax.build import model as trained

    blocks = {}
    for name in study["variants"]:
        model = trained.load(str(workdir / name / f"seed{study['seeds'][0]}"), (study["stage"],))
        blocks[name] = pictures.zoomed(np.asarray(model.generate(study["prompts"], seed=0)))
    return pictures.side_by_side(blocks, row_titles=study["prompts"])


def load(path: str) -> dict:
    """A study file: get_study() gives plain data.

    Raises UserError: no such file, another kind of file, a key is missing, or the pair are no variants.
    """
    import importlib.util

    file = configs.find(path)
    if file.suffix != ".py":
        raise UserError(f"{file} is no study: a Python file with get_study() is; copy one of configs/studies")
    spec = importlib.util.spec_from_file_location(f"supcon_jax_study_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_study"):
        raise UserError(f"{file} is no study: it has no get_study(); copy one of configs/studies")
    study = module.get_study()
    if missing := {"config", "stage", "seeds", "variants", "metrics", "pair"} - set(study):
        raise UserError(f"{path}: the study lacks {', '.join(sorted(missing))}")
    if len(study["pair"]) != 2 or not set(study["pair"]) <= set(study["variants"]):
        raise UserError(f"{path}: pair={study['pair']!r} must be two of the variants {', '.join(study['variants'])}")
    return study


def write(study: dict, found: dict[str, list[dict]], workdir: epath.Path, out: epath.Path, title: str, command: str) -> str:
    """Writes OUT.json, OUT.png (if the study has prompts) and OUT.md; returns the text of the last one."""
    text = f"# {title}\n\n`{command}`\n\n{tabulate(study, found)}"
    storage.write(out.with_suffix(".json"), json.dumps({"study": study, "numbers": found}, indent=1, sort_keys=True))
    if study.get("prompts"):
        pictures.save_png(side_by_side(study, workdir), out.with_suffix(".png"))
        text += f"\nSame captions, same noise, first seed:\n\n![pictures]({out.with_suffix('.png').name})\n"
    storage.write(out.with_suffix(".md"), text)
    return text


def cli(argv: list[str] | None = None) -> int:
    """Runs a study and writes STUDY.md, STUDY.json and STUDY.png to its folder, or OUT.md, OUT.json and OUT.png."""
    parser = argparse.ArgumentParser(prog="python -m supcon_jax.study", description=__doc__)
    parser.add_argument("--study", required=True, help="a file such as configs/studies/scl_shapes.py")
    parser.add_argument("--workdir", required=True, help="folder for all runs")
    parser.add_argument("--out", help="write the results as OUT.md, OUT.json and OUT.png, not as WORKDIR/STUDY.*")
    flags = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
    command = f"python -m supcon_jax.study --study={flags.study} --workdir=DIR"
    try:
        workdir = storage.place(flags.workdir, storage.CHECKPOINTS)
        out = storage.place(flags.out) if flags.out else workdir / "STUDY"
        study = load(flags.study)
        shard.start()
        print(write(study, run(study, workdir), workdir, out, study.get("title", flags.study), command))
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(cli())
