"""Pretrained trunks of encoders: fixed ones, and those that training begins with.

| net | config.STAGE.frozen | what is read where nothing is given |
|---|---|---|
| inception | trunk | needs a file while it is frozen, else begins anew |
| effnet_lite0 | trunk | the weights that `python -m supcon_jax.data.fetch effnet_lite0` brings |
| resnet | trunk | needs a file while it is frozen, else begins anew |
| clip_image | trunk | needs a file |
| bert | text_trunk | the folder that `python -m supcon_jax.data.fetch minilm` brings |
| clip_text | text_trunk | needs a file |

A trunk says what its net takes from it ({"trunk": fields}) and, of a text encoder, which vocabulary it reads.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp

from supcon_jax import core, storage
from supcon_jax.build import clip, networks, weights
from supcon_jax.build.names import net
from supcon_jax.config import UserError
from supcon_jax.convert import bert as foreign_bert
from supcon_jax.convert import efficientnet, inception, rename, resnet, tensors
from supcon_jax.data import fetch
from supcon_jax.data.wordpiece import END, PAD, START, UNKNOWN, WordPiece
from supcon_jax.nets.bert import Bert
from supcon_jax.nets.efficientnet import EfficientNetLite0

OF = {"trunk": "image", "text_trunk": "text"}  # key in config.STAGE.frozen -> whose trunk it is
TEXTS = ("bert", "clip_text")
ANEW = ("inception", "resnet")  # nets that may also begin with drawn weights
PRETRAINED = ("effnet_lite0", "clip_image", *TEXTS)
GOOGLE = "torchvision's inception_v3_google weights (.pth or .safetensors)", "inception", inception.torchvision
TORCHVISION = {  # net -> what is asked for, its kind after --mode=convert, rules
    "inception": GOOGLE, "inception_classifier": GOOGLE,
    "resnet": ("torchvision's weights of that ResNet (.pth or .safetensors)", "resnet", resnet.torchvision),
}  # fmt: skip
MINILM = {"vocab": 30522, "length": 512, "width": 384, "depth": 6, "heads": 12, "hidden": 1536, "eps": 1e-12, "act": "gelu"}


def load(config: dict, name: str, key: str) -> tuple[dict, dict, str] | None:
    """(variables, {"trunk": fields, "vocab"}, sha256) of a stage's trunk, None if its net has none to read.

    Raises UserError: a file that is needed and not there, or that holds another network; captions too long for it.
    """
    options, place = config[name]["nets"][OF[key]], config[name]["frozen"][key]
    kind = options["net"]
    if place and kind not in READ:
        raise UserError(f"config.{name}.frozen.{key}={place!r}, but config.{name}.nets.{OF[key]}.net={kind!r} has no trunk: "
                        f"leave it empty, or use one of {', '.join(READ)}")
    if kind not in PRETRAINED and not (kind in ANEW and (fixed(config, name, key) or place)):
        return None
    if (kind in TEXTS) != (key == "text_trunk"):
        raise UserError(f"config.{name}.nets.{OF[key]}.net={kind!r} does not read {OF[key]}s")
    found = READ[kind](config, name, place)
    length = found[1].get("trunk", {}).get("length", config["data"]["words"])
    if key == "text_trunk" and not 3 <= config["data"]["words"] <= length:
        raise UserError(f"config.data.words={config['data']['words']}: {kind} reads 3 to {length} tokens, two of which begin "
                        "and end the text")
    return found


def fixed(config: dict, name: str, key: str) -> bool:
    """Whether a stage's trunk is no part of what learns."""
    options = config[name]["nets"].get(OF[key], {})
    return bool(options.get("frozen", options.get("net") in (*PRETRAINED, "resnet")))


def fitted(options: dict, key: str, towers: dict) -> dict:
    """Options of the net `key` with the fields of its trunk. towers: what the files of the stage's towers say, by name."""
    trunk = next((name for name, of in OF.items() if of == key), None)
    return options | {kind: fields for kind, fields in towers.get(trunk, {}).items() if kind == "trunk"}


def told(nets: dict) -> dict:
    """What `load` says of the trunks, by key, as the weight file of trained encoders tells it in its nets."""
    return {key: {"trunk": nets[of]["trunk"]} for key, of in OF.items() if "trunk" in nets.get(of, {})}


def torchvision(config: dict, name: str, place: str):
    wanted = TORCHVISION[config[name]["nets"]["image"]["net"]][0]
    if fixed(config, name, "trunk") and (not place or not storage.place(place).is_file()):
        missing = f" ({place} is missing)" if place else ""
        raise UserError(
            f"{name}.nets.image.frozen=True needs {wanted}: give --config.{name}.frozen.trunk=FILE"
            f"{missing}, or train the trunk with --config.{name}.nets.image.frozen=False"
        )
    return from_file(config, name, "trunk"), {}, tensors.sha256(place)


def from_file(config: dict, name: str, key: str) -> dict:
    """The trunk of a stage's image net from the file of torchvision's names that config.STAGE.frozen names under `key`."""
    place, (wanted, kind, table) = config[name]["frozen"][key], TORCHVISION[config[name]["nets"]["image"]["net"]]
    if not storage.place(place).is_file():
        raise UserError(f"--config.{name}.frozen.{key}={place}: no such file; give {wanted}, or leave it empty")
    return weights.either(storage.place(place), kind, table(), shapes(config, name))


