"""What the tests of the methods of one modality share: tiny nets, a batch, states after some steps, codes made by hand."""

import functools

import jax
import numpy as np

from gans import tiny
from supcon_jax import core, shard
from supcon_jax.build.names import resolve
from supcon_jax.methods import METHODS
from supcon_jax.methods.cpc import cpc_audio
from supcon_jax.nets import heads
from supcon_jax.nets.audio import WaveEncoder
from supcon_jax.nets.backbone import ConvTrunk, ViTTrunk, lab_trunk
from supcon_jax.nets.cpc import RowContext, patch_grid
from supcon_jax.nets.init import on_host
from supcon_jax.ops import rows
from supcon_jax.ops.sharded import gather
from supcon_jax.train import optim
from supcon_jax.views import recipes

N, SIZE, RECORDS, CLASSES, D, STEPS, EPOCH = 8, 12, 20, 3, 5, 4, 2
PLAIN = (("jitter", (0.0,) * 4), ("gray", 0.0), ("blur", 0.0), ("solarize", 0.0))  # crops and mirrors alone compile quickly
NAMES = ("simclr", "fnc", "supcon", "moco", "moco3", "byol", "simsiam", "swav", "pcl", "cmc", "pirl", "cpc", "barlow", "vicreg")
OPTIONS = {
    "simclr": {"temperature": 0.2}, "supcon": {"temperature": 0.2},
    "fnc": {"recipe": "shapes", "support": 1, "queue": 2 * N, "momentum": 0.7, "most": 3, "threshold": 0.9},
    "moco": {"recipe": "shapes", "queue": 2 * N, "momentum": 0.7},
    "moco3": {"recipe": "shapes", "temperature": 0.5, "momentum": 0.7}, "byol": {"recipe": "shapes", "momentum": 0.7},
    "simsiam": {"recipe": "shapes"}, "swav": {"small": 6, "prototypes": 7, "queue": 2 * N, "eps": 0.2},
    "pcl": {"recipe": "shapes", "queue": 2 * N, "momentum": 0.7, "counts": (3, 4), "drawn": 2, "start": 1, "starts": 1,
            "rounds": 20},
    "cmc": {"temperature": 0.3, "drawn": 6}, "pirl": {"recipe": "shapes", "temperature": 0.3, "drawn": 6, "patch": 3},
    "cpc": {"recipe": "shapes", "ahead": 2}, "barlow": {"recipe": "shapes"}, "vicreg": {"recipe": "shapes"},
    "student": {"recipe": "shapes", "queue": 2 * N}, "finetune": {"recipe": "shapes"}, "distil": {"recipe": "shapes"},
}  # fmt: skip


def trunk(**more):
    return ConvTrunk(**{"width": 6, "depth": 1} | more)


def nets_of(name, **more):
    """The smallest nets that have every part of a method's. more: options of the trunk."""
    if name == "cmc":
        return {"image": lab_trunk("conv", 1, 4, **more), "project": heads.LabHead(D)}
    if name == "cpc":
        return {"image": patch_grid("conv", 1, 6, 6, 3, **more), "context": RowContext(4, 1)}
    one = {
        "simclr": {"project": heads.simclr(D)}, "fnc": {"project": heads.simclr(D)},
        "supcon": {"project": heads.moco2(D)}, "moco": {"project": heads.moco2(D)},
        "moco3": {"project": heads.moco3(D, 6), "predict": heads.moco3_predictor(D, 6)},
        "byol": {"project": heads.byol(D, 6), "predict": heads.byol(D, 6)},
        "simsiam": {"project": heads.simsiam(D, 0, 2), "predict": heads.simsiam_predictor(D, 4)},
        "swav": {"project": heads.swav(D, 6)}, "pcl": {"project": heads.moco2(D)},
        "pirl": {"project": heads.moco(D), "patches": heads.PatchHead(D)},
        "barlow": {"project": heads.barlow(D, 6)}, "vicreg": {"project": heads.vicreg(D, 6)},
        "student": {"project": heads.moco2(D), "teacher/image": trunk(width=7), "teacher/project": heads.moco(D)},
        "finetune": {"project": heads.simclr(D)}, "distil": {"teacher/image": trunk(width=7)},
    }  # fmt: skip
    return {"image": trunk(**more), **one[name]}


def vit():
    """MoCo v3's nets around a small transformer, whose projection of patches stays as it was drawn."""
    return {**nets_of("moco3"), "image": ViTTrunk(patch=4, width=8, depth=1, heads=2, hidden=12)}


