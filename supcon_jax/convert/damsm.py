"""DAMSM's encoders: names of the published text_encoderN.pth and image_encoderN.pth (AttnGAN, DM-GAN, SSA-GAN)."""

from supcon_jax.convert import inception
from supcon_jax.convert.rename import Rule, pointwise, turned


def text() -> list[Rule]:
    """Rules for nets.text.TextEncoder, LSTM or GRU: gates keep PyTorch's order."""
    rules = [Rule(r"encoder\.weight", "params/embed/embedding")]
    for suffix, ours in (("", "forward"), ("_reverse", "backward")):
        rules += [Rule(rf"rnn\.weight_ih_l0{suffix}", f"params/{ours}/input", turned),
                  Rule(rf"rnn\.bias_ih_l0{suffix}", f"params/{ours}/input_bias"),
                  Rule(rf"rnn\.weight_hh_l0{suffix}", f"params/{ours}/hidden", turned),
                  Rule(rf"rnn\.bias_hh_l0{suffix}", f"params/{ours}/hidden_bias")]
    return rules


def image() -> list[Rule]:
    """Rules for nets.inception.ImageEncoder. The trunk's averages are those that drifted in DAMSM's training: they
    come with the file and must not be replaced by ImageNet's."""
    return [*inception.torchvision("trunk/"), Rule(r"emb_features\.weight", "params/regions/kernel", pointwise),
            Rule(r"emb_cnn_code\.weight", "params/code/kernel", turned),
            Rule(r"emb_cnn_code\.bias", "params/code/bias")]
