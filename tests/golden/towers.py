"""CLIP's towers and other vision transformers under test: outputs by the names of the reference numbers."""

import jax
import jax.numpy as jnp

from golden.nets import Net, pixels, planes
from supcon_jax.convert import bert, clip, resnet, vit
from supcon_jax.nets.bert import Bert
from supcon_jax.nets.clip import CLIP, ImageResNet, ImageTransformer, TextTransformer
from supcon_jax.nets.resnet import ResNet
from supcon_jax.nets.vit import Headed, ViT
from supcon_jax.ops.arrays import unit


def openai_clip(case, config, arrays):
    embed, side, width = config["embed_dim"], config["image_resolution"], config["vision_width"]
    text = TextTransformer(embed, config["vocab_size"], config["context_length"], config["transformer_width"],
                           config["transformer_layers"], config["transformer_heads"])
    depth = config["vision_layers"]
    image = (ImageTransformer(embed, side, config["vision_patch_size"], width, depth, width // 64)
             if isinstance(depth, int) else ImageResNet(embed, side, width, tuple(depth), width // 2))

    def run(module, variables, x, train):
        out, state = module.apply(variables, pixels(x["image"]), x["text"], train, mutable=["batch_stats"])
        if train:  # the reference asked for the features and then for the logits: its averages moved twice
            _, state = module.apply(variables | state, pixels(x["image"]), x["text"], train, mutable=["batch_stats"])
        (_, u), (_, v), scale = out
        return {"image_features": u, "text_features": v, "logits_per_image": scale * unit(u) @ unit(v).T}, state

    return Net(CLIP(image, text), clip.openai(isinstance(image, ImageResNet)), run)


def hf_clip(case, config, arrays):
    t, v = config["text_config"], config["vision_config"]
    embed = config["projection_dim"]
    image = ImageTransformer(embed, v["image_size"], v["patch_size"], v["hidden_size"], v["num_hidden_layers"],
                             v["num_attention_heads"], v["intermediate_size"], v["hidden_act"])
    text = TextTransformer(embed, t["vocab_size"], t["max_position_embeddings"], t["hidden_size"],
                           t["num_hidden_layers"], t["num_attention_heads"], t["intermediate_size"], t["hidden_act"],
                           t["eos_token_id"])

    def run(module, variables, x, train):
        (tokens, u), (words, v), scale = module.apply(variables, pixels(x["pixel_values"]), x["input_ids"])
        logits = scale * unit(u) @ unit(v).T
        loss = -sum(jnp.diag(jax.nn.log_softmax(logits, axis)).mean() for axis in (0, 1)) / 2
        return {"loss": loss, "logits_per_image": logits, "image_embeds": unit(u), "text_embeds": unit(v),
                "text_last": words * (x["attention_mask"] > 0)[..., None], "vision_last": tokens, "vision_pooled": u,
                "text_pooled": v}, {}

    return Net(CLIP(image, text), clip.huggingface(), run, ("loss", "image_embeds", "text_embeds"), False, True)


def hf_bert(case, config, arrays):
    module = Bert(**{ours: config[theirs] for ours, theirs in bert.FIELDS.items()})

    def run(module, variables, x, train):
        words, sentence = module.apply(variables, x["input_ids"], x["lengths"])
        return {"words": words, "sentence": sentence}, {}

    return Net(module, bert.huggingface(), run)


def hf_vit(case, config, arrays):
    trunk = ViT(config["image_size"], config["patch_size"], config["hidden_size"], config["num_hidden_layers"],
                config["num_attention_heads"], config["intermediate_size"], eps=1e-12)

    def run(module, variables, x, train):
        tokens, pooled = module.apply(variables, pixels(x["pixel_values"]))
        return {"last_hidden_state": tokens, "pooler_output": pooled}, {}

    return Net(Headed(trunk, config["hidden_size"], "tanh"), vit.huggingface(), run, "", False, True)


def tv_vit(case, config, arrays):
    trunk = ViT(config["image_size"], config["patch_size"], config["hidden_dim"], config["num_layers"],
                config["num_heads"], config["mlp_dim"])

    def run(module, variables, x, train):
        return {"logits": module.apply(variables, pixels(x["image"]))[1]}, {}

    return Net(Headed(trunk, config["num_classes"]), vit.torchvision(), run)


def tv_resnet(case, config, arrays):
    fields = {"depth": config["depth"], "width": 1 / config["width_divisor"], "classes": config["num_classes"]}

    def run(module, variables, x, train):
        taps, state = module.apply(variables, pixels(x["image"]), train=train, mutable=["batch_stats"])
        maps = {name: planes(taps[name]) for name in ("stem", "layer1", "layer4")}
        return {**maps, "pooled": taps["pooled"], "logits": taps["logits"]}, state

    return Net(ResNet(**fields), resnet.torchvision(config["num_classes"]), run, ("pooled", "logits"), config["depth"] > 18)


NETS = {"openai_clip_vit": openai_clip, "openai_clip_rn": openai_clip, "hf_bert_tiny": hf_bert, "hf_clip_tiny": hf_clip,
        "hf_vit_tiny": hf_vit, "tv_vit_tiny": tv_vit, "tv_resnet18_w8": tv_resnet, "tv_resnet50_w16": tv_resnet}
