"""Time and memory of value and gradient of the contrastive losses through our doors, against the peers' arithmetic.

    python benchmarks/losses.py [--rows 1024 4096] [--width 256] [--scale 14.3] [--repeats 7] [--trained] [--out FILE]

with --out=NAME.json also NAME.png: time and temporary memory against rows, both axes logarithmic (needs matplotlib).

CLIP's loss: `open clip`, two products and two cross entropies, as open_clip computes it; `lean`, one matrix of logits read
along rows and columns; ours dense and tiled, both directions from one visit; and open_clip itself in torch where both are
installed. NT-Xent of two views: `optax`, its own function, and ours dense and tiled. SupCon of two views, eight rows to a
label: `supcontrast`, the whole matrix with masks, as the authors' code computes it; ours dense; ours tiled with `two towers`
(keys that happen to be the queries, every tile visited) and with `own keys` (half of the tiles). All give value and
gradients with respect to the rows and the scale (optax: the rows).

One process, every repeat runs each program once in turn, so that all share whatever else the machine does; times are
medians and least values, ratios are medians of the repeats' own ratios to the first program of the group. Before any time,
each program's value and gradients are compared with the definition in float64 (beyond 2,048 rows with the group's first
program); one that fails prints none. Memory is XLA's own: temporary bytes of the compiled program.
`gflops` is model work, 6 n^2 d for two towers' lean count.
"""

import argparse
import functools
import json
import os
import pathlib
import platform
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from supcon_jax.losses import contrast
from supcon_jax.ops import rows, sharded
from supcon_jax.ops.rows import Rows
from supcon_jax.report.plots import loglog

GATE = {"value": 1e-4, "gradient": 1e-3}  # relative; the gradients to their largest entry
EXACT = 2048  # rows up to which the definition is computed in float64


# ---- the programs: (x, y, scale) -> loss


def open_clip(x, y, scale):
    """open_clip's local loss: logits of images over texts and of texts over images are two products."""
    label = jnp.arange(x.shape[0])
    ce = optax.softmax_cross_entropy_with_integer_labels
    return (ce(scale * x @ y.T, label).mean() + ce(scale * y @ x.T, label).mean()) / 2


def lean(x, y, scale):
    """One matrix, its rows and columns."""
    s = scale * x @ y.T
    own = jnp.diagonal(s)
    return (jnp.mean(jax.nn.logsumexp(s, axis=1) - own) + jnp.mean(jax.nn.logsumexp(s, axis=0) - own)) / 2


def clip(x, y, scale, sums):
    return sum(contrast.info_nce_both(Rows(x), Rows(y), scale=scale, sums=sums)) / 2


def optax_ntxent(x, y, scale):
    n = x.shape[0]
    label = jnp.tile(jnp.arange(n), 2)
    with jax.numpy_rank_promotion("allow"):
        return optax.losses.ntxent(jnp.concatenate([x, y]), label, 1 / scale)


def ntxent(x, y, scale, sums):
    return contrast.ntxent(jnp.stack([x, y], axis=1), scale=scale, sums=sums)


def label_of(n):
    """Eight rows of each label among 2n rows of two views."""
    return jnp.arange(2 * n) // 2 % max(1, n // 4)


def both_views(x, y):
    return jnp.stack([x, y], axis=1).reshape(-1, x.shape[1])


def supcontrast(x, y, scale):
    """The authors' code: logits without their rows' largest, a mask of positives, a mask without the diagonal."""
    z, label = both_views(x, y), label_of(len(x))
    s = scale * z @ z.T
    s = s - jax.lax.stop_gradient(s.max(axis=1, keepdims=True))
    other = 1 - jnp.eye(len(z))
    positive = (label[:, None] == label).astype(s.dtype) * other
    log_prob = s - jnp.log(jnp.sum(jnp.exp(s) * other, axis=1, keepdims=True))
    return -jnp.mean(jnp.sum(positive * log_prob, axis=1) / jnp.sum(positive, axis=1))


