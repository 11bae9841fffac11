"""Records per second of the input pipeline against a floor: gathering the same pictures from one array.

    python benchmarks/input.py [--config=configs/shapes.py] [--batches=200] [--out=benchmarks/results/input.json]
"""

import argparse
import json
import pathlib
import platform
import tempfile
import time

import numpy as np

from supcon_jax import config as configs
from supcon_jax.build.datasets import open_data


def rate(iterator, batch: int, count: int) -> float:
    """Records per second of `count` batches after ten to warm up."""
    for _ in range(10):
        next(iterator)
    began = time.perf_counter()
    for _ in range(count):
        next(iterator)
    return batch * count / (time.perf_counter() - began)


def floor(batch: int, size: int, views: int):
    """Batches of the same shape gathered from one array of random pictures: no pipeline can be faster."""
    pictures = np.random.default_rng(0).integers(0, 255, (2048, size, size, 3), np.uint8)
    rng = np.random.default_rng(0)
    while True:
        yield {"image": pictures[rng.integers(0, len(pictures), (batch, views))]}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="configs/shapes.py")
    parser.add_argument("--root", default="")
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--out", default="")
    flags = parser.parse_args()
    config = configs.load(flags.config)
    config.data.root = flags.root
    plain = configs.plain(config)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in plain["stages"]:
            batch, size = plain[name]["batch"], plain[name]["size"]
            for partner in ("none", "same_image", "same_label"):
                plain["data"]["partner"] = partner
                data = open_data(plain, pathlib.Path(folder))
                ours = rate(data.training(batch, size), batch, flags.batches)
                base = rate(floor(batch, size, 1 if partner == "none" else 2), batch, flags.batches)
                row = {"stage": name, "batch": batch, "size": size, "partner": partner, "records_per_s": round(ours)}
                rows.append(row | {"floor_records_per_s": round(base), "share_of_floor": round(ours / base, 3)})
                print(rows[-1], flush=True)
    if flags.out:
        about = {"config": flags.config, "machine": platform.machine(), "threads": plain["data"]["threads"], "rows": rows}
        pathlib.Path(flags.out).write_text(json.dumps(about, indent=1))


if __name__ == "__main__":
    main()
