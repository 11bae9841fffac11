import jax
import numpy as np
import pytest

from supcon_jax.config import UserError
from supcon_jax.convert import clip, rename, vit
from supcon_jax.nets.clip import CLIP, ImageResNet, ImageTransformer, TextTransformer
from supcon_jax.nets.vit import Headed, ViT

TEXT = TextTransformer(6, 20, 8, 8, 2, 2, 16)
TRANSFORMER = CLIP(ImageTransformer(6, 16, 4, 8, 2, 2, 16), TEXT)
RESNET = CLIP(ImageResNet(6, 64, 4, (1, 2, 1, 1), 32), TEXT)


def like(module, *inputs):
    return jax.eval_shape(module.init, jax.random.key(0), *(jax.ShapeDtypeStruct(s, t) for s, t in inputs))


def clip_like(module):
    side = module.image.side
    return like(module, ((1, side, side, 3), np.float32), ((1, 8), np.int32))


def flat(tree):
    return {"/".join(k.key for k in path): a for path, a in jax.tree_util.tree_flatten_with_path(tree)[0]}


def foreign(tree, names, table):
    """Random tensors under foreign names, in their shapes: found from our leaves by reading the table backwards."""
    rng, leaves, out = np.random.default_rng(0), flat(tree), {}
    for name in names:
        path, layout = rename.place(name, table)
        ours = leaves[path if isinstance(path, str) else path[0]].shape
        shape = {rename.turned: ours[::-1], rename.conv: (ours[::-1][:2] + ours[:2]) if len(ours) == 4 else ()}.get(
            layout, ours)
        if layout is vit.thirds:
            shape = (3 * ours[-1], *ours[:-1])
        out[name] = rng.standard_normal(shape).astype(np.float32)
    return out


def pair(*names):
    return [f"{name}.{end}" for name in names for end in ("weight", "bias")]


def openai_block(b):
    return [*pair(f"{b}.ln_1", f"{b}.ln_2", f"{b}.attn.out_proj", f"{b}.mlp.c_fc", f"{b}.mlp.c_proj"),
            f"{b}.attn.in_proj_weight", f"{b}.attn.in_proj_bias"]


def openai_names(resnet):
    names = ["logit_scale", "positional_embedding", "text_projection", "token_embedding.weight", *pair("ln_final")]
    names += [n for i in range(2) for n in openai_block(f"transformer.resblocks.{i}")]
    if not resnet:
        names += [n for i in range(2) for n in openai_block(f"visual.transformer.resblocks.{i}")]
        return [*names, "visual.class_embedding", "visual.positional_embedding", "visual.proj", "visual.conv1.weight",
                *pair("visual.ln_pre", "visual.ln_post")]
    bns = (".weight", ".bias", ".running_mean", ".running_var")
    blocks = ["visual"] + [f"visual.layer{s + 1}.{j}" for s, depth in enumerate((1, 2, 1, 1)) for j in range(depth)]
    names += [f"{b}.{kind}" for b in blocks for i in (1, 2, 3) for kind in (f"conv{i}.weight", *(f"bn{i}{n}" for n in bns))]
    names += [f"visual.layer{s}.0.downsample.{n}" for s in (1, 2, 3, 4) for n in ("0.weight", *(f"1{b}" for b in bns))]
    pool = "visual.attnpool"
    return [*names, f"{pool}.positional_embedding", *pair(*(f"{pool}.{r}_proj" for r in "qkvc"))]


def hf_names():
    names = ["logit_scale", "visual_projection.weight", "text_projection.weight",
             "vision_model.embeddings.class_embedding", *pair("vision_model.pre_layrnorm", "text_model.final_layer_norm")]
    names += [*pair("vision_model.post_layernorm"), "vision_model.embeddings.patch_embedding.weight",
              *(f"{t}_model.embeddings.position_embedding.weight" for t in ("vision", "text")),
              "text_model.embeddings.token_embedding.weight"]
    inner = ("layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2", *(f"self_attn.{r}_proj" for r in ("q", "k", "v", "out")))
    return names + pair(*(f"{t}_model.encoder.layers.{i}.{n}" for t in ("vision", "text") for i in range(2) for n in inner))


@pytest.mark.parametrize(("module", "names"), [
    (TRANSFORMER, openai_names(False)), (RESNET, openai_names(True)), (TRANSFORMER, hf_names())], ids=["vit", "rn", "hf"])