def supcon(x, y, scale, sums, towers=False):
    index = jnp.arange(2 * len(x), dtype=jnp.int32)
    z = Rows(both_views(x, y), label_of(len(x)), index)
    if not towers:
        return contrast.supcon(z, scale=scale, sums=sums)
    return contrast.supcon(z, z.replace(), scale=scale, veto=rows.same_index, sums=sums)


def groups(tile, n, most, most_optax):
    """{group: {program: loss}}; the first of each is what the others are measured by."""
    doors = {"ours dense": rows.dense, "ours tiled": sharded.tiled(tile=tile)}
    both, pair = ({name: functools.partial(fn, sums=door) for name, door in doors.items()} for fn in (clip, ntxent))
    found = {"clip": {"open clip": open_clip, "lean": lean, **both}, "ntxent": {"optax": optax_ntxent, **pair}}
    labels = {"supcontrast": supcontrast, "ours dense": functools.partial(supcon, sums=rows.dense)}
    for name, towers in ("ours two towers", True), ("ours own keys", False):
        labels[name] = functools.partial(supcon, sums=doors["ours tiled"], towers=towers)
    found["supcon"] = labels
    limit = {"optax": most_optax, "ours tiled": n, "ours two towers": n, "ours own keys": n}
    return {group: {name: fn for name, fn in of.items() if n <= limit.get(name, most)} for group, of in found.items()}


# ---- inputs, correctness, time


def draw(n, d, scale, trained):
    """Unit rows: at random, or as after training, with own pairs at a cosine of about one half."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, n, d))
    if trained:
        y = x + np.sqrt(3) * y
    x, y = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, y))
    return np.float32(x), np.float32(y), np.float32(scale)


def truth(group, args):
    """Value and gradients of the definition in float64 numpy."""
    x, y, scale = (np.asarray(a, np.float64) for a in args)
    n = len(x)
    if group == "clip":
        s = scale * x @ y.T
        p, q = softmax(s, 1), softmax(s, 0)
        value = -(np.mean(np.log(np.diagonal(p))) + np.mean(np.log(np.diagonal(q)))) / 2
        g = (p + q - 2 * np.eye(n)) / (2 * n)
        return value, (scale * g @ y, scale * g.T @ x, np.sum(g * s) / scale)
    z = np.stack([x, y], axis=1).reshape(2 * n, -1)
    s = scale * z @ z.T
    np.fill_diagonal(s, -np.inf)
    p, order = softmax(s, 1), np.arange(2 * n)
    label = np.asarray(label_of(n)) if group == "supcon" else order // 2
    w = (label[:, None] == label) * 1.0
    np.fill_diagonal(w, 0)
    w /= w.sum(axis=1, keepdims=True)
    value = -np.sum(np.where(w > 0, w * np.log(np.where(w > 0, p, 1)), 0)) / (2 * n)
    p -= w
    dz = scale * (p + p.T) @ z / (2 * n)
    np.fill_diagonal(s, 0)
    return value, (dz[::2], dz[1::2], np.sum(p * s) / scale / (2 * n))


def softmax(s, axis):
    e = np.exp(s - s.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def wrong(group, got, want, args):
    """What a program gets wrong, in words, or nothing."""
    value, grads = got
    off = abs(float(value) - want[0]) / abs(want[0])
    if not off < GATE["value"]:
        return f"value off by {off:.1e}"
    for i, (one, other, arg) in enumerate(zip(grads, want[1], args, strict=True)):
        one, other, arg = (np.asarray(a, np.float64) for a in (one, other, arg))
        if group == "ntxent" and i < 2:  # optax makes its rows unit itself: no part of its gradient lies along them
            one, other = (a - np.sum(a * arg, axis=1, keepdims=True) * arg for a in (one, other))
        off = np.abs(one - other).max() / np.abs(other).max()
        if not off < GATE["gradient"]:
            return f"gradient {i} off by {off:.1e}"
    return ""


def compiled(loss, args):
    """(callable, seconds of compilation, temporary MiB)."""
    began = time.perf_counter()
    program = jax.jit(jax.value_and_grad(loss, (0, 1, 2))).lower(*args).compile()
    took = time.perf_counter() - began
    return program, took, program.memory_analysis().temp_size_in_bytes / 2**20


def torch_clip(args):
    """open_clip's own loss in torch, forward and backward; None where it is not installed."""
    try:
        import torch
        from open_clip.loss import ClipLoss
    except ImportError:
        return None
    loss = ClipLoss()

    def run(*_):
        x, y, scale = (torch.tensor(a, requires_grad=True) for a in args)
        value = loss(x, y, scale)
        value.backward()
        return value.item(), [a.grad.numpy() for a in (x, y, scale)]

    return run


