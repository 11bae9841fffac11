"""The contrastive loss on pods: memory, collectives and modelled time, by compiling for slices that are not here.

    python benchmarks/pod.py [--only=v5e:16x16] [--out=benchmarks/results/pod.json]

Compiled, not run: no time was measured on any of these devices. InfoNCE in both directions, rows in bfloat16, value and
gradients with respect to both sides and the scale. `dense` is the definition, split by the compiler; `matrix` the usual
distributed loss, where each device gathers all keys and holds its rows of both matrices; `ring pallas` the ring with the
TPU kernels; `ring jaccard` the multi-label loss, 80 labels weighed by their Jaccard overlap. Needs the extra tpu for TPU
slices, gpu for GPU hosts.
"""

import argparse
import functools
import json
import pathlib

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from supcon_jax.build import compile, cost
from supcon_jax.build.target import Target, find
from supcon_jax.config import UserError
from supcon_jax.ops import rows, sharded
from supcon_jax.ops.rows import Rows


def matrix(mesh):
    """Row sums of the n x N part of the matrix that lies on each device, keys gathered: for comparison only."""
    split = PartitionSpec("data")

    def sums(q, k, *, scale, weigh, veto=None):
        def local(q, k, scale):
            everyone = jax.tree.map(lambda a: lax.all_gather(a, "data", tiled=True), k)
            return rows.dense(q, everyone, scale=scale, weigh=weigh, veto=veto)

        return jax.shard_map(local, mesh=mesh, in_specs=(split, split, PartitionSpec()), out_specs=split)(q, k, scale)

    return sums


DOORS = {
    "gather": sharded.gather,
    "ring": sharded.ring,
    "ring pallas": functools.partial(sharded.ring, kernel="pallas"),
    "ring jaccard": sharded.ring,
    "dense": lambda mesh: rows.dense,
    "matrix": matrix,
}
LABELS = 80
K, M = 2**10, 2**20
TABLE = (
    ("v5e:16x16", 32 * K, 768, ("matrix", "gather", "ring")),
    ("v5e:16x16", 256 * K, 768, ("matrix", "gather", "ring")),
    ("v5e:16x16", M, 768, ("dense", "matrix", "gather", "ring", "ring jaccard", "ring pallas")),
    ("v5e:16x16", 4 * M, 768, ("gather", "ring")),
    ("v5e:16x16", 16 * M, 768, ("ring",)),
    ("v5e:4x4", 64 * K, 768, ("gather", "ring")),
    ("v5e:2x4", 256 * K, 768, ("dense", "matrix", "gather", "ring")),
    ("v5e:2x4", M, 768, ("ring",)),
    ("v5p:8x8x4", M, 768, ("gather", "ring")),
    ("v6e:16x16", M, 768, ("gather", "ring")),
    ("h200:1x1x8", 64 * K, 768, ("dense", "gather", "ring")),
    ("h200:1x1x8", 256 * K, 768, ("gather", "ring")),
)


def lowered(door: str, n: int, d: int, mesh: jax.sharding.Mesh):
    """Value and gradients of the symmetric loss of n pairs, for the devices of a mesh."""
    labels = "jaccard" in door

    def term(s):
        some = s.wgt > 0
        return jnp.mean(jnp.where(some, s.lse - s.pos / jnp.where(some, s.wgt, 1), 0))

    def loss(x, y, scale, label):
        index = jnp.arange(n, dtype=jnp.int32)
        q, k = (Rows(rows_, label if labels else None, index) for rows_ in (x, y))
        weigh = rows.jaccard() if labels else rows.same_index
        one, other = rows.both(DOORS[door](mesh), q, k, scale=scale, weigh=weigh)
        return (term(one) + term(other)) / 2

    split, whole = (NamedSharding(mesh, spec) for spec in (PartitionSpec("data"), PartitionSpec()))
    row = jax.ShapeDtypeStruct((n, d), jnp.bfloat16, sharding=split)
    scale = jax.ShapeDtypeStruct((), jnp.float32, sharding=whole)
    label = jax.ShapeDtypeStruct((n, LABELS), jnp.int8, sharding=split) if labels else None
    where = (split, split, whole)
    run = jax.jit(jax.value_and_grad(loss, (0, 1, 2)), out_shardings=(whole, where))
    return run.lower(row, row, scale, label)


def measured(target: Target, n: int, d: int, door: str) -> dict:
    """One row of the table; memory in bytes of a device."""
    mesh = target.mesh(n)
    said = {"topology": target.name, "devices": mesh.size, "n": n, "d": d, "door": door, "run": False}
    said |= compile.compiled(lowered(door, n, d, mesh), target)
    if door not in ("dense", "matrix"):  # the formula is that of tiles
        call = cost.Call(n, n, d, 2, False, door.split()[0], "")
        said["modelled_seconds"] = cost.modelled([call], mesh.size, target.chip, said["collectives"])
    return said


def place(said: dict) -> tuple[int, int]:
    """Where a row stands in the table."""
    line = [row[:3] for row in TABLE].index((said["topology"], said["n"], said["d"]))
    return line, TABLE[line][3].index(said["door"])


def markdown(found: list[dict]) -> str:
    """The table. a/b: asynchronous and synchronous collectives in the program's text, a loop's body once."""
    lines = [
        "Compiled, not run. MiB of one device; collectives as asynchronous/synchronous; modelled: nominal peaks and links.",
        "",
        "| topology | N | d | door | fits | arguments | outputs | temporaries | peak | collectives | modelled ms |",
        "|---|---:|---:|---|---|---:|---:|---:|---:|---|---:|",
    ]
    for said in found:
        memory = said["memory"]
        sizes = [f"{memory[key] / M:,.1f}" if memory else "" for key in ("arguments", "outputs", "temporaries", "peak")]
        counts = ", ".join(f"{k} {c['asynchronous']}/{c['synchronous']}" for k, c in said["collectives"].items())
        time = f"{1e3 * said['modelled_seconds']['all']:.3g}" if "modelled_seconds" in said and said["fits"] else ""
        fits = "yes" if said["fits"] else f"no: {compile.lack(said)}"
        cells = [said["topology"], f"{said['n']:,}", said["d"], said["door"], fits, *sizes, counts, time]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="a topology, or how some begin")
    parser.add_argument("--out", default="", help="JSON; rows there stay unless made again; the table goes beside it as .md")
    flags = parser.parse_args()
    out = pathlib.Path(flags.out) if flags.out else None
    found = json.loads(out.read_text())["rows"] if out and out.exists() else []
    for name, n, d, doors in TABLE:
        if not name.startswith(flags.only):
            continue
        try:
            target = find(name)
        except UserError as error:
            print(f"left out: {error}")
            continue
        for door in doors:
            row = measured(target, n, d, door)
            found = sorted([old for old in found if place(old) != place(row)] + [row], key=place)
            print(markdown([row]).splitlines()[-1], flush=True)
            if out:
                out.write_text(json.dumps({"jax": jax.__version__, "run": False, "rows": found}, indent=1))
                out.with_suffix(".md").write_text(markdown(found))


if __name__ == "__main__":
    main()
