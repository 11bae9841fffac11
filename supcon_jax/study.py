"""Studies: a config run under several variants and seeds, tabulated with paired intervals, curves and pictures.

    python -m supcon_jax.study --study=configs/studies/scl_shapes.py --workdir=runs/scl_shapes

Stopped or killed, the same command goes on. Two processes may fill one work folder: give each its own --seeds or --only,
and call once more without them for the tables.

A study file gives get_study(), a dict of plain data:
    title; config ("configs/shapes.py:quick"); seeds; stage: the one that is scored, one of the config's stages, or "last":
        of every variant its own last one, where their words choose other methods.
    variants: {name: {config key: value}}; all: the same for every variant. "first." and "last." at the beginning of a
        key stand for the config's first stage and the scored one; the key "words" adds words to those of the config.
    metrics: names or patterns ("generation/fid_*"); of another stage "damsm:matching/real_r_precision" ("first:", "last:").
        "seconds": wall clock of that stage, training and scoring (not told of a run that was stopped in between).
        "log/NAME": what the run last wrote of NAME to metrics.jsonl; "log/warnings": how often it warned, in all.
    reference: the variant that every other is compared with, seed by seed.
    axis, axis_title (may be left out): {variant: number}, or {curve: {variant: number}}: the metrics are drawn over it.
    grid (may be left out): {variant: (row, column)}: the metrics are drawn and tabulated as maps, a variant in each cell.
    against (may be left out): pairs of metrics, (x, y): rank correlation over runs, and a cloud of points.
    prompts (may be left out): captions whose pictures are shown side by side.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import sys
import time

import jax
import numpy as np
from etils import epath

from supcon_jax import config as configs
from supcon_jax import shard, storage
from supcon_jax.build.run import train_stage
from supcon_jax.build.stage import depends, done
from supcon_jax.build.variants import configured, load
from supcon_jax.config import UserError
from supcon_jax.report import comparison, pictures, plots

log = logging.getLogger("supcon_jax")
METRICS = (  # what most studies look at
    "attributes/attribute_colour", "attributes/attribute_shape", "attributes/attribute_all",
    "matching/r_precision", "matching/r_within", "generation/label_accuracy_*", "generation/fid_*", "generation/kid_*",
    "first:matching/real_r_precision", "first:seconds", "seconds",
)  # fmt: skip
REPRESENTATION = (  # what studies of encoders of pictures look at, with the word `both` of configs/image.py
    "knn/knn_h_top1", "linear/linear_h_top1", "knn/knn_z_top1", "linear/linear_z_top1",
    "spectrum/spectrum_h_std", "spectrum/spectrum_h_rank", "spectrum/spectrum_z_std", "spectrum/spectrum_z_rank",
    "spectrum/spectrum_z_alignment", "spectrum/spectrum_z_uniformity", "seconds",
)  # fmt: skip
FEATURES = tuple(name for name in REPRESENTATION if "_z_" not in name)  # where some have no projection, as classifiers


# ---- running


def run(study: dict, workdir: epath.Path, only: list[str], seeds: list[int]) -> None:
    """Trains the variants `only` with `seeds`, as far as they are not finished; seed by seed, so that pairs come early.

    Equal seeds give equal initial weights, data order and noise. A stage that another run of the folder has finished
    with the same config is copied from there. Raises UserError: as training does, before anything is trained where the
    config alone tells it.
    """
    configurations = {(seed, name): configured(study, name, seed, workdir) for seed in seeds for name in only}
    for (seed, name), config in configurations.items():
        folder = workdir / name / f"seed{seed}"
        with storage.held(folder / "lock") as mine:
            if not mine:
                log.info("study: %s, seed %d is being run by another process, left to it", name, seed)
                continue
            log.info("study: %s, seed %d", name, seed)
            for stage in config["stages"]:
                if not shared(config, stage, folder, workdir, seed):
                    trained(config, stage, folder)
        jax.clear_caches()  # the next run traces its own: without this many runs fill the memory


def trained(config: dict, stage: str, folder: epath.Path) -> None:
    """Trains a stage, and notes in the run's run.json what its numbers depend on and how long it took."""
    resumed, finished = (folder / stage / "checkpoints").is_dir(), done(config, stage, folder)
    began = time.monotonic()
    train_stage(config, stage, folder)
    if not finished:
        noted(folder, stage, key(config, stage), None if resumed else time.monotonic() - began)


