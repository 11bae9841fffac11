"""Images per second of every stage, compile seconds, peak memory and the share of time spent waiting for input.

    python benchmarks/train.py [--config configs/shapes.py ...] [--steps=30] [--slices=16] [--terms [--batch 8 16 32]]
        [--clip=small] [--out=benchmarks/results/train.json]

The floor in the same run: the same step fed with one batch that lies on the device already. With --slices, stages that can
encode in slices are measured again with so many times the batch in so many slices; what that keeps of the images per
second is 3/4 where all time goes to the encoders and a backward pass costs two forward passes. With --terms, stages with
two branches are measured again without the label term, and with one branch: a few steps of each in turn, so that all meet
the same machine, and the median over the rounds; --batch does so at each of these batches. A stage of several configs is
measured once. --clip stands for a CLIP file where a config asks for one: random weights, of the size of ViT-B/32 or of a
small one for 32 px; speed does not depend on weights.
"""

import argparse
import dataclasses
import json
import pathlib
import platform
import resource
import statistics
import sys
import tempfile
import time

import jax
import numpy as np

from supcon_jax import config as configs
from supcon_jax import core, shard
from supcon_jax.build import clip, run, stage, weights
from supcon_jax.data.bpe import Bpe
from supcon_jax.nets.clip import CLIP, ImageTransformer, TextTransformer, published
from supcon_jax.nets.init import on_host
from supcon_jax.train import loop

SMALL = CLIP(ImageTransformer(64, 32, 8, 64, 12, 2), TextTransformer(64, 514, 77, 64, 4, 2))  # 514: bytes alone
TERMS = {"two branches, label term": {}, "two branches": {"scl": 0.0}, "one branch": {"scl": 0.0, "branches": 1}}
ROUNDS = 5


@dataclasses.dataclass
class Ready:
    """A built stage with its compiled step, its state and one batch on the device."""

    built: stage.Stage
    data: object
    state: core.State
    frozen: dict
    batch: dict
    step: object
    traced: float
    compiled: float

    def still(self, steps: int) -> float:
        """Seconds of so many steps on the batch that lies there."""
        start = time.perf_counter()
        for _ in range(steps):
            self.state, _ = self.step(self.state, self.frozen, self.batch)
        jax.block_until_ready(self.state.step)
        return time.perf_counter() - start

    def fed(self, steps: int) -> tuple[float, float]:
        """(seconds of so many steps on new batches, seconds of them spent waiting for input)."""
        waited, start = 0.0, time.perf_counter()
        for _ in range(steps):
            asked = time.perf_counter()
            batch = shard.place(next(self.data), self.built.run.mesh)
            waited += time.perf_counter() - asked
            self.state, metrics = self.step(self.state, self.frozen, batch)
            jax.block_until_ready(metrics)
        return time.perf_counter() - start, waited

    @property
    def temporaries(self) -> float:
        """MiB of the program, beside its arguments."""
        return round(self.step.memory_analysis().temp_size_in_bytes / 2**20, 1)


def ready(built: stage.Stage) -> Ready:
    """Compiles the step and takes it once."""
    this = built.run
    data = this.data()
    state = on_host(lambda key, batch: core.init_state(this.task, key, batch), jax.random.key(this.seed), next(data))
    state, frozen = (shard.lay(tree, this.mesh, this.split) for tree in (state, this.frozen))
    batch = shard.place(next(data), this.mesh)
    began = time.perf_counter()
    step = loop.stepper(this.task, this.mesh, state).lower(state, frozen, batch)
    traced = time.perf_counter()
    step = step.compile()
    compiled = time.perf_counter()
    made = Ready(built, data, state, frozen, batch, step, traced - began, compiled - traced)
    made.still(1)
    return made


def measure(built: stage.Stage, steps: int) -> dict:
    """The figures of one built stage. Images count both branches."""
    this, made = built.run, ready(built)
    still = made.still(steps)
    fed, waited = made.fed(steps)
    stats = jax.local_devices()[0].memory_stats() or {}
    return {
        "stage": this.name, "images_per_step": this.images, "trace_s": round(made.traced, 2),
        "compile_s": round(made.compiled, 2), "step_ms": round(1e3 * fed / steps, 2),
        "step_ms_without_input": round(1e3 * still / steps, 2), "images_per_s": round(this.images * steps / fed, 1),
        "input_wait_share": round(waited / fed, 4), "share_of_floor": round(still / fed, 3),
        "program_temp_mib": made.temporaries,
        "peak_device_mib": round(stats.get("peak_bytes_in_use", 0) / 2**20, 1) or None,
        "peak_process_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10, 1),
    }  # fmt: skip


