"""Makes clip_archive.pt beside it: a CLIP of OpenAI's names and layout with numbers of no meaning, as TorchScript, which is how
OpenAI publishes its own. To be run by hand with PyTorch (2.13, CPU; no test runs it): python clip_archive.py"""

import io
import pathlib
import re
import zipfile

import torch
from torch import nn
from torch.nn import functional

EMBED, VOCAB, TEXT, WIDTH, HEADS, HIDDEN, SIDE, PATCH = 6, 20, 8, 8, 2, 16, 16, 4


class ResidualAttentionBlock(nn.Module):
    def __init__(self, attn_mask=None):
        super().__init__()
        self.attn = nn.MultiheadAttention(WIDTH, HEADS)
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential()
        self.mlp.c_fc, self.mlp.c_proj = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)
        self.attn_mask = attn_mask  # a tensor that is in no state dict

    def forward(self, x):
        h = self.ln_1(x)
        x = x + self.attn(h, h, h, need_weights=False, attn_mask=self.attn_mask)[0]
        h = self.mlp.c_fc(self.ln_2(x))
        return x + self.mlp.c_proj(h * torch.sigmoid(1.702 * h))


class Transformer(nn.Module):
    def __init__(self, attn_mask=None):
        super().__init__()
        self.resblocks = nn.Sequential(ResidualAttentionBlock(attn_mask))

    def forward(self, x):
        return self.resblocks(x.transpose(0, 1)).transpose(0, 1)


class VisualTransformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTH, PATCH, PATCH, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(WIDTH))
        self.positional_embedding = nn.Parameter(torch.zeros((SIDE // PATCH) ** 2 + 1, WIDTH))
        self.ln_pre, self.transformer, self.ln_post = nn.LayerNorm(WIDTH), Transformer(), nn.LayerNorm(WIDTH)
        self.proj = nn.Parameter(torch.zeros(WIDTH, EMBED))

    def forward(self, image):
        x = self.conv1(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(x))[:, 0]) @ self.proj


class Multimodal(nn.Module):
    def __init__(self):
        super().__init__()
        self.visual = VisualTransformer()
        self.transformer = Transformer(torch.full((TEXT, TEXT), -1e4).triu(1))
        self.token_embedding = nn.Embedding(VOCAB, WIDTH)
        self.positional_embedding = nn.Parameter(torch.zeros(TEXT, WIDTH))
        self.ln_final = nn.LayerNorm(WIDTH)
        self.text_projection = nn.Parameter(torch.zeros(WIDTH, EMBED))
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.register_buffer("context_length", torch.tensor(TEXT))
        self.context = TEXT

    def forward(self, image, text):
        x = self.transformer(self.token_embedding(text) + self.positional_embedding)
        code = self.ln_final(x)[torch.arange(len(text)), text.argmax(1)] @ self.text_projection
        return self.logit_scale.exp() * functional.normalize(self.visual(image)) @ functional.normalize(code).T


def numbers(model):
    """Fills the k-th tensor of the state dict with ((7 i + k) mod 64) / 32 - 1, i counting its numbers; a buffer stays."""
    with torch.no_grad():
        for k, value in enumerate(model.state_dict().values()):
            if value.is_floating_point():
                value.copy_((((7 * torch.arange(value.numel()) + k) % 64) / 32 - 1).reshape(value.shape))


def halve(model):
    """Half precision where OpenAI has it: convolutions, linear layers, attention and both projections."""
    for name, parameter in model.named_parameters():
        if re.search(r"conv1|attn|mlp|proj", name):
            parameter.data = parameter.data.half()


def packed(data: bytes) -> bytes:
    """The archive without what only debuggers read, compressed."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            if not name.endswith(".debug_pkl") and "traced_inputs" not in name:
                new.writestr(zipfile.ZipInfo(name), old.read(name), zipfile.ZIP_DEFLATED)
    return out.getvalue()


def made():
    """The traced model in half precision."""
    torch.backends.mha.set_fastpath_enabled(False)
    model = Multimodal().eval()
    numbers(model)
    traced = torch.jit.trace(model, (torch.zeros(2, 3, SIDE, SIDE), torch.zeros(2, TEXT, dtype=torch.long)), check_trace=False)
    halve(traced)
    return traced


if __name__ == "__main__":
    out = io.BytesIO()
    torch.jit.save(made(), out)
    pathlib.Path(__file__).with_name("clip_archive.pt").write_bytes(packed(out.getvalue()))
