"""GALIP's networks under test, with the frozen CLIP that they work with."""

import jax
import jax.numpy as jnp

from golden.nets import Net, pixels, planes
from supcon_jax.convert import clip, galip
from supcon_jax.losses import adversarial
from supcon_jax.nets import galip as nets
from supcon_jax.nets.clip import ImageTransformer
from supcon_jax.ops.arrays import cosine

GRID = 7  # of CLIP's patches


class Towered:
    """A network that works with a frozen CLIP tower, whose weights are the collection "frozen".

    feed: (call, *inputs) -> the network's inputs, where call(method, *args) runs the tower. begin: what makes all weights
    of the tower that the file holds.
    """

    def __init__(self, net, config, patch, feed, begin):
        self.net, self.feed, self.begin = net, feed, begin
        self.tower = ImageTransformer(config["cond_dim"], GRID * patch, patch, config["clip_width"], config["clip_layers"],
                                      config["clip_heads"])

    def init(self, key, *inputs):
        image = jnp.zeros((1, self.tower.side, self.tower.side, 3))
        made = {"frozen": self.tower.init(key, image, method=self.begin)["params"]}
        return made | {"params": self.net.init(key, *self.feed(self.call(made), *inputs))["params"]}

    def apply(self, variables, *inputs):
        return self.net.apply({"params": variables["params"]}, *self.feed(self.call(variables), *inputs))

    def call(self, variables):
        return lambda method, *args: self.tower.apply({"params": variables["frozen"]}, *args, method=method)


def frozen(rules):
    """The same rules into the collection "frozen"."""
    def moved(path):
        return path.replace("params/", "frozen/", 1)

    return [r._replace(path=tuple(map(moved, r.path)) if isinstance(r.path, tuple) else moved(r.path)) for r in rules]


def galip_generator(case, config, arrays):
    def feed(call, z, sentence):
        return z, sentence, lambda patches, prompts: call("through", patches, prompts)

    def run(module, variables, x, train):
        ((image,),) = module.apply(variables, x["noise"], x["cond"])
        return {"img": planes(image)}, {}

    size = int(arrays["eval/img_shape"][-1])
    net = nets.Generator(config["ngf"], (size,), config["code_ch"], config["mid_ch"], grid=GRID,
                               clip=config["clip_width"])
    module = Towered(net, config, 32, feed, lambda tower, image: tower.through(tower.trunk.patches(image)))
    return Net(module, [*frozen(galip.tower()), *galip.generator(config["code_ch"])], run)


def galip_discriminator(case, config, arrays):
    """The penalty is on CLIP's tokens and the sentence; the objective is the discriminator's loss without fakes.

    In the reference the penalty and the wrong sentences are leaves of their own: no gradient goes back to the inputs.
    """

    def look(call, image):
        taps, code = call("features", nets.preprocess(image, 32 * GRID, "compat"), nets.TAPS)
        return jnp.stack([t[:, 1:] for t in taps], axis=1), code

    def feed(call, image, sentence):
        return look(call, image)[0], sentence

    def run(module, variables, x, train):
        image, sent = pixels(x["image"]), x["sent"]
        module.apply(variables, image, sent)
        taps, code = look(module.call(variables), image)

        def judge(taps, sent):
            h, logits = module.net.apply({"params": variables["params"]}, taps, sent)
            return logits, h

        logits, h = judge(taps, sent)
        magp, _, _ = adversarial.matching_penalty(judge, *jax.lax.stop_gradient((taps, sent)))
        others = jax.lax.stop_gradient(jnp.roll(sent, -1, axis=0))
        wrong = module.net.apply({"params": variables["params"]}, h, others, method="cond")
        real, mis = adversarial.hinge(logits, True), adversarial.hinge(wrong, False)
        local = taps.swapaxes(2, 3).reshape(*taps.shape[:2], -1, GRID, GRID)
        named = {"local": local, "emb": code, "d_features": planes(h), "logits": logits[:, None, None, None]}
        return named | {"err_real": real, "err_mis": mis, "magp": magp, "text_image_sim": cosine(code, sent).mean(),
                        "err": real + mis / 2 + magp}, {}

    net = nets.Discriminator(config["d_out"], config["c_mid"], GRID)
    module = Towered(net, config, 32, feed, lambda tower, image: tower(image))
    return Net(module, [*frozen(clip.image_transformer(r"enc\.", "")), *galip.discriminator()], run, "err")


NETS = {"galip_d_magp": galip_discriminator, "galip_g": galip_generator}
