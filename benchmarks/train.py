"""Images per second of every stage, compile seconds, peak memory and the share of time spent waiting for input.

    python benchmarks/train.py [--config=configs/shapes.py] [--steps=30] [--slices=16] [--out=benchmarks/results/train.json]

The floor in the same run: the same step fed with one batch that lies on the device already. With --slices, stages that can
encode in slices are measured again with so many times the batch in so many slices; what that keeps of the images per
second is 3/4 where all time goes to the encoders and a backward pass costs two forward passes.
"""

import argparse
import json
import pathlib
import platform
import resource
import tempfile
import time

import jax

from supcon_jax import config as configs
from supcon_jax import core, shard
from supcon_jax.build import run, stage
from supcon_jax.nets.init import on_host
from supcon_jax.train import loop


def measure(built: stage.Stage, steps: int) -> dict:
    """The figures of one built stage. Images count both branches."""
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
    memory = step.memory_analysis()
    state, _ = step(state, frozen, batch)
    jax.block_until_ready(state.step)
    start = time.perf_counter()
    for _ in range(steps):
        state, _ = step(state, frozen, batch)
    jax.block_until_ready(state.step)
    still = time.perf_counter() - start
    waited, start = 0.0, time.perf_counter()
    for _ in range(steps):
        asked = time.perf_counter()
        batch = shard.place(next(data), this.mesh)
        waited += time.perf_counter() - asked
        state, metrics = step(state, frozen, batch)
        jax.block_until_ready(metrics)
    fed = time.perf_counter() - start
    stats = jax.local_devices()[0].memory_stats() or {}
    return {
        "stage": this.name, "images_per_step": this.images, "trace_s": round(traced - began, 2),
        "compile_s": round(compiled - traced, 2), "step_ms": round(1e3 * fed / steps, 2),
        "step_ms_without_input": round(1e3 * still / steps, 2), "images_per_s": round(this.images * steps / fed, 1),
        "input_wait_share": round(waited / fed, 4), "share_of_floor": round(still / fed, 3),
        "program_temp_mib": round(memory.temp_size_in_bytes / 2**20, 1),
        "peak_device_mib": round(stats.get("peak_bytes_in_use", 0) / 2**20, 1) or None,
        "peak_process_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10, 1),
    }  # fmt: skip


def enlarged(plain: dict, name: str, slices: int) -> dict:
    """The config with `slices` times the stage's batch, encoded in as many parts."""
    larger = json.loads(json.dumps(plain))
    larger[name]["batch"] *= slices
    larger[name]["args"]["slices"] = slices
    return larger


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="configs/shapes.py")
    parser.add_argument("--root", default="")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--slices", type=int, default=0, help="also with so many times the batch in so many slices")
    parser.add_argument("--out", default="")
    flags = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)  # compile seconds are what is measured
    config = configs.load(flags.config)
    config.data.root = flags.root
    plain, rows = configs.plain(config), []
    with tempfile.TemporaryDirectory() as folder:
        for name in plain["stages"]:
            rows.append(measure(stage.build(plain, name, pathlib.Path(folder), evaluate=False), flags.steps))
            print(rows[-1], flush=True)
            if flags.slices and "slices" in plain[name]["args"]:
                larger = stage.build(enlarged(plain, name, flags.slices), name, pathlib.Path(folder), evaluate=False)
                row = measure(larger, max(3, flags.steps // flags.slices)) | {"slices": flags.slices}
                rows.append(row | {"share_of_whole": round(row["images_per_s"] / rows[-1]["images_per_s"], 3)})
                print(rows[-1], flush=True)
            if name != plain["stages"][-1]:  # the next stage needs this one's weights; two steps make them
                short = json.loads(json.dumps(plain))
                short[name]["steps"], short["evals"] = 2, {}
                run.train_stage(short, name, pathlib.Path(folder))
    if flags.out:
        device = jax.devices()[0].device_kind
        about = {"config": flags.config, "device": device, "devices": jax.device_count(), "machine": platform.machine()}
        pathlib.Path(flags.out).write_text(json.dumps(about | {"jax": jax.__version__, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
