"""CLIP: names of OpenAI and open_clip, and of Hugging Face, to nets.clip.CLIP; sizes read from the tensors' shapes."""

import jax
import numpy as np

from supcon_jax.config import UserError
from supcon_jax.convert import rename
from supcon_jax.convert.rename import Rule, conv, norm, scaled, turned
from supcon_jax.convert.vit import apart, clip_block, hf_clip_block, stem
from supcon_jax.nets.clip import CLIP, ImageResNet, ImageTransformer, TextTransformer

SCALARS = Rule(r"input_resolution|context_length|vocab_size|.*\.position_ids|.*attn_mask", None)


def image_transformer(name: str = r"visual\.", path: str = "image/") -> list[Rule]:
    """Rules for OpenAI's VisionTransformer under `name` (a regular expression) to ImageTransformer under `path`."""
    return [*stem(rf"{name}class_embedding", rf"{name}positional_embedding", rf"{name}conv1", f"{path}trunk/"),
            *scaled(rf"{name}ln_pre", f"{path}trunk/first_norm"), *scaled(rf"{name}ln_post", f"{path}trunk/last_norm"),
            *clip_block(rf"{name}transformer\.resblocks\.(\d+)", rf"{path}trunk/block\1"),
            Rule(rf"{name}proj", f"params/{path}project/kernel")]


def image_resnet(name: str = r"visual\.", path: str = "image/") -> list[Rule]:
    """Rules for OpenAI's ModifiedResNet to ImageResNet."""
    rules = [Rule(rf"{name}attnpool\.positional_embedding", f"params/{path}positions"),
             *apart(rf"{name}attnpool", f"{path}pool", "{0[0]}_proj", "c_proj")]
    for i in range(3):
        rules += layer(rf"{name}conv{i + 1}", rf"{name}bn{i + 1}", f"{path}conv{i}", f"{path}norm{i}")
    for s in range(4):
        block, ours = rf"{name}layer{s + 1}\.(\d+)", rf"{path}stage{s}_block\1"
        for i in range(3):
            rules += layer(rf"{block}\.conv{i + 1}", rf"{block}\.bn{i + 1}", f"{ours}/conv{i}", f"{ours}/norm{i}")
        rules += layer(rf"{block}\.downsample\.0", rf"{block}\.downsample\.1", f"{ours}/conv_short",
                       f"{ours}/norm_short")
    return rules


def layer(convolution: str, batch_norm: str, ours: str, our_norm: str) -> list[Rule]:
    return [Rule(rf"{convolution}\.weight", f"params/{ours}/kernel", conv), *norm(batch_norm, our_norm)]


def openai(resnet: bool = False) -> list[Rule]:
    """Rules for state dicts of OpenAI's CLIP and of open_clip's class CLIP, by the kind of image tower."""
    text = r"(?:text\.)?"  # open_clip's class with a text tower of its own
    return [*(image_resnet() if resnet else image_transformer()), Rule(r"logit_scale", "params/log_scale", np.squeeze),
            Rule(rf"{text}token_embedding\.weight", "params/text/embed/embedding"),
            Rule(rf"{text}positional_embedding", "params/text/positions"),
            *clip_block(rf"{text}transformer\.resblocks\.(\d+)", r"text/block\1"),
            *scaled(rf"{text}ln_final", "text/last_norm"),
            Rule(rf"{text}text_projection", "params/text/project/kernel"), SCALARS]


def huggingface() -> list[Rule]:
    """Rules for transformers' CLIPModel."""
    image, text = r"vision_model\.", r"text_model\."
    at = rf"{image}embeddings\."
    return [*stem(rf"{at}class_embedding", rf"{at}position_embedding\.weight", rf"{at}patch_embedding", "image/trunk/"),
            *scaled(rf"{image}pre_layrnorm", "image/trunk/first_norm"),
            *scaled(rf"{image}post_layernorm", "image/trunk/last_norm"),
            *hf_clip_block(rf"{image}encoder\.layers\.(\d+)", r"image/trunk/block\1"),
            Rule(r"visual_projection\.weight", "params/image/project/kernel", turned),
            Rule(rf"{text}embeddings\.token_embedding\.weight", "params/text/embed/embedding"),
            Rule(rf"{text}embeddings\.position_embedding\.weight", "params/text/positions"),
            *hf_clip_block(rf"{text}encoder\.layers\.(\d+)", r"text/block\1"),
            *scaled(rf"{text}final_layer_norm", "text/last_norm"),
            Rule(r"text_projection\.weight", "params/text/project/kernel", turned),
            Rule(r"logit_scale", "params/log_scale", np.squeeze), SCALARS]


