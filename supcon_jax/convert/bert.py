"""BERT: names of Hugging Face's BertModel to nets.bert.Bert, and its fields from the config.json beside the weights."""

from __future__ import annotations

import json

from etils import epath

from supcon_jax.config import UserError
from supcon_jax.convert.rename import Rule, dense, scaled
from supcon_jax.convert.vit import apart

FIELDS = {  # ours -> config.json's
    "vocab": "vocab_size", "length": "max_position_embeddings", "width": "hidden_size", "depth": "num_hidden_layers",
    "heads": "num_attention_heads", "hidden": "intermediate_size", "eps": "layer_norm_eps",
}  # fmt: skip


def huggingface() -> list[Rule]:
    """Rules for transformers' BertModel, also under "bert."; its pooler, which sentence encoders do not use, is dropped."""
    at, block, ours = r"(?:bert\.)?embeddings\.", r"(?:bert\.)?encoder\.layer\.(\d+)", r"block\1"
    return [
        Rule(rf"{at}word_embeddings\.weight", "params/embed/embedding"),
        Rule(rf"{at}position_embeddings\.weight", "params/positions"),
        Rule(rf"{at}token_type_embeddings\.weight", "params/segment"),
        *scaled(rf"{at}LayerNorm", "first_norm"), Rule(rf"{at}position_ids", None),
        *apart(rf"{block}\.attention", f"{ours}/attention", r"self\.{}", r"output\.dense"),
        *scaled(rf"{block}\.attention\.output\.LayerNorm", f"{ours}/norm0"),
        *dense(rf"{block}\.intermediate\.dense", f"{ours}/expand"),
        *dense(rf"{block}\.output\.dense", f"{ours}/project"),
        *scaled(rf"{block}\.output\.LayerNorm", f"{ours}/norm1"),
        Rule(r"(?:bert\.)?pooler\..*|cls\..*", None),
    ]  # fmt: skip


def fields(path: epath.Path) -> dict:
    """Fields of nets.bert.Bert from a config.json. Raises UserError: it is not there, or tells of another network."""
    try:
        said = json.loads(path.read_text())
        kind, act = said["model_type"], said["hidden_act"]
        found = {ours: said[theirs] for ours, theirs in FIELDS.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read as BERT's ({error!r}): give a folder as Hugging Face keeps it") from None
    if kind != "bert" or act != "gelu" or said.get("position_embedding_type", "absolute") != "absolute":
        raise UserError(f"{path} tells of {kind!r} with {act!r}: only BERT with gelu and absolute positions is known here")
    return found | {"act": act}