def compare(plain: dict, name: str, folder: pathlib.Path, steps: int, batch: int) -> list[dict]:
    """Figures of a stage with and without label term and second branch, without input; the last row is the floor."""
    made = {kind: ready(stage.build(changed(plain, name, args=more, batch=batch), name, folder, evaluate=False))
            for kind, more in TERMS.items()}  # fmt: skip
    each = max(1, steps // ROUNDS)
    times = {kind: [] for kind in made}
    for _ in range(ROUNDS):
        for kind, one in made.items():
            times[kind].append(1e3 * one.still(each) / each)
    middle = {kind: statistics.median(found) for kind, found in times.items()}
    floor = middle["one branch"]
    return [
        {
            "stage": name, "terms": kind, "batch": batch, "images_per_step": one.built.run.images,
            "step_ms": round(middle[kind], 2),
            "step_ms_lowest": round(min(times[kind]), 2), "step_ms_highest": round(max(times[kind]), 2),
            "images_per_s": round(1e3 * one.built.run.images / middle[kind], 1),
            "program_temp_mib": one.temporaries, "of_one_branch": round(middle[kind] / floor, 3),
            "memory_of_one_branch": round(one.temporaries / made["one branch"].temporaries, 3),
            "of_two_branches": round(middle[kind] / middle["two branches"], 3),
        }
        for kind, one in made.items()
    ]  # fmt: skip


def changed(plain: dict, name: str, *, args=(), **section) -> dict:
    """The config with other values of a stage."""
    other = json.loads(json.dumps(plain))
    other[name] |= section
    other[name]["args"] |= dict(args)
    return other


def random_clip(size: str, folder: pathlib.Path) -> str:
    """A file of a CLIP of that size, with random weights and a vocabulary of bytes."""
    module, rng = SMALL if size == "small" else published(size), np.random.default_rng(0)

    def draw(shape):
        wide = np.prod(shape.shape[:-1]) if len(shape.shape) > 1 else 400  # vectors: biases and scales, about zero and one
        return (rng.standard_normal(shape.shape) / np.sqrt(wide)).astype(np.float32)

    tree = jax.tree_util.tree_map_with_path(lambda path, x: draw(x) + (path[-1].key == "scale"), clip.blank(module))
    about = {"kind": "clip", "nets": {"clip": clip.described(module)}, "vocab": Bpe.from_pairs([]).plain()}
    weights.save(folder / "clip.safetensors", tree, about)
    return str(folder / "clip.safetensors")


def rows_of(plain: dict, flags, folder: pathlib.Path, seen: dict):
    """Measures the stages of a config that no config before had; yields rows."""
    for name in plain["stages"]:
        known = seen.get(name) == plain[name]
        seen[name] = plain[name]
        if not known:
            row = measure(stage.build(plain, name, folder, evaluate=False), flags.steps)
            yield row
            if flags.slices and "slices" in plain[name]["args"]:
                larger = changed(plain, name, batch=plain[name]["batch"] * flags.slices, args={"slices": flags.slices})
                more = measure(stage.build(larger, name, folder, evaluate=False), max(3, flags.steps // flags.slices))
                share = round(more["images_per_s"] / row["images_per_s"], 3)
                yield more | {"slices": flags.slices, "share_of_whole": share}
            if flags.terms and plain[name]["args"].get("branches") == 2:
                for batch in flags.batch or [plain[name]["batch"]]:
                    yield from compare(plain, name, folder, flags.steps, batch)
        if name != plain["stages"][-1]:  # the next stage needs this one's weights; two steps make them
            short = changed(plain, name, steps=2)
            short["evals"] = {}
            run.train_stage(short, name, folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", nargs="+", default=["configs/shapes.py"])
    parser.add_argument("--root", default="")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--slices", type=int, default=0, help="also with so many times the batch in so many slices")
    parser.add_argument("--terms", action="store_true", help="also without the label term, and with one branch")
    parser.add_argument("--batch", type=int, nargs="+", help="batches of --terms, the config's own if left out")
    parser.add_argument("--clip", choices=("small", "ViT-B-32"), default="small", help="size of the random CLIP")
    parser.add_argument("--out", default="")
    flags = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)  # compile seconds are what is measured
    rows, seen = [], {}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for place in flags.config:
            config = configs.load(place)
            config.data.root = flags.root
            plain = configs.plain(config)
            own = folder / str(plain["data"]["words"])  # stages of one data set share their folder
            own.mkdir(exist_ok=True)
            for name in plain["stages"]:
                if plain[name]["frozen"].get("clip") == "":
                    plain[name]["frozen"]["clip"] = random_clip(flags.clip, folder)
            for row in rows_of(plain, flags, own, seen):
                rows.append({"config": place, **row})
                print(rows[-1], flush=True)
    if flags.out:
        command = " ".join(["python", *sys.argv])
        about = {"command": command, "device": jax.devices()[0].device_kind, "devices": jax.device_count()}
        about |= {"machine": platform.machine(), "jax": jax.__version__}
        pathlib.Path(flags.out).write_text(json.dumps(about | {"rows": rows}, indent=1))


if __name__ == "__main__":
    main()
