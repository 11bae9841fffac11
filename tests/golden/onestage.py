"""DF-GAN's and SSA-GAN's networks under test: outputs by the names of the reference numbers."""

import jax
import jax.numpy as jnp

from golden.nets import Net, pixels, planes
from supcon_jax.convert import dfgan, ssagan
from supcon_jax.gans.dfgan import next_picture
from supcon_jax.losses import adversarial
from supcon_jax.nets import dfgan as dfgan_nets
from supcon_jax.nets import ssagan as ssagan_nets


def dfgan_generator(case, config, arrays):
    def run(module, variables, x, train):
        ((image,),) = module.apply(variables, x["noise"], x["cond"], train=train)
        return {"img": planes(image)}, {}

    return Net(dfgan_nets.Generator(config["ngf"], (config["imsize"],)), dfgan.generator(), run)


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
    return Net(module, dfgan.discriminator(config["imsize"], config["ndf"]), run, "err_d")


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
    return Net(module, ssagan.generator(), run, "img")


def ssagan_discriminator(case, config, arrays):
    def run(module, variables, x, train):
        magp, h, logits, norms = penalised(module, variables, pixels(x["image"]), x["sent"])
        shown = {"features": planes(h), "logits": logits[:, None, None, None]}
        return shown | {"magp": magp, "magp_grad_norms": norms}, {}

    module = ssagan_nets.Discriminator(config["size"], config["ndf"])
    return Net(module, ssagan.discriminator(config["size"], config["ndf"]), run, "magp")


NETS = {"dfgan_d_magp": dfgan_discriminator, "dfgan_g": dfgan_generator, "ssagan_d_magp": ssagan_discriminator,
        "ssagan_g": ssagan_generator}
