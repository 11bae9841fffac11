"""One-stage GANs under test: what test_modules.Net holds, by family."""

import jax
import jax.numpy as jnp

from golden.towers import pixels, planes
from supcon_jax.convert import clip, dfgan, galip, ssagan
from supcon_jax.gans.dfgan import next_picture
from supcon_jax.losses import adversarial
from supcon_jax.nets import dfgan as dfgan_nets
from supcon_jax.nets import galip as galip_nets
from supcon_jax.nets import ssagan as ssagan_nets
from supcon_jax.nets.clip import ImageTransformer
from supcon_jax.ops.arrays import cosine

GRID = 7  # of CLIP's patches


def dfgan_generator(case, config, arrays):
    def run(module, variables, x, train):
        ((image,),) = module.apply(variables, x["noise"], x["cond"], train=train)
        return {"img": planes(image)}, {}

    return dfgan_nets.Generator(config["ngf"], (config["imsize"],)), dfgan.generator(), run


def dfgan_discriminator(case, config, arrays):
    """Hinge terms and penalty; the sum of all is the objective, so that the penalty's gradients are of second order."""

    def run(module, variables, x, train):
        image, fake, sent = pixels(x["image"]), pixels(x["fake"]), x["sent"]
        magp, h, logits, _ = penalised(module, variables, image, sent)
        wrong = module.apply(variables, *next_picture(h, sent), method="cond")
        total, parts = adversarial.hinge_discriminator(logits, module.apply(variables, fake, sent)[1], wrong)
        named = {f"err_{ours}": parts[f"{name}_cond"] for ours, name in (("real", "real"), ("fake", "fake"), ("mis", "wrong"))}
        shown = {"features": planes(h), "logits": logits[:, None, None, None]}
        return shown | named | {"magp": magp, "err_d": total + magp}, {}

    module = dfgan_nets.Discriminator(config["imsize"], config["ndf"])
    return module, dfgan.discriminator(config["imsize"], config["ndf"]), run, "err_d"


def penalised(module, variables, image, sent):
    """(penalty, features, logits, its gradient's norm for each row)."""

    def judge(image, sent):
        h, logits = module.apply(variables, image, sent)
        return logits, h

    magp, logits, h = adversarial.matching_penalty(judge, image, sent)
    grads = jax.grad(lambda *a: judge(*a)[0].sum(), (0, 1))(image, sent)
    return magp, h, logits, jnp.sqrt(sum(jnp.square(g).reshape(len(g), -1).sum(1) for g in grads))


def ssagan_generator(case, config, arrays):
    def run(module, variables, x, train):
        out, state = module.apply(variables, x["noise"], x["sent"], train=train, mutable=["batch_stats"])
        (image,), masks = out
        named = {f"mask{i}": a[:, None] for i, a in enumerate(masks)}
        return {"img": planes(image)} | named | {"mask3": named["mask6"]}, state  # the original returns its last mask twice

    size = int(arrays["eval/img_shape"][-1])
    module = ssagan_nets.Generator(config["ngf"], (size,), config["mask_channels"])
    return module, ssagan.generator(), run, "img"


def ssagan_discriminator(case, config, arrays):
    def run(module, variables, x, train):
        magp, h, logits, norms = penalised(module, variables, pixels(x["image"]), x["sent"])
        shown = {"features": planes(h), "logits": logits[:, None, None, None]}
        return shown | {"magp": magp, "magp_grad_norms": norms}, {}

    module = ssagan_nets.Discriminator(config["size"], config["ndf"])
    return module, ssagan.discriminator(config["size"], config["ndf"]), run, "magp"


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
    net = galip_nets.Generator(config["ngf"], (size,), config["code_ch"], config["mid_ch"], grid=GRID,
                               clip=config["clip_width"])
    module = Towered(net, config, 32, feed, lambda tower, image: tower.through(tower.trunk.patches(image)))
    return module, [*frozen(galip.tower()), *galip.generator(config["code_ch"])], run


def galip_discriminator(case, config, arrays):
    """The penalty is on CLIP's tokens and the sentence; the objective is the discriminator's loss without fakes.

    In the reference the penalty and the wrong sentences are leaves of their own: no gradient goes back to the inputs.
    """

    def look(call, image):
        taps, code = call("features", galip_nets.preprocess(image, 32 * GRID, "compat"), galip_nets.TAPS)
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

    net = galip_nets.Discriminator(config["d_out"], config["c_mid"], GRID)
    module = Towered(net, config, 32, feed, lambda tower, image: tower(image))
    return module, [*frozen(clip.image_transformer(r"enc\.", "")), *galip.discriminator()], run, "err"


NETS = {"dfgan_d_magp": dfgan_discriminator, "dfgan_g": dfgan_generator, "galip_d_magp": galip_discriminator,
        "galip_g": galip_generator, "ssagan_d_magp": ssagan_discriminator, "ssagan_g": ssagan_generator}