def measure(group, losses, args, repeats):
    """One row for each program of a group at one size."""
    base, programs, table = next(iter(losses)), {}, []
    for name, loss in losses.items():
        program, took, temp = compiled(loss, args)
        programs[name] = program
        table.append({"group": group, "program": name, "compile_s": round(took, 2), "temp_mib": round(temp, 1)})
    if group == "clip" and (peer := torch_clip(args)):
        programs["open_clip in torch"] = peer
        table.append({"group": group, "program": "open_clip in torch"})
    want = truth(group, args) if len(args[0]) <= EXACT else jax.device_get(programs[base](*args))
    for row in table:  # the gate, and the warm-up
        said = wrong(group, jax.device_get(programs[row["program"]](*args)), want, args)
        if said:
            row["failed"] = said
            del programs[row["program"]]
    times = {name: [] for name in programs}
    for _ in range(repeats):
        for name, program in programs.items():
            began = time.perf_counter()
            jax.block_until_ready(program(*args))
            times[name].append(time.perf_counter() - began)
    work = 6 * len(args[0]) ** 2 * args[0].shape[1] * (1 if group == "clip" else 4)
    for row in table:
        if spent := times.get(row["program"]):
            row |= {"ms": round(1e3 * statistics.median(spent), 2), "least_ms": round(1e3 * min(spent), 2)}
            row |= {"spread": round(max(spent) / min(spent), 2), "gflops": round(work / min(spent) / 1e9, 1)}
            if base in times:
                row[f"of {base}"] = round(statistics.median(a / b for a, b in zip(spent, times[base])), 3)
    return table


def draw_curves(table):
    """Time and memory of each program against the rows."""
    panels = {"value and gradient, ms": {}, "temporaries, MiB": {}}
    for row in table:
        for panel, key in zip(panels.values(), ("ms", "temp_mib"), strict=True):
            if row.get(key) and row["group"] != "ntxent":
                panel.setdefault(f"{row['group']}: {row['program']}", []).append((row["rows"], row[key]))
    return loglog(panels, x="pairs", guides=(1, 2))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1024, 2048, 4096])
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--scale", type=float, default=14.3)
    parser.add_argument("--tile", type=int, nargs=2, default=None, help="rows and keys of a tile; by the device if left out")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--trained", action="store_true", help="own pairs at a cosine of one half, scale 100")
    parser.add_argument("--most", type=int, default=16384, help="most rows for programs that hold the matrix")
    parser.add_argument("--optax", type=int, default=512, help="most rows for optax's NT-Xent, which makes [2n, 2n, d]")
    parser.add_argument("--out", default="")
    flags = parser.parse_args()
    scale, table = 100.0 if flags.trained else flags.scale, []
    for n in flags.rows:
        args = draw(n, flags.width, scale, flags.trained)
        on_device = tuple(jnp.asarray(a) for a in args)
        for group, losses in groups(flags.tile and tuple(flags.tile), n, flags.most, flags.optax).items():
            for row in measure(group, losses, on_device, flags.repeats):
                table.append({"rows": n, "width": flags.width} | row)
                print(table[-1], flush=True)
    if flags.out:
        device = jax.devices()[0]
        about = {
            "device": device.device_kind, "platform": device.platform, "machine": platform.machine(), "jax": jax.__version__,
            "optax": optax.__version__, "python": platform.python_version(), "cores": os.cpu_count(), "load": os.getloadavg(),
            "dtype": "float32", "scale": scale, "trained": flags.trained, "tile": flags.tile, "repeats": flags.repeats,
        }  # fmt: skip
        pathlib.Path(flags.out).write_text(json.dumps(about | {"rows": table}, indent=1))
        draw_curves(table).savefig(pathlib.Path(flags.out).with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    main()
