"""The command line: python -m supcon_jax.main --config=configs/shapes.py --workdir=runs/shapes [--config.KEY=VALUE]"""

from __future__ import annotations

import argparse
import json
import logging
import os
import pathlib
import sys
import time

from etils import epath

from supcon_jax import config as configs
from supcon_jax import hosts, shard, storage
from supcon_jax.config import UserError

log = logging.getLogger("supcon_jax")


def main(argv: list[str] | None = None) -> int:
    """Runs one mode. Returns the exit code: 0, or 2 after one line about what the user can mend."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
    try:
        flags, settings = parse(sys.argv[1:] if argv is None else argv)
        MODES[flags.mode](flags, settings)
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return hosts.end(2)
    except (Exception, KeyboardInterrupt):
        hosts.end(1)  # the other processes must not wait for this one
        raise
    return 0


def parse(argv: list[str]):
    """Flags, and the settings "--config.KEY=VALUE" as a dict. Raises UserError: an unknown flag."""
    settings = {}
    rest = []
    words = iter(argv)
    for word in words:
        if word.startswith("--config."):
            key, equals, value = word[len("--config.") :].partition("=")
            settings[key] = value if equals else next(words, "")
        else:
            rest.append(word)
    parser = Parser(prog="python -m supcon_jax.main", description=__doc__)
    parser.add_argument("--config", help="a config file, its presets after a colon: configs/shapes.py:tiny")
    parser.add_argument("--workdir", help="folder or gs:// address that holds everything a run writes")
    parser.add_argument("--mode", default="train", choices=sorted(MODES), help="what to do (train)")
    parser.add_argument("--fakes", help="eval: a folder of pictures that any model made, scored by the config's protocols")
    parser.add_argument("--topology", help="compile: a slice that need not be here, such as v5e:16x16 or h200:1x1x8")
    parser.add_argument("--fit", action="store_true", help="compile: search the largest batch of each stage that fits")
    parser.add_argument("--from", dest="source", help="sample: a work folder, a weight file, or shipped weights: shapes; "
                        "convert: the same to export, or weights of others, a file or a folder; train: weights to begin with")
    parser.add_argument("--to", dest="target", help="convert: a new .safetensors file, or a new folder for several")
    parser.add_argument("--prompt", action="append", default=[], help="sample: a caption; may be given again")
    parser.add_argument("--prompts", help="sample: a file with one caption a line")
    parser.add_argument("--number", type=int, default=4, help="sample: pictures for each caption (4)")
    parser.add_argument("--seed", type=int, default=0, help="sample: of the noise (0)")
    several = parser.add_argument_group("several hosts: the same command on each, with its own --process")
    env = os.environ.get
    several.add_argument("--coordinator", default=env("JAX_COORDINATOR_ADDRESS"), help="HOST:PORT of process 0, or auto")
    several.add_argument("--processes", type=int, default=env("JAX_NUM_PROCESSES"), help="how many there are")
    several.add_argument("--process", type=int, default=env("JAX_PROCESS_ID"), help="which of them this is, from 0")
    several.add_argument("--start_seconds", type=int, default=120, help="how long to wait for all of them (120)")
    parser.add_argument("--print_config", action="store_true", help="print the config and end")
    flags = parser.parse_args(rest)
    if flags.target and flags.mode != "convert":
        raise UserError(f"--to={flags.target} belongs to --mode=convert")
    if flags.source and flags.mode in ("compile", "eval"):
        raise UserError(f"--from={flags.source}: --mode={flags.mode} does not read it; eval reads --workdir")
    return flags, settings


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UserError(f"{message}; --help lists the flags")


def chosen(flags, settings) -> dict:
    """The plain config of the run. Raises UserError: the flag is missing, a bad config."""
    if not flags.config:
        raise UserError("--config=FILE is missing; the first to try: --config=configs/shapes.py")
    config = configs.override(configs.load(flags.config), settings)
    if flags.print_config:
        print(json.dumps(configs.plain(config), indent=1, sort_keys=True))
        raise SystemExit(0)
    return configs.plain(config)


def folder(flags) -> epath.Path | None:
    """The work folder, None if none is given. Raises UserError: a file is in its way, or the store cannot be reached."""
    if not flags.workdir:
        return None
    workdir = storage.place(flags.workdir, storage.CHECKPOINTS)
    above = () if storage.kind(workdir) else workdir.parents
    if any(place.exists() and not place.is_dir() for place in (workdir, *above)):
        raise UserError(f"--workdir={workdir}: a file is in the way; name a folder")
    return workdir


def ready(flags, settings) -> tuple[dict, epath.Path | None]:
    """The plain config of the run and its folder, which --fakes can do without; starts jax.

    Raises UserError: a flag is missing, a bad config.
    """
    config, workdir = chosen(flags, settings), folder(flags)
    if workdir is None and not (flags.mode == "eval" and flags.fakes):
        raise UserError("--workdir=DIR is missing: the folder that holds everything the run writes")
    shard.start()
    if flags.coordinator:
        hosts.join(flags.coordinator, flags.processes, flags.process, flags.start_seconds)
    return config, workdir


def train(flags, settings) -> None:
    """Runs the config's stages in order; finished ones are skipped, broken ones go on where they stopped."""
    config, workdir = ready(flags, settings)
    from supcon_jax.build import run

    run.check(config)
    spent = {}
    for name in config["stages"]:
        began = time.monotonic()
        show(name, run.train_stage(config, name, workdir, flags.source))
        spent[name] = time.monotonic() - began
    total = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in spent.items())
    say(f"done: {total}; everything lies in {workdir}")