def adamw():
    """MoCo v3's optimiser, decay and all. The large epsilon keeps rounding small where a gradient is 0 but for rounding, as
    those of the keys' bias, which no softmax sees, and of the last bias, which a BatchNorm takes away."""
    return optim.optimiser({"name": "adamw", "lr": 1e-2, "weight_decay": 0.1, "eps": 1e-3}, steps=STEPS, epoch=EPOCH)


def sounding(devices=1, tx=None):
    """CPC on waves, on a tiny encoder."""
    net = WaveEncoder(4, 5, (2, 2), (3, 3))
    return cpc_audio({"audio": net}, {"model": tx or tiny.keeping()["model"]}, about(devices), samples=32, ahead=3)


def waves(seed=0, n=N):
    """A batch of sound."""
    return {"audio": np.random.default_rng(seed).standard_normal((n, 40)).astype(np.float32)}


def about(devices=1, records=RECORDS):
    mesh = shard.data_mesh(devices)
    return core.About(records, CLASSES, None, STEPS, EPOCH, gather(mesh) if devices > 1 else rows.dense, mesh)


def made(name, devices=1, nets=None, tx=None, records=RECORDS, **options):
    """The method's task on its tiny nets; its optimiser keeps the last gradient as its state."""
    function = resolve(METHODS, name, "method")
    given = {"size": SIZE, "change": PLAIN} | OPTIONS[name] | options
    return function(nets or nets_of(name), {"model": tx or tiny.keeping()["model"]}, about(devices, records), **given)


def pictures(seed=0, n=N, label=None):
    """A batch of one modality: smooth random pictures, labels, records in no order."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (n, 1, 4, 4, 3)).repeat(3, 2).repeat(3, 3)
    image = np.clip(coarse + rng.integers(-20, 20, (n, 1, SIZE, SIZE, 3)), 0, 255).astype(np.uint8)
    label = rng.integers(CLASSES, size=(n, 1)).astype(np.int32) if label is None else label
    return {"image": image, "label": label, "index": rng.permutation(RECORDS)[:n, None].astype(np.int32)}


def begin(task, batch, seed=0):
    """The state before the first step, as the loop draws it."""
    return on_host(lambda key, batch: core.init_state(task, key, batch), jax.random.key(seed), batch)


def walk(task, batches, frozen=None):
    """(states, metrics): the state before the first step and after each one, and what each step told."""
    frozen, states, told = frozen or {}, [begin(task, batches[0])], []
    step = tiny.stepper(task, states[0], frozen, batches[0])
    for batch in batches:
        state, metrics = step(states[-1], frozen, batch)
        states.append(state)
        told.append(jax.device_get(metrics))
    return states, told


def drawn(batch, key, name, **more):
    """The method's views of a batch, by its recipe."""
    given = {"recipe": {"simclr": "simclr", "supcon": "supcon_cifar", "swav": "swav", "cmc": "cmc"}.get(name, "shapes")} | more
    return recipes.crops(batch["image"][:, 0], key, size=SIZE, small=6, change=dict(PLAIN), **given)


def key_of(state):
    """The key of the step that a state is about to make."""
    return jax.random.fold_in(state.key, state.step)


def through(nets, params, stats, x, *names):
    """Each net in training on what the one before it gives: (what each gives, averages after)."""
    out, new = {}, {}
    for name in names:
        variables = {"params": params[name], "batch_stats": stats.get(name, {})}
        x, seen = nets[name].apply(variables, x, train=True, mutable=["batch_stats"])
        out[name], new[name] = x, seen.get("batch_stats", {})
    return out, {**stats, **new}


def ran(fn, *args):
    """fn(*args) compiled, once for each function, on the host."""
    return jax.device_get(jax.jit(fn, compiler_options=tiny.QUICK)(*args))


def exact(x):
    """Rows of length one in float64."""
    x = np.asarray(x, np.float64)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def idle(state, owner="model"):
    """Paths of the parameters that the last gradient did not move, beside rounding."""
    found = jax.tree_util.tree_leaves_with_path(jax.device_get(state.opt[owner]))
    largest = max(np.abs(g).max() for _, g in found)
    return {"/".join(k.key for k in path) for path, g in found if np.abs(g).max() < 1e-6 * largest}


@functools.cache
def world(name, steps=2, **options):
    """(batches, task, states, metrics) of some steps on different batches, made once for each file."""
    batches, task = [pictures(seed) for seed in range(steps)], made(name, **options)
    return batches, task, *walk(task, batches)


def features_of(task, state, batch):
    """The head's codes of whole pictures."""
    return ran(lambda s, b: task.heads["features"](s, {}, b, None), state, {"image": batch["image"][:, 0]})
