"""Networks of others put into the shapes of a stage's own: rules by kind, and every entry checked against the config."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from supcon_jax import core
from supcon_jax.build import clip, exports, pretext, stage, trunks
from supcon_jax.build.datasets import Data, mesh_of, vocabulary
from supcon_jax.config import UserError
from supcon_jax.convert import attngan, damsm, dfgan, dmgan, galip, inception, kinds, rename, resnet, ssagan, tensors
from supcon_jax.data.vocab import Vocab
from supcon_jax.methods.damsm import split_trunk
from supcon_jax.nets.inception import Inception
from supcon_jax.nets.resnet import ResNet
from supcon_jax.ops.rows import dense

GENERATORS = {  # kind -> rules of a generator, from its module
    "attngan_g": lambda gen: attngan.generator(gen.sizes),
    "dmgan_g": lambda gen: dmgan.generator(gen.sizes),
    "dfgan_g": lambda gen: dfgan.generator(),
    "ssagan_g": lambda gen: ssagan.generator(int(math.log2(gen.sizes[-1] / 4)) + 1),
    "galip_g": lambda gen: galip.generator(gen.bridge),
}
DISCRIMINATORS = {
    "attngan_d": lambda disc: attngan.discriminator(disc.size),
    "dmgan_d": lambda disc: dmgan.discriminator(disc.size),
    "dfgan_d": lambda disc: dfgan.discriminator(disc.size, disc.width),
    "ssagan_d": lambda disc: ssagan.discriminator(disc.size, disc.width),
    "galip_d": lambda disc: galip.discriminator(),
}
HALVING = re.compile(r"img_code_s16\.\d\.(module\.)?weight(_bar)?|img_code_s(?!16)\d+\.0\.(module\.)?weight(_bar)?")


class Part(NamedTuple):
    """One network as it was found. name: of its file."""

    kind: str
    name: str
    tensors: Mapping[str, np.ndarray]

    def fill(self, table, like) -> tuple[dict, str]:
        """(its weights in the tree `like`, a line about it). Raises UserError: see rename.load; the line names the file."""
        what = kinds.KINDS[self.kind][0]
        try:
            tree = rename.load(self.tensors, table, like)
        except UserError as error:
            raise UserError(f"{self.name} ({what}): {error}") from None
        left = [name for name in self.tensors if not name.endswith("num_batches_tracked")
                and rename.place(name, table) == (None, rename.same)]
        count = sum(leaf.size for leaf in jax.tree.leaves(tree["params"]))
        more = f"; {len(left)} tensors have no use here: {rename.shown(left)}" if left else ""
        return tree, f"{self.name}: {what}, {count:,} parameters{more}"


def encoders(config: dict, name: str, text: Part | None, image: Part | None, vocab: Vocab) -> tuple[dict, list[str]]:
    """(those of DAMSM's encoders that there are, as its weight file holds them; lines about them).

    Raises UserError: the words are not those of the text encoder, or the config has other sizes.
    """
    nets, lines = stage.build_nets(config, name, data_of(config, vocab), {}), []
    params, stats = {}, {}
    if text:
        known = rows(text, "encoder.weight")
        if known != len(vocab):
            raise UserError(f"{text.name} was trained with {known} words, the vocabulary beside it has {len(vocab)}: give "
                            "the captions.pickle of the same model")
        ids = jnp.zeros((1, config["data"]["words"]), jnp.int32)
        like = jax.eval_shape(nets["text"].init, jax.random.key(0), ids, jnp.ones(1, jnp.int32))
        tree, line = text.fill(damsm.text(), like)
        params["text"] = tree["params"]
        lines.append(line)
    if image:
        side = config[name]["size"]
        like = jax.eval_shape(nets["image"].init, jax.random.key(0), jnp.zeros((1, side, side, 3)))
        tree, line = image.fill(damsm.image(), like)
        params["image"], stats["image"] = tree["params"], tree["batch_stats"]
        lines.append(line)
    return {"params": params, "stats": stats}, lines


def players(config: dict, name: str, gen: Part, discs: list[Part], towers: dict, about: dict) -> tuple[dict, list[str]]:
    """(a GAN's weights as its weight file holds them, with "disc" where there are some; lines about them).

    towers, about: the frozen encoders and what their files say, as stage.load_frozen gives them.
    Raises UserError: other sizes than the config's, or a generator that was trained around another CLIP.
    """
    vocab = vocabulary(next(iter(about.values()))["vocab"])
    nets = stage.build_nets(config, name, data_of(config, vocab), about)
    task = stage.make_task(config, name, nets, core.About(1, 1, vocab, 1, 1, dense, mesh_of(2, 1)))
    like = shapes(config, name, task)
    if "clip" in towers:
        same_tower(gen, towers["clip"])
    tree, line = gen.fill(GENERATORS[gen.kind](nets["gen"]), both(like["params"]["gen"], like["stats"]["gen"]))
    own, lines = {"gen": tree["params"]}, [line]
    state = blank_state(params=own, stats={"gen": tree.get("batch_stats", {})}, memory={"ema": tree["params"]})
    made = exports.EXPORTS[config[name]["method"]](state, towers)
    if discs:
        made["disc"], told = judges(name, discs, nets["disc"], like)
        lines += told
    return made, lines


def judges(name: str, discs: list[Part], modules: tuple, like: dict) -> tuple[dict, list[str]]:
    """(the discriminators of a GAN, lines about them). Raises UserError: not one of each of the config's sizes."""
    params, stats = like["params"]["disc"], like["stats"].get("disc", {})
    table = DISCRIMINATORS[discs[0].kind]
    if discs[0].kind not in ("attngan_d", "dmgan_d"):
        tree, line = discs[0].fill(table(modules[0]), both(params, stats))
        return {"params": tree["params"]}, [line]
    sides = {part.name: 4 * 2 ** sum(bool(HALVING.fullmatch(n)) and np.ndim(a) == 4 for n, a in part.tensors.items())
             for part in discs}
    if sorted(sides.values()) != sorted(module.size for module in modules):
        said = ", ".join(f"{file} of {side} px" for file, side in sides.items())
        raise UserError(f"config.{name}.nets.gen.sizes asks for one discriminator of each of "
                        f"{', '.join(str(m.size) for m in modules)} px, found {said}: give all of them or none")
    made, lines = {"params": {}, "stats": {}}, []
    for module in modules:
        part, own = next(p for p in discs if sides[p.name] == module.size), f"d{module.size}"
        tree, line = part.fill(table(module), both(params[own], stats[own]))
        made["params"][own], made["stats"][own] = tree["params"], tree["batch_stats"]
        lines.append(line)
    return made, lines


def same_tower(gen: Part, tree: dict) -> None:
    """Whether GALIP's generator was trained around this CLIP, of which its file holds a copy, maybe in half precision.

    Raises UserError: around another one.
    """
    ours = tensors.flatten({"params": tree["params"]["image"]}, "/")
    for name, value in gen.tensors.items():
        path, layout = rename.place(name, galip.tower()) or (None, None)
        try:
            same = not path or all(close(ours.get(at), theirs) for at, theirs in rename.pieces(path, layout, value))
        except ValueError:  # not even its axes fit
            same = False
        if not same:
            raise UserError(f"{gen.name} was trained around another CLIP than the one given: {name} differs; give the "
                            "weights of OpenAI's ViT-B/32")


def close(ours, theirs) -> bool:
    """Whether two arrays are the same to half precision."""
    return ours is not None and ours.shape == theirs.shape and np.allclose(ours, theirs, rtol=2e-3, atol=1e-5)


def rows(part: Part, name: str) -> int:
    """How many rows a tensor has, none if it is not there."""
    return sum(np.shape(part.tensors.get(name, ()))[:1])


def inception_v3(part: Part) -> tuple[dict, int, list[str]]:
    """(Inception's weights, how many classes its last layer tells apart, lines about it)."""
    classes = rows(part, "fc.weight")
    module = Inception(classes=classes)
    like = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 299, 299, 3), jnp.float32))
    tree, line = part.fill(inception.torchvision(classes=classes), like)
    return tree, classes, [line]


