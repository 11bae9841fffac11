"""Training steps of the methods that learn from pictures alone, against lightly in torch; views, against lightly and kornia.

    python benchmarks/unimodal.py [--peer-python=PYTHON] [--net resnet18 conv] [--methods simclr byol ...] [--rounds=5]
        [--steps=2] [--batch=128] [--views simclr:32:128 ...] [--out=benchmarks/results/ssl.json]

--peer-python: a Python with torch, lightly and, for views, kornia; without it ours alone is measured. Writes NAME.json and
NAME.md, and prints each row.

A step is forward, backward, optimiser and what follows (teacher, queue), on views that lie ready as floats: nothing is drawn
or augmented on either side. Networks, heads and optimiser (SGD with momentum) are those of `configs/image.py:METHOD,cifar10`
at 32 px; `--net=conv` takes the small network of `configs/image.py:METHOD` with its heads. Pictures per second: each is seen
in two views, by CMC and CPC in one. Ours is the whole step of a run, with its gates and signs of collapse, without the online
probe. PCL is measured between clusterings. Lightly has no SupCon loss, no CMC, no PIRL: SupCon's is written in torch, the
others have no peer; for MoCo v3 and CPC no peer is built.

Views: bytes to two normalised views of each picture. kornia: the same recipe on whole batches; lightly: its own transform of
that name (torchvision on Pillow pictures), in a worker process for each core.

One run, round after round: ours, then the peer, so that both meet the same machine. Medians over the rounds; the ratio is the
median of the rounds' own ratios.
"""

import argparse
import contextlib
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np

from supcon_jax import config as configs
from supcon_jax import core, shard
from supcon_jax.build import stage
from supcon_jax.methods import towers
from supcon_jax.nets.init import on_host
from supcon_jax.report.tables import table
from supcon_jax.train import loop
from supcon_jax.views import colour, recipes

LIGHTLY = ("simclr", "supcon", "moco_v2", "byol", "simsiam", "swav", "barlow", "vicreg", "dcl")
METHODS = (*LIGHTLY, "pcl", "cmc", "pirl", "cpc", "moco_v3")
VIEWS = tuple(f"{recipe}:{size}" for size in ("32:128", "224:16") for recipe in ("simclr", "moco_v2", "byol"))
PEERS = ("kornia", "lightly")
SIDE = {32: 32, 224: 256}  # pixels of the pictures that views are cut from
COLUMNS = ("what", "net", "batch", "peer", "ours_per_s", "peer_per_s", "ours_of_peer", "ours_range", "peer_range")
STEPS = {"resnet18": 1, "conv": 8}  # of a round
SEED = 0