def effnet_lite0(config: dict, name: str, place: str):
    path = networks.effnet_file(place, f"{name}.frozen.trunk")
    tree = networks.converted(EfficientNetLite0(0), path, efficientnet.lite0(classes=0), networks.EFFNET_SIDE)
    return tree, {}, tensors.sha256(path)


def bert(config: dict, name: str, place: str):
    folder = storage.place(place) if place else storage.place(fetch.home()) / "minilm"
    path = folder / "model.safetensors"
    if not path.is_file():
        raise UserError(f"{path} is missing: python -m supcon_jax.data.fetch minilm, or give a folder with a BERT as Hugging "
                        f"Face keeps it: --config.{name}.frozen.text_trunk=DIR")
    fields, vocab = foreign_bert.fields(folder / "config.json"), WordPiece.load(folder)
    if len(vocab) > fields["vocab"]:
        raise UserError(f"{folder}: vocab.txt has {len(vocab)} pieces, config.json tells of {fields['vocab']}: take both from "
                        "the same model")
    with storage.local(path) as file:
        tree = rename.load(tensors.read(file), foreign_bert.huggingface(), blank(fields))
        return tree, {"trunk": fields, "vocab": vocab.plain()}, tensors.sha256(file)


def clip_tower(config: dict, name: str, place: str, tower: str):
    key = next(key for key, of in OF.items() if of == tower)
    if not place or not storage.place(place).is_file():
        missing = f" ({place} is missing)" if place else ""
        raise UserError(f"{name}.nets.{tower}.net='clip_{tower}' needs a pretrained CLIP (.safetensors, .pth): give "
                        f"--config.{name}.frozen.{key}=FILE{missing}")
    tree, about, sha = clip.opened(config[name]["frozen"] | {"clip": place}, f"{name}.frozen")
    return *half(tree, about, tower), sha


def half(tree: dict, about: dict, tower: str) -> tuple[dict, dict]:
    """(variables, what is told) of one tower of CLIP."""
    said = {"trunk": about["nets"]["clip"][tower]} | ({"vocab": about["vocab"]} if tower == "text" else {})
    return {kind: part[tower] for kind, part in tree.items() if tower in part}, said


READ = {
    "inception": torchvision, "resnet": torchvision, "effnet_lite0": effnet_lite0, "bert": bert,
    "clip_image": functools.partial(clip_tower, tower="image"), "clip_text": functools.partial(clip_tower, tower="text"),
}  # fmt: skip


def drawn(config: dict, name: str, key: str) -> tuple[dict, dict] | None:
    """What `load` gives but the hash, in shape only and without a file, None if the net has no trunk.

    Without a file BERT is MiniLM, CLIP is ViT-B/32, and their vocabularies hold next to nothing.
    """
    options = config[name]["nets"][OF[key]]
    kind = options["net"]
    if kind in PRETRAINED and config[name]["frozen"][key]:
        return load(config, name, key)[:2]
    if kind == "bert":
        return blank(MINILM), {"trunk": MINILM, "vocab": WordPiece((PAD, UNKNOWN, START, END)).plain()}
    if kind in ("clip_image", "clip_text"):
        return half(*clip.shapes(), OF[key])
    if kind == "effnet_lite0" or kind in ANEW and fixed(config, name, key):
        return shapes(config, name), {}
    return None


def begun(task: core.Task, config: dict, name: str) -> core.Task:
    """The task whose trunks begin as they stand in their files, as far as they are no fixed ones but learn.

    The classifier's trunk begins at frozen.start, if that is given.
    """
    frozen = config[name]["frozen"]
    starts = {(OF[key],): load(config, name, key) for key in OF if key in frozen and not fixed(config, name, key)}
    starts = {path: found[0] for path, found in starts.items() if found}
    if frozen.get("start"):
        starts[()] = from_file(config, name, "start")
    if not starts:
        return task

    def init(key, batch):
        made = task.init(key, batch)
        for path, trunk in starts.items():
            for kind, ours in (("params", "params"), ("batch_stats", "stats")):
                if kind in trunk:
                    made[ours]["model"] = put(made[ours]["model"], path, jax.tree.map(jnp.asarray, trunk[kind]))
        return made

    return dataclasses.replace(task, init=init)


def put(tree: dict, path: tuple[str, ...], trunk) -> dict:
    """The tree with another trunk under a path."""
    return {**tree, **({path[0]: put(tree[path[0]], path[1:], trunk)} if path else {"trunk": trunk})}


def shapes(config: dict, name: str) -> dict:
    """The variables of an image net's trunk in shape only."""
    options = config[name]["nets"]["image"]
    more = {"classes": 2} if options["net"] == "inception_classifier" else {}
    encoder = net(options, f"{name}.nets.image", **more)
    shape = jax.ShapeDtypeStruct((1, 96, 96, 3), jnp.float32)
    like = jax.eval_shape(lambda key, x: encoder.init(key, x), jax.random.key(0), shape)
    return {kind: tree["trunk"] for kind, tree in like.items()}


def blank(fields: dict) -> dict:
    """The variables of a BERT in shape."""
    text, length = jnp.zeros((1, 3), jnp.int32), jnp.full(1, 3, jnp.int32)
    return jax.eval_shape(Bert(**fields).init, jax.random.key(0), text, length)
