"""Vision transformers: names of torchvision and Hugging Face to nets.vit.Headed; blocks that CLIP shares."""

import numpy as np

from supcon_jax.convert.rename import Rule, conv, dense, scaled

ROLES = ("query", "key", "value")


def first(a):
    """Drops axes of length one that stand in front: (1, t, d) -> (t, d)."""
    while len(a.shape) > 1 and a.shape[0] == 1:
        a = a[0]
    return a


def thirds(a):
    """PyTorch's joint projection (3 d, d) -> kernels (d, d) of query, key and value; its bias (3 d) likewise."""
    return [part.T for part in np.split(a, 3)]


def joint(name: str, path: str) -> list[Rule]:
    """PyTorch's MultiheadAttention under `name` (a regular expression) to our Attention under `path`."""
    return [Rule(rf"{name}\.in_proj_{theirs}", tuple(f"params/{path}/{role}/{ours}" for role in ROLES), thirds)
            for theirs, ours in (("weight", "kernel"), ("bias", "bias"))] + dense(rf"{name}\.out_proj", f"{path}/out")


def apart(name: str, path: str, query: str, out: str) -> list[Rule]:
    """Attention with one linear layer for each role. query: how that of the query is called, with {} for its role."""
    rules = [rule for role in ROLES for rule in dense(rf"{name}\.{query.format(role)}", f"{path}/{role}")]
    return rules + dense(rf"{name}\.{out}", f"{path}/out")


def stem(token: str, positions: str, patch: str, path: str) -> list[Rule]:
    """Class token, positions and the convolution that cuts patches, whose bias may be missing."""
    return [Rule(token, f"params/{path}class", np.ravel), Rule(positions, f"params/{path}positions", first),
            Rule(rf"{patch}\.weight", f"params/{path}patch/kernel", conv),
            Rule(rf"{patch}\.bias", f"params/{path}patch/bias")]


def torchvision() -> list[Rule]:
    """Rules for torchvision's VisionTransformer (vit_b_16 and its like) to nets.vit.Headed, eps 1e-6."""
    block, ours = r"encoder\.layers\.encoder_layer_(\d+)", r"trunk/block\1"
    return [*stem("class_token", r"encoder\.pos_embedding", "conv_proj", "trunk/"),
            *scaled(rf"{block}\.ln_1", f"{ours}/norm0"), *scaled(rf"{block}\.ln_2", f"{ours}/norm1"),
            *joint(rf"{block}\.self_attention", f"{ours}/attention"),
            *dense(rf"{block}\.mlp\.(?:0|linear_1)", f"{ours}/expand"),
            *dense(rf"{block}\.mlp\.(?:3|linear_2)", f"{ours}/project"),
            *scaled(r"encoder\.ln", "trunk/last_norm"), *dense(r"heads\.head", "head")]


def huggingface() -> list[Rule]:
    """Rules for transformers' ViTModel with its pooler to nets.vit.Headed (act "tanh", eps 1e-12); the names of
    version 5, and those of 4 and earlier, also under "vit."."""
    block, ours = r"(?:vit\.)?(?:encoder\.)?layers?\.(\d+)", r"trunk/block\1"
    older = rf"{block}\.attention\.attention"
    at = r"(?:vit\.)?embeddings\."
    return [*stem(rf"{at}cls_token", rf"{at}position_embeddings", rf"{at}patch_embeddings\.projection", "trunk/"),
            *scaled(rf"{block}\.layernorm_before", f"{ours}/norm0"),
            *scaled(rf"{block}\.layernorm_after", f"{ours}/norm1"),
            *apart(rf"{block}\.attention", f"{ours}/attention", "{0[0]}_proj", "o_proj"),
            *apart(older, f"{ours}/attention", "{}", "none"),
            *dense(rf"{block}\.attention\.output\.dense", f"{ours}/attention/out"),
            *dense(rf"{block}\.(?:mlp\.fc1|intermediate\.dense)", f"{ours}/expand"),
            *dense(rf"{block}\.(?:mlp\.fc2|output\.dense)", f"{ours}/project"),
            *scaled(r"(?:vit\.)?layernorm", "trunk/last_norm"), *dense(r"(?:vit\.)?pooler\.dense", "head")]


def clip_block(name: str, path: str) -> list[Rule]:
    """One of OpenAI's residual attention blocks."""
    return [*scaled(rf"{name}\.ln_1", f"{path}/norm0"), *scaled(rf"{name}\.ln_2", f"{path}/norm1"),
            *joint(rf"{name}\.attn", f"{path}/attention"), *dense(rf"{name}\.mlp\.c_fc", f"{path}/expand"),
            *dense(rf"{name}\.mlp\.c_proj", f"{path}/project")]


def hf_clip_block(name: str, path: str) -> list[Rule]:
    """One layer of transformers' CLIPEncoder."""
    return [*scaled(rf"{name}\.layer_norm1", f"{path}/norm0"), *scaled(rf"{name}\.layer_norm2", f"{path}/norm1"),
            *apart(rf"{name}\.self_attn", f"{path}/attention", "{0[0]}_proj", "out_proj"),
            *dense(rf"{name}\.mlp\.fc1", f"{path}/expand"), *dense(rf"{name}\.mlp\.fc2", f"{path}/project")]


