"""The stacked GANs' networks and encoders under test, and the Inception of FID."""

import jax

from golden.nets import Net, pixels, planes
from supcon_jax.convert import attngan, damsm, dmgan, inception
from supcon_jax.nets import attngan as attngan_nets
from supcon_jax.nets import dmgan as dmgan_nets
from supcon_jax.nets.inception import ImageEncoder, Inception
from supcon_jax.nets.text import TextEncoder
from supcon_jax.ops import resize


def published(case):
    """(networks, names of their tensors) of the stacked GAN that a case is of."""
    return {"attngan": (attngan_nets, attngan), "dmgan": (dmgan_nets, dmgan)}[case.family.partition("_")[0]]


def discriminator(case, config, arrays):
    nets, table = published(case)
    moves = nets is dmgan_nets  # the published spectral norm takes its step in evaluation too

    def run(module, variables, x, train):
        train = train or moves
        out, state = module.apply(variables, pixels(x["image"]), x["cond"], train, mutable=["batch_stats"])
        h, cond, uncond = out
        return {"features": planes(h), "cond_prob": jax.nn.sigmoid(cond), "uncond_prob": jax.nn.sigmoid(uncond)}, state

    return Net(nets.Discriminator(config["size"], config["DF_DIM"]), table.discriminator(config["size"]), run)


def generator(case, config, arrays):
    sizes = tuple(64 * 2**i for i in range(config["BRANCH_NUM"]))
    nets, table = published(case)
    module = nets.Generator(config["GF_DIM"], sizes, config["R_NUM"], config["CONDITION_DIM"],
                            case.entry["mask"])
    return Net(module, table.generator(sizes), run_generator, "img", atol=5e-5 if nets is dmgan_nets else 0.0)


def run_generator(module, variables, x, train):
    words = x["word_embs"].transpose(0, 2, 1)
    out, state = module.apply(variables, x["z_code"], x["sent_emb"], words, ~x["mask"], x["eps"], train=train,
                              mutable=["batch_stats"])
    images, mu, logvar, attention = out
    named = {f"img{i}": planes(a) for i, a in enumerate(images)}
    named |= {f"att{i}": planes(a) for i, a in enumerate(attention)}
    return named | {"mu": mu, "logvar": logvar}, state


def text(case, config, arrays):
    assert config["nlayers"] == 1, "TextEncoder has one layer"
    longest = arrays["eval/words"].shape[-1]

    def run(module, variables, x, train):
        words, sentence = module.apply(variables, x["captions"], x["cap_lens"], train=train)
        return {"words": words[:, :longest].transpose(0, 2, 1), "sentence": sentence}, {}

    module = TextEncoder(config["ntoken"], config["ninput"], config["nhidden"], config["rnn"].lower(),
                         bidirectional=config["bidirectional"])
    return Net(module, damsm.text(), run)


def image_encoder(case, config, arrays):
    side = arrays["eval/regions"].shape[-1]

    def run(module, variables, x, train):
        (regions, code), state = module.apply(variables, pixels(x["image"]), train=train, mutable=["batch_stats"])
        return {"regions": planes(regions.reshape(len(code), side, side, -1)), "code": code}, state

    return Net(ImageEncoder(config["nef"], 1 / config["width_divisor"]), damsm.image(), run, deep=True)


def fid_inception(case, config, arrays):
    def run(module, variables, x, train):
        image = 2 * resize.bilinear(pixels(x["image"]), (299, 299)) - 1
        taps, state = module.apply(variables, image, train=train, mutable=["batch_stats"])
        maps = [taps["64"], taps["192"], taps["768"], taps["2048"][:, None, None, :]]
        return {f"block{i}": planes(a) for i, a in enumerate(maps)}, state

    module = Inception(1 / config["width_divisor"], count_pad=False, last_pool="max")
    return Net(module, inception.wrapped(), run, deep=True)


NETS = {"attngan_d64": discriminator, "attngan_d128": discriminator, "attngan_d256": discriminator,
        "dmgan_d64": discriminator, "dmgan_d128": discriminator, "dmgan_d256": discriminator, "dmgan_g": generator,
        "attngan_g": generator, "attngan_rnn_gru": text, "attngan_rnn_lstm": text,
        "damsm_cnn_inception_w16": image_encoder, "fid_inception_w16": fid_inception}