def test_every_weight_has_its_name_and_sizes_are_read_back(module, names):
    table = clip.table(names)
    shapes = clip_like(module)
    tensors = foreign(shapes, names, table)
    loaded = clip.load(tensors | {"input_resolution": np.array(16)}, shapes)
    assert flat(loaded).keys() == flat(shapes).keys()
    wrapped = {f"state_dict.module.{name}": a for name, a in tensors.items()} | {"optimizer.state.0.exp_avg": np.zeros(2)}
    assert flat(clip.load(wrapped, shapes)).keys() == flat(shapes).keys()
    found = clip.network(wrapped, head=4 if module is TRANSFORMER else 64)
    if module is TRANSFORMER:
        assert found == module
    else:
        assert found.image.depths == (1, 2, 1, 1) and (found.image.width, found.image.side) == (4, 64)


def test_a_joint_projection_is_cut_into_query_key_and_value():
    tensors = foreign(clip_like(TRANSFORMER), openai_names(False), clip.openai())
    block = clip.load(tensors, clip_like(TRANSFORMER))["params"]["text"]["block1"]["attention"]
    whole = tensors["transformer.resblocks.1.attn.in_proj_weight"]
    np.testing.assert_array_equal(block["key"]["kernel"], whole[8:16].T)
    np.testing.assert_array_equal(block["value"]["bias"], tensors["transformer.resblocks.1.attn.in_proj_bias"][16:])


def test_what_is_missing_or_unused_is_said():
    tensors = foreign(clip_like(TRANSFORMER), openai_names(False), clip.openai())
    with pytest.raises(UserError, match="no place for: extra"):
        clip.load(tensors | {"extra": np.zeros(2)}, clip_like(TRANSFORMER))
    del tensors["transformer.resblocks.1.attn.in_proj_bias"]
    with pytest.raises(UserError, match="the file lacks: params/text/block1/attention/key/bias"):
        clip.load(tensors, clip_like(TRANSFORMER))
    with pytest.raises(UserError, match="holds no CLIP"):
        clip.table(["conv1.weight"])
    with pytest.raises(UserError, match="text tower"):
        clip.network({"visual.conv1.weight": np.zeros((8, 3, 4, 4), np.float32)})


def test_positions_move_to_another_grid():
    table = np.zeros((1 + 16, 2), np.float32)
    table[0], table[1:, 0], table[1:, 1] = 9, np.repeat(np.arange(4), 4), 1
    moved = clip.positions(table, 1 + 64)
    assert moved.shape == (65, 2) and (moved[0] == 9).all()
    np.testing.assert_allclose(moved[1:, 1], 1, rtol=1e-5)
    rows = moved[1:, 0].reshape(8, 8)
    np.testing.assert_allclose(rows, np.broadcast_to(rows[:, :1], (8, 8)), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(rows[3:5, 0], [1.25, 1.75], rtol=1e-4)  # half-pixel centres of a straight line
    assert clip.positions(table, 17) is table
    larger = CLIP(TRANSFORMER.image.clone(side=32), TEXT)
    tensors = foreign(clip_like(TRANSFORMER), openai_names(False), clip.openai())
    got = clip.load(tensors, clip_like(larger))["params"]["image"]["trunk"]["positions"]
    np.testing.assert_array_equal(got, clip.positions(tensors["visual.positional_embedding"], 65))


def test_older_and_newer_names_of_a_vision_transformer_meet():
    shapes = flat(like(Headed(ViT(8, 4, 8, 1, 2, 16), 8, "tanh"), ((1, 8, 8, 3), np.float32)))
    start = ["embeddings.cls_token", "embeddings.position_embeddings", *pair("embeddings.patch_embeddings.projection",
                                                                            "layernorm", "pooler.dense")]
    norms = ("layernorm_before", "layernorm_after")
    new = start + pair(*(f"layers.0.{n}" for n in (*norms, "mlp.fc1", "mlp.fc2", *(f"attention.{r}_proj" for r in "qkvo"))))
    old = start + pair(*(f"encoder.layer.0.{n}" for n in (
        *norms, "intermediate.dense", "output.dense", "attention.output.dense",
        *(f"attention.attention.{r}" for r in ("query", "key", "value")))))
    for names in (new, old, [f"vit.{n}" for n in old]):
        assert sorted(rename.place(n, vit.huggingface())[0] for n in names) == sorted(shapes)