def table(tensors) -> list[Rule]:
    """The rules that fit a file's names. Raises UserError: neither CLIP's nor Hugging Face's."""
    if any(name.startswith("vision_model.") for name in tensors):
        return huggingface()
    if any(name.startswith("visual.") for name in tensors):
        return openai(any(name.startswith("visual.layer1.") for name in tensors))
    raise UserError("the file holds no CLIP: neither tensors under visual. nor under vision_model.: export the whole "
                    "model's state dict")


def network(tensors, *, act: str = "quick_gelu", head: int = 64, end: int | None = None) -> CLIP:
    """The network that a CLIP file was made with, its sizes read from the shapes of the tensors.

    act: "quick_gelu" for OpenAI's weights, "gelu" for those of open_clip that do not say quickgelu. head: width of one
    attention head (64 in all published models but a few large ones), which no shape tells. end: see TextTransformer.
    Raises UserError: no CLIP, or one that lacks a tower.
    """
    shapes = ours(bare(tensors))
    side, width = "params/image/trunk/patch/kernel", "params/text/embed/embedding"
    needed = {width, *(f"params/text/{leaf}" for leaf in ("project/kernel", "positions", "block0/expand/kernel"))}
    needed |= ({"params/image/trunk/positions", "params/image/trunk/block0/expand/kernel"} if side in shapes else
               {"params/image/positions", "params/image/conv2/kernel"})
    if not needed <= shapes.keys():
        raise UserError("the file lacks CLIP's image tower or its text tower: export the whole model's state dict")
    embed = shapes["params/text/project/kernel"][1]
    vocab, width = shapes[width]
    text = TextTransformer(embed, vocab, shapes["params/text/positions"][0], width, blocks(shapes, "text/block"),
                           width // head, shapes["params/text/block0/expand/kernel"][1], act, end)
    if side in shapes:
        patch, *_, width = shapes[side]
        grid = round((shapes["params/image/trunk/positions"][0] - 1) ** 0.5)
        hidden = shapes["params/image/trunk/block0/expand/kernel"][1]
        return CLIP(ImageTransformer(embed, grid * patch, patch, width, blocks(shapes, "image/trunk/block"),
                                     width // head, hidden, act), text)
    width = shapes["params/image/conv2/kernel"][-1]
    depths = tuple(sum(path.startswith(f"params/image/stage{s}_") and path.endswith("/conv0/kernel")
                       for path in shapes) for s in range(4))
    grid = round((shapes["params/image/positions"][0] - 1) ** 0.5)
    return CLIP(ImageResNet(embed, 32 * grid, width, depths, 32 * width // head), text)


def bare(tensors) -> dict:
    """The weights alone, without what a training checkpoint of open_clip puts before their names and beside them."""
    for prefix in ("state_dict.", "module."):
        tensors = rename.under(tensors, prefix) or tensors
    return tensors


def ours(tensors) -> dict[str, tuple[int, ...]]:
    """Shapes of a file's tensors by our paths."""
    rules, shapes = table(tensors), {}
    for name, value in tensors.items():
        found = rename.place(name, rules)
        if found and found[0] is not None:
            shapes |= {path: part.shape for path, part in rename.pieces(*found, value)}
    return shapes


def blocks(shapes, path: str) -> int:
    return sum(p.startswith(f"params/{path}") and p.endswith("/norm0/scale") for p in shapes)


def load(tensors, like, *, strict: bool = True):
    """A file's weights in the tree of a network, whose pictures may have another size than the file's.

    tensors: as tensors.read gives them; like, strict: see rename.load. Positions of the image tower on another grid are
    interpolated to the network's (see `positions`).
    Returns nested dictionaries of numpy arrays in `like`'s types. Raises UserError: see rename.load.
    """
    tensors = dict(bare(tensors))
    rules = table(tensors)
    for name, value in tensors.items():
        path = (rename.place(name, rules) or (None, None))[0]
        if path in ("params/image/trunk/positions", "params/image/positions"):
            node = like["params"]["image"]
            node = node["trunk"]["positions"] if "trunk" in path else node["positions"]
            tensors[name] = positions(value, node.shape[0])
    return rename.load(tensors, rules, like, strict=strict)


def positions(table, count: int):
    """Position vectors of a square grid and one token before it, on a grid of another size.

    table: [1 + p, d]; count: 1 + p of the result. Bicubic, and antialiased where the grid shrinks, as open_clip does;
    Hugging Face's interpolate_pos_encoding takes another cubic kernel and no antialiasing.
    Returns [count, d]; the table itself if it has that many rows.
    """
    table = np.asarray(table)
    if len(table) == count:
        return table
    old, new = round((len(table) - 1) ** 0.5), round((count - 1) ** 0.5)
    grid = table[1:].reshape(old, old, -1).astype(np.float32)
    moved = np.asarray(jax.image.resize(grid, (new, new, grid.shape[-1]), "cubic", antialias=True))
    return np.concatenate([table[:1], moved.reshape(new * new, -1)]).astype(table.dtype)
