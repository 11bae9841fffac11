"""Tasks of one player by name: "module:function", so that naming one imports no other."""

METHODS = {
    "damsm": "supcon_jax.methods.damsm:damsm",
    "clip_heads": "supcon_jax.methods.clip_heads:clip_heads",
    "flow": "supcon_jax.methods.flow:flow",
    "classifier": "supcon_jax.methods.classifier:classifier",
}
