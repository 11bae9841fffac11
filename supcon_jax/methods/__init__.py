"""Contrastive tasks by name: "module:function", so that naming one imports no other."""

METHODS = {
    "damsm": "supcon_jax.methods.damsm:damsm",
    "classifier": "supcon_jax.methods.classifier:classifier",
}