def residual(part: Part) -> tuple[dict, dict, list[str]]:
    """(a ResNet's weights, its fields, lines about it). Raises UserError: of another build than those known."""
    told = resnet.fields(part.tensors)
    side = 32 if told["small"] else 224
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    tree, line = part.fill(resnet.torchvision(told["classes"]), jax.eval_shape(ResNet(**told).init, jax.random.key(0), image))
    return tree, told, [line]


def read_clip(config: dict, file) -> tuple[str, dict, dict, str]:
    """(stage whose options say how it is read, weights, what is told of them, sha256) of a CLIP's file.

    Raises UserError: the config has no such stage, or as clip.load does.
    """
    name = next((name for name in config["stages"] if "clip" in section(config, name).get("frozen", {})), None)
    if name is None:
        raise UserError(f"{file} holds CLIP: its activation and vocabulary come from a config with a stage that works with "
                        "one, such as --config=configs/cub.py:galip")
    frozen = config[name]["frozen"] | {"clip": str(file)}
    return name, *clip.load(config | {name: config[name] | {"frozen": frozen}}, name)


def section(config: dict, name: str) -> dict:
    """A section of a plain config; empty where `name` is a single value."""
    return config[name] if isinstance(config[name], dict) else {}


def shapes(config: dict, name: str, task: core.Task) -> dict:
    """What a stage's task begins with, {"params", "stats", "memory"}, in shape only."""
    side, words = config[name]["size"], config["data"]["words"]
    branches = config[name]["args"].get("branches", 1)
    batch = {"image": jax.ShapeDtypeStruct((1, branches, side, side, 3), jnp.uint8),
             "text": jax.ShapeDtypeStruct((1, branches, words), jnp.int32),
             "text_len": jax.ShapeDtypeStruct((1, branches), jnp.int32)}
    return jax.eval_shape(task.init, jax.random.key(0), batch)


