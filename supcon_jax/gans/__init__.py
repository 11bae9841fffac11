"""Text-to-image GANs by name: "module:function", so that naming one imports no other."""

GANS = {
    "attngan": "supcon_jax.gans.stacked:stacked",
    "dmgan": "supcon_jax.gans.stacked:stacked",
    "dfgan": "supcon_jax.gans.dfgan:dfgan",
    "ssagan": "supcon_jax.gans.ssagan:ssagan",
    "galip": "supcon_jax.gans.galip:galip",
}
