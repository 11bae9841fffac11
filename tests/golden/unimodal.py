"""Trunks with their heads under test, as the codes of unimodal contrast have them."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from golden.nets import Net, pixels
from supcon_jax.convert import ssl
from supcon_jax.nets import heads
from supcon_jax.nets.backbone import Features, resnet_trunk
from supcon_jax.ops.arrays import cosine, unit


class Whole(nn.Module):
    """(features, projection, prediction if there is a net for it)."""

    image: Features
    head: heads.Mlp
    predictor: heads.Mlp | None = None

    def __call__(self, image, *, train=False):
        h = self.image(image, train=train)
        z = self.head(h, train=train)
        return h, z, self.predictor(z, train=train) if self.predictor else z


class Alone(nn.Module):
    head: heads.Mlp

    def __call__(self, x, *, train=False):
        return self.head(x, train=train)


def supcon(case, config, arrays):
    assert config["head"] == "mlp"
    trunk = resnet_trunk(int(config["name"].removeprefix("resnet")), 1 / config["width_divisor"])

    def run(module, variables, x, train):
        (h, z, _), state = module.apply(variables, pixels(x["image"]), train=train, mutable=["batch_stats"])
        if train:  # the reference ran the encoder once for each output
            _, state = module.apply(variables | state, pixels(x["image"]), train=train, mutable=["batch_stats"])
        return {"encoder": h, "projection": unit(z)}, state

    return Net(Whole(trunk, heads.moco2(config["feat_dim"])), ssl.supcon(), run, deep="50" in config["name"])


def simsiam(case, config, arrays):
    name, _, divisor = config["encoder"].partition(" / ")
    trunk = resnet_trunk(int(name.removeprefix("resnet")), 1 / int(divisor), "imagenet")
    whole = Whole(trunk, heads.simsiam(config["dim"]), heads.simsiam_predictor(config["dim"], config["pred_dim"]))

    def run(module, variables, x, train):
        (_, z1, p1), state = module.apply(variables, pixels(x["x1"]), train=train, mutable=["batch_stats"])
        (_, z2, p2), state = module.apply(variables | state, pixels(x["x2"]), train=train, mutable=["batch_stats"])
        fixed = jax.lax.stop_gradient
        loss = -(jnp.mean(cosine(p1, fixed(z2))) + jnp.mean(cosine(p2, fixed(z1)))) / 2
        return {"loss": loss, "z1": z1, "z2": z2, "p1": p1, "p2": p2}, state

    return Net(whole, ssl.simsiam(), run, "loss", fold=ssl.folded)


def byol(case, config, arrays):
    head = heads.Mlp((config["hidden_size"], config["projection_size"]))

    def run(module, variables, x, train):
        out, state = module.apply(variables, x["x"], train=train, mutable=["batch_stats"])
        return {"out": out}, state

    return Net(Alone(head), ssl.byol_mlp(), run)


NETS = {"byol_mlp_head": byol, "simsiam_resnet18_w16": simsiam, "supcon_resnet18_w16": supcon, "supcon_resnet50_w16": supcon}
