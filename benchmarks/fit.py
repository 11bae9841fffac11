"""Whether the full-size presets fit a slice, and what the largest batch is that does: compiled for it, not run.

    python benchmarks/fit.py [--topology=v5e:2x4] [--only cub:dfgan coco:galip] [--search] [--out=benchmarks/results/fit.json]

Each preset's own stage at its own batch, or the next smaller one that the slice can split; with --search what
`--mode=compile --fit` finds, which takes several compilations of minutes each. Every line is written when it is found, and
stages that stand in the file are not compiled again. Needs the extra tpu for TPU slices, gpu for GPU hosts; no data set
(published sizes stand for it) and no weights.
"""

import argparse
import json
import pathlib
import sys

from supcon_jax import config as configs
from supcon_jax.build import compile, fit
from supcon_jax.build.target import find
from supcon_jax.config import UserError

STAGES = ("damsm", "attngan", "dmgan", "dfgan", "ssagan", "galip")
PRESETS = tuple(f"{name}:{stage}" for name in ("cub", "coco") for stage in STAGES)
GIB = 2**30


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--topology", default="v5e:2x4")
    parser.add_argument("--only", nargs="+", default=PRESETS, help="config:stage")
    parser.add_argument("--search", action="store_true", help="search the largest batch, not the preset's alone")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("benchmarks/results/fit.json"))
    flags = parser.parse_args(argv)
    found = json.loads(flags.out.read_text()) if flags.out.exists() else {}
    try:
        target = find(flags.topology)
        for preset in flags.only:
            key = f"{preset} {flags.topology}"
            if "most" in found.get(key, {}) or (found.get(key) and not flags.search):
                continue
            found[key] = measured(preset, target, flags.search, found.get(key))
            write(found, flags.out)
            print(row(key, found[key]), flush=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def measured(preset: str, target, search: bool, before: dict | None) -> dict:
    """One stage at its own batch, and the largest that fits if asked for. before: what is known already."""
    name, _, word = preset.partition(":")
    plain = configs.plain(configs.load(f"configs/{name}.py:{word}"))
    stage = plain["stages"][-1]
    plain, _ = compile.at_hand(plain)
    unit, tries = len(target.devices), fit.Tries(plain, stage, target)
    told = before or part(tries(plain[stage]["batch"] // unit * unit or unit))
    if not search:
        return told
    _, best = fit.search(tries)
    return told | {"most": part(best) if best else None, "compilations": len(tries.made), "seconds": tries.seconds}


def part(said: dict) -> dict:
    """What the table tells of a compilation."""
    kept = ("batch", "devices", "slices", "door", "records", "fits", "needs", "has", "flop", "collectives", "compile_seconds")
    return {name: said[name] for name in kept}


def write(found: dict, path: pathlib.Path) -> None:
    path.write_text(json.dumps(found, indent=1))
    lines = ["Compiled, not run; memory of one device.", ""]
    lines += ["| preset, slice | batch | devices | needs | of | largest batch | needs | compilations |"]
    lines += ["|---|---:|---:|---:|---:|---:|---:|---:|", *(row(key, said) for key, said in found.items())]
    path.with_suffix(".md").write_text("\n".join(lines) + "\n")


def row(key: str, said: dict) -> str:
    def gib(one):
        return f"{one['needs'] / GIB:.2f}" + ("" if one["fits"] else " (does not fit)")

    most = said.get("most")
    cells = [key, said["batch"], said["devices"], gib(said), f"{said['has'] / GIB:.2f} GiB"]
    if "most" not in said:
        cells += ["", "", 1]
    elif most is None:
        cells += ["none", "", said["compilations"]]
    else:
        extra = f" in {most['slices']} slices" if most["slices"] > 1 else ""
        whole = ", all records" if most["batch"] == fit.grid(most["devices"], most["records"])[-1] else ""
        cells += [f"{most['batch']}{extra}{whole}", gib(most), said["compilations"]]
    return "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    sys.exit(main())
