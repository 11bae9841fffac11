"""Where each data set's function lives: name -> "module:function", looked up only when a run asks for it."""

DATA = {
    "shapes": "supcon_jax.data.synthetic:shapes",
    "cub": "supcon_jax.data.cub:cub",
    "coco": "supcon_jax.data.coco:coco",
    "folder": "supcon_jax.data.folder:folder",
    "emoji": "supcon_jax.data.emoji:emoji",
}
