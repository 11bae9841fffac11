"""Where each data set's function lives: name -> "module:function", looked up only when a run asks for it."""

DATA = {
    "shapes": "supcon_jax.data.synthetic:shapes",
    "cub": "supcon_jax.data.cub:cub",
    "coco": "supcon_jax.data.coco:coco",
    "folder": "supcon_jax.data.folder:folder",
    "emoji": "supcon_jax.data.emoji:emoji",
    "image_folder": "supcon_jax.data.image_folder:image_folder",
    "tfds": "supcon_jax.data.tfds:tfds",
    "mnist5k": "supcon_jax.data.digits:mnist5k",
    "digits": "supcon_jax.data.digits:digits",
    "blank": "supcon_jax.data.blank:blank",
}