def data_of(config: dict, vocab) -> Data:
    """A vocabulary without a data set: all that nets ask of it."""
    return Data(None, None, None, vocab, config["data"], config["seed"])


def both(params, stats) -> dict:
    """Variables of a network, which may have no statistics."""
    return {"params": params, "batch_stats": stats} if jax.tree.leaves(stats) else {"params": params}


def towers(config: dict, name: str, workdir: epath.Path, tree: dict, about: dict, sha: str) -> tuple[dict, dict, dict]:
    """The frozen towers that trained weights work with, as stage.load_frozen gives them: those that their own file holds,
    else those that the config names.

    Raises UserError: as stage.load_frozen does, or the encoders are not those that the generator was trained with.
    """
    own = {"own": {"vocab": about["vocab"]}}
    if "encoder" in config[name]["frozen"]:  # a classifier's file holds its encoder
        return {"encoder": jax.tree.map(jnp.asarray, tree)}, {"encoder": about}, {"encoder": sha}
    if "teacher" in config[name]["frozen"]:
        return stage.load_frozen(config, name, workdir)
    if "clip" in tree:
        told = {"nets": {"clip": about["nets"]["clip"]}, "vocab": about["vocab"]}
        return {"clip": jax.tree.map(jnp.asarray, tree["clip"])}, {"clip": told}, {"clip": sha}
    if "gen" not in tree:
        trees = {key: trunk for key, (_, trunk) in parted(config, name, tree).items() if trunk}
        return jax.tree.map(jnp.asarray, trees), own | trunks.told(about["nets"]), dict.fromkeys(trees, sha)
    found, said, hashes = stage.load_frozen(config, name, workdir)
    text = found["damsm"]["params"]["text"]
    if jax.tree.structure(text) != jax.tree.structure(tree["text"]) or not all(
        np.array_equal(a, b) for a, b in zip(jax.tree.leaves(text), jax.tree.leaves(tree["text"]), strict=True)
    ):
        raise UserError(f"the generator of {name} was trained with other encoders than config.{name}.frozen.damsm names: "
                        "give the file of those")
    return found, said, hashes


def restored(config: dict, name: str, task: core.Task, tree: dict, step: int = 0) -> core.State:
    """A state whose heads are those of trained weights. Raises UserError: the config's nets have other shapes."""
    (owner, own), *_ = owned(config, name, tree).items()
    found = fitted(own, shapes(config, name, task), owner, f"the weights of {name}")
    memory = {"ema": found["params"]} if owner == "gen" else {}
    state = blank_state(params={owner: found["params"]}, stats={owner: found.get("batch_stats", {})}, memory=memory)
    return state.replace(step=jnp.int32(step))


def owned(config: dict, name: str, tree: dict) -> dict[str, dict]:
    """Variables by owner in a weight file's tree: "model", or "gen" and maybe "disc"; frozen trunks belong to nobody."""
    if "gen" in tree:
        return {key: both(tree[key]["params"], tree[key].get("stats", {})) for key in ("gen", "disc") if key in tree}
    tree = pretext.learned(config[name], tree)
    params, stats = dict(tree["params"]), dict(tree.get("stats", {}))  # files keep no empty ones
    for key, (encoder, _) in parted(config, name, tree).items():
        params[trunks.OF[key]] = encoder["params"]
        stats |= {"image": encoder.get("batch_stats", {})} if key == "trunk" else {}
    return {"model": both(params, stats)}


def parted(config: dict, name: str, tree: dict) -> dict[str, tuple[dict, dict]]:
    """(encoder, its trunk) of trained encoders whose trunk is fixed, by the trunk's key."""
    found = {}
    for key, of in trunks.OF.items():
        if of in tree["params"] and trunks.fixed(config, name, key):
            stats = {"batch_stats": tree["stats"]["image"]} if of == "image" else {}
            found[key] = split_trunk({"params": tree["params"][of]} | stats, True)
    return found


def fitted(own: dict, like: dict, owner: str, what: str) -> dict:
    """One owner's variables in the tree of its stage. Raises UserError: an entry lacks, or has another shape."""
    try:
        return rename.load(tensors.flatten(own, "/"), rename.OWN, both(like["params"][owner], like["stats"].get(owner, {})))
    except UserError as error:
        raise UserError(f"{what}: {error}") from None


def blank_state(**parts) -> core.State:
    """A state that holds weights alone."""
    return core.State(step=jnp.zeros((), jnp.int32), skipped=jnp.zeros(2, jnp.int32), key=jax.random.key(0), opt={}, **parts)