class Peer:
    """The other Python, which answers each request with one line."""

    def __init__(self, python, threads):
        file = pathlib.Path(__file__).with_name("unimodal_peer.py")
        self.process = subprocess.Popen(
            [python, str(file), str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, do, **more):
        self.process.stdin.write(json.dumps({"do": do, **more}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the peer ended while asked to {do}: what it says stands above")
        return json.loads(line)

    def run(self, steps):
        return self.ask("run", steps=steps)["seconds"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


# ---- ours


def section_of(name, net, batch):
    """(plain config, stage) of a method at the sizes of this benchmark."""
    quick, wide = (configs.plain(configs.load(f"configs/image.py:{words}")) for words in (name, f"{name},cifar10"))
    (of,) = quick["stages"]
    quick[of]["optim"] = {"model": wide[of]["optim"]["model"]}  # no probe
    if net == "resnet18":
        quick[of] |= {key: wide[of][key] for key in ("nets", "args")}
        quick[of]["nets"]["image"]["groups"] = 1  # the peer's BatchNorm is of the whole batch
    quick[of]["args"]["size"] = quick["data"]["size"]
    if "recipe" in quick[of]["args"] and name == "swav":
        quick[of]["args"]["recipe"] = "swav_two"
    quick["batch"] = quick[of]["batch"] = batch
    return quick, of


def stepper(plain, of, folder):
    """(a function of a count that takes so many steps, the labels of its batch, parameters, compile seconds)."""
    this = stage.build(plain, of, folder, evaluate=False).run
    batch, size = next(this.data()), plain[of]["args"]["size"]
    views = np.random.default_rng(SEED).standard_normal((len(batch["image"]), 2, size, size, 3), np.float32)
    batch = {**batch, "views": views}
    with ready_views():
        state = on_host(lambda key, batch: core.init_state(this.task, key, batch), jax.random.key(SEED), batch)
        held = {"state": shard.lay(state, this.mesh, this.split)}
        batch, frozen = shard.place(batch, this.mesh), shard.lay(this.frozen, this.mesh, this.split)
        began = time.perf_counter()
        step = loop.stepper(this.task, this.mesh, held["state"]).lower(held["state"], frozen, batch).compile()
    took = time.perf_counter() - began

    def run(steps):
        began = time.perf_counter()
        for _ in range(steps):
            held["state"], _ = step(held["state"], frozen, batch)
        jax.block_until_ready(held["state"])
        return time.perf_counter() - began

    learned = sum(x.size for x in jax.tree.leaves(held["state"].params))
    return run, np.asarray(batch["label"])[:, 0], learned, took


@contextlib.contextmanager
def ready_views():
    """While a step is traced the views are those that lie in the batch."""
    drawn = towers.views
    towers.views = lambda batch, key, **_: (batch["views"],)
    try:
        yield
    finally:
        towers.views = drawn


def viewer(recipe, size, batch):
    """A function of a count that draws views of so many batches."""
    side = SIDE.get(size, size)
    images = jax.numpy.asarray(np.random.default_rng(SEED).integers(0, 256, (batch, side, side, 3), np.uint8))
    drawn = jax.jit(lambda images, key: recipes.crops(images, key, recipe=recipe, size=size))
    keys = list(jax.random.split(jax.random.key(SEED), 64))

    def run(steps):
        began = time.perf_counter()
        for i in range(steps):
            out = drawn(images, keys[i % len(keys)])
        jax.block_until_ready(out)
        return time.perf_counter() - began

    return run


def told(recipe, size, batch):
    """A recipe as the peer needs it."""
    made = recipes.RECIPES[recipe]
    fields = [{name: getattr(view, name) for name in view.__dataclass_fields__} for view in made.views]
    for one in fields:
        one["taps"] = one["taps"] or colour.taps(size)
    shape = {"recipe": recipe, "size": size, "side": SIDE.get(size, size), "batch": batch}
    return {**shape, "views": fields, "norm": recipes.NORMS[made.norm]}


# ---- both, in turn


def in_turn(sides, rounds, steps):
    """{side: seconds of each round}, after one round that does not count."""
    times = {name: [] for name in sides}
    for at in range(rounds + 1):
        for name, run in sides.items():
            spent = run(steps) / steps
            if at:
                times[name].append(spent)
    return times


def row(times, count, **about):
    """Figures of one comparison; count: pictures, or views, of one step."""
    ours, peer = times["ours"], times.get("peer")

    def told(spent):
        return {"per_s": round(count / statistics.median(spent), 1), "ms": [round(1e3 * x, 2) for x in spent],
                "range": f"{count / max(spent):.0f} to {count / min(spent):.0f}"}  # fmt: skip

    found = {**about, **{f"ours_{key}": value for key, value in told(ours).items()}}
    if peer:
        found |= {f"peer_{key}": value for key, value in told(peer).items()}
        found["ours_of_peer"] = round(statistics.median(b / a for a, b in zip(ours, peer, strict=True)), 2)
    return found


def method_row(name, net, flags, peer, folder):
    plain, of = section_of(name, net, flags.batch)
    ours, label, learned, took = stepper(plain, of, folder)
    sides, about = {"ours": ours}, {"parameters": learned, "compile_s": round(took, 1)}
    if peer and name in LIGHTLY:
        section = plain[of]
        spec = {"method": name, "net": net, "nets": section["nets"], "args": section["args"], "size": section["args"]["size"],
                "optim": section["optim"]["model"], "batch": flags.batch, "label": label.tolist(),
                "layout": flags.peer_layout}  # fmt: skip
        about["peer_parameters"] = peer.ask("step", **spec)["parameters"]
        sides["peer"] = peer.run
    times = in_turn(sides, flags.rounds, flags.steps or STEPS[net])
    shared = {"what": name, "net": net, "batch": flags.batch, "peer": "lightly" if "peer" in sides else None}
    return row(times, flags.batch, **shared, **about)


def views_rows(one, flags, peer):
    recipe, size, batch = one.split(":")
    size, batch = int(size), int(batch)
    ours = viewer(recipe, size, batch)
    for tool in PEERS if peer else ("",):
        sides = {"ours": ours}
        if tool:
            peer.ask(tool, **told(recipe, size, batch))
            sides["peer"] = peer.run
        times = in_turn(sides, flags.rounds, flags.view_steps)
        yield row(times, 2 * batch, what=f"views {recipe}, {size} px", net=None, batch=batch, peer=tool or None)


def write(out, about, rows):
    """NAME.json and NAME.md."""
    out = pathlib.Path(out)
    out.write_text(json.dumps(about | {"rows": rows}, indent=1))
    versions = ", ".join(f"{name} {value}" for name, value in about["versions"].items() if value)
    said = f"`{about['command']}`, {about['cores']} cores, {versions}. Load before: {about['load'][0]:.1f}."
    titles = {"ours_per_s": "ours, 1/s", "peer_per_s": "peer, 1/s", "ours_of_peer": "ours / peer",
              "ours_range": "rounds of ours", "peer_range": "rounds of the peer"}  # fmt: skip
    columns = {name: titles.get(name, name) for name in COLUMNS}
    parts = ["# Steps and views of the unimodal methods", said]
    for title, found in (
        ("Pictures per second of a training step, each seen in two views (CMC, CPC: one)", [r for r in rows if r["net"]]),
        ("Views per second", [{k: v for k, v in r.items() if k != "net"} for r in rows if not r["net"]]),
    ):
        if found:
            shown = {k: v for k, v in columns.items() if any(r.get(k) is not None for r in found)}
            parts += [f"## {title}", table(found, shown).rstrip()]
    if not about["peer"]:
        parts.append("Without a peer: `--peer-python` names a Python that has lightly.")
    out.with_suffix(".md").write_text("\n\n".join(parts) + "\n")


def flags_of(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", default="", help="a Python with torch, lightly and kornia")
    parser.add_argument("--peer-layout", choices=("contiguous", "channels_last"), default="channels_last", help="of its images")
    parser.add_argument("--net", nargs="*", choices=("resnet18", "conv"), default=["resnet18", "conv"])
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=METHODS)
    parser.add_argument("--views", nargs="*", default=VIEWS, help="RECIPE:PIXELS:BATCH; none: no views")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=0, help="of a round; by the network if left out")
    parser.add_argument("--view-steps", type=int, default=8, help="batches of a round")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--out", default="")
    return parser.parse_args(words)


def main(words=None):
    flags = flags_of(words)
    load, cores = os.getloadavg(), os.cpu_count()
    peer = Peer(flags.peer_python, cores) if flags.peer_python else None
    versions = {"jax": jax.__version__} | (peer.ask("versions") if peer else {})
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for net in flags.net:
            for name in flags.methods:
                rows.append(method_row(name, net, flags, peer, pathlib.Path(folder)))
                print(rows[-1], flush=True)
    for one in flags.views:
        for found in views_rows(one, flags, peer):
            rows.append(found)
            print(rows[-1], flush=True)
    if peer:
        peer.close()
    if flags.out:
        command = " ".join(["python benchmarks/unimodal.py", *(sys.argv[1:] if words is None else words)])
        about = {
            "command": command, "device": jax.devices()[0].device_kind, "cores": cores, "load": load,
            "machine": platform.machine(), "versions": versions, "peer": bool(peer), "peer_layout": flags.peer_layout,
        }  # fmt: skip
        write(flags.out, about, rows)


if __name__ == "__main__":
    main()