def evaluate(flags, settings) -> None:
    """Evaluates the newest checkpoint of every stage, or its weights, or a folder of pictures, and writes the numbers with
    their protocols."""
    config, workdir = ready(flags, settings)
    from supcon_jax.build import fakes, run

    if flags.fakes:
        lines, records = fakes.score(config, flags.fakes, workdir)
        told = {name: record["line"] for name, record in records.items()}
        show("fakes", {f"{record['eval']}/{name}": record["value"] for name, record in records.items()}, told)
        for line in lines:
            say(line)
        return
    found = [name for name in config["stages"] if (workdir / name / "checkpoints").is_dir()
             or (workdir / name / "weights.safetensors").is_file()]
    if not found:
        raise UserError(f"{workdir} holds no checkpoint of {', '.join(config['stages'])}: train first")
    for name in found:
        step, values = run.evaluate_stage(config, name, workdir)
        show(f"{name} at step {step}", values, run.protocols(workdir / name))


def show(name: str, values: dict[str, float], protocols: dict[str, str] | None = None) -> None:
    """Prints numbers, and below each how it was measured where that is told."""
    for key, value in sorted(values.items()):
        say(f"{name}  {key}  {value:.6g}")
        if line := (protocols or {}).get(key.partition("/")[2]):
            say(f"    {line}")


def say(text: str) -> None:
    """Prints, once for all processes."""
    if hosts.chief():
        print(text)


def compiled(flags, settings) -> None:
    """Compiles the stages' steps for a machine that need not be here; with --fit, searches the batch that fills it."""
    config, workdir = chosen(flags, settings), folder(flags)
    if not flags.topology:
        raise UserError("--topology is missing: the slice to compile for, such as --topology=v5e:16x16")
    from supcon_jax.build import compile, fit

    if flags.fit:
        words = [f"--config={flags.config}", *(f"--config.{key}={value}" for key, value in settings.items())]
        lines = fit.stages(config, flags.topology, workdir, words)
    else:
        lines = compile.stages(config, flags.topology, workdir)
    for line in lines:
        print(line, flush=True)


def sample(flags, settings) -> None:
    """Pictures from captions: a grid and single PNGs."""
    if not flags.source:
        raise UserError("--from is missing: a work folder, a weight file, or shipped weights such as --from=shapes")
    if flags.number < 1:
        raise UserError(f"--number={flags.number}: at least 1")
    if not 0 <= flags.seed < 2**31:
        raise UserError(f"--seed={flags.seed}: an integer, 0 to 2147483647")
    prompts = list(flags.prompt)
    if flags.prompts:
        file = pathlib.Path(flags.prompts)
        if not file.is_file():
            raise UserError(f"--prompts={file}: no such file; give one caption a line")
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise UserError(f"--prompts={file}: not UTF-8 text; give one caption a line") from None
        prompts += [line.strip() for line in text.splitlines() if line.strip()]
    if not prompts:
        raise UserError('no caption: give --prompt "a small red circle" or --prompts FILE')
    shard.start()
    from supcon_jax import api

    folder = storage.place(flags.workdir or "samples")
    for line in api.sample(flags.source, prompts, folder, number=flags.number, seed=flags.seed):
        print(line)


def converted(flags, settings) -> None:
    """Weights of other codes to ours, or ours to one file."""
    if not flags.source:
        raise UserError("--from is missing: weights of another code (a file or a folder), or a work folder to export")
    if not flags.target:
        raise UserError("--to is missing: a new .safetensors file, or a new folder for several networks")
    if settings and not flags.config:
        raise UserError("--config=FILE is missing, to which --config.KEY=VALUE belongs")
    config = chosen(flags, settings) if flags.config else None
    from supcon_jax.build import foreign

    for line in foreign.convert(config, flags.source, flags.target):
        print(line)


MODES = {"train": train, "compile": compiled, "convert": converted, "eval": evaluate, "sample": sample}


if __name__ == "__main__":
    sys.exit(main())
