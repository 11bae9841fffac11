"""How much of a training step the contrastive loss is: CLIP ViT-B/16 on many chips, and one small batch here.

    python benchmarks/share.py [--topology=v5e:16x16] [--batch=32768] [--here=8] [--out=benchmarks/results/share.json]

For the slice, compiled and not run: products (FLOP of all devices), temporaries of a device and the compiler's seconds of the
towers alone (their codes' squares stand for a loss), and of the loss alone by each door, value and gradients; `matrix` is the
usual distributed loss with keys gathered. On this machine, measured: the median of three steps of towers and loss, and of the
loss on ready codes. Towers compute in bfloat16 on the slice, each block again for its gradient, and in float32 here.
"""

import argparse
import json
import pathlib
import time

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from pod import DOORS

from supcon_jax.build import compile, cost
from supcon_jax.build.target import find
from supcon_jax.losses.contrast import info_nce_both, with_index
from supcon_jax.nets.clip import published
from supcon_jax.ops.arrays import unit
from supcon_jax.ops.rows import Rows, dense

NAME = "ViT-B-16"


def clip(x, y, scale, sums):
    """InfoNCE in both directions, as CLIP trains with. Radford et al. 2021, arXiv 2103.00020."""
    return sum(info_nce_both(with_index(Rows(x)), with_index(Rows(y)), scale=scale, sums=sums)) / 2


def towers(dtype, again):
    """(params, image, text) -> codes of unit length and scale. again: encode once more for the gradient."""
    module = published(NAME, dtype=dtype)

    def encode(params, image, text):
        (_, x), (_, y), scale = module.apply({"params": params}, image, text)
        return unit(x.astype(jnp.float32)), unit(y.astype(jnp.float32)), scale

    return module, jax.checkpoint(encode) if again else encode


def rows(n, module, sharding=None):
    """One batch in shape."""
    side, length = module.image.side, module.text.length
    image = jax.ShapeDtypeStruct((n, side, side, 3), jnp.bfloat16 if sharding else jnp.float32, sharding=sharding)
    return image, jax.ShapeDtypeStruct((n, length), jnp.int32, sharding=sharding)


def parameters(module):
    image, text = rows(2, module)
    made = jax.eval_shape(lambda key, *x: module.init(key, *x), jax.random.key(0), image, text)
    return made["params"]


def told(run, args, target) -> dict:
    """Products and memory of one program for the slice."""
    said = {"flop": cost.products(jax.make_jaxpr(run)(*args))}
    said |= compile.compiled(run.lower(*args), target)
    print({key: said[key] for key in ("flop", "fits", "needs", "memory", "compile_seconds")}, flush=True)
    return said


def on_slice(name: str, n: int) -> dict:
    target = find(name)
    mesh = target.mesh(n)
    split, whole = (NamedSharding(mesh, spec) for spec in (PartitionSpec("data"), PartitionSpec()))
    module, encode = towers(jnp.bfloat16, again=True)
    params = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=whole), parameters(module))

    def squares(params, image, text):
        x, y, scale = encode(params, image, text)
        return scale * (jnp.sum(x**2) + jnp.sum(y * x)) / n

    run = jax.jit(jax.value_and_grad(squares), out_shardings=whole)
    found = {"towers": told(run, (params, *rows(n, module, split)), target)}
    code = jax.ShapeDtypeStruct((n, module.image.embed), jnp.bfloat16, sharding=split)
    scale = jax.ShapeDtypeStruct((), jnp.float32, sharding=whole)
    for door in ("matrix", "gather", "ring"):
        loss = jax.value_and_grad(lambda x, y, s, door=door: clip(x, y, scale=s, sums=DOORS[door](mesh)), (0, 1, 2))
        found[door] = told(jax.jit(loss, out_shardings=(whole, (split, split, whole))), (code, code, scale), target)
        found[door]["share_of_flop"] = found[door]["flop"] / (found[door]["flop"] + found["towers"]["flop"])
    return {"topology": name, "batch": n, "devices": mesh.size, "run": False, "parts": found}


def here(n: int) -> dict:
    module, encode = towers(None, again=False)
    image, text = (jnp.ones(x.shape, x.dtype) for x in rows(n, module))
    params = jax.jit(module.init)(jax.random.key(0), image, text)["params"]

    def step(params):
        x, y, scale = encode(params, image, text)
        return clip(x, y, scale=scale, sums=dense)

    def loss(x, y):
        return clip(unit(x), unit(y), scale=14.3, sums=dense)

    codes = jax.random.normal(jax.random.key(1), (2, n, module.image.embed))
    ms = {}
    for name, f, args in (("step", step, (params,)), ("loss", loss, tuple(codes))):
        run = jax.jit(jax.value_and_grad(f, tuple(range(len(args)))))
        jax.block_until_ready(run(*args))
        times = []
        for _ in range(3):
            began = time.perf_counter()
            jax.block_until_ready(run(*args))
            times.append(1e3 * (time.perf_counter() - began))
        ms[name] = sorted(times)[1]
    return {"batch": n, "device": jax.devices()[0].device_kind, "run": True, "ms": ms, "share": ms["loss"] / ms["step"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topology", default="v5e:16x16", help="the slice; empty for none")
    parser.add_argument("--batch", type=int, default=32768)
    parser.add_argument("--here", type=int, default=8, help="pairs of the measured step; 0 for none")
    parser.add_argument("--out", default="", help="JSON; a part that is not made again stays")
    flags = parser.parse_args()
    out = pathlib.Path(flags.out) if flags.out else None
    found = json.loads(out.read_text()) if out and out.exists() else {}
    found |= {"network": NAME, "jax": jax.__version__}
    if flags.here:
        found["here"] = here(flags.here)
        print(found["here"], flush=True)
    if flags.topology:
        found["slice"] = on_slice(flags.topology, flags.batch)
    if out:
        out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