def shared(config: dict, stage: str, folder: epath.Path, workdir: epath.Path, seed: int) -> bool:
    """Copies a stage that another run has finished with the same config, weights and numbers alike, if there is one."""
    if (folder / stage).is_dir():
        return False
    wanted = key(config, stage)
    for other in sorted(place / f"seed{seed}" for place in workdir.iterdir()):
        said = notes(other).get(stage, {})
        if other != folder and said.get("key") == wanted and (other / stage / "DONE").exists():
            log.info("%s: the same as in %s, copied from there", stage, other)
            files = [file for file in (other / stage).iterdir() if file.is_file() and file.name != "DONE"]
            for file in [*files, other / stage / "DONE"]:  # which is last: it says that the others are there
                storage.write(folder / stage / file.name, file.read_bytes())
            noted(folder, stage, wanted, said["seconds"], str(other.relative_to(workdir)))
            return True
    return False


def key(config: dict, stage: str) -> str:
    """A hash of all that a stage's weights and numbers depend on."""
    measured = {name: config[name] for name in ("evals", "eval_batch", "networks")}
    measured |= {"middle": config["data"]["middle"]} if config["data"]["middle"] != 1 else {}
    return configs.digest({"stage": depends(config, stage), "test": config["data"]["test"], **measured})


def notes(folder: epath.Path) -> dict:
    path = folder / "run.json"
    return json.loads(path.read_text()) if path.exists() else {}


def noted(folder: epath.Path, stage: str, key: str, seconds: float | None, copied: str = "") -> None:
    more = {"copied": copied} if copied else {}
    said = notes(folder) | {stage: {"key": key, "seconds": seconds, **more}}
    storage.write(folder / "run.json", json.dumps(said, indent=1, sort_keys=True))


# ---- what it gave


def finished(study: dict, workdir: epath.Path) -> tuple[dict, list[str]]:
    """({variant: {seed: {stage: numbers}}} of finished runs, names of the others).

    Raises UserError: a run was finished with another config than the study's.
    """
    found, missing = {}, []
    for name in study["variants"]:
        for seed in study["seeds"]:
            folder, config = workdir / name / f"seed{seed}", configured(study, name, seed, workdir)
            said = {stage: done(config, stage, folder) for stage in config["stages"]}
            if not all(said.values()):
                missing.append(f"{name} seed {seed}")
                continue
            took = notes(folder)
            numbers = {
                stage: one["numbers"]
                | ({"seconds": took[stage]["seconds"]} if took.get(stage, {}).get("seconds") else {})
                | logged(folder / stage, one["numbers"])
                for stage, one in said.items()
            }
            if study["stage"] == comparison.LAST:
                numbers = {"first": numbers[config["stages"][0]], "last": numbers[config["stages"][-1]]}
            found.setdefault(name, {})[seed] = numbers
    return found, missing


def logged(folder: epath.Path, scores=()) -> dict:
    """{"log/NAME": the last number of NAME in a stage's metrics.jsonl}, of "warnings" the sum; nothing without that file.
    scores: names that are left out, as evaluations write theirs there too."""
    if not (folder / "metrics.jsonl").exists():
        return {}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = {name: value for line in lines for name, value in line.items()}
    if "warnings" in last:  # earlier runs did not count them
        last["warnings"] = sum(line.get("warnings", 0) for line in lines)
    return {f"log/{name}": value for name, value in last.items() if isinstance(value, int | float) and name not in scores}


def paired(study: dict, found: dict) -> dict:
    """The finished runs of the seeds that every variant has finished. Raises UserError: there is none."""
    lacking = [name for name in study["variants"] if name not in found]
    if lacking:
        raise UserError(f"study: no finished run of {', '.join(lacking)}; call it without --tabulate to train them")
    seeds = [seed for seed in study["seeds"] if all(seed in runs for runs in found.values())]
    if not seeds:
        raise UserError("study: no seed is finished by every variant; call it without --tabulate to train the others")
    return {name: {seed: runs[seed] for seed in seeds} for name, runs in found.items()}


def side_by_side(study: dict, workdir: epath.Path, seed: int):
    """Pictures of every variant for the study's prompts, one seed, from the same noise."""
    from supcon_jax.build import model as trained

    blocks = {}
    for name in study["variants"]:
        stage = configured(study, name, seed, workdir)["stages"][-1] if study["stage"] == comparison.LAST else study["stage"]
        model = trained.load(str(workdir / name / f"seed{seed}"), (stage,))
        blocks[name] = pictures.zoomed(np.asarray(model.generate(study["prompts"], seed=0)))
    return pictures.side_by_side(blocks, row_titles=study["prompts"])


