"""Tasks by name: "module:function", so that naming one imports no other."""

ENCODERS = {  # what learns an encoder of pictures, from pictures alone or with their labels
    "simclr": "supcon_jax.methods.simclr:simclr",
    "supcon": "supcon_jax.methods.simclr:supcon",
    "fnc": "supcon_jax.methods.fnc:fnc",
    "moco": "supcon_jax.methods.moco:moco",
    "moco3": "supcon_jax.methods.moco:moco3",
    "byol": "supcon_jax.methods.byol:byol",
    "simsiam": "supcon_jax.methods.byol:simsiam",
    "swav": "supcon_jax.methods.swav:swav",
    "pcl": "supcon_jax.methods.pcl:pcl",
    "cmc": "supcon_jax.methods.cmc:cmc",
    "pirl": "supcon_jax.methods.cmc:pirl",
    "cpc": "supcon_jax.methods.cpc:cpc",
    "cpc_audio": "supcon_jax.methods.cpc:cpc_audio",
    "barlow": "supcon_jax.methods.twins:barlow",
    "vicreg": "supcon_jax.methods.twins:vicreg",
    "student": "supcon_jax.methods.student:student",
    "distil": "supcon_jax.methods.student:distil",
}
METHODS = {
    "damsm": "supcon_jax.methods.damsm:damsm",
    "clip_heads": "supcon_jax.methods.clip_heads:clip_heads",
    "flow": "supcon_jax.methods.flow:flow",
    "classifier": "supcon_jax.methods.classifier:classifier",
    "finetune": "supcon_jax.methods.finetune:finetune",
    **ENCODERS,
}
REFRESHED = ("pcl",)  # what reads the training split in evaluation's form between its epochs
