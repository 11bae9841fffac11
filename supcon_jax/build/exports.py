"""What a finished stage hands on: its weights as later stages, sampling and users read them, by method."""

from supcon_jax.build import pretext
from supcon_jax.build.names import GENERATORS


def export_damsm(state, towers):
    """Both encoders, with their frozen trunks put back, so that the file stands alone."""
    from supcon_jax.methods import damsm

    params, stats = state.params["model"], state.stats["model"]["image"]
    image, text = damsm.image_variables(params["image"], stats, towers), damsm.text_variables(params["text"], towers)
    return {"params": {"image": image["params"], "text": text["params"]}, "stats": {"image": image["batch_stats"]}}


def export_generator(state, towers):
    """The averaged generator with live BatchNorm averages, and the text encoder that it listens to."""
    return {
        "gen": {"params": state.memory["ema"], "stats": state.stats["gen"]},
        "text": towers["damsm"]["params"]["text"],
    }


def export_galip(state, towers):
    """The averaged generator and the CLIP that it works with."""
    return {"gen": {"params": state.memory["ema"]}, "clip": towers["clip"]}


def export_clip(state, towers):
    """CLIP with the trained heads and, where they learned, its last blocks: a tower of its own."""
    from supcon_jax.methods.clip_heads import export

    return export(state.params["model"], towers["clip"])


def export_model(state, towers):
    return {"params": state.params["model"], "stats": state.stats["model"]}


EXPORTS = {"damsm": export_damsm, "clip_heads": export_clip, "classifier": export_model,
           **dict.fromkeys(GENERATORS, export_generator), "galip": export_galip,
           **dict.fromkeys(pretext.KINDS, pretext.export)}
# what a stage's weights are to those that read them, where it is not the method's name
KINDS = {"clip_heads": "clip", **pretext.KINDS}