def write(study: dict, found: dict, workdir: epath.Path, out: epath.Path, command: str) -> str:
    """Writes OUT.json and OUT.md, and as the study asks OUT.png (pictures), OUT_axis, OUT_grid and OUT_against (.png, .svg);
    returns the text of OUT.md."""
    title, seeds = study.get("title", out.stem), list(next(iter(found.values())))
    config = configured(study, study["reference"], seeds[0], workdir)
    text = f"# {title}\n\n`{command}`\n\n{comparison.about(study, found, config)}\n{comparison.tabulate(study, found)}"
    storage.write(out.with_suffix(".json"), json.dumps({"study": study, "runs": found}, indent=1, sort_keys=True))
    if importlib.util.find_spec("matplotlib") is None:
        log.info("study: no curves are drawn: matplotlib is not installed (extra dev)")
    else:
        for name, figure in comparison.figures(study, found).items():
            for ending in ("png", "svg"):
                plots.save(figure, out.with_name(f"{out.stem}_{name}.{ending}"))
            text += f"\n![{name}]({out.stem}_{name}.png)\n"
    if study.get("prompts"):
        pictures.save_png(side_by_side(study, workdir, seeds[0]), out.with_suffix(".png"))
        text += f"\nSame captions, same noise, seed {seeds[0]}:\n\n![pictures]({out.with_suffix('.png').name})\n"
    storage.write(out.with_suffix(".md"), text)
    return text


def flags(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m supcon_jax.study", description=__doc__.partition("\n")[0])
    parser.add_argument("--study", required=True, help="a file such as configs/studies/scl_shapes.py")
    parser.add_argument("--workdir", required=True, help="folder for all runs")
    parser.add_argument("--config", help="a config (FILE:words) in place of the study's, such as configs/cub.py:dfgan")
    parser.add_argument("--seeds", help="train only these (0,1), of the study or more")
    parser.add_argument("--only", help="train and tabulate only these variants (a,b), the reference among them to tabulate")
    parser.add_argument("--tabulate", action="store_true", help="train nothing: tabulate the seeds that all have finished")
    parser.add_argument("--out", help="write the results as OUT.md, OUT.json, ..., not as WORKDIR/STUDY.*")
    return parser.parse_args(argv)


def chosen(study: dict, only: str | None, seeds: str | None) -> tuple[list[str], list[int]]:
    """The variants and seeds that --only and --seeds name, all of them if left out. Raises UserError: unknown ones."""
    names = [name.strip() for name in only.split(",")] if only else list(study["variants"])
    if unknown := set(names) - set(study["variants"]):
        raise UserError(f"--only={only}: {', '.join(sorted(unknown))} is no variant; they are {', '.join(study['variants'])}")
    try:
        return names, [int(seed) for seed in seeds.split(",")] if seeds else list(study["seeds"])
    except ValueError:
        raise UserError(f"--seeds={seeds}: whole numbers with commas between, such as 0,1") from None


def performed(said: argparse.Namespace) -> str:
    """Trains what is asked for and not finished, and tabulates if nothing is missing. Returns what to print."""
    workdir = storage.place(said.workdir, storage.CHECKPOINTS)
    out = storage.place(said.out) if said.out else workdir / "STUDY"
    study = load(said.study, said.config)
    only, seeds = chosen(study, said.only, said.seeds)
    if not said.tabulate:
        shard.start()
        run(study, workdir, only, seeds)
    if said.tabulate and said.only:
        if study["reference"] not in only:
            raise UserError(f"--only={said.only}: the reference {study['reference']} must be among those tabulated")
        study["variants"] = {name: study["variants"][name] for name in only}
    study["seeds"] = sorted({*study["seeds"], *seeds}) if said.seeds and not said.tabulate else seeds
    found, missing = finished(study, workdir)
    if missing and not said.tabulate:
        return f"not finished yet: {', '.join(missing)}; tables are written when all are, or by --tabulate of those that are"
    other = f" --config={said.config}" if said.config else ""
    command = f"python -m supcon_jax.study --study={said.study} --workdir=DIR{other}"
    text = write(study, paired(study, found), workdir, out, command)
    return text + (f"\nleft out, as they are not finished: {', '.join(missing)}" if missing else "")


def cli(argv: list[str] | None = None) -> int:
    """Runs a study and writes STUDY.md, STUDY.json and its pictures to its folder, or as OUT.md, OUT.json, ..."""
    said = flags(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
    try:
        print(performed(said))
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(cli())
